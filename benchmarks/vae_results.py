"""The results of the ladder of VAEs: scores and importance weights of a model, its files, and its line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import machine
from safetensors.torch import load_file, save_file
from torch import Tensor

from genmod.data import Dataset
from genmod.elbo import Measure
from genmod.evaluation import Estimate, amortization_gap, collapse, log_weights
from genmod.evaluation.evidence import Evidence
from genmod.evaluation.scoring import score
from genmod.files import write_atomically, write_json
from genmod.model import LatentModel

LEVELS = 64
"""Noise levels that a test row visits under a diffusion."""
REFINE_STEPS = 60
"""Gradient steps on the posterior of a row."""


@dataclass(frozen=True)
class Took:
    """What training took.

    Args:
        steps: of training.
        seconds: processor seconds of all threads, validations included.
        threads: how many threads computed.
        validation: the bound of the validation rows at the best step, nats.
    """

    steps: int
    seconds: float
    threads: int
    validation: float


@dataclass(frozen=True)
class Result:
    """A trained and scored model.

    Args:
        name: its name.
        values: the bound of each test row.
        gains: by ``K``, how far the importance-weighted bound of each of the first rows lies above that of
            one sample.
        refined: how far the bound of these rows rises if the posterior of each is refined; ``None`` under a
            diffusion.
        interval: floor and ceiling of ``log p(x)`` of these rows; ``None`` without importance weights.
        pareto: the shape ``k`` of the tail of the weights.
        active: active units, and all units.
        parameters: how many numbers are learned.
        took: steps and seconds.
    """

    name: str
    values: Tensor
    gains: Mapping[int, Tensor]
    refined: Tensor | None
    interval: tuple[Estimate, Estimate] | None
    pareto: float | None
    active: tuple[int, int] | None
    parameters: int
    took: Took

    @property
    def bound(self) -> Estimate:
        """Minus the bound on all rows."""
        return Estimate.of(-self.values)

    def weighted(self, draws: int) -> Estimate:
        """IW-K: the bound on all rows less the gain on some, errors combined."""
        return self._less(self.gains[draws])

    @property
    def under_refined(self) -> Estimate | None:
        """Minus the bound under refined posteriors: the same with the gain of refinement."""
        return None if self.refined is None else self._less(self.refined)

    def _less(self, gains: Tensor) -> Estimate:
        gain = Estimate.of(gains)
        return Estimate(self.bound.mean - gain.mean, math.hypot(self.bound.error, gain.error))


def measure(
    name: str,
    model: LatentModel,
    data: Dataset,
    draws: Sequence[int],
    rows: int,
    took: Took,
) -> Result:
    """Score a model on all test rows, and some of them by importance weights."""
    noisy = model.prior.has_timesteps
    values = (score(model, data, timesteps=LEVELS) if noisy else score(model, data)).value.cpu()
    gains: dict[int, Tensor] = {}
    refined, interval, pareto, active = None, None, None, None
    if not noisy:
        x = data.test[:rows].to(model.device)
        weights = log_weights(model, x, importance_samples=max(draws)).cpu()
        for count in draws:
            groups = weights[:, : max(draws) // count * count].reshape(len(x), -1, count)
            gains[count] = (groups.logsumexp(2) - math.log(count)).mean(1) - weights.mean(1)
        refined = amortization_gap(model, x, steps=REFINE_STEPS).per_row
        evidence = Evidence(*weights.shape)
        evidence.add(weights)
        interval, pareto = evidence.interval(Measure.MASS), evidence.pareto_k
        levels = collapse(model, x).levels
        active = sum(each.active for each in levels), sum(each.units for each in levels)
    parameters = sum(each.numel() for each in model.parameters())
    return Result(name, values, gains, refined, interval, pareto, active, parameters, took)


# ---------------------------------------------------------------------- files


def save(folder: Path, result: Result) -> None:
    """Write the numbers of each row, then the summary that marks the result as whole."""
    tensors = {"values": result.values}
    tensors |= {f"gain {count}": gain.contiguous() for count, gain in result.gains.items()}
    if result.refined is not None:
        tensors["refined"] = result.refined
    with write_atomically(folder / "rows.safetensors") as beside:
        save_file(tensors, str(beside))
    write_json(folder / "result.json", {"machine": machine(), **summary(result)})


def summary(result: Result) -> dict[str, object]:
    """The numbers of a model for JSON."""
    return {
        "name": result.name,
        "bound": vars(result.bound),
        "weighted": {str(count): vars(result.weighted(count)) for count in result.gains},
        "refined": None if result.under_refined is None else vars(result.under_refined),
        "interval": None if result.interval is None else [vars(end) for end in result.interval],
        "pareto_k": result.pareto,
        "active": result.active,
        "parameters": result.parameters,
        "took": vars(result.took),
    }


def load(folder: Path) -> Result | None:
    """The result that a folder holds, if it is whole."""
    path = folder / "result.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    tensors = load_file(str(folder / "rows.safetensors"))
    interval, active, refined = found["interval"], found["active"], tensors.pop("refined", None)
    return Result(
        found["name"],
        tensors.pop("values"),
        {int(name.removeprefix("gain ")): gain for name, gain in tensors.items()},
        refined,
        None if interval is None else (Estimate(**interval[0]), Estimate(**interval[1])),
        found["pareto_k"],
        None if active is None else (active[0], active[1]),
        found["parameters"],
        Took(**found["took"]),
    )


# ---------------------------------------------------------------------- the table


def heads(draws: Sequence[int]) -> list[str]:
    """The names of the columns."""
    weighted = [f"IW-{count}" for count in draws]
    ends = ["interval", "width", "structure", "active", "vs first", "target", "parameters"]
    return ["model", "-ELBO", "refined", *weighted, *ends, "steps", "seconds", "threads"]


def line(
    result: Result, first: Result, entropy: float, draws: Sequence[int], target: float | None
) -> list[object]:
    """A line of the table."""
    weighted = [str(result.weighted(count)) if result.gains else "-" for count in draws]
    interval = width = structure = "-"
    if result.interval is not None:
        low, high = result.interval
        vacuous = math.isinf(high.mean)
        interval = f"{-low.mean:.2f}" + ("" if vacuous else f" .. {-high.mean:.2f}")
        width = "vacuous" if vacuous else f"{high.mean - low.mean:.2f}"
        structure = f"{result.weighted(max(draws)).mean - entropy:.2f}"
    beside = "" if result is first else str(Estimate.of(first.values - result.values))
    return [
        result.name,
        str(result.bound),
        "-" if result.under_refined is None else str(result.under_refined),
        *weighted,
        interval,
        width,
        structure,
        "-" if result.active is None else f"{result.active[0]} / {result.active[1]}",
        beside,
        "" if target is None else target,
        result.parameters,
        result.took.steps,
        f"{result.took.seconds:.0f}",
        result.took.threads,
    ]


def markdown(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    """The table for a page.

    >>> print(markdown([["a", 1]], ["model", "steps"]))
    | model | steps |
    |---|---|
    | a | 1 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "|" + "|".join(cell if cell == "---" else f" {cell} " for cell in map(str, row)) + "|"
        for row in lines
    )
