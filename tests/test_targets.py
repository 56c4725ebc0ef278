r"""Targets: an output under one converts to the output under any other."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from genmod.denoisers import (
    DataTarget,
    EDMTarget,
    FlowVelocityTarget,
    Learned,
    NoiseTarget,
    ScoreTarget,
    Target,
    VelocityTarget,
    convert,
)
from genmod.denoisers.targets import scales_of
from genmod.models import Diffusion
from genmod.schedules import LinearLogSNR, Schedule
from tests.oracles import F64, real
from tests.schedules import drawn

TARGETS: list[Target] = [
    NoiseTarget(),
    DataTarget(),
    VelocityTarget(),
    ScoreTarget(),
    FlowVelocityTarget(),
    EDMTarget(0.5),
    EDMTarget(1.7),
]


def factor(target: Target, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What turns a squared error in a target's terms into one of the noise: the papers' weights."""
    match target:
        case NoiseTarget():
            return torch.ones_like(alpha)
        case DataTarget():
            return (alpha / sigma).square()
        case VelocityTarget():
            return alpha.square()
        case ScoreTarget():
            return sigma.square()
        case FlowVelocityTarget():
            return (alpha / (alpha + sigma)).square()
        case EDMTarget(sigma_data=d):
            s = sigma / alpha
            c_out = s * d / (s.square() + d**2).sqrt()
            return (c_out / s).square()
    raise AssertionError(target)


@settings(max_examples=150)
@given(
    schedule=drawn.EVERY,
    t=st.floats(0, 1),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    given_=st.sampled_from(TARGETS),
    wanted=st.sampled_from(TARGETS),
    seed=st.integers(0, 2**16),
)
def test_all_losses_agree_under_conversion(
    schedule: Schedule,
    t: float,
    shape: tuple[int, ...],
    given_: Target,
    wanted: Target,
    seed: int,
) -> None:
    """One output, read as each target: each squared error is the noise's times its exact factor;

    and back again it is the output it was. At every level that both targets can be read at.
    """
    generator = torch.Generator().manual_seed(seed)
    x, eps, said = torch.randn(3, 4, *shape, dtype=F64, generator=generator)
    with torch.no_grad():
        log_snr = schedule.log_snr(real(t)).expand(4)
    assume(float(log_snr[0]) >= max(given_.noisiest, wanted.noisiest))
    alpha, sigma = scales_of(log_snr, x)
    z = alpha * x + sigma * eps
    output = VelocityTarget().output(0.5 * z + 0.3 * said, z, alpha, sigma)
    mine = convert(output, VelocityTarget(), given_, z, log_snr)
    other = convert(mine, given_, wanted, z, log_snr)
    noise = convert(output, VelocityTarget(), NoiseTarget(), z, log_snr)
    truth = wanted.output(x, z, alpha, sigma)
    own = factor(wanted, alpha, sigma) * (truth - other).square()
    torch.testing.assert_close(own.sum(), (eps - noise).square().sum(), rtol=1e-6, atol=1e-12)
    back = convert(other, wanted, given_, z, log_snr)
    torch.testing.assert_close(back, mine, rtol=1e-6, atol=1e-8)


@settings(max_examples=60)
@given(
    log_sigma=st.floats(-6, 4),
    sigma_data=st.floats(0.1, 5),
    x=st.floats(-3, 3),
    noise=st.floats(-3, 3),
    raw=st.floats(-3, 3),
)
def test_edm_is_the_papers_preconditioning(
    log_sigma: float, sigma_data: float, x: float, noise: float, raw: float
) -> None:
    """Table 1 in the variance-exploding state ``y = x + s n``, ours in ``z = alpha y``.

    Also what the paper's c's are chosen for: inputs and training targets of variance one.
    """
    s, d = math.exp(log_sigma), sigma_data
    y = x + s * noise
    c_skip = d**2 / (s**2 + d**2)
    c_out = s * d / math.sqrt(s**2 + d**2)
    c_in = 1 / math.sqrt(s**2 + d**2)
    z, log_snr = real(y / math.sqrt(1 + s**2))[None], real(-2 * math.log(s))
    alpha, sigma = scales_of(log_snr, z)
    target = EDMTarget(d)
    torch.testing.assert_close(target.inputs(z, log_snr), real(c_in * y)[None])
    found = target.x_hat(real(raw)[None], z, alpha, sigma)
    torch.testing.assert_close(found, real(c_skip * y + c_out * raw)[None], rtol=1e-9, atol=1e-9)
    wanted = target.output(real(x)[None], z, alpha, sigma)
    torch.testing.assert_close(wanted, real((x - c_skip * y) / c_out)[None], rtol=1e-6, atol=1e-7)
    # Var[(x - c_skip y) / c_out] for data of std d, and Var[c_in y]:
    assert ((1 - c_skip) ** 2 * d**2 + (c_skip * s) ** 2) / c_out**2 == pytest.approx(1)
    assert c_in**2 * (d**2 + s**2) == pytest.approx(1)


def test_edm_on_data_of_variance_one_is_the_velocity_with_the_other_sign() -> None:
    """Variance preserving, so nothing is left to scale."""
    z, x = torch.randn(2, 5, 3, dtype=F64)
    log_snr = torch.linspace(-5, 9, 5, dtype=F64)
    alpha, sigma = scales_of(log_snr, z)
    edm, velocity = EDMTarget(1.0), VelocityTarget()
    torch.testing.assert_close(edm.inputs(z, log_snr), z)
    found = edm.output(x, z, alpha, sigma)
    torch.testing.assert_close(found, -velocity.output(x, z, alpha, sigma), rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="sigma_data=0"):
        EDMTarget(0.0)


@settings(max_examples=40)
@given(t=st.floats(0.001, 0.999), x=st.floats(-3, 3), eps=st.floats(-3, 3))
def test_the_flow_velocity_is_the_derivative_of_the_straight_line(
    t: float, x: float, eps: float
) -> None:
    """``d/dt [(1 - t) x + t eps]``, read from the variance-preserving state of one log-SNR.

    Also as an ordinary differential equation: from any point of the line, ``t u`` leads back to
    ``x``.
    """
    on_line = (1 - t) * x + t * eps
    z = real(on_line / math.hypot(1 - t, t))[None]
    log_snr = real(2 * math.log((1 - t) / t))
    alpha, sigma = scales_of(log_snr, z)
    velocity = FlowVelocityTarget().output(real(x)[None], z, alpha, sigma)
    torch.testing.assert_close(velocity, real(eps - x)[None], rtol=1e-7, atol=1e-7)
    found = FlowVelocityTarget().x_hat(velocity, z, alpha, sigma)
    torch.testing.assert_close(found, real(on_line - t * (eps - x))[None], rtol=1e-7, atol=1e-7)


def test_a_target_scales_what_the_network_sees() -> None:
    """A network behind EDM is shown a state of variance one whatever the data's spread."""

    class Recorder(nn.Module):
        seen: Tensor

        def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
            self.seen = z
            return torch.zeros_like(z)

    net = Recorder()
    model = Diffusion(
        (2,), denoiser=Learned(net, EDMTarget(0.1)), schedule=LinearLogSNR(9.0, -9.0)
    ).double()
    model.elbo(0.1 * torch.randn(20_000, 2, dtype=F64), timesteps=1)
    assert float(net.seen.std()) == pytest.approx(1.0, abs=0.01)
