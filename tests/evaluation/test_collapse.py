"""Posterior collapse: activities, mutual information and verdicts on models where all is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from genmod import priors
from genmod.data import load
from genmod.decoders import CalibratedGaussianDecoder, GaussianDecoder, GlobalScale
from genmod.distributions import Normal
from genmod.elbo import Kind
from genmod.encoders import GaussianEncoder
from genmod.evaluation import collapse
from genmod.evaluation.collapse import information
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.nn import MLP
from genmod.priors import NestedPrior, NormalPrior, VampPrior
from tests.oracles_vae import FullGaussian, affine, gaussian_head, ppca, tower

pytestmark = pytest.mark.usefixtures("float64")


def covariance(x: Tensor) -> Tensor:
    return torch.cov(x.T, correction=0)


def vae(mean: Tensor, std: Tensor, dims: int = 3, scale: float = 0.5) -> LatentModel:
    """``q(z | x) = N(mean x, std^2)`` with a linear decoder."""
    latents = len(std)
    encoder = GaussianEncoder(gaussian_head(mean, torch.zeros(latents), std), (latents,))
    decoder = GaussianDecoder(affine(torch.randn(dims, latents), torch.zeros(dims)), (dims,), scale)
    return LatentModel(encoder, decoder, NormalPrior((latents,)))


# ---------------------------------------------------------------------- units


def test_the_units_of_a_vae_are_those_of_its_formulas() -> None:
    """Activity: the variance of the posterior mean. KL: closed, of each unit. One unit has collapsed."""
    x = torch.randn(60, 3)
    mean = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0], [0.05, 0.0, 0.0]])
    std = torch.tensor([0.3, 1.0, 0.9])
    found = collapse(vae(mean, std), x)
    (level,) = found.levels
    codes = x @ mean.T
    torch.testing.assert_close(level.activity, codes.var(0, correction=0))
    kl = 0.5 * (codes.square() + std.square() - 1 - 2 * std.log())
    assert level.per_unit is not None
    torch.testing.assert_close(level.per_unit, kl.mean(0))
    assert level.kl.mean == pytest.approx(float(kl.sum(1).mean()))
    assert level.kl.error == pytest.approx(float(kl.sum(1).std()) / math.sqrt(60))
    assert (level.name, level.kind, level.units, level.active) == ("prior", Kind.ANALYTIC, 3, 1)


@pytest.mark.parametrize("order", ["bottom-up", "top-down"])
def test_the_activity_of_a_deep_level_is_the_variance_of_its_mean_over_all_draws(
    order: str,
) -> None:
    """Of an exact hierarchy: E[z_l | x] is linear in x. A single draw's mean would vary more."""
    exact = tower(3)
    joint = exact.joint()
    x = joint.law("x").sample((4000,))
    model = exact.bottom_up() if order == "bottom-up" else exact.top_down()
    found = collapse(model, x)
    names = ["z1", "z2", "z3"] if order == "bottom-up" else ["z3", "z2", "z1"]
    assert [level.name for level in found.levels] == names
    for level in found.levels:
        gain = joint.given(level.name, ["x"]).weight
        expected = (gain @ covariance(x) @ gain.T).diagonal()
        torch.testing.assert_close(level.activity, expected, rtol=0.0, atol=0.05)
        assert level.active == 2


# ---------------------------------------------------------------------- mutual information


def test_rate_is_information_plus_the_distance_of_the_aggregate() -> None:
    """Both parts again by brute force, from the mixture of all posteriors."""
    x = torch.randn(40, 3)
    mean, std = torch.randn(2, 3), torch.tensor([0.5, 0.8])
    q = Normal(x @ mean.T, std.log().expand(40, 2))
    z = torch.stack([q.sample(), q.sample()])
    found, rows = information([q], z)
    assert rows.tolist() == list(range(40))
    pairs = torch.stack([q.elementwise(z[0][i].expand(40, 2)).sum(1) for i in range(40)])
    expected = pairs.diagonal() - (pairs.logsumexp(1) - math.log(40))
    again, _ = information([q], z[:1])
    torch.testing.assert_close(again, expected)
    assert found.shape == (40,)
    report = collapse(vae(mean, std), x)
    assert report.information.mean + report.aggregate.mean == pytest.approx(
        report.levels[0].kl.mean
    )
    assert report.informed == "the latent"


def test_the_information_of_gaussian_codes_is_the_known_one() -> None:
    """X of N(0, 1) through z = x + noise: 1/2 ln(1 + 1 / s2)."""
    x = torch.randn(3000, 3)
    found = collapse(vae(torch.eye(1, 3), torch.tensor([0.5])), x).information
    assert abs(found.mean - 0.5 * math.log(5)) < 5 * found.error + 0.02


def test_information_is_at_most_log_n_and_says_when_it_is_there() -> None:
    """Rows far apart; each row twice; a posterior that does not look."""
    x = torch.arange(32.0)[:, None].expand(32, 3) - 15.5
    one = torch.tensor([0.01])
    full = collapse(vae(torch.eye(1, 3), one), x)
    assert full.information.mean == pytest.approx(math.log(32))
    assert full.saturated
    assert "at most ln N = 3.47, saturated" in str(full)
    twice = collapse(vae(torch.eye(1, 3), one), torch.cat([x, x]))
    assert twice.information.mean == pytest.approx(math.log(32))
    assert twice.limit == pytest.approx(math.log(64))
    blind = collapse(vae(torch.zeros(1, 3), torch.ones(1)), x)
    assert blind.information.mean == pytest.approx(0.0)
    assert blind.aggregate.mean == pytest.approx(0.0)
    assert not blind.saturated


def test_narrow_posteriors_far_from_zero_keep_their_digits() -> None:
    """Pairs are products of matrices: squares of 1e5 / 1e-3 would leave an error of a nat."""
    mean = 1e5 + 1e-3 * torch.arange(50.0)[:, None]
    q = Normal(mean, torch.full((50, 1), math.log(1e-3)))
    z = q.sample()
    pairs = torch.stack([q.elementwise(each.expand(50, 1))[:, 0] for each in z])
    expected = pairs.diagonal() - pairs.logsumexp(1) + math.log(50)
    torch.testing.assert_close(information([q], z[None])[0], expected, rtol=0, atol=1e-6)


def test_other_posteriors_are_compared_by_their_own_densities() -> None:
    """A full covariance that is diagonal gives the information of the diagonal one."""
    x = torch.randn(40, 3)
    q = Normal(x[:, :2], torch.tensor([-0.7, 0.1]).expand(40, 2))
    z = torch.stack([q.sample(), q.sample()])
    full = MultivariateNormal(q.loc, scale_tril=torch.diag_embed(q.stddev))
    torch.testing.assert_close(information([full], z)[0], information([q], z)[0])
    pieces = [Normal(q.loc[part], q.log_std[part]) for part in (slice(0, 7), slice(7, 40))]
    torch.testing.assert_close(information(pieces, z)[0], information([q], z)[0])
    exact = ppca(3, 2, orthogonal=False)
    found = collapse(exact.model(FullGaussian(exact.posterior)), x)
    assert found.levels[0].per_unit is None
    assert 0 < found.information.mean < found.limit


def test_of_nested_levels_the_information_is_of_all_of_an_aligned_one_of_the_top() -> None:
    exact = tower(2)
    x = exact.joint().law("x").sample((500,))
    nested, aligned = collapse(exact.bottom_up(), x), collapse(exact.top_down(), x)
    assert nested.informed == "all latents"
    assert aligned.informed == "z2"
    total = sum(level.kl.mean for level in nested.levels)
    assert nested.information.mean + nested.aggregate.mean == pytest.approx(total)
    top = aligned.levels[0].kl.mean
    assert aligned.information.mean + aligned.aggregate.mean == pytest.approx(top)
    assert nested.information.mean > aligned.information.mean + 0.1
    # The posteriors are exact and x is drawn from the model: the aggregate is the prior.
    for found in (nested, aligned):
        assert abs(found.aggregate.mean) < 5 * found.aggregate.error + 0.05


# ---------------------------------------------------------------------- verdicts


def quiet(model: LatentModel) -> LatentModel:
    """The model with encoders that do not look at their data: every posterior is N(0, I)."""
    for part in model.modules():
        if isinstance(part, GaussianEncoder):
            for parameter in part.parameters():
                nn.init.zeros_(parameter)
    return model


def test_the_remedy_is_one_that_the_model_can_use() -> None:
    """Free bits where the KL is closed, warm-up where rates are sampled."""
    x = torch.randn(30, 3)
    found = collapse(quiet(VAE(3, latents=2, width=8)), x)
    assert found.collapsed == ("prior",)
    assert "decoder ignores the latents" in found.verdict[0]
    assert "FreeBits(1.0)" in found.verdict[0]
    nested = collapse(quiet(HVAE(3, latents=(3, 2), width=8)), x)
    assert nested.collapsed == ("z1", "z2")
    assert "WarmUp(steps)" in nested.verdict[0]
    assert "FreeBits" not in nested.verdict[0]
    # A prior that is made of the posteriors follows them, and a short warm-up changes nothing.
    shared = collapse(quiet(VAE(3, latents=2, width=8, prior=VampPrior(4))), x)
    assert "WarmUp(1000)" in shared.verdict[0]
    assert "follows the posteriors" in shared.verdict[0]


def test_one_dead_level_of_a_hierarchy_is_named() -> None:
    model = HVAE(3, latents=(3, 2), width=8)
    for parameter in model.encoder.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5)
    assert isinstance(model.prior, NestedPrior)
    quiet(model.prior.model)
    found = collapse(model, torch.randn(30, 3))
    assert found.collapsed == ("z2",)
    assert found.verdict[0].startswith(
        "Collapsed: no unit of z2 is active. Train with a KL warm-up"
    )


def test_a_decoder_that_is_too_broad_is_found_by_the_forecast() -> None:
    """The eigenvalues of the data are about one: with a std of 3 even a linear VAE has no unit."""
    x = torch.randn(200, 3)
    found = collapse(vae(torch.zeros(2, 3), torch.ones(2), scale=3.0), x)
    assert found.variance == pytest.approx(9.0)
    assert re_joined(found.verdict).count("a linear VAE has 0 active units") == 1
    assert "a linear VAE, decoder std 3:" in str(found)
    blind = collapse(vae(torch.zeros(2, 3), torch.ones(2), scale=0.1), x)
    assert blind.linear_bound is not None
    assert blind.forecast is not None
    assert blind.linear_bound == pytest.approx(blind.forecast.bound(0.01))
    assert f"A linear VAE has a bound of {blind.linear_bound:.1f} nats" in re_joined(blind.verdict)
    exact = ppca(3, 2)
    fine = collapse(exact.model(exact.diagonal()), exact.law.sample((200,)))
    assert "linear VAE" not in re_joined(fine.verdict)


def test_a_learned_scale_is_the_variance_of_the_forecast() -> None:
    model = VAE(3, latents=2, width=8)
    assert isinstance(model.decoder, GaussianDecoder)
    assert isinstance(model.decoder.scale, GlobalScale)
    model.decoder.scale.set(0.7)
    found = collapse(model, torch.randn(30, 3))
    assert found.variance == pytest.approx(0.49)
    assert found.forecast is not None
    assert found.forecast.latents == 2
    best_variance = found.forecast.learned_variance
    assert found.linear_bound == pytest.approx(found.forecast.bound(best_variance))
    assert collapse(model, torch.randn(11, 3)).linear_bound is None  # too few rows to fit one
    best = CalibratedGaussianDecoder(MLP(2, 3, width=8), (3,))
    best.mean_square.fill_(0.3)
    assert collapse(VAE(3, latents=2, width=8, decoder=best), torch.randn(30, 3)).variance == 0.3
    own = CalibratedGaussianDecoder(MLP(2, 3, width=8), (3,), per_dimension=True)
    again = collapse(VAE(3, latents=2, width=8, decoder=own), torch.randn(30, 3))
    assert again.forecast is None


def re_joined(verdict: tuple[str, ...]) -> str:
    return " ".join(verdict)


def test_codes_far_from_the_prior_ask_for_another_prior() -> None:
    x = torch.randn(1000, 3)
    shifted = vae(3 * torch.eye(1, 3), torch.tensor([0.9]))
    found = collapse(shifted, x)
    assert found.aggregate.mean > 2
    assert "a prior that learns could save them" in re_joined(found.verdict)


def test_the_table_fits_80_columns_and_lists_everything() -> None:
    d = load("digits")
    for model in (VAE(d, latents=40, width=16), HVAE(d, width=16), HVAE(d, inference="top-down")):
        found = collapse(model, d.test[:50], name="a model with a name that is longer than usual")
        printed = str(found)
        assert all(len(line) <= 80 for line in printed.splitlines()), printed
        for level in found.levels:
            assert f"  {level.name:<10} {level.units:>6} {level.active:>7}" in printed
        assert "mutual information of x and" in printed
        assert "aggregate posterior from the prior:" in printed


def test_models_without_latents_that_can_collapse_are_refused() -> None:
    x = torch.randn(20, 3)
    with pytest.raises(ValueError, match=r"Autoencoder with a flat prior.*use VAE"):
        collapse(Autoencoder(3, latents=2, width=8), x)
    for model in (Diffusion(3, width=8), LatentDiffusion(3, latents=2, width=8)):
        with pytest.raises(
            ValueError, match=r"posterior is fixed.*evaluation.profile.*first_stage"
        ):
            collapse(model, x)
    found = collapse(LatentDiffusion(3, latents=2, width=8).first_stage(), x)
    assert found.levels[0].units == 2
    # What the message advises for another model with a diffusion as its prior.
    nested = VAE(3, latents=2, width=8, prior=Diffusion(2, width=8))
    with pytest.raises(ValueError, match=r"LatentModel\(model.encoder, model.decoder, priors"):
        collapse(nested, x)
    apart = LatentModel(nested.encoder, nested.decoder, priors.NormalPrior(nested.prior.shape))
    assert collapse(apart, x).levels[0].units == 2
