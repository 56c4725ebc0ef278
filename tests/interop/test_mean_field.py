"""Pyro's ``TraceMeanField_ELBO``: our closed form where guide and program share an order only."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.testing import assert_close

from genmod import decoders, encoders, priors
from genmod.decoders import Identity
from genmod.denoisers import GaussianDenoiser
from genmod.diffusion import DiffusionPrior, LastStepDecoder
from genmod.diffusion.noising import NoisingPosterior
from genmod.interop.pyro import Program, PyroPair, to_pyro
from genmod.model import LatentModel
from genmod.models import VAE, Diffusion
from tests.interop.cases import NESTED, Case, build, closed, schedule, trace
from tests.statistics import assert_equal_means

ALIGNED = (
    "vae-real",
    "vae-bits",
    "vae-bins",
    "vae-categorical",
    "vae-mixture",
    "vae-full",
    "vae-diagonal",
    "hvae-top-down",
    "diffusion",
    "diffusion-one-latent",
    "diffusion-large-variance",
)
DIMS = 2


@pytest.mark.parametrize("name", ALIGNED)
def test_it_is_our_closed_form_along_the_same_path(name: str) -> None:
    """Each level's KL in closed form at the guide's own draws (a log-ratio for the mixture prior)."""
    case = build(name)
    pair = to_pyro(case.model)
    torch.manual_seed(1)
    latents, _ = trace(pair, case)
    torch.manual_seed(1)
    loss = TraceMeanField_ELBO().loss(pair.model, pair.guide, case.x)
    ours = closed(case, latents).sum().detach()
    assert_close(torch.tensor(-loss), ours, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in ALIGNED if not name.startswith("diffusion")])
def test_it_is_the_model_s_own_bound_from_the_same_seed(name: str) -> None:
    """Where ``elbo`` draws one path, too: not a diffusion, which visits its levels apart."""
    case = build(name)
    pair = to_pyro(case.model)
    torch.manual_seed(1)
    loss = TraceMeanField_ELBO().loss(pair.model, pair.guide, case.x)
    torch.manual_seed(1)
    assert_close(torch.tensor(-loss), case.model.elbo(case.x).value.sum().detach())


def test_a_diffusion_s_path_and_its_levels_visited_apart_agree_in_the_mean() -> None:
    """Pyro draws the chain step by step; ``elbo`` draws each level from its marginal."""
    case = build("diffusion")
    many = case._replace(x=case.x[:1].expand(200, -1, -1, -1))
    torch.manual_seed(2)
    theirs = replicates(TraceMeanField_ELBO(), to_pyro(case.model), many.x)
    ours = torch.stack([many.model.elbo(many.x).value.mean().detach() for _ in range(10)])
    assert_equal_means(theirs, ours)


@pytest.mark.parametrize("name", NESTED)
def test_nesting_breaks_pyros_condition_and_pyro_warns(name: str) -> None:
    """The guide draws the outer latent first, the program last."""
    case = build(name)
    pair = to_pyro(case.model)
    with pytest.warns(UserWarning, match="Failed to verify mean field restriction"):
        TraceMeanField_ELBO().loss(pair.model, pair.guide, case.x, case.context)


@pytest.mark.parametrize("gain", [0.7, -0.7])
def test_nesting_misses_the_bound_by_a_known_amount_of_either_sign(gain: float) -> None:
    r"""Bottom-up, linear: :math:`z_2 \sim N(c z_1, s^2)` is drawn from :math:`z_1 \sim N(m, u^2)`.

    The closed KL of :math:`z_1` then averages :math:`(z'_1 - a z_2)^2 / 2v` over a :math:`z'_1` of
    its own: :math:`a c u^2 / v` more a dimension than in the bound.
    """
    u, a, v = 0.6, 0.8, 0.25
    inner = LatentModel(
        encoders.GaussianEncoder(linear(DIMS, gain, 0.5), (DIMS,)),
        decoders.GaussianDecoder(linear(DIMS, a), (DIMS,), math.sqrt(v)),
        priors.NormalPrior((DIMS,)),
    )
    model = VAE(
        encoder=encoders.GaussianEncoder(linear(DIMS, 1.0, u), (DIMS,)),
        decoder=decoders.GaussianDecoder(linear(DIMS, 1.0), (DIMS,), 1.0),
        prior=inner,
    )
    amount = DIMS * a * gain * u**2 / v
    x = torch.tensor([[0.7, -1.1]]).expand(6000, -1)
    pair = to_pyro(model)
    right = replicates(Trace_ELBO(), pair, x)
    with pytest.warns(UserWarning, match="Failed to verify mean field restriction"):
        wrong = replicates(TraceMeanField_ELBO(), pair, x)
    assert_equal_means(wrong + amount, right)
    assert_far_apart(wrong, right)


def linear(dims: int, gain: float, std: float | None = None) -> nn.Linear:
    """``gain`` times its input; and after that, where there is a std, its logarithm."""
    layer = nn.Linear(dims, dims if std is None else 2 * dims)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(*layer.weight.shape) * gain)
        layer.bias.fill_(0.0 if std is None else math.log(std))
        layer.bias[:dims] = 0.0
    return layer


# ------------------------------------------------------------- a guide written as the forward chain


def solved(steps: int) -> Diffusion:
    """A diffusion of standard normal data under its optimal denoiser: each factor is linear."""
    denoiser = GaussianDenoiser(torch.zeros(DIMS), torch.eye(DIMS))
    last = LastStepDecoder(denoiser, schedule(), decoders.GaussianDecoder(Identity(), (DIMS,), 0.5))
    return Diffusion(DIMS, denoiser=denoiser, schedule=schedule(), steps=steps, decoder=last)


def forward_chain(model: Diffusion) -> Program:
    """The guide that one would write first: ``q(z1 | x) q(z2 | z1) ...``, noise upon noise."""
    assert isinstance(model.prior, DiffusionPrior)
    point = model.prior.schedule.at(model.prior.times())
    alpha, variance = point.alpha.tolist(), point.sigma.square().tolist()

    def guide(x: Tensor, context: Tensor | None = None) -> Tensor:
        z, here, spread = x, 1.0, 0.0
        with pyro.plate("data", len(x), dim=-1):
            for i, (up, wide) in enumerate(zip(alpha, variance, strict=True)):
                step = up / here
                std = math.sqrt(wide - step**2 * spread)
                z = pyro.sample(f"z{i + 1}", dist.Normal(step * z, std).to_event(1))
                here, spread = up, wide
        return z

    return guide


def excess(model: Diffusion) -> float:
    r"""What ``TraceMeanField_ELBO`` adds too much when the guide is the forward chain.

    With :math:`p(z_s | z_t) = N(a z_t, v)` it adds :math:`(z'_s - a z_t)^2 / 2v` for a :math:`z'_s`
    drawn apart from :math:`z_t`, both given the latent below: :math:`a\,\mathrm{Cov}(z_s, z_t) / v`
    more a dimension, where Cov is :math:`\alpha_t / \alpha_s` times the variance of :math:`z_s`.
    """
    assert isinstance(model.prior, DiffusionPrior)
    prior, times = model.prior, model.prior.times()
    point = prior.schedule.at(times)
    total, spread_below, alpha_below = 0.0, torch.tensor(0.0), torch.tensor(1.0)
    for i in range(len(times) - 1):
        alpha, sigma2 = point.alpha[i], point.sigma[i].square()
        given_below = sigma2 - (alpha / alpha_below).square() * spread_below
        law = prior.reverse.law(torch.ones(1, DIMS), times[i + 1 : i + 2], times[i : i + 1])
        gain, v = law.mean[0, 0], law.variance[0, 0]
        total += DIMS * float(gain * point.alpha[i + 1] / alpha * given_below / v)
        spread_below, alpha_below = sigma2, alpha
    return total


def test_the_forward_chain_is_the_same_joint_law() -> None:
    """At one path the two guides have the same density, and so the same ``Trace_ELBO``."""
    model = solved(4)
    pair = to_pyro(model)
    case = Case(model, torch.randn(5, DIMS, generator=torch.Generator().manual_seed(0)))
    latents, value = trace(PyroPair(pair.model, forward_chain(model)), case)
    q = NoisingPosterior(case.x, schedule())
    times = [t.expand(5) for t in schedule_times(model)]
    top_down = q.at(times[3]).log_prob(latents["z4"])
    for i in (2, 1, 0):
        top_down = top_down + q.given(times[i], times[i + 1], latents[f"z{i + 2}"]).log_prob(
            latents[f"z{i + 1}"]
        )
    program = pyro.poutine.trace(pyro.poutine.condition(pair.model, data=latents))
    joint = program.get_trace(case.x)
    joint.compute_log_prob()
    log_p = sum(joint.nodes[name]["log_prob"] for name in ("z1", "z2", "z3", "z4", "x"))
    assert_close(value, log_p - top_down, rtol=1e-9, atol=1e-9)


def schedule_times(model: Diffusion) -> Tensor:
    """The times of a diffusion's latents."""
    assert isinstance(model.prior, DiffusionPrior)
    return model.prior.times()


@pytest.mark.parametrize("steps", [3, 5])
def test_the_forward_chain_breaks_the_condition(steps: int) -> None:
    """``Trace_ELBO`` agrees in the mean; ``TraceMeanField_ELBO`` misses it by a known amount."""
    model = solved(steps)
    pair = to_pyro(model)
    wrong_way = PyroPair(pair.model, forward_chain(model))
    torch.manual_seed(4)
    x = torch.tensor([[0.7, -1.1]]).expand(6000, -1)
    right = replicates(Trace_ELBO(), pair, x)
    assert_equal_means(right, replicates(Trace_ELBO(), wrong_way, x), name="sampled")
    aligned = replicates(TraceMeanField_ELBO(), pair, x)
    assert_equal_means(right, aligned, name="closed")
    with pytest.warns(UserWarning, match="Failed to verify mean field restriction"):
        wrong = replicates(TraceMeanField_ELBO(), wrong_way, x)
    assert_equal_means(wrong + excess(model), right, name="closed, forward chain")
    assert_far_apart(wrong, right)


def replicates(estimator: Trace_ELBO, pair: PyroPair, x: Tensor, count: int = 10) -> Tensor:
    """Independent estimates of the bound of a row, from an estimator that only sums them."""
    losses = [estimator.loss(pair.model, pair.guide, x) for _ in range(count)]
    return -torch.tensor(losses) / len(x)


def assert_far_apart(a: Tensor, b: Tensor) -> None:
    """Twenty standard errors: what is missed is no noise."""
    error = torch.hypot(a.std(), b.std()) / math.sqrt(len(a))
    assert abs(a.mean() - b.mean()) > 20 * error
