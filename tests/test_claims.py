"""The claim of a bound is stated by the prior of its latents, and never inferred."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.distributions import Normal as TorchNormal

from genmod import Stamp
from genmod.decoders import DiscretizedMixtureDecoder
from genmod.denoisers import EmpiricalDenoiser
from genmod.diffusion import StratifiedTimesteps
from genmod.elbo import ELBO, Kind, Measure, Rate
from genmod.evaluation import evaluate, flow_bound
from genmod.model import LatentModel
from genmod.models import (
    HVAE,
    VAE,
    Autoencoder,
    Diffusion,
    Inference,
    LatentDiffusion,
    with_probability_flow,
    with_steps,
)
from genmod.nn import MLP
from genmod.path import AutoTimesteps, Timesteps
from genmod.prior import DensityPrior
from genmod.priors import NestedPrior, TopDownPrior
from genmod.samplers import DDIM
from genmod.schedules import LinearLogSNR

pytestmark = pytest.mark.usefixtures("as_users_run")

MILD = LinearLogSNR(3.0, -3.0)
DEFAULT = AutoTimesteps.EVALUATION


def diffusion(steps: int | None) -> Diffusion:
    """A small one over two numbers."""
    return Diffusion(2, steps=steps, width=8, schedule=MILD)


def latent_diffusion(steps: int | None) -> LatentDiffusion:
    """A small one over two numbers, in two latents."""
    return LatentDiffusion(vae=VAE(2, latents=2, width=8), diffusion=diffusion(steps))


class Claimed(DensityPrior):
    """``N(0, I)`` with a claim of one's own."""

    def __init__(self, claim: Stamp) -> None:
        super().__init__((2,))
        self.claim = claim

    def law(self, n: int, context: Tensor | None = None) -> Distribution:
        return Independent(TorchNormal(torch.zeros(2), 1.0), 1)


def nested(prior: DensityPrior) -> VAE:
    """A VAE whose prior is a VAE with this prior."""
    return VAE(2, latents=2, width=8, prior=VAE(2, latents=2, width=8, prior=prior))


CLAIMS: dict[str, tuple[Callable[[], LatentModel], Timesteps, Stamp]] = {
    "VAE": (lambda: VAE(2, latents=2, width=8), DEFAULT, Stamp.BOUND),
    "VAE, all levels": (lambda: VAE(2, latents=2, width=8), None, Stamp.BOUND),
    "Autoencoder": (lambda: Autoencoder(2, latents=2, width=8), DEFAULT, Stamp.NONE),
    "HVAE, bottom-up": (lambda: HVAE(2, latents=(2, 2), width=8), DEFAULT, Stamp.BOUND),
    "HVAE, top-down": (
        lambda: HVAE(2, latents=(2, 2), width=8, inference="top-down"),
        DEFAULT,
        Stamp.BOUND,
    ),
    "T = 5": (lambda: diffusion(5), DEFAULT, Stamp.BOUND),
    "T = 5, all levels": (lambda: diffusion(5), None, Stamp.BOUND),
    "T = 5, some levels": (lambda: diffusion(5), 2, Stamp.ESTIMATE),
    "T = 5, as many visits as steps": (lambda: diffusion(5), 4, Stamp.ESTIMATE),
    "T = 5, a sampler": (lambda: diffusion(5), StratifiedTimesteps(2), Stamp.ESTIMATE),
    "T = 5, in training": (lambda: diffusion(5), AutoTimesteps.TRAINING, Stamp.ESTIMATE),
    "T = 1000": (lambda: diffusion(1000), DEFAULT, Stamp.BOUND),
    "T = 1001": (lambda: diffusion(1001), DEFAULT, Stamp.ESTIMATE),
    "T = 1001, all levels": (lambda: diffusion(1001), None, Stamp.BOUND),
    "T = 1, nothing to choose": (lambda: diffusion(1), 2, Stamp.BOUND),
    "continuous": (lambda: diffusion(None), DEFAULT, Stamp.ESTIMATE),
    "continuous, many": (lambda: diffusion(None), 50, Stamp.ESTIMATE),
    "cut into steps": (lambda: with_steps(diffusion(None), 4), DEFAULT, Stamp.BOUND),
    "latent, T = 5": (lambda: latent_diffusion(5), DEFAULT, Stamp.BOUND),
    "latent, some levels": (lambda: latent_diffusion(5), 2, Stamp.ESTIMATE),
    "latent, continuous": (lambda: latent_diffusion(None), DEFAULT, Stamp.ESTIMATE),
    "flow": (lambda: with_probability_flow(diffusion(5), 4), DEFAULT, Stamp.ESTIMATE),
    "flow, many steps": (lambda: with_probability_flow(diffusion(None), 64), None, Stamp.ESTIMATE),
    "flow, probes": (
        lambda: with_probability_flow(diffusion(5), 4, probes=1),
        DEFAULT,
        Stamp.ESTIMATE,
    ),
    "latent flow": (
        lambda: with_probability_flow(latent_diffusion(5), 4),
        DEFAULT,
        Stamp.ESTIMATE,
    ),
    "own, exact": (lambda: VAE(2, latents=2, prior=Claimed(Stamp.EXACT)), DEFAULT, Stamp.EXACT),
    "own, estimate": (
        lambda: VAE(2, latents=2, prior=Claimed(Stamp.ESTIMATE)),
        DEFAULT,
        Stamp.ESTIMATE,
    ),
    "own, exact, nested": (lambda: nested(Claimed(Stamp.EXACT)), DEFAULT, Stamp.BOUND),
    "own, estimate, nested": (lambda: nested(Claimed(Stamp.ESTIMATE)), DEFAULT, Stamp.ESTIMATE),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_the_stamp_is_the_weakest_claim_of_the_rates(name: str) -> None:
    """As it is, without gradients, and joined with another."""
    make, timesteps, stamp = CLAIMS[name]
    # A flow has no gradient to the latents, so that an encoder cannot be trained under it.
    with torch.set_grad_enabled("flow" not in name):
        elbo = make().elbo(torch.randn(2, 2), timesteps)
    for each in (elbo, elbo.detach(), ELBO.join([elbo, elbo]), elbo.mean_over(2)):
        assert each.stamp is stamp
        if stamp is not Stamp.NONE:
            assert stamp is Stamp.weakest(rate.claim for rate in each.rates.values())


@pytest.mark.parametrize("name", [name for name in CLAIMS if CLAIMS[name][1] is DEFAULT])
def test_a_report_has_the_stamp_of_its_bound(name: str) -> None:
    if name in ("T = 1000", "T = 1001"):
        pytest.skip("slow, and like the others")
    make, _, stamp = CLAIMS[name]
    assert evaluate(make(), torch.randn(4, 2)).stamp is stamp


def test_a_rate_needs_a_claim() -> None:
    """It has no default: what is left unsaid would be inferred."""
    zero = torch.zeros(2, 1)
    with pytest.raises(TypeError, match="claim"):
        Rate.single(torch.zeros(2), Kind.ANALYTIC)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="claim"):
        Rate(zero, zero, zero, Kind.ANALYTIC)  # type: ignore[call-arg]


def test_the_weakest_of_claims() -> None:
    order = [Stamp.EXACT, Stamp.BOUND, Stamp.ESTIMATE, Stamp.NONE]
    for i, one in enumerate(order):
        for j, other in enumerate(order):
            assert Stamp.weakest([one, other]) is order[max(i, j)]
    assert Stamp.weakest([]) is Stamp.NONE


def test_a_model_without_a_bound_has_the_stamp_none() -> None:
    rate = Rate.single(torch.zeros(2), Kind.ANALYTIC, Stamp.EXACT)
    assert ELBO(torch.zeros(2), {"prior": rate}, Measure.NONE).stamp is Stamp.NONE
    assert ELBO(torch.zeros(2), {}, Measure.DENSITY).stamp is Stamp.NONE


# ---------------------------------------------------------------------- shapes at construction


def test_terms_of_a_bound_have_one_number_a_row() -> None:
    with pytest.raises(ValueError, match=r"nats of shape \(2, 3\); expected \(B,\)"):
        Rate.single(torch.zeros(2, 3), Kind.ANALYTIC, Stamp.BOUND)
    rate = Rate.single(torch.zeros(3), Kind.ANALYTIC, Stamp.BOUND)
    with pytest.raises(ValueError, match=r"rates of \{'prior': 3\} rows; expected \(B,\)"):
        ELBO(torch.zeros(2), {"prior": rate}, Measure.DENSITY)


# ---------------------------------------------------------------------- a solver's density

POINTS, SPREAD = torch.tensor([[-0.9, 0.3], [0.9, -0.3]], dtype=torch.float64), 0.3


def test_a_flow_of_few_steps_exceeds_the_likelihood_and_is_an_estimate() -> None:
    """Two Gaussians under their own optimal denoiser: the exact density is known.

    Four steps of the solver end far above it, so no claim of a bound would be true.
    """
    generator = torch.Generator().manual_seed(0)
    which = torch.randint(2, (100,), generator=generator)
    x = POINTS[which] + SPREAD * torch.randn(100, 2, generator=generator, dtype=torch.float64)
    square = (x[:, None] - POINTS).square().sum(-1)
    truth = (-0.5 * square / SPREAD**2).logsumexp(1) - math.log(4 * math.pi * SPREAD**2)
    denoiser, schedule = EmpiricalDenoiser(POINTS, std=SPREAD), LinearLogSNR(9.0, -12.0)
    model = Diffusion(2, denoiser=denoiser, schedule=schedule, steps=20).double()
    for steps in (4, 64):
        flow = with_probability_flow(model, steps)
        assert flow.elbo(x).stamp is Stamp.ESTIMATE
        assert evaluate(flow, x).stamp is Stamp.ESTIMATE
        assert flow_bound(model, x[:8], steps=steps).report.stamp is Stamp.ESTIMATE
        if steps == 4:
            above = flow.elbo(x).value.detach() - truth
            assert float(above.mean()) > 5 * float(above.std()) / 10


@pytest.mark.parametrize("make", [lambda: diffusion(5), lambda: latent_diffusion(5)])
def test_importance_weights_of_a_random_density_are_refused_everywhere(
    make: Callable[[], LatentModel],
) -> None:
    """The exponential of an unbiased log-density is biased upwards, whoever asks."""
    x = torch.randn(4, 2)
    noisy, exact = (with_probability_flow(make(), 4, probes=n) for n in (1, None))
    for ask in (
        lambda: noisy.log_weight(x),
        lambda: evaluate(noisy, x, importance_samples=4),
    ):
        with pytest.raises(ValueError, match=r"random estimate; .*probes=None"):
            ask()
    with torch.no_grad():
        assert exact.log_weight(x).shape == (4,)


# ---------------------------------------------------------------------- a number of timesteps

LEVELLESS: dict[str, Callable[[], LatentModel]] = {
    name: CLAIMS[name][0]
    for name in ("VAE", "Autoencoder", "HVAE, bottom-up", "HVAE, top-down", "flow", "latent flow")
}


@pytest.mark.parametrize("timesteps", [1, StratifiedTimesteps(2)], ids=str)
@pytest.mark.parametrize("name", LEVELLESS)
def test_a_model_without_noise_levels_refuses_a_number_of_them(
    name: str, timesteps: Timesteps
) -> None:
    model, x = LEVELLESS[name](), torch.randn(3, 2)
    with pytest.raises(ValueError, match=r"without noise levels; expected none; leave timesteps"):
        model.elbo(x, timesteps)
    with torch.no_grad():
        for taken in (None, AutoTimesteps.EVALUATION, AutoTimesteps.TRAINING):
            assert model.elbo(x, taken).value.shape == (3,)


# ---------------------------------------------------------------------- samples

BROKEN: dict[str, Callable[[], LatentModel]] = {
    "Diffusion": lambda: Diffusion((1, 4, 4), 17, width=8, steps=5),
    "Diffusion of reals": lambda: Diffusion((1, 4, 4), width=8, steps=5),
    "LatentDiffusion": lambda: LatentDiffusion((1, 4, 4), 17, latents=2, width=8),
    "VAE": lambda: VAE((1, 4, 4), 17, latents=2, width=8),
    "VAE of reals": lambda: VAE((1, 4, 4), latents=2, width=8),
    "VAE of bits": lambda: VAE((1, 4, 4), 2, latents=2, width=8),
    "VAE, mixture": lambda: VAE(
        latents=2,
        width=8,
        decoder=DiscretizedMixtureDecoder(MLP(2, 15 * 16), (1, 4, 4), 17),
    ),
    "HVAE, bottom-up": lambda: HVAE((1, 4, 4), 17, latents=(3, 2), width=8),
    "HVAE, top-down": lambda: HVAE(
        (1, 4, 4), 17, latents=(3, 2), width=8, inference=Inference.TOP_DOWN
    ),
}


def _broken(name: str) -> LatentModel:
    """A model after a loop that diverged."""
    model = BROKEN[name]()
    for parameter in model.parameters():
        parameter.data.fill_(math.nan)
    return model


@pytest.mark.parametrize("name", BROKEN)
def test_a_model_that_returns_nan_draws_no_samples(name: str) -> None:
    """NaN became -2^63 for integers, and plausible white or black for bits."""
    model = _broken(name)
    with pytest.raises(ValueError, match=r"NaN|not finite"):
        model.sample(2)
    if isinstance(model, Diffusion | LatentDiffusion):
        with pytest.raises(ValueError, match=r"NaN|not finite"):
            model.sample(2, sampler=DDIM(), steps=2, seeds=[0, 1])


# ---------------------------------------------------------------------- names of modes


@pytest.mark.parametrize(
    ("given", "prior"),
    [
        ("bottom-up", NestedPrior),
        (Inference.BOTTOM_UP, NestedPrior),
        ("top-down", TopDownPrior),
        (Inference.TOP_DOWN, TopDownPrior),
    ],
)
def test_a_mode_is_an_enumeration_or_its_name(
    given: Inference | str, prior: type[NestedPrior | TopDownPrior]
) -> None:
    model = HVAE(3, latents=(2, 2), width=8, inference=given)
    assert type(model.prior) is prior


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("bottom_up", "'bottom-up'"),
        ("Bottom-Up", "'bottom-up'"),
        ("topdown", "'top-down'"),
        ("TOP_DOWN", "'top-down'"),
    ],
)
def test_another_name_is_refused_and_the_nearest_suggested(given: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=rf"expected one of .*; did you mean {nearest}\?"):
        HVAE(3, latents=(2, 2), width=8, inference=given)


@pytest.mark.parametrize("given", [True, 1, Inference, "sideways"])
def test_what_is_no_mode_is_refused(given: str) -> None:
    """Any string once built a top-down hierarchy."""
    with pytest.raises(ValueError, match="expected one of 'bottom-up', 'top-down'"):
        HVAE(3, latents=(2, 2), width=8, inference=given)
