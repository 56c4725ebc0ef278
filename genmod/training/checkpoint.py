"""Checkpoints: one safetensors file, written beside its place and then moved there in one move.

Nothing is unpickled. A checkpoint holds the weights, their average, the best so far, and the
optimizer's tensors; batches, noise and dropout are functions of (seed, step), so resuming continues
bit for bit what would have happened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genmod.checks import require
from genmod.elbo import Measure
from genmod.training.state import TrainingState
from genmod.training.validation import Validation
from genmod.training.weights import load_weights, weights

_FORMAT = "genmod-training-1"


def save_checkpoint(state: TrainingState, path: Path) -> None:
    """Write a checkpoint; a crash while writing leaves the one before.

    Args:
        state: what to save.
        path: where; its folder is made.
    """
    tensors = _prefixed("model", weights(state.model))
    tensors |= _prefixed("average", weights(state.averaged))
    tensors |= _prefixed("objective", weights(state.objective))
    if state.best is not None:
        tensors |= _prefixed("best", state.best)
    for index, parameter in enumerate(state.learned):
        moments = state.optimizer.state.get(parameter, {})
        tensors |= _prefixed(f"optimizer.{index}", moments)
    validations = [asdict(v) | {"measure": v.measure.value} for v in state.validations]
    metadata = {
        "format": _FORMAT,
        "step": str(state.step),
        "recipe": json.dumps(asdict(state.recipe), sort_keys=True),
        "learned": json.dumps(_learned(state)),
        "validations": json.dumps(validations),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".writing")
    save_file({name: t.contiguous() for name, t in tensors.items()}, beside, metadata)
    os.replace(beside, path)


def load_checkpoint(state: TrainingState, path: Path) -> None:
    """Continue from a checkpoint.

    Raises:
        ValueError: the file is no checkpoint of this package, was made with other settings, or
            belongs to a model of other shapes.
    """
    metadata, tensors = _read(path)
    require(
        metadata.get("format") == _FORMAT,
        f"{path.name} of format {metadata.get('format')}",
        _FORMAT,
        "pass another path, or move the file away",
    )
    saved, wanted = json.loads(metadata["recipe"]), asdict(state.recipe)
    changed = sorted(name for name in wanted if saved.get(name) != wanted[name])
    require(
        not changed,
        f"a checkpoint made with other settings: {', '.join(changed)}",
        "the settings it was made with",
        "use them, or move the file away to begin anew",
    )
    # The average is a copy of the model: it refuses what the model would, before that is touched.
    load_weights(state.averaged, _under("average", tensors))
    require(
        json.loads(metadata["learned"]) == _learned(state),
        "a checkpoint of a run that learned other parameters, or with another optimizer",
        "the same parts frozen, and the same optimizer",
        "set them as they were, or move the file away to begin anew",
    )
    load_weights(state.model, _under("model", tensors))
    load_weights(state.objective, _under("objective", tensors))
    state.best = _under("best", tensors) or None
    moments = {
        index: _laid_out(_under(f"optimizer.{index}", tensors), parameter)
        for index, parameter in enumerate(state.learned)
    }
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    state.step = int(metadata["step"])
    state.validations = [
        Validation(**{**row, "measure": Measure(row["measure"])})
        for row in json.loads(metadata["validations"])
    ]


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What a file says of itself, and its tensors."""
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(
            f"got {path.name}, which is no safetensors file ({error}); expected a checkpoint that fit "
            "wrote; pass another path, or move the file away to begin anew"
        ) from error


def _laid_out(moments: Mapping[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """An optimizer's tensors as their parameter lies in memory.

    A file keeps no strides; beside a parameter with its channels last, moments without them take
    another kernel of the fused optimizer, whose last bits differ.
    """
    return {
        name: torch.empty_like(parameter, device=moment.device).copy_(moment)
        if moment.shape == parameter.shape and moment.ndim
        else moment
        for name, moment in moments.items()
    }


def _learned(state: TrainingState) -> list[str]:
    """The optimizer's kind, and the names of what it changes, in its order."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    return [type(state.optimizer).__name__, *(names.get(id(p), "") for p in state.learned)]


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
