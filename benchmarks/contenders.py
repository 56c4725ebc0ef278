"""The samplers that are compared by how their samples look, and the grids they stop on."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch

from genmod.models import Diffusion
from genmod.samplers import (
    DDIM,
    IPNDM,
    Ancestral,
    DPMSolver,
    Euler,
    Heun,
    PolynomialGrid,
    Sampler,
    StochasticHeun,
    UniformLogSNR,
    UniformTime,
    UniPC,
)
from genmod.samplers.grids import TimeGrid
from genmod.schedules import LinearLogSNR, Schedule

SAME = {
    "DDIM eta=0": "Euler",
    "DPM-Solver 1": "Euler",
    "DDIM eta=1": "Ancestral",
    "DPM-Solver 1 SDE": "Ancestral",
}
"""Samplers that are another one by another name: checked, and run once."""
GRIDS: Mapping[str, TimeGrid] = {"t": UniformTime(), "l": UniformLogSNR(), "p": PolynomialGrid()}
"""By the letter that stands in the table."""


def samplers(schedule: Schedule) -> Mapping[str, Sampler]:
    """Every sampler by its name in the table."""
    # Added noise leads past the noisiest state that the network has seen from above this level.
    highest = math.exp(-0.5 * schedule.log_snr_range()[1]) / math.sqrt(2)
    return {
        "Euler": Euler(),
        "DDIM eta=0": DDIM(),
        "DPM-Solver 1": DPMSolver(order=1),
        "Ancestral": Ancestral(),
        "DDIM eta=1": DDIM(eta=1.0),
        "DDIM eta=0.5": DDIM(eta=0.5),
        "DPM-Solver 1 SDE": DPMSolver(order=1, sde=True),
        "Heun": Heun(),
        "StochasticHeun": StochasticHeun(highest=highest),
        "DPM-Solver 2M": DPMSolver(order=2),
        "DPM-Solver 2M SDE": DPMSolver(order=2, sde=True),
        "DPM-Solver 3M published": DPMSolver(order=3, published=True),
        "DPM-Solver 3M": DPMSolver(order=3),
        "UniPC 1": UniPC(order=1),
        "UniPC 2": UniPC(order=2),
        "UniPC 3": UniPC(order=3),
        "IPNDM 2": IPNDM(order=2),
        "IPNDM 3": IPNDM(order=3),
        "IPNDM 4": IPNDM(),
    }


NAMES = list(samplers(LinearLogSNR()))
"""What ``--samplers`` chooses from."""


def steps_within(sampler: Sampler, budget: int) -> int:
    """The most steps that ask the denoiser at most so often; 0 if not even one does."""
    return max(steps for steps in range(budget + 1) if sampler.evaluations(steps) <= budget)


def differing(schedule: Schedule, steps: int = 10) -> dict[str, TimeGrid]:
    """The grids without those that lie, under this schedule, where an earlier one lies."""
    kept: dict[str, TimeGrid] = {}
    for letter, grid in GRIDS.items():
        times = grid.times(schedule, steps)
        if not any(torch.allclose(times, other.times(schedule, steps)) for other in kept.values()):
            kept[letter] = grid
    return kept


def check_same(model: Diffusion, known: Mapping[str, Sampler], names: Sequence[str]) -> None:
    """Require that samplers take the same noise to the same state, in double precision.

    Raises:
        SystemExit: they do not.
    """
    twin = copy.deepcopy(model).cpu().double()
    for name in names:
        ends = [
            [state.z for state in twin.states(2, sampler=known[each], steps=4, seeds=[0, 1])][-1]
            for each in (name, SAME[name])
        ]
        if not torch.allclose(*ends, rtol=1e-8, atol=1e-8):
            raise SystemExit(
                f"{name} is not {SAME[name]}: off by {(ends[0] - ends[1]).abs().max()}"
            )
