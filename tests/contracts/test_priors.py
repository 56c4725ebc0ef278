"""Every prior: a new one is added to the list."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from genmod import Kind, decoders, diffusion, encoders, priors
from genmod.config import Settings, register
from genmod.denoisers import Learned
from genmod.diffusion import LearnedInterpolation
from genmod.diffusion.depth import LearnedNoisingEncoder, NoisingHierarchyPrior
from genmod.diffusion.noising import NoisingPosterior
from genmod.diffusion.probability_flow import ProbabilityFlowPrior
from genmod.distributions import Normal
from genmod.encoders import Posterior
from genmod.encoders.topdown import PyramidEncoder
from genmod.model import LatentModel
from genmod.models import VAE
from genmod.nn import MLP, DenoisingMLP
from genmod.nn.cells import Pyramid
from genmod.path import AutoTimesteps, Timesteps, run_path
from genmod.prior import Prior
from genmod.priors.deep import VeryDeepBlock
from genmod.priors.given import ModulePrior
from genmod.priors.simple import DistributionPrior
from genmod.schedules import LinearLogSNR
from tests.contracts.common import (
    DEVICES,
    DTYPES,
    ROWS,
    check_copies,
    check_formula,
    check_tensor,
    placed,
)

EVENT = (3,)


def denoising(steps: int | None) -> diffusion.DiffusionPrior:
    """A chain, or a continuum."""
    return diffusion.DiffusionPrior(
        Learned(DenoisingMLP(EVENT, width=8)), LinearLogSNR(), EVENT, steps, resolution=8
    )


def learned_variance() -> diffusion.DiffusionPrior:
    """A chain whose network predicts the reverse variance as well."""
    denoiser = Learned(DenoisingMLP(EVENT, width=8, outputs=6), interpolation=True)
    return diffusion.DiffusionPrior(denoiser, LinearLogSNR(), EVENT, 4, LearnedInterpolation())


def top_down() -> priors.TopDownPrior:
    """Two levels, the state being the latent above."""
    blocks = [
        priors.TopDownBlock(
            decoders.GaussianDecoder(MLP(3, 6, width=8), EVENT, decoders.PredictedScale())
        )
        for _ in range(2)
    ]
    return priors.TopDownPrior(blocks, torch.zeros(3))


def given() -> DistributionPrior:
    """A distribution is no module: it keeps the type it was built with."""
    return DistributionPrior(MultivariateNormal(torch.zeros(3), torch.eye(3)))


@register
class StandardLaw(Settings, nn.Module):
    """A density of a user's own: N(0, I)."""

    zero: Tensor

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(size))

    def log_prob(self, z: Tensor) -> Tensor:
        return MultivariateNormal(self.zero, torch.eye(len(self.zero)).to(self.zero)).log_prob(z)

    def sample(self, n: int) -> Tensor:
        return torch.randn(n, len(self.zero)).to(self.zero)


def very_deep() -> priors.TopDownPrior:
    """Three levels of blocks that own both heads."""
    blocks = [VeryDeepBlock(EVENT, 2, 3, hidden=8) for _ in range(3)]
    return priors.TopDownPrior(blocks, torch.zeros(3))


def noising_hierarchy(levels: int) -> NoisingHierarchyPrior:
    """The chain of a diffusion for a learned encoder."""
    denoiser = Learned(DenoisingMLP(EVENT, width=8))
    return NoisingHierarchyPrior(denoiser, LinearLogSNR(), EVENT, levels)


PRIORS: dict[str, Callable[[], Prior]] = {
    "Normal": lambda: priors.NormalPrior(EVENT),
    "Given": given,
    "Nested": lambda: priors.NestedPrior(VAE(EVENT, latents=2, width=8)),
    "Nested, rescaled": lambda: priors.NestedPrior(
        VAE(EVENT, latents=2, width=8), shift=torch.ones(3), scale=torch.tensor(2.0)
    ),
    "TopDown": top_down,
    "Very deep": very_deep,
    "Noising, learned encoder": lambda: noising_hierarchy(3),
    "Noising, learned encoder, 1 latent": lambda: noising_hierarchy(1),
    "Denoising, 1 latent": lambda: denoising(1),
    "Denoising, 4 latents": lambda: denoising(4),
    "Denoising, continuous": lambda: denoising(None),
    "Denoising, learned variance": learned_variance,
    "Learned Gaussian": lambda: priors.LearnedGaussianPrior(EVENT),
    "Mixture": lambda: priors.MixturePrior(4, EVENT),
    "Vamp": lambda: priors.VampPrior(
        4, encoder=encoders.GaussianEncoder(MLP(2, 6, width=8), EVENT, 2)
    ),
    "Normalizing flow": lambda: priors.FlowPrior(width=8, shape=EVENT),
    "Module": lambda: ModulePrior(StandardLaw(), EVENT),
    "Flow": lambda: ProbabilityFlowPrior(denoising(None), steps=4),
    "Flow, 2 probes": lambda: ProbabilityFlowPrior(denoising(None), steps=4, probes=2),
}


def posterior_for(
    prior: Prior, dtype: torch.dtype, device: torch.device
) -> Posterior | Distribution:
    """A posterior of the kind that the prior takes."""
    x = torch.randn(ROWS, *EVENT, dtype=dtype, device=device)
    if isinstance(prior, NoisingHierarchyPrior):
        torch.manual_seed(3)
        network = DenoisingMLP((6,), width=8)
        return LearnedNoisingEncoder(network, prior.schedule).to(device=device, dtype=dtype)(x)
    if isinstance(prior, priors.TopDownPrior) and isinstance(prior.stack[0], VeryDeepBlock):
        torch.manual_seed(3)
        pyramid = Pyramid(EVENT, [(3,)] * 3, hidden=8)
        return PyramidEncoder(pyramid, 3).to(device=device, dtype=dtype)(x)
    if isinstance(prior, priors.TopDownPrior):
        torch.manual_seed(3)
        heads = [encoders.TopDownHead(MLP(6, 6, width=8), EVENT) for _ in range(2)]
        stages = [MLP(3, 3, width=8), MLP(3, 3, width=8)]
        return encoders.TopDownEncoder(stages, heads).to(device=device, dtype=dtype)(x)
    if isinstance(prior, ProbabilityFlowPrior):
        prior = prior.diffusion
    if isinstance(prior, diffusion.DiffusionPrior):
        return diffusion.NoisingEncoder(prior.schedule)(x)
    return Normal(x, torch.full_like(x, -0.5))


def skip_where_it_has_no_type(name: str, dtype: torch.dtype, device: torch.device) -> None:
    if name == "Given" and (dtype, device.type) != (torch.float32, "cpu"):
        pytest.skip("torch's distributions do not move with a module")


@pytest.mark.parametrize("name", list(PRIORS))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_rates_are_per_sample_and_level(
    name: str, dtype: torch.dtype, device: torch.device
) -> None:
    """In the posterior's type; closed ones are never negative; the state is one event a row."""
    skip_where_it_has_no_type(name, dtype, device)
    prior = placed(PRIORS[name], dtype, device)
    posterior = posterior_for(prior, dtype, device)
    choices: list[Timesteps] = (
        [2, AutoTimesteps.EVALUATION] if prior.has_timesteps else [AutoTimesteps.EVALUATION]
    )
    for timesteps in (*choices, None):
        if timesteps is None and name == "Denoising, continuous":
            continue
        state, rates = prior.rates(posterior, timesteps)
        check_tensor(state, (ROWS, *EVENT), state)
        assert state.dtype is dtype
        assert rates
        for rate in rates.values():
            check_tensor(rate.total, (ROWS,), state)
            fields = [rate.nats, rate.weight, rate.level]
            if rate.noise is not None:
                fields += [rate.noise.log_snr, rate.noise.gap, rate.noise.error, rate.noise.dt]
            for field in fields:
                assert field.shape == rate.nats.shape
            if rate.kind is Kind.ANALYTIC:
                assert bool((rate.nats >= 0).all())
            if rate.per_dim is not None:
                sums = torch.stack([each.sum(-1) for each in rate.per_dim], -1)
                torch.testing.assert_close(sums, rate.nats)


@pytest.mark.parametrize("name", list(PRIORS))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_samples_states_and_weights(name: str, dtype: torch.dtype, device: torch.device) -> None:
    skip_where_it_has_no_type(name, dtype, device)
    prior = placed(PRIORS[name], dtype, device)
    with torch.no_grad():
        z = prior.sample(5)
        check_tensor(z, (5, *EVENT), z)
        assert z.dtype is dtype
        assert z.device.type == device.type
        posterior = posterior_for(prior, dtype, device)
        if name != "Denoising, continuous":
            state, path = prior.draw_path(posterior)
            check_tensor(path.log_ratio(), (1, ROWS), state)
            restored = prior.state_from(prior.means(posterior))
            check_tensor(restored, (ROWS, *EVENT), restored)


@pytest.mark.parametrize("name", [name for name in PRIORS if name != "Denoising, continuous"])
def test_both_paths_name_the_same_latents(name: str) -> None:
    """Each latent of the joint path has one q and one p; the descent draws the same names."""
    prior = placed(PRIORS[name], torch.float64, DEVICES[0])
    posterior = posterior_for(
        prior, torch.float32 if name == "Given" else torch.float64, DEVICES[0]
    )
    drawn: dict[str, Tensor] = {}
    priced: list[str] = []
    generated: list[str] = []

    def draw(level: priors.Latent) -> Tensor:
        if level.q is not None:
            assert level.name not in drawn
            drawn[level.name] = level.q.rsample()
        if level.p is not None:
            assert level.p.event_shape == drawn[level.name].shape[1:]
            priced.append(level.name)
        return drawn[level.name]

    def generate(step: tuple[str, torch.distributions.Distribution]) -> Tensor:
        generated.append(step[0])
        return step[1].sample((3,)) if not step[1].batch_shape else step[1].sample()

    run_path(prior.infer(posterior), draw)
    run_path(prior.generate(3), generate)
    assert sorted(drawn) == sorted(priced) == sorted(generated)


@pytest.mark.parametrize("name", list(PRIORS))
def test_a_copy_gives_the_same_numbers(name: str) -> None:
    dtype = torch.float32 if name == "Given" else torch.float64

    def answer(prior: Prior) -> Iterable[Tensor]:
        torch.manual_seed(4)
        posterior = posterior_for(prior, dtype, DEVICES[0])
        state, rates = prior.rates(posterior, 2 if prior.has_timesteps else None)
        return [state, *(rate.nats for rate in rates.values()), prior.sample(2)]

    check_copies(PRIORS[name], answer)


@pytest.mark.parametrize("name", list(PRIORS))
def test_its_repr_is_a_formula(name: str) -> None:
    prior = PRIORS[name]()
    check_formula(prior.formula(), "p(")
    assert prior.proper


@pytest.mark.parametrize("name", list(PRIORS))
def test_no_samples_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="got n=0; expected at least 1"):
        PRIORS[name]().sample(0)


@pytest.mark.parametrize("name", list(PRIORS))
def test_it_can_stand_in_a_model(name: str) -> None:
    """Encoder, decoder and prior: the three are all that a model is."""
    prior = placed(PRIORS[name], torch.float32, DEVICES[0])
    posterior = posterior_for(prior, torch.float32, DEVICES[0])

    class Given(encoders.Encoder):
        def forward(
            self, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
        ) -> Posterior | Distribution:
            return posterior

    class GivenNoise(diffusion.NoisingEncoder):
        def forward(
            self, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
        ) -> NoisingPosterior:
            assert isinstance(posterior, NoisingPosterior)
            return posterior

    encoder: encoders.Encoder = Given()
    if isinstance(posterior, NoisingPosterior):
        encoder = GivenNoise(posterior.schedule)
    model = LatentModel(encoder, decoders.GaussianDecoder(MLP(3, 2, width=8), (2,)), prior)
    few = 2 if prior.has_timesteps else None
    value = model.elbo(torch.randn(ROWS, 2), timesteps=few).value
    assert value.shape == (ROWS,)
    assert bool(value.isfinite().all())
