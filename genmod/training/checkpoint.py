"""Checkpoints: one safetensors file, written beside its place and then moved there in one move.

Nothing is unpickled. A checkpoint holds the weights, their average, the best so far, and the
optimizer's tensors; batches and noise are functions of (seed, step), so resuming continues bit for
bit what would have happened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from genmod.checks import require
from genmod.elbo import Measure
from genmod.training.state import State
from genmod.training.validation import Validation
from genmod.training.weights import load_weights, weights

_FORMAT = "genmod-training-1"


def save_checkpoint(state: State, path: Path) -> None:
    """Write a checkpoint; a crash while writing leaves the one before.

    Args:
        state: what to save.
        path: where; its folder is made.
    """
    tensors = _prefixed("model", weights(state.model))
    tensors |= _prefixed("average", weights(state.averaged))
    if state.best is not None:
        tensors |= _prefixed("best", state.best)
    for index, parameter in enumerate(state.learned):
        moments = state.optimizer.state.get(parameter, {})
        tensors |= _prefixed(f"optimizer.{index}", moments)
    # Dropout draws from torch's own generator.
    tensors["generator"] = torch.get_rng_state()
    validations = [asdict(v) | {"measure": v.measure.value} for v in state.validations]
    metadata = {
        "format": _FORMAT,
        "step": str(state.step),
        "recipe": json.dumps(asdict(state.recipe), sort_keys=True),
        "validations": json.dumps(validations),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".writing")
    save_file({name: t.contiguous() for name, t in tensors.items()}, beside, metadata)
    os.replace(beside, path)


def load_checkpoint(state: State, path: Path) -> None:
    """Continue from a checkpoint.

    Raises:
        ValueError: the file is no checkpoint of this package, was made with other settings, or
            belongs to a model of other shapes.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
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
    load_weights(state.model, _under("model", tensors))
    load_weights(state.averaged, _under("average", tensors))
    state.best = _under("best", tensors) or None
    for index, parameter in enumerate(state.learned):
        moments = _under(f"optimizer.{index}", tensors)
        state.optimizer.state[parameter] = {
            name: value if value.ndim == 0 else value.to(parameter.device)
            for name, value in moments.items()
        }
    torch.set_rng_state(tensors["generator"])
    state.step = int(metadata["step"])
    state.validations = [
        Validation(**{**row, "measure": Measure(row["measure"])})
        for row in json.loads(metadata["validations"])
    ]


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
