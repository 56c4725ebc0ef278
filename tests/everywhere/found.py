"""The numbers that an entry point gives: those of each row, and those of all rows together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from genmod.evaluation.scoring import Scores


@dataclass
class Found:
    """What an entry gave.

    Args:
        rows: numbers of each row, ``(N, ...)``.
        whole: numbers of all rows together.
    """

    rows: dict[str, Tensor] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)


def tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every number in a result: tensors, floats, and those of dataclasses, mappings and tuples."""
    if isinstance(value, Tensor):
        yield name, value.detach().double()
    elif isinstance(value, float):
        yield name, torch.tensor(value, dtype=torch.float64)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from tensors(inner, f"{name}.{key}")
    elif isinstance(value, tuple | list):
        for number, inner in enumerate(value):
            yield from tensors(inner, f"{name}.{number}")
    elif isinstance(value, Scores):
        yield from tensors((value.per_dim, value.levels), name)
    elif dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            yield from tensors(getattr(value, each.name), f"{name}.{each.name}")


def whole(value: object) -> Found:
    """Numbers of all rows together."""
    return Found(whole=dict(tensors(value)))


def rows(**values: Tensor) -> Found:
    """Numbers of each row."""
    return Found(rows={name: value.detach().double() for name, value in values.items()})
