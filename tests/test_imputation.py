"""Imputation against the closed conditionals of a linear-Gaussian model with the generating parameters."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from genmod import encoders, priors
from genmod.chunks import memory_limit
from genmod.decoders import Decoder
from genmod.model import Imputation, LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.nn import Labels
from genmod.spec import Column, DataSpec
from tests.oracles_vae import PPCA, affine
from tests.statistics import assert_equal_means, assert_mean

pytestmark = pytest.mark.usefixtures("float64")

D, LATENTS, ROWS, SAMPLES, DRAWS = 5, 2, 1500, 256, 200


class MaskedPosterior(encoders.Encoder):
    """The exact posterior of the observed entries, or a wider one beside it: a proposal to be weighted."""

    def __init__(self, oracle: PPCA, shift: float = 0.0, widen: float = 1.0) -> None:
        super().__init__((D,))
        self.oracle, self.shift, self.widen = oracle, shift, widen

    def forward(
        self, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
    ) -> MultivariateNormal:
        """Of each row its own mask."""
        seen = torch.ones_like(x) if observed is None else observed.to(x)
        W, mu, s2 = self.oracle.W, self.oracle.mu, self.oracle.s2
        precision = torch.eye(LATENTS) + torch.einsum("bd,dk,dl->bkl", seen, W, W) / s2
        covariance = torch.linalg.inv(precision)
        mean = torch.einsum("bkl,dl,bd->bk", covariance, W, seen * (x - mu)) / s2
        std = covariance.diagonal(dim1=1, dim2=2).sqrt()
        return MultivariateNormal(mean + self.shift * std, covariance * self.widen**2)


@cache
def oracle() -> PPCA:
    """A model without symmetry."""
    generator = torch.Generator().manual_seed(1)
    W = torch.randn(D, LATENTS, generator=generator, dtype=torch.float64)
    return PPCA(W, torch.linspace(-2, 3, D, dtype=torch.float64), 0.3)


def data() -> tuple[Tensor, Tensor]:
    """Rows, and a mask completely at random; the last rows have nothing observed."""
    torch.manual_seed(3)
    x, observed = oracle().law.sample((ROWS,)), torch.rand(ROWS, D) > 0.4
    observed[-50:] = False
    return x, observed


def conditional(x: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the variance of every entry given the observed ones of its row."""
    law = oracle().law
    mean, variance = x.clone(), torch.zeros_like(x)
    for row in range(len(x)):
        seen = observed[row]
        gain = torch.linalg.solve(
            law.covariance_matrix[seen][:, seen], law.covariance_matrix[seen][:, ~seen]
        ).T
        mean[row, ~seen] = law.mean[~seen] + gain @ (x[row, seen] - law.mean[seen])
        left = law.covariance_matrix[~seen][:, ~seen]
        variance[row, ~seen] = (left - gain @ law.covariance_matrix[seen][:, ~seen]).diagonal()
    return mean, variance


def proposal(shift: float = 0.3, widen: float = 1.3) -> LatentModel:
    """The generating model with a posterior that is not the exact one."""
    return oracle().model(MaskedPosterior(oracle(), shift, widen))


@cache
def imputed() -> Imputation:
    """The rows above, filled."""
    x, observed = data()
    torch.manual_seed(4)
    return proposal().impute(torch.where(observed, x, math.nan), observed, DRAWS, SAMPLES)


def test_means_are_the_closed_conditionals() -> None:
    """Of every missing entry within z = 5. Flipped: the sign of the log-ratio; weights of ones."""
    x, observed = data()
    mean, variance = conditional(x, observed)
    found, missing = imputed(), ~observed
    size = found.effective_sample_size[:, None]
    error = (variance * (1 / DRAWS + 1 / size)).sqrt()
    z = ((found.draws.mean(0) - mean) / error)[missing]
    assert float(z.abs().max()) < 5
    z = ((found.mean - mean) / (variance / size).sqrt())[missing]
    assert float(z.abs().max()) < 5


def test_intervals_cover_what_was_hidden() -> None:
    """95 % of the draws' range holds the true entry in 93 to 97 % of the cases."""
    x, observed = data()
    low, high = imputed().draws.quantile(torch.tensor([0.025, 0.975]), 0)
    inside = ((low <= x) & (x <= high))[~observed]
    assert 0.93 < float(inside.double().mean()) < 0.97


def test_draws_have_the_conditional_variance() -> None:
    x, observed = data()
    mean, variance = conditional(x, observed)
    standard = ((imputed().draws - mean).square() / variance.clamp(min=1e-9))[:, ~observed]
    assert_mean(standard.mean(0), 1.0)


def test_a_row_with_nothing_observed_is_a_draw_of_the_model() -> None:
    """Whatever its posterior: mean and covariance are those of p(x), and all weights are equal."""
    rows = imputed().draws[:, -50:].flatten(0, 1)
    law = oracle().law
    # The draws of one row share its 256 latents: rows are the independent sample.
    means = imputed().draws[:, -50:].mean(0)
    for entry in range(D):
        assert_mean(means[:, entry], law.mean[entry])
    torch.testing.assert_close(torch.cov(rows.T), law.covariance_matrix, rtol=0.1, atol=0.1)
    assert bool((imputed().effective_sample_size[-50:] - SAMPLES).abs().max() < 1e-9)


def test_observed_entries_stay_as_they_are() -> None:
    x, observed = data()
    for filled in imputed():
        assert torch.equal(filled[observed], x[observed])
    assert torch.equal(imputed().mean[observed], x[observed])
    assert len(imputed()) == DRAWS
    assert torch.equal(imputed()[3], imputed().draws[3])


def test_the_exact_posterior_weights_all_draws_alike() -> None:
    x, observed = data()
    model = oracle().model(MaskedPosterior(oracle()))
    size = model.impute(x[:20], observed[:20], importance_samples=16).effective_sample_size
    torch.testing.assert_close(size, torch.full((20,), 16.0))
    wide = proposal().impute(x[:20], observed[:20], importance_samples=16).effective_sample_size
    assert bool(((wide >= 1) & (wide < 16)).all())
    assert "effective sample size 16.0 of 16" in repr(
        model.impute(x[:5], observed[:5], importance_samples=16)
    )


def test_the_masked_likelihood_is_the_exact_marginal() -> None:
    """Each row its own mask: with the exact posterior of the observed entries, to the last digit."""
    x, observed = data()
    x, observed = x[:40], observed[:40]
    model, law = oracle().model(MaskedPosterior(oracle())), oracle().law
    exact = []
    for row, seen in zip(x, observed, strict=True):
        part = MultivariateNormal(law.mean[seen], law.covariance_matrix[seen][:, seen])
        exact.append(part.log_prob(row[seen]))
    weight = model.log_weight(torch.where(observed, x, math.nan), observed=observed)
    torch.testing.assert_close(weight, torch.stack(exact), rtol=0, atol=1e-10)


def test_seeds_make_each_rows_draws_its_own() -> None:
    """In any chunks and beside any other rows."""
    x, observed = data()
    x, observed, seeds = x[:6], observed[:6], [5, 3, 700, 12, 0, 1]
    model = proposal()
    whole = model.impute(x, observed, 2, 8, seeds=seeds)
    with memory_limit(4 * 200 * D * 8):
        pieces = model.impute(x, observed, 2, 8, seeds=seeds)
    torch.testing.assert_close(pieces.draws, whole.draws, rtol=0, atol=1e-12)
    alone = model.impute(x[[2]], observed[[2]], 2, 8, seeds=[700])
    torch.testing.assert_close(alone.draws, whole.draws[:, [2]], rtol=0, atol=1e-12)
    torch.testing.assert_close(alone.mean, whole.mean[[2]], rtol=0, atol=1e-12)


TABLE = (
    Column("height", mean=170.0, std=10.0),
    Column("color", "category", ("red", "green", "blue")),
    Column("year", "integer", mean=2000.0, std=5.0),
    Column("visits", "count", mean=3.0),
    Column("grade", "ordinal", (1, 2, 3)),
)
SPEC = DataSpec((5,), columns=TABLE, missing=True)
TINY: dict[str, Any] = {"width": 8, "depth": 1}


@pytest.mark.parametrize(
    "model",
    [
        VAE(SPEC, latents=2, **TINY),
        HVAE(SPEC, latents=(2, 2), **TINY),
        HVAE(SPEC, latents=(2, 2), inference="top-down", **TINY),
        LatentDiffusion(vae=VAE(SPEC, latents=2, **TINY), diffusion=Diffusion(2, **TINY)),
        LatentDiffusion(vae=VAE(SPEC, latents=2, **TINY), diffusion=Diffusion(2, steps=4, **TINY)),
    ],
    ids=["vae", "bottom-up", "top-down", "latent diffusion", "latent diffusion of four steps"],
)
def test_every_family_fills_every_kind_of_column(model: LatentModel) -> None:
    x = torch.tensor([[165.0, 1, 1999, 4, 2], [180.0, 0, 2003, 0, 0], [171.0, 2, 2000, 1, 1]])
    observed = torch.rand(3, 5) < 0.5
    found = model.double().impute(x, observed, 4, 8)
    for filled in found:
        model.spec.check(filled)
    coded = found.mean[:, [1, 4]]
    assert torch.equal(coded, coded.round())
    assert found.draws.dtype is x.dtype


def test_integers_stay_integers_and_contexts_are_repeated() -> None:
    model = VAE((4,), 5, latents=2, condition=Labels(3), **TINY)
    x, observed = torch.randint(0, 5, (6, 4)), torch.rand(6, 4) < 0.5
    found = model.impute(x, observed, 2, 4, context=torch.arange(6) % 3)
    assert found.draws.dtype is torch.int64
    model.spec.check(found.draws[1])


def test_arrays_are_taken_as_tensors_are() -> None:
    x, observed = data()
    found = proposal().impute(x[:3].numpy(), observed[:3].numpy(), seeds=range(3))
    again = proposal().impute(x[:3], observed[:3], seeds=range(3))
    assert torch.equal(found.draws, again.draws)


def test_sampling_columns_given_others_is_the_same_call() -> None:
    """The second half given the first: mean and covariance of the closed conditional."""
    x = oracle().law.sample((1,)).expand(4000, -1)
    observed = torch.tensor([True, True, True, False, False]).expand(4000, -1)
    mean, variance = conditional(x[:1], observed[:1])
    drawn = proposal(0.0).impute(x, observed, 1, 64).draws[0]
    assert_mean(drawn[:, 3], mean[0, 3])
    assert_mean((drawn[:, 4] - mean[0, 4]).square(), variance[0, 4])


class Coupled(Decoder):
    """A decoder whose entries are coupled given z."""

    def __init__(self) -> None:
        super().__init__((D,))
        self.network = affine(oracle().W, oracle().mu)

    def forward(self, state: Tensor, context: Tensor | None = None) -> MultivariateNormal:
        """A full covariance."""
        return MultivariateNormal(self.network(state), torch.eye(D) + 0.1)


def test_what_cannot_be_filled_is_refused() -> None:
    x, observed = data()
    x, observed = x[:3], observed[:3]
    coupled = LatentModel(MaskedPosterior(oracle()), Coupled(), priors.NormalPrior((LATENTS,)))
    for call in (coupled.impute, lambda *a: coupled.elbo(a[0], observed=a[1])):
        with pytest.raises(ValueError, match=r"factorizes over the entries.*GaussianDecoder"):
            call(x, observed)
    with pytest.raises(ValueError, match="flat prior"):
        Autoencoder(D, latents=2, **TINY).impute(x, observed)
    with pytest.raises(ValueError, match=r"Diffusion to impute with.*VAE"):
        Diffusion(D, **TINY).impute(x, observed)
    with pytest.raises(ValueError, match="n=0; expected at least 1"):
        proposal().impute(x, observed, 0)
    with pytest.raises(ValueError, match="importance_samples=0"):
        proposal().impute(x, observed, 1, 0)
    with pytest.raises(ValueError, match="2 seeds for 3 rows"):
        proposal().impute(x, observed, seeds=[1, 2])
    with pytest.raises(ValueError, match=r"observed of type torch.float64"):
        proposal().impute(x, observed.double())


def test_more_samples_bring_a_poor_proposal_closer() -> None:
    """A posterior that misses by one standard deviation: its bias falls with K."""
    x, observed = data()
    x, observed = x[:400], observed[:400]
    mean, variance = conditional(x, observed)
    model, missing = proposal(1.0, 1.0), ~observed
    errors = []
    for count in (1, 4, 64):
        found = model.impute(x, observed, importance_samples=count)
        errors.append(((found.mean - mean).square() / variance.clamp(min=1e-9))[missing])
    assert errors[0].mean() > 1.5 * errors[1].mean() > 3 * errors[2].mean()
    assert_equal_means(errors[0], errors[0])
