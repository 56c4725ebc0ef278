"""What a sampler, a denoiser or a network of one's own may rely on, with every model around it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genmod import random
from genmod.denoisers import Denoised, Denoiser, Learned, NoiseTarget
from genmod.models import Diffusion
from genmod.nn.modules import outputs
from genmod.samplers import DDIM, Heun, Sampler, SingleStep, State, UniformTime
from genmod.samplers.base import Denoise, intervals
from genmod.schedules import Cosine, LinearLogSNR, RectifiedFlow, Schedule, VarianceExploding
from tests.oracles import F64, Bent, real
from tests.samplers.cases import DEFAULTS

SCHEDULES: list[Schedule] = [
    Cosine(),
    LinearLogSNR(6.0, -6.0),
    VarianceExploding(LinearLogSNR(6.0, -6.0)),
    RectifiedFlow(LinearLogSNR(6.0, -6.0)),
]


class OwnDDIM(SingleStep):
    """DDIM as a user writes it: one method, on tensors, in the schedule's own scale."""

    def update(self, z_t: Tensor, x_hat: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Data and noise of the same line, at the next time."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = map(self.schedule.scales, (t, s))
        return alpha_s * x_hat + sigma_s * (z_t - alpha_t * x_hat) / sigma_t


class OwnHeun(Sampler):
    """Any other method as a user writes it: one generator."""

    def evaluations(self, steps: int) -> int:
        """Two a step."""
        return 2 * steps

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """Heun's method with the published weight."""
        for t, s in intervals(times, z):
            (alpha_t, sigma_t), (alpha_s, sigma_s) = map(self.schedule.scales, (t, s))
            here = denoise(z, t).x_hat
            y, r, below = z / alpha_t, sigma_t / alpha_t, sigma_s / alpha_s
            slope = (y - here) / r
            trial = y + (below - r) * slope
            there = denoise(alpha_s * trial, s).x_hat
            z = alpha_s * (y + 0.5 * (below - r) * (slope + (trial - there) / below))
            yield State(s, z, here)


PAIRS = [(OwnDDIM(), DDIM()), (OwnHeun(), Heun(published=True))]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize(("own", "shipped"), PAIRS, ids=lambda s: repr(s))
@pytest.mark.parametrize("event", [(2,), (3, 4), (1, 3, 4), (2, 2, 2, 2)], ids=str)
def test_a_custom_sampler_equals_the_shipped_one(
    own: Sampler, shipped: Sampler, schedule: Schedule, event: tuple[int, ...]
) -> None:
    """Any event shape, any schedule, one time for all rows or each row's own, either direction."""
    z = torch.randn(3, *event, dtype=F64, generator=torch.Generator().manual_seed(0))
    times = UniformTime().times(schedule, 6)
    for way in (times, times.flip(0), times[:, None] * real(1.0, 0.9, 0.7)):
        if not bool((way.diff(dim=0) != 0).all()):
            continue
        found, expected = (
            [state.z for state in sampler.bind(Bent(), schedule).states(z, way)]
            for sampler in (own, shipped)
        )
        torch.testing.assert_close(torch.stack(found), torch.stack(expected))


def test_a_state_keeps_its_type() -> None:
    """Times are float64; a float32 state stays one, for every shape of times."""
    z, times = torch.randn(3, 2), UniformTime().times(Cosine(), 4)
    for way in (times, times[:, None].expand(-1, 3)):
        for state in OwnDDIM(Bent().float(), Cosine()).states(z, way):
            assert state.z.dtype is state.x_hat.dtype is torch.float32


def test_a_model_takes_a_sampler_of_ones_own() -> None:
    """By ``sample``, the same draws as the shipped one's."""
    model = Diffusion((1, 4, 4), bins=5, width=8, steps=10)
    drawn = [model.sample(2, sampler=s, steps=5, seeds=[0, 1]) for s in (OwnDDIM(), DDIM())]
    assert torch.equal(*drawn)


class Wide(SingleStep):
    """Forgets an axis."""

    def update(self, z_t: Tensor, x_hat: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """A state of another shape."""
        return z_t[:, None] + x_hat


def test_a_state_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got a Tensor of shape \(3, 3, 2\) from Wide\(\).update"):
        Wide(Bent(), Cosine()).run(torch.zeros(3, 2, dtype=F64), real(1.0, 0.0))


# ---------------------------------------------------------------------- one denoiser


TEMPLATE, LOGIT = 0.9, 0.8472978603872037
"""Data of 16 equal entries: +0.9 with a probability of 0.7, else -0.9; 0.847 is its log-odds."""


def exact_mean(z: Tensor, log_snr: Tensor, logit: float = LOGIT) -> Tensor:
    """``E[x | z]`` of those data, or of others with other odds."""
    alpha, sigma = log_snr.sigmoid().sqrt()[:, None], (-log_snr).sigmoid().sqrt()[:, None]
    evidence = TEMPLATE * alpha * z.sum(1, keepdim=True) / sigma.square()
    return (TEMPLATE * torch.tanh(evidence + 0.5 * logit)).expand_as(z)


class TemplateNoise(nn.Module):
    """The exact noise of those data, or of others with other odds."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """The noise that goes with the mean."""
        alpha, sigma = log_snr.sigmoid().sqrt()[:, None], (-log_snr).sigmoid().sqrt()[:, None]
        return (z - alpha * exact_mean(z, log_snr, self.logit)) / sigma


class Repaired(Learned):
    """A network with wrong odds, whose denoiser knows better."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """The exact mean."""
        return Denoised(exact_mean(z, log_snr))


class Clipped(NoiseTarget):
    """DDPM's ``clip_denoised``: it never binds here but near pure noise, by rounding."""

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Inside [-1, 1]."""
        return super().x_hat(output, z, alpha, sigma).clamp(-1, 1)


@pytest.mark.parametrize("sampler", [None, *DEFAULTS], ids=repr)
@pytest.mark.parametrize(
    "denoiser",
    [
        Repaired(TemplateNoise(-2.0), NoiseTarget()),
        Learned(TemplateNoise(LOGIT), Clipped()),
        Learned(TemplateNoise(LOGIT), NoiseTarget()),
    ],
    ids=["subclass", "target", "plain"],
)
def test_every_sampler_uses_the_denoiser_that_the_bound_does(
    denoiser: Learned, sampler: Sampler | None
) -> None:
    """The share of the template is 0.7 by all of them (0.115 and 0.60 where ``forward`` was left out)."""
    torch.manual_seed(1)
    schedule = LinearLogSNR(9.0, -12.0)
    model = Diffusion(16, denoiser=denoiser, schedule=schedule, steps=100).double()
    x = model.sample(3000, sampler=sampler, steps=None if sampler is None else 60)
    assert float((x.mean(1) > 0).double().mean()) == pytest.approx(0.7, abs=0.045)


# ---------------------------------------------------------------------- a network of another library


class Returning(nn.Module):
    """A network that returns whatever ``wrap`` makes of its tensor."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, z: Tensor, log_snr: Tensor) -> Any:
        """Half of the state."""
        return self.wrap(0.5 * z)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda out: SimpleNamespace(sample=out),
        lambda out: (out,),
        lambda out: [out],
        lambda out: {"out": out},
    ],
)
def test_an_object_that_holds_the_output_is_taken(wrap: Any) -> None:
    """Where the meaning is certain: ``.sample``, or the only tensor."""
    z, log_snr = torch.randn(3, 2), torch.zeros(3)
    found = Learned(Returning(wrap))(z, log_snr).x_hat
    torch.testing.assert_close(found, Learned(Returning(lambda out: out))(z, log_snr).x_hat)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda out: (out, out),
        lambda out: None,
        lambda out: SimpleNamespace(out=out),
        lambda out: torch.distributions.Normal(out, 1.0),
    ],
)
def test_an_object_of_uncertain_meaning_is_refused(wrap: Any) -> None:
    with pytest.raises(ValueError, match=r"got a \w+ from Returning; expected a tensor"):
        Learned(Returning(wrap))(torch.randn(3, 2), torch.zeros(3))


def test_one_row_for_a_batch_is_refused() -> None:
    """A mean over the batch would broadcast without a word."""
    with pytest.raises(ValueError, match="got 1 rows from Returning for a batch of 3"):
        outputs(
            Returning(lambda out: out.mean(0, keepdim=True)),
            (2,),
            torch.randn(3, 2),
            torch.zeros(3),
            context=None,
        )


def test_diffusers_unet_is_a_network() -> None:
    """``UNet2DModel`` returns an object with ``.sample``: in the bound, the chain and every sampler."""
    unets = pytest.importorskip("diffusers.models")
    torch.manual_seed(0)
    network = unets.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    model = Diffusion((1, 8, 8), bins=17, denoiser=Learned(network), steps=4)
    assert model.elbo(torch.randint(17, (2, 1, 8, 8))).value.shape == (2,)
    for sampler in (None, DDIM(), Heun()):
        assert model.sample(2, sampler=sampler, steps=2).shape == (2, 1, 8, 8)


class OwnDenoiser(Denoiser):
    """A denoiser of one's own: one method."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """The optimum for N(0, 1)."""
        alpha = log_snr.sigmoid().sqrt().reshape(-1, *[1] * (z.ndim - 1))
        return Denoised(alpha * z)


def test_a_custom_denoiser_gives_the_same_samples_by_model_and_by_sampler() -> None:
    """The chain by ``sample`` and by the same steps of ``Ancestral``, under the same seeds."""
    model = Diffusion(2, denoiser=OwnDenoiser(), steps=6)
    with random.keyed(3):
        found = [state.z for state in model.states(2)]
    assert len(found) == 5
    assert all(bool(z.isfinite().all()) for z in found)
