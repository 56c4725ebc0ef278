"""The fused route (raw network outputs in a step's factors) against the plain one, for each sampler.

And when it must not be entered: whenever ``forward`` might not be the target's own linear reading.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from genmod import random
from genmod.denoisers import (
    DataTarget,
    Denoised,
    EDMTarget,
    FlowVelocityTarget,
    Learned,
    NoiseTarget,
    ScoreTarget,
    Target,
    VelocityTarget,
)
from genmod.samplers import DPMSolver, Euler, Sampler, State, UniformTime
from genmod.samplers._fused import LINEAR
from genmod.samplers.base import FUSED, spread
from genmod.schedules import LinearLogSNR, MonotoneNetwork, Schedule, VarianceExploding
from tests.oracles import F64, real
from tests.samplers.cases import EVERY

SCHEDULE = LinearLogSNR(6.0, -6.0)
Z = torch.linspace(-1.5, 1.5, 6, dtype=F64).reshape(3, 2)
TIMES = UniformTime().times(SCHEDULE, 5)
FAST = [s for s in EVERY if type(s) in FUSED and not (isinstance(s, DPMSolver) and s.starts_high)]
TARGETS: list[Target] = [
    NoiseTarget(),
    DataTarget(),
    VelocityTarget(),
    ScoreTarget(),
    FlowVelocityTarget(),
    EDMTarget(0.5),
]


class Curved(nn.Module):
    """A network without weights, that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """Neither linear nor optimal."""
        self.calls += 1
        return torch.tanh(1.3 * z + 0.1 * log_snr[:, None])


def stacked(states: list[State]) -> Tensor:
    """Every ``z`` and ``x_hat``."""
    return torch.stack([torch.stack([state.z, state.x_hat]) for state in states])


@pytest.mark.parametrize(
    ("target", "schedule"),
    [*((target, SCHEDULE) for target in TARGETS), (EDMTarget(0.5), VarianceExploding(SCHEDULE))],
    ids=repr,
)
@pytest.mark.parametrize("sampler", FAST, ids=repr)
def test_both_routes_give_the_same_states(
    sampler: Sampler, target: Target, schedule: Schedule
) -> None:
    """Every state and every ``x_hat``, with one time for all rows and with each row's own."""
    bound = sampler.bind(Learned(Curved(), target), schedule)
    for times in (TIMES, TIMES[:, None] * real(1.0, 0.9, 0.8)):
        with random.keyed(0), torch.no_grad():
            assert FUSED[type(bound)](bound, Z, times, None) is not None
            fused = list(bound.states(Z, times))
        with random.keyed(0), torch.no_grad():
            plain = list(bound.trajectory(Z, spread(times, Z), bound.denoise_with()))
        torch.testing.assert_close(stacked(fused), stacked(plain))


def test_every_target_with_a_linear_reading_is_covered() -> None:
    """A target of this package is linear in ``z`` and ``o``; a new one has to be listed, or left out."""
    assert {type(target) for target in TARGETS} == set(LINEAR)
    own = {kind for kind in Target.__subclasses__() if kind.__module__.startswith("genmod.")}
    assert own == set(LINEAR)


class Halved(Learned):
    """A subclass with a ``forward`` of its own."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """Half of what it was."""
        return Denoised(0.5 * super().forward(z, log_snr, context).x_hat)


class Clipped(NoiseTarget):
    """A target that is not linear."""

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Inside [-0.1, 0.1]."""
        return super().x_hat(output, z, alpha, sigma).clamp(-0.1, 0.1)


def hooked() -> Learned:
    """A hook that changes the result."""
    denoiser = Learned(Curved())
    denoiser.register_forward_hook(lambda module, inputs, out: Denoised(0.5 * out.x_hat))
    return denoiser


def replaced() -> Learned:
    """A method replaced on one object."""
    denoiser = Learned(Curved())
    denoiser.forward = Halved(Curved()).forward  # type: ignore[method-assign]
    return denoiser


OTHERS: dict[str, Callable[[], Learned]] = {
    "subclass": lambda: Halved(Curved()),
    "target": lambda: Learned(Curved(), Clipped()),
    "hook": hooked,
    "method": replaced,
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("sampler", EVERY, ids=repr)
def test_every_sampler_uses_an_overridden_forward(sampler: Sampler, name: str) -> None:
    """``x_hat`` of the first step is that of ``forward``, the one that the bound uses."""
    denoiser = OTHERS[name]()
    with random.keyed(0), torch.no_grad():
        state = next(sampler.bind(denoiser, SCHEDULE).states(Z, TIMES))
        expected = denoiser(Z, SCHEDULE.log_snr(TIMES[:1]).expand(3)).x_hat
    torch.testing.assert_close(state.x_hat, expected)


def test_a_schedule_that_wants_gradients_gets_them() -> None:
    """With gradients, a learned schedule takes the plain route; without, the fused one."""
    schedule = MonotoneNetwork(6.0, -6.0)
    bound = Euler(Learned(Curved()), schedule)
    assert FUSED[Euler](bound, Z, TIMES, None) is None
    bound.run(Z, TIMES).sum().backward()
    assert all(p.grad is not None for p in schedule.parameters())
    with torch.no_grad():
        assert FUSED[Euler](bound, Z, TIMES, None) is not None


def test_a_path_without_x_hat_is_the_same_path() -> None:
    """``run`` reads no ``x_hat``; the states are those of ``states``."""
    for sampler in FAST:
        bound = sampler.bind(Learned(Curved()), SCHEDULE)
        with random.keyed(0), torch.no_grad():
            last = list(bound.states(Z, TIMES))[-1].z
        with random.keyed(0), torch.no_grad():
            assert torch.equal(bound.run(Z, TIMES), last)
