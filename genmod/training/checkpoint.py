"""Checkpoints: one safetensors file, written whole or not at all. Nothing is unpickled.

A checkpoint holds the identity of the run, the weights, their average, the best so far, the state of
the objective and of the optimizer. Batches, noise and dropout are functions of (seed, step), so a
resumed run continues bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmod.checks import check_at_least, invalid
from genmod.elbo import Measure
from genmod.files import check_file, check_folder, check_format, read_tensors, remove, save_tensors
from genmod.model import LatentModel
from genmod.nn.modules import copy_weights, load_weights, weights
from genmod.training.config import Cycle
from genmod.training.history import History
from genmod.training.identity import Identity, refuse_changes
from genmod.training.state import TrainingState
from genmod.training.validation import Validation

_FORMAT = "genmod-training-4"
_ADVICE = "pass another path, or move the file away to begin anew"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The contents of a checkpoint file.

    Args:
        identity: the identity of its run.
        stage: the number of the stage that was in training.
        earlier: the history of each stage before it.
        history: the history of that stage so far.
        step: the number of its steps so far.
        peaks: the peak of the learning rate of each group of parameters.
        learned: the class of the optimizer, and the names of the parameters that learn.
        tensors: weights, averages, the best weights, and the optimizer's moments.
    """

    identity: Identity
    stage: int
    earlier: list[History]
    history: History
    step: int
    peaks: list[float]
    learned: list[str]
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a checkpoint file.

        Raises:
            ValueError: a file that is not a checkpoint of this package.
        """
        tensors, metadata = read_tensors(path, _ADVICE)
        check_format(path, metadata.get("format"), _FORMAT, _ADVICE)
        try:
            found = {name: json.loads(text) for name, text in metadata.items() if name != "format"}
            losses = tensors["losses"].tolist()
            return cls(
                dict(found["identity"]),
                int(found["stage"]),
                [_history(row) for row in found["earlier"]],
                _history({**found["history"], "losses": losses}),
                int(found["step"]),
                [float(peak) for peak in found["peaks"]],
                list(found["learned"]),
                tensors,
            )
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise invalid(f"{path} with a damaged header ({error!r})", _FORMAT, _ADVICE) from error

    def whole(self) -> dict[str, Tensor]:
        """The weights of the whole model, also of parts that an early stage does not train."""
        return _under("whole", self.tensors) or _under("model", self.tensors)

    def check(self, identity: Identity) -> None:
        """Require that the run which continues has the settings and data of the saved one.

        Raises:
            ValueError: the message names each setting that changed.
        """
        advice = "use them, or move the file away to begin anew"
        refuse_changes(self.identity, identity, "a checkpoint", advice)


def save_checkpoint(
    state: TrainingState,
    history: History,
    path: Path,
    identity: Identity,
    whole: LatentModel | None = None,
    stage: int = 0,
) -> None:
    """Write a checkpoint. After a crash while writing, the file holds the checkpoint before it.

    Args:
        state: the state of the stage in training.
        history: the history of that stage so far, and of those before it.
        path: the file.
        identity: the identity of the run.
        whole: the whole model, where the model in training is a part of it.
        stage: the number of the stage.
    """
    tensors = _prefixed("model", weights(state.model))
    if whole is not None and whole is not state.parallel.plain:
        tensors |= _prefixed("whole", copy_weights(whole))
    tensors |= _prefixed("average", state.average.tensors())
    tensors |= _prefixed("objective", weights(state.objective))
    if state.best is not None:
        tensors |= _prefixed("best", state.best)
    for index, parameter in enumerate(state.learned):
        moments = state.optimizer.state.get(parameter, {})
        tensors |= _prefixed(f"optimizer.{index}", moments)
    tensors["losses"] = torch.tensor(state.losses, dtype=torch.float64)
    found: dict[str, object] = {
        "identity": identity,
        "stage": stage,
        "earlier": [_row(each) for each in history.earlier],
        # Its losses are a tensor: long runs have many.
        "history": {**_row(history), "losses": []},
        "step": state.step,
        "peaks": state.peaks,
        "learned": _learned(state),
    }
    header = {name: json.dumps(value, sort_keys=True) for name, value in found.items()}
    gathered = state.parallel.gather(tensors, partial(_parameter_of, _learned(state)))
    if state.parallel.devices.is_main:
        save_tensors(path, gathered, {"format": _FORMAT, **header})


@dataclass(frozen=True)
class Checkpoints:
    """Where a run writes its checkpoints: one file, or a folder of the last ones and the best.

    Args:
        path: the file; or the folder, for ``stage-0-step-000001000.safetensors`` and ``best.safetensors``.
        keep: how many of the last ones a folder keeps; ``None``: ``path`` is a file.
    """

    path: Path
    keep: int | None = None

    @classmethod
    def at(cls, path: Path | str, keep: int | None) -> Checkpoints:
        """A place that can be written to.

        Raises:
            ValueError: a folder in place of a file or the other way round, ``keep`` below 1.
        """
        if keep is not None:
            check_at_least(keep, 1, "keep", "leave it out for one file")
        return cls(check_file(path) if keep is None else check_folder(path), keep)

    def latest(self) -> Checkpoint | None:
        """The last checkpoint; ``None`` if there is none."""
        if self.keep is None:
            return Checkpoint.read(self.path) if self.path.exists() else None
        steps = self._steps()
        return Checkpoint.read(steps[-1]) if steps else None

    def file(self, state: TrainingState, stage: int) -> Path:
        """The file of the present step."""
        if self.keep is None:
            return self.path
        return self.path / f"stage-{stage}-step-{state.step:09d}.safetensors"

    def best(self) -> Path | None:
        """The file of the best validation so far, in a folder."""
        return None if self.keep is None else self.path / "best.safetensors"

    def remove_old(self) -> None:
        """Remove all but the last files of steps."""
        if self.keep is not None:
            for path in self._steps()[: -self.keep]:
                remove(path)

    def _steps(self) -> list[Path]:
        return sorted(self.path.glob("stage-*-step-*.safetensors"))


def load_checkpoint(state: TrainingState, saved: Checkpoint) -> None:
    """Continue from a checkpoint. If ``steps`` is larger than in the file, the run gets one more cycle.

    Raises:
        ValueError: a file of a run with other learned parameters, or with more steps.
    """
    if saved.learned != _learned(state):
        raise invalid(
            "a checkpoint of a run that learned other parameters, or with another optimizer",
            "the same parts frozen, and the same optimizer",
            "set them as they were, or move the file away to begin anew",
        )
    tensors = state.parallel.scatter(saved.tensors, partial(_parameter_of, saved.learned))
    history = saved.history
    state.cycles = _continued(list(history.cycles), saved.step, state.config.steps)
    load_weights(state.model, _under("model", tensors))
    load_weights(state.objective, _under("objective", tensors))
    state.average.load(_under("average", tensors))
    state.best = _under("best", tensors) or None
    moments = {
        index: _with_layout(_under(f"optimizer.{index}", tensors), parameter)
        for index, parameter in enumerate(state.learned)
    }
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    state.step, state.peaks = saved.step, saved.peaks
    state.losses, state.validations = list(history.losses), list(history.validations)
    state.skipped = list(history.skipped)


def _continued(cycles: list[Cycle], step: int, steps: int) -> list[Cycle]:
    """The cycles of a run that was saved at a step and makes ``steps`` in all."""
    last = cycles[-1].last
    if steps < last:
        raise invalid(
            f"steps={steps} for a checkpoint of a run of {last} steps",
            f"at least {last}",
            f"pass steps={last} to continue it as it was, more to extend it, or move the file away",
        )
    if steps == last:
        return cycles
    done = [Cycle(cycle.first, min(cycle.last, step)) for cycle in cycles if cycle.first < step]
    return [*done, Cycle(step, steps)]


def _with_layout(moments: Mapping[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """An optimizer's tensors with the memory layout of their parameter.

    A file stores no strides. If a parameter is in channels-last format and its moments are not, the
    fused optimizer runs another kernel, whose results differ in the last bits.
    """
    return {
        name: torch.empty_like(parameter, device=moment.device).copy_(moment)
        if moment.shape == parameter.shape and moment.ndim
        else moment
        for name, moment in moments.items()
    }


def _learned(state: TrainingState) -> list[str]:
    """The class of the optimizer, and the names of its parameters, in its order."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    return [type(state.optimizer).__name__, *(names.get(id(p), "") for p in state.learned)]


def _parameter_of(learned: Sequence[str], name: str) -> str:
    """The parameter that a tensor of a checkpoint is laid out as, if it is one of a parameter."""
    kind, _, rest = name.partition(".")
    if kind in ("average", "optimizer"):
        return learned[1 + int(rest.partition(".")[0])]
    return rest if kind in ("model", "best") else ""


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def _row(history: History) -> dict[str, object]:
    """The history of one stage as plain data."""
    return {
        "name": history.name,
        "cycles": [[cycle.first, cycle.last] for cycle in history.cycles],
        "losses": list(history.losses),
        "validations": [asdict(v) | {"measure": v.measure.value} for v in history.validations],
        "stopped": history.stopped,
        "skipped": list(history.skipped),
    }


def _history(row: dict[str, Any]) -> History:
    """What :func:`_row` wrote."""
    cycles = tuple(Cycle(*each) for each in row["cycles"])
    validations = tuple(
        Validation(**{**each, "measure": Measure(each["measure"])}) for each in row["validations"]
    )
    name, losses, skipped = str(row["name"]), tuple(row["losses"]), tuple(row["skipped"])
    stopped = bool(row["stopped"])
    return History(name, cycles, losses, validations, stopped=stopped, skipped=skipped)
