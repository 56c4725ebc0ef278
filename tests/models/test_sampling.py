"""Samples of a model by any sampler: what a path decodes to, and a sample drawn again alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import SupportsIndex

import pytest
import torch
from torch import Tensor

from genmod import random
from genmod.arrays import Context, Rows
from genmod.denoisers import Denoised, Denoiser, Guided
from genmod.diffusion import DiffusionPrior
from genmod.models import VAE, Diffusion, LatentDiffusion, LatentModel
from genmod.models.replace import with_denoiser
from genmod.nn import MLP, Labels
from genmod.samplers import (
    DDIM,
    Ancestral,
    DPMSolver,
    Euler,
    Sampler,
    UniformLogSNR,
    UniformTime,
)
from genmod.schedules import LinearLogSNR
from genmod.tensors import LatentTensors
from tests.oracles import F64, Bent, correlated
from tests.samplers.cases import EVERY
from tests.statistics import assert_mean

SCHEDULE = LinearLogSNR(5.0, -5.0)


def bent(steps: int | None = 6) -> Diffusion:
    """A diffusion whose denoiser treats every entry alike, whatever the batch."""
    return Diffusion((2,), denoiser=Bent(), schedule=SCHEDULE, steps=steps).double()


def prior(model: LatentModel) -> DiffusionPrior:
    """A diffusion's prior, as what it is."""
    assert isinstance(model.prior, DiffusionPrior)
    return model.prior


@pytest.mark.parametrize("sampler", [None, *EVERY], ids=repr)
def test_a_sample_can_be_drawn_again_alone(sampler: Sampler | None) -> None:
    """Bit for bit, noise of the steps and of the decoder included; and another seed is another."""
    model, steps = bent(), None if sampler is None else 5
    whole = model.sample(4, sampler=sampler, steps=steps, seeds=[3, 1, 4, 1])
    alone = model.sample(1, sampler=sampler, steps=steps, seeds=[4])
    assert torch.equal(whole[2:3], alone)
    assert torch.equal(whole[1], whole[3])
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("sampler", EVERY, ids=repr)
def test_sample_decodes_the_last_of_its_states(sampler: Sampler) -> None:
    """Noise, the sampler's own path, the decoder's draw; under the same noise, by hand."""
    model = bent()
    times = UniformLogSNR().times(SCHEDULE, 4)
    with random.keyed(0), torch.no_grad():
        z = random.normal((3, 2), F64)
        path = list(sampler.bind(prior(model).denoiser, SCHEDULE).path(z, times))
        expected = model.decoder(path[-1]).sample()
    with random.keyed(0):
        found = model.sample(3, sampler=sampler, steps=4, grid=UniformLogSNR())
    torch.testing.assert_close(found, expected)
    with random.keyed(0):
        states = list(model.states(3, sampler=sampler, steps=4, grid=UniformLogSNR()))
    torch.testing.assert_close(torch.stack([state.z for state in states]), torch.stack(path))
    assert not states[0].z.requires_grad


@pytest.mark.parametrize("steps", [None, 4], ids=["the chain", "a sampler"])
def test_guided_samples_are_those_of_the_guided_model(steps: int | None) -> None:
    """By the chain itself and by a sampler; and guidance changes them."""
    torch.manual_seed(0)
    model, labels = Diffusion(2, steps=6, width=8, condition=Labels(3)).double(), torch.arange(3)
    with torch.no_grad():  # A new network gives zeros, for every label.
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    guided = with_denoiser(model, lambda denoiser: Guided(denoiser, 3.0))
    found = model.sample(3, labels, steps=steps, guidance_scale=3.0, seeds=[1, 2, 3])
    assert torch.equal(found, guided.sample(3, labels, steps=steps, seeds=[1, 2, 3]))
    assert not torch.allclose(found, model.sample(3, labels, steps=steps, seeds=[1, 2, 3]))


class Doubled(VAE):
    """A model of one's own that has other codes and other samples."""

    def encode(
        self, x: Rows, context: Context = None, observed: Rows | None = None
    ) -> LatentTensors:
        code = super().encode(x, context, observed)
        assert isinstance(code, Tensor)
        return 2 * code

    def sample(
        self, n: int, context: Context = None, *, seeds: Sequence[SupportsIndex] | None = None
    ) -> Tensor:
        return 2 * super().sample(n, context, seeds=seeds)


def test_a_model_of_ones_own_may_override_methods() -> None:
    own, x = Doubled(2, latents=1, width=4), torch.randn(3, 2)
    plain = LatentModel(own.encoder, own.decoder, own.prior)
    code = plain.encode(x)
    assert isinstance(code, Tensor)
    torch.testing.assert_close(own.encode(x), 2 * code)
    torch.testing.assert_close(own.sample(3, seeds=[1, 2, 3]), 2 * plain.sample(3, seeds=[1, 2, 3]))
    torch.testing.assert_close(own.reconstruct(x), plain.reconstruct(x))


def test_the_ancestral_chain_is_the_default_sampler() -> None:
    """Without settings, with the chain's own steps, or with the chain named: one thing."""
    model, found = bent(), []
    settings: list[tuple[Sampler | None, int | None]] = [(None, None), (None, 5), (Ancestral(), 5)]
    for sampler, steps in settings:
        found.append(model.sample(4, sampler=sampler, steps=steps, seeds=range(4)))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[1], found[2])
    continuous = bent(None)
    assert len(list(continuous.states(1))) == prior(continuous).resolution - 1
    assert len(list(continuous.states(1, grid=UniformTime()))) == prior(continuous).resolution - 1


def test_the_callers_noise_is_left_alone_between_states() -> None:
    """What is drawn inside the loop is the caller's."""
    model = bent()
    quiet = [s.z for s in model.states(2, sampler=DDIM(eta=1), steps=4, seeds=[0, 1])]
    loud, drawn = [], []
    torch.manual_seed(8)
    for state in model.states(2, sampler=DDIM(eta=1), steps=4, seeds=[0, 1]):
        drawn.append(random.normal((3,), F64))
        loud.append(state.z)
    assert torch.equal(torch.stack(quiet), torch.stack(loud))
    torch.manual_seed(8)
    assert torch.equal(torch.stack(drawn), torch.stack([torch.randn(3, dtype=F64) for _ in drawn]))


def test_samples_of_a_solver_follow_the_data() -> None:
    """Gaussian data, exact denoiser, 60 steps of 2M: mean and covariance of ``z_0``."""
    data = correlated()
    schedule = LinearLogSNR(8.0, -10.0)
    model = Diffusion((3,), denoiser=data.denoiser(), schedule=schedule).double()
    torch.manual_seed(2)
    *_, last = model.states(20_000, sampler=DPMSolver(order=2), steps=60)
    point = schedule.at(torch.zeros(1, dtype=F64))
    mean = point.alpha * data.mean
    covariance = point.alpha.square() * data.covariance + point.sigma.square() * torch.eye(3)
    off = last.z - mean
    assert_mean(last.z, mean)
    assert_mean(off[:, :, None] * off[:, None, :], covariance)


class Shifted(Denoiser):
    """A denoiser around another one, as guidance is."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """Off by one."""
        return Denoised(self.inner(z, log_snr, context).x_hat + 1)


def test_a_sampler_that_is_bound_keeps_its_denoiser() -> None:
    """The model completes what is missing only."""
    model = bent()
    plain = model.sample(2, sampler=Euler(), steps=3, seeds=[0, 1])
    wrapped = Euler(Shifted(prior(model).denoiser))
    assert not torch.allclose(model.sample(2, sampler=wrapped, steps=3, seeds=[0, 1]), plain)
    own = Euler(prior(model).denoiser, SCHEDULE)
    assert torch.equal(model.sample(2, sampler=own, steps=3, seeds=[0, 1]), plain)
    with pytest.raises(ValueError, match="bound to another schedule than the model's"):
        model.sample(2, sampler=Euler(Bent(), LinearLogSNR(4.0, -4.0)), steps=3)


def test_states_of_a_latent_diffusion_are_inner_latents() -> None:
    """The inner path, the inner decoder, the shift and scale, the outer decoder: by hand."""
    inner = Diffusion((3,), denoiser=MLPDenoiser(), schedule=SCHEDULE)
    model = LatentDiffusion(vae=VAE((4,), latents=3, width=8), diffusion=inner).double()
    model.nested.standardize(torch.ones(3, dtype=F64), torch.full((3,), 2.0, dtype=F64))
    sampler = DPMSolver(order=2)
    found = model.sample(3, sampler=sampler, steps=4, seeds=[5, 6, 7])
    with random.seeded([5, 6, 7]), torch.no_grad():
        z_0 = sampler.bind(prior(inner).denoiser, SCHEDULE).run(
            random.normal((3, 3), F64), UniformTime().times(SCHEDULE, 4)
        )
        z = 1 + 2 * inner.decoder(z_0).sample()
        expected = model.decoder(z).sample()
    torch.testing.assert_close(found, expected)
    with random.keyed(0):
        plain = model.sample(2)
    with random.keyed(0):
        walked = model.decoder(model.prior.sample(2)).sample()
    torch.testing.assert_close(plain, walked)


class MLPDenoiser(Denoiser):
    """A small network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = MLP(3, 3, width=8)

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """Something of the right shape."""
        return Denoised(self.net(z))


def test_what_is_no_diffusion_has_no_sampler() -> None:
    """A latent model with another prior; no samples; a seed too few."""
    inner = VAE((3,), latents=2, width=8)
    model = LatentDiffusion(vae=VAE((4,), latents=3, width=8), diffusion=inner)
    assert model.sample(2).shape == (2, 4)
    with pytest.raises(ValueError, match=r"without a diffusion \(its prior is NormalPrior\)"):
        model.sample(2, sampler=Euler(), steps=3)
    with pytest.raises(ValueError, match="n=0; expected at least 1"):
        bent().sample(0, sampler=Euler())
    with pytest.raises(ValueError, match="2 seeds for 3 samples"):
        bent().sample(3, seeds=[1, 2])


def test_progress_is_shown_when_asked_for_and_rich_comes_only_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = bent()
    plain = model.sample(2, sampler=Euler(), steps=3, seeds=[0, 1])
    assert capsys.readouterr().out == ""
    shown = model.sample(2, sampler=Euler(), steps=3, seeds=[0, 1], progress=True)
    assert "Euler()" in capsys.readouterr().out
    assert torch.equal(shown, plain)
    code = "import sys, genmod.models, genmod.samplers; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
