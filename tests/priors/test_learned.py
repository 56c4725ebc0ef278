"""Learned priors: mixtures, VampPrior, normalizing flows; each against a closed form or another library."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily
from torch.distributions import Normal as TorchNormal

from genmod import HVAE, VAE, DataSpec, Kind, Stamp, encoders, fit, priors, random
from genmod.config.plain import from_plain, to_plain
from genmod.decoders import GaussianDecoder
from genmod.distributions import Normal
from genmod.distributions.composed import Mixture
from genmod.encoders import GaussianEncoder
from genmod.model import LatentModel, Request
from genmod.nn import MLP, Labels
from genmod.priors.simple import DistributionPrior
from genmod.priors.vamp import PseudoInputs
from genmod.spec import Column
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")


def spread(prior: nn.Module) -> None:
    """Parameters that no constructor gives."""
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))


def torchs(prior: priors.MixturePrior) -> MixtureSameFamily:
    """The same mixture by torch."""
    parts = Independent(TorchNormal(prior.mean, prior.log_std.exp()), len(prior.shape))
    return MixtureSameFamily(Categorical(logits=prior.logits), parts)


@pytest.mark.parametrize("shape", [(2,), (2, 3)])
def test_a_mixtures_density_is_torchs(shape: tuple[int, ...]) -> None:
    prior = priors.MixturePrior(4, shape)
    spread(prior)
    z = 2 * torch.randn(50, *shape)
    law, other = prior.density(50), torchs(prior)
    torch.testing.assert_close(law.log_prob(z), other.log_prob(z))
    torch.testing.assert_close(law.mean, other.mean)
    torch.testing.assert_close(law.variance, other.variance)


def of_index(means: Tensor, log_std: Tensor, index: Tensor) -> Normal:
    """The components of some indices."""
    return Normal(means[index], log_std[index])


def test_a_mixture_in_float32_is_that_in_float64() -> None:
    """By a matrix product and entry by entry, of narrow and wide components, near and far from zero."""
    means = torch.tensor([0.0, 1.0, 1e3]).repeat_interleave(3)[:, None].repeat(1, 4)
    log_std = torch.tensor([1e-2, 1.0, 1e2]).repeat(3)[:, None].repeat(1, 4).log().float()
    z = (means + 3 * log_std.exp() * torch.randn(9, 4)).float()
    found = []
    for dtype in (torch.float32, torch.float64):
        parts = [x.to(dtype).requires_grad_() for x in (z, means, log_std)]
        law = Mixture(partial(of_index, *parts[1:]), parts[0].new_zeros(9))
        nats = law.log_prob(parts[0])
        found.append([nats, *torch.autograd.grad(nats.sum(), parts)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)


def test_a_mixture_in_pieces_is_the_same_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many rows and components, pieces are held one at a time: same density, same gradients."""
    prior = priors.MixturePrior(4, (2,))
    spread(prior)
    z = torch.randn(50, 2, requires_grad=True)
    found = []
    for together in (1 << 24, 64):
        monkeypatch.setattr("genmod.distributions.composed._TOGETHER", together)
        nats = prior.density(50).log_prob(z)
        found.append([nats, *torch.autograd.grad(nats.sum(), [z, prior.mean, prior.logits])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_draws_of_a_mixture_have_its_mean_and_variance() -> None:
    prior = priors.MixturePrior(3, (2,))
    spread(prior)
    with torch.no_grad():
        drawn, law = prior.sample(20_000), prior.density(1)
    assert_mean(drawn, law.mean)
    assert_mean((drawn - law.mean).square(), law.variance)


def encoder(spec: Any = 4) -> GaussianEncoder:
    """An encoder of vectors."""
    found = DataSpec.of(spec)
    return GaussianEncoder(MLP(found.feature_shape, 6, width=8), (3,), found)


def test_a_vampprior_of_one_component_is_the_encoders_law_of_its_pseudo_input() -> None:
    q = encoder()
    prior = priors.VampPrior(1, torch.randn(1, 4), q)
    z = torch.randn(20, 3)
    law = q(prior.pseudo_inputs())
    each = torch.cat([law.log_prob(row[None]) for row in z])
    torch.testing.assert_close(prior.law(20).log_prob(z), each)


def test_a_vampprior_is_the_mean_of_the_encoders_laws() -> None:
    """By torch's mixture of the posteriors at the pseudo-inputs; also for a full covariance."""
    rows, z = torch.randn(5, 4), torch.randn(20, 3)
    q = encoder()
    law = q(rows)
    parts: Any = Independent(TorchNormal(law.mean, law.stddev), 1)
    other = MixtureSameFamily(Categorical(torch.ones(5)), parts)
    prior = priors.VampPrior(5, rows, q)
    torch.testing.assert_close(prior.law(20).log_prob(z), other.log_prob(z))
    full = encoders.FullCovarianceEncoder(MLP(4, 9, width=8), (3,), 4)
    law = full(rows)
    parts = torch.distributions.MultivariateNormal(law.loc, scale_tril=law.tril)
    other = MixtureSameFamily(Categorical(torch.ones(5)), parts)
    prior = priors.VampPrior(5, rows, full)
    torch.testing.assert_close(prior.law(20).log_prob(z), other.log_prob(z))


def test_a_vampprior_of_a_conditional_encoder_has_a_mixture_for_each_context() -> None:
    """Row by row, it is the mixture under that row's context alone."""
    model = VAE(4, latents=2, width=8, condition=Labels(3), prior=priors.VampPrior(5)).double()
    labels, z = torch.tensor([2, 0, 1]), torch.randn(3, 2)
    assert isinstance(model.prior, priors.VampPrior)
    together = model.prior.law(3, labels).log_prob(z)
    alone = [model.prior.law(1, labels[i : i + 1]).log_prob(z[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert model.sample(3, labels).shape == (3, 4)
    with torch.no_grad():
        drawn = model.prior.law(6000, labels.repeat(2000)).sample()
        assert_mean(drawn.reshape(2000, 3, 2), model.prior.law(3, labels).mean)


TABLE = DataSpec(
    (5,),
    columns=[
        Column("height", mean=170.0, std=10.0),
        Column("color", "category", ("red", "green", "blue")),
        Column("year", "integer", mean=2000.0, std=5.0),
        Column("visits", "count", mean=2.0),
        Column("grade", "ordinal", (1, 2, 3)),
    ],
)


@pytest.mark.parametrize("spec", [DataSpec((2, 3), 5), DataSpec((2,), 2), DataSpec((3,)), TABLE])
def test_pseudo_inputs_stay_in_the_range_of_the_data(spec: DataSpec) -> None:
    """Whatever training does to them; those from rows begin as these rows."""
    q = GaussianEncoder(MLP(spec.feature_shape, 4, width=8), (2,), spec)
    prior = priors.VampPrior(6, encoder=q)
    pseudo = prior.pseudo_inputs
    assert pseudo().shape == (6, *spec.shape)
    with torch.no_grad():
        pseudo.raw.mul_(10)
        x = pseudo()
    if spec.bins is not None:
        assert float(x.min()) >= 0
        assert float(x.max()) <= spec.bins - 1
    if spec.columns is not None:
        assert float(x[:, 3].min()) >= 0
        assert float(x[:, 4].min()) >= 0
        assert float(x[:, 4].max()) <= 2
    assert prior.law(3).log_prob(torch.zeros(3, 2)).isfinite().all()


def test_pseudo_inputs_begin_at_rows_of_the_data() -> None:
    rows = torch.randint(0, 5, (6, 2, 3))
    prior = priors.VampPrior(6, rows)
    model = VAE((2, 3), bins=5, latents=2, width=8, prior=prior)
    assert isinstance(model.prior, priors.VampPrior)
    torch.testing.assert_close(model.prior.pseudo_inputs(), rows.double())
    table = torch.tensor([[180.0, 2.0, 1999.0, 3.0, 1.0], [160.0, 0.0, 2003.0, 0.0, 2.0]])
    start = PseudoInputs(TABLE, TABLE.standardize(table))()
    torch.testing.assert_close(TABLE.standardize.inverse(start), table)


def test_a_vampprior_shares_the_encoder_and_says_so() -> None:
    """Its gradient reaches the encoder, whose tensors the model lists once."""
    model: Any = VAE(4, latents=2, width=8, prior=priors.VampPrior(3))
    assert model.prior.shares_parameters(model.encoder)
    assert not VAE(4, latents=2, width=8).prior.shares_parameters(model.encoder)
    law = model.prior.infer(model.posterior(torch.randn(2, 4)))
    nats = next(law).p.log_prob(torch.zeros(2, 2))
    nats.sum().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
    other = VAE(4, latents=2, width=8)
    own = model.prior.pseudo_inputs.raw.numel()
    assert sum(p.numel() for p in model.parameters()) == own + sum(
        p.numel() for p in other.parameters()
    )


@torch.no_grad()
def test_a_flow_prior_has_a_mass_of_one() -> None:
    """In one dimension by quadrature, after its parameters have moved; in two by importance weights."""
    grid = torch.linspace(-12, 12, 20_001)[:, None]
    prior = priors.FlowPrior(shape=(1,))
    spread(prior)
    density = prior.law(len(grid)).log_prob(grid).exp()
    assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1, abs=1e-6)
    prior = priors.FlowPrior(shape=(2,), width=8, transforms=2)
    spread(prior)
    z = 4 * torch.randn(20_000, 2)
    wide = Independent(TorchNormal(torch.zeros(2), 4.0), 1).log_prob(z)
    assert_mean((prior.law(len(z)).log_prob(z) - wide).exp(), 1.0)


def test_a_new_flow_prior_is_the_standard_normal() -> None:
    z = torch.randn(20, 2, 3)
    found = priors.FlowPrior(shape=(2, 3)).law(20).log_prob(z)
    torch.testing.assert_close(found, priors.NormalPrior((2, 3)).law(20).log_prob(z))


@pytest.mark.parametrize("autoregressive", [False, True])
def test_draws_of_a_flow_have_the_density_it_states(autoregressive: bool) -> None:
    """The inverse and its determinant, by autograd; the inverse inverts."""
    prior = priors.FlowPrior(width=8, autoregressive=autoregressive, shape=(3,))
    spread(prior)
    noise = torch.randn(3)
    flow = prior.transform
    z, change = flow(noise, None, True)
    jacobian = torch.autograd.functional.jacobian(lambda e: flow(e, None, True)[0], noise)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], change)
    again, back = flow(z)
    torch.testing.assert_close(again, noise)
    torch.testing.assert_close(back, -change)


MAKERS: dict[str, Any] = {
    "learned": (priors.LearnedGaussianPrior, Kind.ANALYTIC),
    "mixture": (lambda: priors.MixturePrior(3), Kind.MONTE_CARLO),
    "vamp": (lambda: priors.VampPrior(3), Kind.MONTE_CARLO),
    "flow": (lambda: priors.FlowPrior(width=8), Kind.MONTE_CARLO),
}


@pytest.mark.parametrize("name", MAKERS)
def test_each_rate_has_the_right_kind_and_claim(name: str) -> None:
    """And its mean over draws is that of the log-ratio of the two laws."""
    make, kind = MAKERS[name]
    model = VAE(4, latents=2, width=8, prior=make()).double().eval()
    spread(model.prior)
    x = torch.randn(1, 4).expand(4000, 4)
    bound = model.elbo(x)
    rate = bound.rates["prior"]
    assert rate.kind is kind
    assert rate.claim is Stamp.BOUND
    assert bound.stamp is Stamp.BOUND
    path = model(x, Request(needs_path=True))[1]
    assert path is not None
    assert_mean(-path.log_ratio()[0] - rate.total, 0.0)


@pytest.mark.parametrize("name", MAKERS)
def test_hierarchies_take_the_same_argument_for_their_top_latent(name: str) -> None:
    make, kind = MAKERS[name]
    model = HVAE(4, latents=(3, 2), width=8, prior=make()).double()
    bound = model.elbo(torch.randn(5, 4))
    assert list(bound.rates) == ["z1", "z2"]
    assert bound.rates["z2"].kind is kind
    assert model.sample(3).shape == (3, 4)


@pytest.mark.parametrize("name", ["learned", "mixture", "flow"])
def test_a_top_down_hierarchy_takes_one_law_for_its_top(name: str) -> None:
    """The top level's law is that of the prior, and the others stay as they are."""
    model: Any = HVAE(4, latents=(3, 2), width=8, inference="top-down", prior=MAKERS[name][0]())
    bound = model.double().elbo(torch.randn(5, 4))
    assert [level.name for level in bound.levels()] == ["z2", "z1"]
    assert bound.rates["levels"].kind is MAKERS[name][1]
    path = model.prior.generate(3)
    first, law = next(path)
    z = torch.randn(3, 2)
    assert first == "z2"
    torch.testing.assert_close(law.log_prob(z), model.prior.stack[0].law.prior.law(3).log_prob(z))
    assert model.sample(3).shape == (3, 4)
    again: Any = from_plain(to_plain(model))
    assert repr(again) == repr(model)


def test_priors_without_a_meaning_for_a_hierarchy_are_refused() -> None:
    mixture = priors.MixturePrior(3)
    for settings in ({"inference": "ladder", "latents": (3, 2)}, {"levels": 3}):
        with pytest.raises(ValueError, match="relative to a Gaussian prior of each level"):
            HVAE(4, width=8, prior=mixture, **settings)
    nested = VAE(2, latents=1, width=8)
    for prior, message in ((nested, "one law"), (priors.VampPrior(3), "an encoder of one latent")):
        with pytest.raises(ValueError, match=message):
            HVAE(4, latents=(3, 2), width=8, inference="top-down", prior=prior)


def fixed_posterior(centers: Tensor) -> LatentModel:
    """An encoder that copies the data, so that the aggregate posterior is what they are."""
    size = centers.shape[1]
    identity = nn.Linear(size, 2 * size)
    with torch.no_grad():
        identity.weight.copy_(torch.cat([torch.eye(size), torch.zeros(size, size)]))
        identity.bias.copy_(torch.cat([torch.zeros(size), torch.full((size,), math.log(0.3))]))
    copied = nn.Linear(size, size)
    with torch.no_grad():
        copied.weight.copy_(torch.eye(size))
        copied.bias.zero_()
    q = GaussianEncoder(identity, (size,), size)
    for part in (identity, copied):
        part.requires_grad_(False)
    return LatentModel(q, GaussianDecoder(copied, (size,), 0.3), priors.NormalPrior((size,)))


@pytest.mark.parametrize("name", ["mixture", "vamp", "flow"])
def test_a_learned_prior_beats_the_standard_normal_where_latents_are_not_normal(name: str) -> None:
    """Two clusters: the rate falls to that of the true mixture, from far above it."""
    centers = torch.tensor([[-3.0, 0.0], [3.0, 1.0]])
    x = centers[torch.randint(2, (512,))] + 0.1 * torch.randn(512, 2)
    plain = fixed_posterior(centers)
    make = {
        "mixture": lambda: priors.MixturePrior(4),
        "vamp": lambda: priors.VampPrior(2, centers.clone()),
        "flow": lambda: priors.FlowPrior(width=16, transforms=2),
    }[name]
    model = LatentModel(plain.encoder, plain.decoder, make())
    settings: dict[str, Any] = {"warmup": 10, "ema": 0.9, "batch_size": 128, "progress": False}
    fit(model, x, steps=150, learning_rate=0.1, **settings)
    std = math.hypot(0.3, 0.1)
    parts = Independent(TorchNormal(centers, torch.full((2, 2), std)), 1)
    ideal = LatentModel(
        plain.encoder,
        plain.decoder,
        DistributionPrior(MixtureSameFamily(Categorical(torch.ones(2)), parts)),
    )
    values = {}
    for key, each in {"plain": plain, "learned": model, "ideal": ideal}.items():
        with random.keyed(0), torch.no_grad():
            values[key] = float(each.elbo(x).value.mean())
    assert values["learned"] > values["plain"] + 2
    assert values["learned"] > values["ideal"] - 0.15


def test_a_mixture_law_of_one_row_draws_the_component_it_should() -> None:
    """Weights of nothing and all: only the second component is drawn."""
    means = torch.tensor([[-9.0], [9.0]])
    law = Mixture(
        lambda index: Normal(means[index], torch.zeros(1)), torch.tensor([-torch.inf, 0.0])
    )
    assert float(law.sample((100,)).min()) > 0
    assert law.sample().shape == (1,)
