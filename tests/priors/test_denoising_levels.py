r"""Which levels a diffusion's prior visits, with which noise, in which pieces; refusals."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from genmod import random
from genmod.decoders import GaussianDecoder, Identity
from genmod.diffusion import DiffusionPrior, FixedLarge, NoisingEncoder, bound
from genmod.model import LatentModel
from genmod.models import Diffusion
from genmod.priors import NormalPrior
from genmod.samplers import Ancestral, Heun, UniformLogSNR
from genmod.schedules import Cosine, LinearLogSNR, Schedule
from tests.oracles import (
    F64,
    MILD,
    Bent,
    RectifiedFlow,
    VarianceExploding,
    bent,
    constant_noise,
    correlated,
    exact_diffusion,
    real,
    standard,
    steps_of,
)
from tests.statistics import assert_equal_means, assert_mean

X = torch.tensor([[0.3, -1.0], [1.5, 0.2], [-0.6, 0.1], [0.0, 2.0]], dtype=F64)


# ---------------------------------------------------------------------- a few levels or all


@pytest.mark.parametrize("draws", [1, 2, 7])
def test_a_few_levels_estimate_the_full_sum(draws: int) -> None:
    """With the noise held still, only the visited levels vary: their weighted mean is the full sum."""
    torch.manual_seed(0)
    model = bent(12)
    with torch.no_grad(), constant_noise(real(0.4, -0.7)):
        full = steps_of(model, X).total
        few = torch.stack([steps_of(model, X, draws).total for _ in range(100)])
    assert_mean(few, full)


def test_a_few_levels_estimate_the_full_sum_under_real_noise() -> None:
    """Both ways of visiting have one mean."""
    torch.manual_seed(0)
    model, rows = bent(6), X.repeat(25, 1)

    def replicates(draws: int | None) -> Tensor:
        # Levels are stratified over the batch, so only whole batches are independent.
        with torch.no_grad():
            return torch.stack([steps_of(model, rows, draws).total.mean() for _ in range(60)])

    assert_equal_means(replicates(2), replicates(None))


def test_weights_are_inverse_visiting_rates_and_nothing_else() -> None:
    """They sum to the number of steps, or to the length of time."""
    for draws in (1, 2, 7, 40):
        weight = steps_of(bent(12), X, draws).weight
        torch.testing.assert_close(weight.sum(-1), torch.full((4,), 11.0, dtype=F64))
        time = steps_of(bent(None), X, draws).weight.sum(-1)
        torch.testing.assert_close(time, torch.ones(4, dtype=F64))
    assert torch.equal(steps_of(bent(12), X).weight, torch.ones(4, 11, dtype=F64))


def test_stratified_levels_cover() -> None:
    """As many draws as steps visit each step once, for every row; so do as many rows of one draw."""
    torch.manual_seed(0)
    model = bent(5)
    with constant_noise(real(0.4, -0.7)):
        full, each = steps_of(model, X), steps_of(model, X, 4)
        torch.testing.assert_close(each.total, full.total)
        torch.testing.assert_close(each.level.sort(-1).values, full.level)
        one = steps_of(model, X, 1)
    torch.testing.assert_close(one.level.flatten().sort().values, full.level[0])


def test_levels_are_at_the_lectures_times() -> None:
    """Latent ``i`` at ``(i - 1) / (T - 1)``: each step is named by its noisier end."""
    prior = bent(5).prior
    assert isinstance(prior, DiffusionPrior)
    assert prior.times().tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert steps_of(bent(5), X).level[0].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert set(steps_of(bent(5), X, 40).level.flatten().tolist()) == {0.25, 0.5, 0.75, 1.0}


# ---------------------------------------------------------------------- chunks, keys, memory


def chunks_of(rows: int) -> AbstractContextManager[object]:
    """Inside, so many rows of levels go through the denoiser together."""
    return patch.object(bound, "rows_per_chunk", lambda shape, device: rows)


def gradient(model: LatentModel, x: Tensor, draws: int | None = None) -> tuple[Tensor, Tensor]:
    """The bound of each row, and its mean's gradient in the denoiser's parameter."""
    with random.keyed(0):
        value = model.elbo(x, draws).value
    prior = model.prior
    assert isinstance(prior, DiffusionPrior)
    assert isinstance(prior.denoiser, Bent)
    (slope,) = torch.autograd.grad(value.mean(), prior.denoiser.scale)
    return value.detach(), slope


@pytest.mark.parametrize("chunk", [1, 4, 12, 30])
def test_chunks_change_neither_the_bound_nor_its_gradient(chunk: int) -> None:
    """Levels visited a few at a time, activations recomputed: the numbers of one pass."""
    model = bent(12)
    value, slope = gradient(model, X)
    with chunks_of(chunk):
        cut, cut_slope = gradient(model, X)
    torch.testing.assert_close(cut, value, rtol=1e-13, atol=0)
    torch.testing.assert_close(cut_slope, slope, rtol=1e-12, atol=0)
    with torch.no_grad(), random.keyed(0):
        torch.testing.assert_close(model.elbo(X).value, value, rtol=1e-13, atol=0)


@pytest.mark.parametrize("draws", [None, 1, 3])
def test_keyed_bounds_do_not_depend_on_how_the_batch_is_cut(draws: int | None) -> None:
    """Row by row the same bound, from one batch of four or from pieces; chunks of levels or none."""
    model = bent(12)
    with random.keyed(7, start=0, block=4):
        whole = model.elbo(X, draws).value
    pieces = []
    for start, stop in ((0, 1), (1, 3), (3, 4)):
        with random.keyed(7, start=start, block=4), chunks_of(6):
            pieces.append(model.elbo(X[start:stop], draws).value)
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-13, atol=0)


# ---------------------------------------------------------------------- the state's scale


@pytest.mark.parametrize("kind", [VarianceExploding, RectifiedFlow])
@pytest.mark.parametrize("steps", [1, 4, None])
def test_the_bound_knows_log_snr_alone(kind: type[VarianceExploding], steps: int | None) -> None:
    r"""Variance exploding, rectified flow and variance preserving: one log-SNR, one bound.

    Term by term under the same noise: the states differ by a factor that denoisers divide out, and
    ``p(z_1) = N(0, alpha_1^2 + sigma_1^2)`` follows it.
    """
    draws = 3 if steps is None else None
    bounds = []
    for schedule in (MILD, kind(MILD)):
        data = correlated()
        model = exact_diffusion(data, schedule, steps)
        with random.keyed(0):
            bounds.append(model.elbo(data.law.mean + torch.ones(4, 3, dtype=F64), draws))
    a, b = bounds
    torch.testing.assert_close(a.reconstruction, b.reconstruction)
    assert a.rates.keys() == b.rates.keys()
    for name in a.rates:
        torch.testing.assert_close(a.rates[name].nats, b.rates[name].nats)


@pytest.mark.parametrize("kind", [VarianceExploding, RectifiedFlow])
def test_samples_and_codes_know_log_snr_alone(kind: type[VarianceExploding]) -> None:
    """The same draws and the same probability flow, up to the scale of the state."""
    data = correlated()
    a, b = (exact_diffusion(data, schedule, 6, resolution=16) for schedule in (MILD, kind(MILD)))
    with random.keyed(1):
        z_a = a.prior.sample(5)
    with random.keyed(1):
        z_b = b.prior.sample(5)
    scale = MILD.scales(real(0.0))[0] / kind(MILD).scales(real(0.0))[0]
    torch.testing.assert_close(z_a, z_b * scale)
    x = data.mean + torch.linspace(-1, 1, 4, dtype=F64)[:, None]
    code_a, code_b = a.encode(x), b.encode(x)
    assert isinstance(code_a, Tensor)
    assert isinstance(code_b, Tensor)
    noisy = MILD.scales(real(1.0))[0] / kind(MILD).scales(real(1.0))[0]
    torch.testing.assert_close(code_a, code_b * noisy)
    torch.testing.assert_close(a.decode(code_a).mean, b.decode(code_b).mean)


# ---------------------------------------------------------------------- codes


def test_encode_and_decode_are_inverse() -> None:
    """The probability flow there and back: the clean mean ``alpha_0 x``, up to Heun's error."""
    data = correlated()
    model = exact_diffusion(data, LinearLogSNR(), None, resolution=100)
    x = data.mean + torch.linspace(-2, 2, 7, dtype=F64)[:, None]
    code = model.encode(x)
    flow = Heun(model.diffusion.denoiser, model.diffusion.schedule, published=True)
    assert isinstance(code, Tensor)
    back = flow.run(code, UniformLogSNR().times(model.diffusion.schedule, 100))
    torch.testing.assert_close(back, LinearLogSNR().scales(real(0.0))[0] * x, rtol=0, atol=2e-3)
    torch.testing.assert_close(model.decode(code).mean, model.decoder(back).mean)


def test_reconstructing_noises_half_of_the_way_and_denoises() -> None:
    r"""For N(0, I) and the true reverse chain, with ``m`` half-way, ``z_0`` given ``x`` has mean
    :math:`(\alpha_m^2 / \alpha_0)\, x` and variance :math:`1 - \alpha_m^4 / \alpha_0^2`.
    """
    torch.manual_seed(0)
    data = standard(1)
    model = Diffusion(
        denoiser=data.denoiser(),
        schedule=MILD,
        steps=9,
        variance=FixedLarge(),
        decoder=GaussianDecoder(Identity(), (1,), 1.0),
    ).double()
    z = model.reconstruct(real(1.4).expand(40_000, 1))
    half, _ = MILD.scales(real(0.5))
    clean, _ = MILD.scales(real(0.0))
    mean = half.square() / clean * real(1.4)
    assert_mean(z, mean)
    assert_mean((z - mean).square(), 1 - half.pow(4) / clean.square())


# ---------------------------------------------------------------------- refusals


class Late(Schedule):
    """A schedule that runs backwards, and does not check itself."""

    def log_snr(self, t: Tensor) -> Tensor:
        """Rises."""
        return 5 * t


def test_a_prior_that_cannot_be_is_refused() -> None:
    """At construction: no latents, no schedule, a variance of infinite cost in continuous time."""
    with pytest.raises(ValueError, match="steps=0; expected steps >= 1"):
        DiffusionPrior(Bent(), MILD, (2,), 0)
    with pytest.raises(ValueError, match=r"FixedLarge\(\) in continuous time; expected FixedSmall"):
        DiffusionPrior(Bent(), MILD, (2,), None, FixedLarge())
    with pytest.raises(ValueError, match="strictly decreasing"):
        DiffusionPrior(Bent(), Late(), (2,), 3)


def test_what_continuous_time_has_not_is_refused() -> None:
    """No sum over all levels, no joint path; the error names the alternative."""
    with pytest.raises(ValueError, match="pass timesteps=n"):
        bent(None).elbo(X, timesteps=None)
    with pytest.raises(ValueError, match="build the model with steps=T"):
        bent(None).log_weight(X)
    with pytest.raises(ValueError, match="n=0; expected at least 1"):
        bent(None).elbo(X, timesteps=0)
    with pytest.raises(ValueError, match="n=0; expected at least 1"):
        bent(3).elbo(X, timesteps=0)


def test_another_posterior_is_refused() -> None:
    """The error names the encoder that fits."""
    noised, plain = NoisingEncoder(MILD), NormalPrior((2,))
    with pytest.raises(
        ValueError, match=r"diffusion\.NoisingEncoder with diffusion\.DiffusionPrior"
    ):
        plain.rates(noised(X))
    prior = DiffusionPrior(Bent(), MILD, (2,), 3).double()
    with pytest.raises(
        ValueError, match=r"diffusion\.DiffusionPrior with diffusion\.NoisingEncoder"
    ):
        prior.rates(noised(X).at(real(0.5).expand(4)))
    with pytest.raises(ValueError, match=r"shape \(3,\); expected the prior's shape \(2,\)"):
        prior.rates(noised(torch.zeros(4, 3, dtype=F64)))


def test_noise_of_another_schedule_is_refused() -> None:
    """Encoder and prior must agree on ``q``: two schedules give a number that bounds nothing."""
    prior = DiffusionPrior(Bent(), MILD, (2,), 3).double()
    with pytest.raises(ValueError, match="one schedule"):
        prior.rates(NoisingEncoder(Cosine())(X))


def test_the_repr_of_a_diffusion_prior_is_its_formula() -> None:
    """The chain, and how many latents."""
    assert bent(3).prior.formula().startswith("p(z) = p(z_T) prod_t p(z_s | z_t)")
    assert bent(3).prior.formula().endswith("T = 3")
    assert bent(None).prior.formula().endswith("continuous time")
    assert repr(Ancestral(Bent(), MILD).variance) == "FixedSmall()"


def test_half_precision_is_left_to_networks() -> None:
    """A rate in half precision overflows: the weight of a clean step is 6e5. So all laws are in float32."""
    model, x = exact_diffusion(standard(2), LinearLogSNR(), 4).float(), torch.zeros(2, 2).float()
    with random.keyed(0):
        single = model.elbo(x).value
    with random.keyed(0):
        half = model.half().elbo(x.half()).value
    torch.testing.assert_close(half, single, rtol=1e-5, atol=0)
