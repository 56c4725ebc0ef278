r"""What a sampler's step costs outside the network, beside diffusers' schedulers.

The network gives back its input at once, so that what is timed is everything else: coefficients, the
reading of the prediction, the update, its noise. Both sides take the same number of steps from the same
state (64 images of 1 x 28 x 28 by default), ours by :meth:`Sampler.run`, theirs by ``step`` in the usual
loop; setting up a path (our grid's factors, their ``set_timesteps``) is timed as part of it. A turn is a
few paths, so that what the route before it left in caches and heap counts for little.

Noise is drawn by one generator at one cost on both sides, and where it is drawn it is most of a step:
with it no ratio could be half. So a second ratio leaves it out: the time of as many draws is measured
beside and taken off both. That one is judged where there is noise.

Run: python benchmarks/sampling.py
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from common import clock_of, machine, median, ratio, table, take_turns, timing_arguments, write
from torch import Tensor, nn

from genmod.denoisers import DataTarget, Learned, NoiseTarget, Target
from genmod.samplers import (
    DDIM,
    Ancestral,
    DPMSolver,
    Euler,
    Heun,
    Sampler,
    UniformTime,
    UniPC,
)
from genmod.schedules import LinearBeta

TABLE = LinearBeta(1000)
TARGETS: dict[str, Target] = {"epsilon": NoiseTarget(), "sample": DataTarget()}
NOISY = "DDPM"
"""The route that draws noise."""
WANTED = 0.5
"""The most that ours may take of what theirs takes."""


class Echo(nn.Module):
    """A network that costs nothing."""

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """Its input."""
        return z


class Output(Protocol):
    """What a scheduler's step gives."""

    prev_sample: Tensor


class Scheduler(Protocol):
    """What is asked of one of diffusers' schedulers."""

    timesteps: Tensor

    def set_timesteps(self, count: int) -> None:
        """Lay the path out."""

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """What the network sees."""

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> Output:
        """One step."""


def ours(prediction: str) -> Mapping[str, Sampler]:
    """Our samplers, bound."""
    denoiser = Learned(Echo(), TARGETS[prediction])
    kinds = {
        "DDIM": DDIM(),
        NOISY: Ancestral(),
        "DPM-Solver++ 2M": DPMSolver(order=2),
        "UniPC 2": UniPC(order=2),
        "Euler": Euler(),
        "Heun": Heun(),
    }
    return {name: kind.bind(denoiser, TABLE) for name, kind in kinds.items()}


def theirs(prediction: str) -> Mapping[str, Scheduler]:
    """The schedulers that do the same; none if diffusers is not installed."""
    try:
        from diffusers import (
            DDIMScheduler,
            DDPMScheduler,
            DPMSolverMultistepScheduler,
            EulerDiscreteScheduler,
            HeunDiscreteScheduler,
            UniPCMultistepScheduler,
        )
    except ImportError:
        return {}
    common = {"beta_schedule": "linear", "prediction_type": prediction}
    ends = {"final_sigmas_type": "sigma_min", **common}
    found = {
        "DDIM": DDIMScheduler(clip_sample=False, **common),
        NOISY: DDPMScheduler(clip_sample=False, **common),
        "DPM-Solver++ 2M": DPMSolverMultistepScheduler(**ends),
        "UniPC 2": UniPCMultistepScheduler(solver_order=2, **ends),
        "Euler": EulerDiscreteScheduler(**ends),
    }
    if prediction != "sample":  # which theirs does not take
        found["Heun"] = HeunDiscreteScheduler(**common)
    return found


def walk(sampler: Sampler, z: Tensor, steps: int) -> None:
    """A whole path of ours."""
    sampler.run(z, UniformTime().times(TABLE, steps))


def loop(scheduler: Scheduler, z: Tensor, steps: int) -> None:
    """A whole path of theirs."""
    scheduler.set_timesteps(steps)
    network, level = Echo(), torch.zeros(len(z))
    for t in scheduler.timesteps:
        out = network(scheduler.scale_model_input(z, t), level)
        z = scheduler.step(out, t, z).prev_sample


def repeated(path: Callable[[], None], count: int) -> Callable[[], None]:
    """So many paths."""

    def turn() -> None:
        for _ in range(count):
            path()

    return turn


def draws(z: Tensor, steps: int) -> None:
    """As much noise as a path of a chain takes."""
    for _ in range(steps):
        torch.randn_like(z)


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> None:
    """A table for each kind of prediction."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    timing_arguments(parser, rounds=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50, help="steps of a path")
    parser.add_argument("--paths", type=int, default=5, help="paths of a turn")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    clock, steps = clock_of(arguments), arguments.steps
    print(", ".join(f"{name} {value}" for name, value in machine().items() if value), end=", ")
    print(f"batch {arguments.batch}, {steps} steps, medians of {arguments.rounds} rounds\n")
    z = torch.randn(arguments.batch, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = {}
    for prediction in TARGETS:
        routes: dict[str, Callable[[], None]] = {"noise": lambda: draws(z, steps)}
        for name, sampler in ours(prediction).items():
            routes[name] = lambda sampler=sampler: walk(sampler, z, steps)
        peers = theirs(prediction)
        for name, scheduler in peers.items():
            routes[f"{name}, diffusers"] = lambda scheduler=scheduler: loop(scheduler, z, steps)
        turns = {name: repeated(path, arguments.paths) for name, path in routes.items()}
        times = {
            name: [seconds / arguments.paths for seconds in taken]
            for name, taken in take_turns(turns, arguments.rounds, clock).items()
        }
        print(f"the network predicts {prediction}; microseconds a step outside of it")
        rows: list[list[object]] = []
        ratios: dict[str, float] = {}
        for name in ours(prediction):
            row: list[object] = [name, 1e6 * median(times, name) / steps]
            if name in peers:
                other = f"{name}, diffusers"
                plain, quiet = ratio(times, name, other), _without_noise(times, name, other)
                ratios[name] = plain if quiet is None else quiet
                met = "yes" if ratios[name] <= WANTED else "no"
                row += [1e6 * median(times, other) / steps, plain]
                row += ["-" if quiet is None else quiet, f"<= {WANTED:g}: {met}"]
            rows.append(row)
        rows.append(["noise alone", 1e6 * median(times, "noise") / steps])
        table(["sampler", "ours", "diffusers", "ratio", "without noise", "wanted"], _even(rows))
        found[prediction] = {"seconds a path": times, "steps": steps, "ratios": ratios}
    write(arguments.out, found)


def _without_noise(times: Mapping[str, list[float]], name: str, other: str) -> float | None:
    """The ratio with the time of the draws taken off both, where there are any."""
    if name != NOISY:
        return None
    rounds = zip(times[name], times[other], times["noise"], strict=True)
    return statistics.median((a - n) / (b - n) for a, b, n in rounds)


def _even(rows: list[list[object]]) -> list[list[object]]:
    return [[*row, *["-"] * (6 - len(row))] for row in rows]


if __name__ == "__main__":
    main()
