"""Inputs of exported parts: name, shape of one row, type, and random rows to check a file with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from genmod.checks import invalid
from genmod.columns import CODED, Column, ColumnKind
from genmod.nn import NULL_LABEL, Labels, Vectors
from genmod.nn.conditioning import Condition
from genmod.nn.mlp import ContextEmbedding
from genmod.shapes import Shape
from genmod.spec import DataSpec

Draw: TypeAlias = Callable[[int, torch.Generator], Tensor]
"""Random rows: how many, and by which generator."""


@dataclass(frozen=True)
class Port:
    """One input of an exported part.

    Args:
        name: its name in the file.
        shape: of one row, without the batch axis.
        dtype: its type.
        about: what it is, in one sentence.
        draw: random rows of it.
    """

    name: str
    shape: Shape
    dtype: torch.dtype
    about: str
    draw: Draw


def data_port(spec: DataSpec, dtype: torch.dtype) -> Port:
    """The data, as floating point numbers in their own units: whole numbers for integers and codes."""

    def draw(rows: int, generator: torch.Generator) -> Tensor:
        if spec.columns is not None:
            columns = [_column(column, rows, generator) for column in spec.columns]
            return torch.stack(columns, 1).to(dtype)
        if spec.bins is not None:
            size = (rows, *spec.shape)
            return torch.randint(spec.bins, size, generator=generator).to(dtype)
        return torch.randn(rows, *spec.shape, generator=generator, dtype=dtype)

    return Port("x", spec.shape, dtype, f"data: {spec}, in their own units", draw)


def _column(column: Column, rows: int, generator: torch.Generator) -> Tensor:
    """Random values of one column."""
    if column.kind in CODED:
        return torch.randint(column.count, (rows,), generator=generator).double()
    if column.kind is ColumnKind.COUNT:
        most = 2 * int(max(column.mean, 1.0)) + 1
        return torch.randint(most, (rows,), generator=generator).double()
    noise = torch.randn(rows, generator=generator, dtype=torch.float64)
    real = column.mean + column.std * noise
    return real if column.is_real else real.round().clamp(*column.limits)


def mask_port(shape: Shape) -> Port:
    """The mask of a model of data with missing entries."""

    def draw(rows: int, generator: torch.Generator) -> Tensor:
        return torch.rand(rows, *shape, generator=generator) < 0.7

    return Port("observed", shape, torch.bool, "true where an entry of x was observed", draw)


def noise_port(name: str, shape: Shape, dtype: torch.dtype, about: str) -> Port:
    """Standard normal noise, or a latent."""

    def draw(rows: int, generator: torch.Generator) -> Tensor:
        return torch.randn(rows, *shape, generator=generator, dtype=dtype)

    return Port(name, shape, dtype, about, draw)


def log_snr_port(ends: tuple[float, float], dtype: torch.dtype) -> Port:
    """The log-SNR of each row, between the ends of the schedule."""
    clean, noisy = ends

    def draw(rows: int, generator: torch.Generator) -> Tensor:
        u = torch.rand(rows, generator=generator, dtype=dtype)
        return noisy + (clean - noisy) * u

    about = "log-SNR of each row: alpha^2 = sigmoid(log_snr), sigma^2 = sigmoid(-log_snr)"
    return Port("log_snr", (), dtype, about, draw)


def context_port(
    modules: Iterable[nn.Module], example: Tensor | None, dtype: torch.dtype
) -> Port | None:
    """The context of some modules: by its kind, or like an example; ``None`` if they take none.

    Args:
        modules: networks, or modules that hold them.
        example: rows of a context, for networks whose kind of context is not known.
        dtype: the type of the model.

    Raises:
        ValueError: networks with contexts of two kinds; a kind that is not known, without an example.
    """
    if example is not None:
        return _context_like(example)
    layers = [part for module in modules for part in module.modules()]
    kinds = {
        part.condition for part in layers if isinstance(part, ContextEmbedding) and part.linear
    }
    if len(kinds) > 1:
        raise invalid(
            f"networks with contexts of the kinds {sorted(map(repr, kinds))}",
            "one kind of context in a part",
            "pass context=, some rows of the context that all of them take",
        )
    return None if not kinds else _context_of(kinds.pop(), dtype)


def _context_of(condition: Condition | None, dtype: torch.dtype) -> Port:
    if isinstance(condition, Labels):
        classes = condition.classes

        def labels(rows: int, generator: torch.Generator) -> Tensor:
            return torch.randint(classes, (rows,), generator=generator)

        about = f"labels 0..{classes - 1}; {NULL_LABEL} for unconditional rows"
        return Port("context", (), torch.int64, about, labels)
    if isinstance(condition, Vectors):
        about = f"{condition.size} real numbers a row; NaN throughout for unconditional rows"
        return noise_port("context", (condition.size,), dtype, about)
    raise invalid(
        f"a model conditioned on {condition}",
        "Labels or Vectors",
        "pass context=, some rows of its context",
    )


def _context_like(example: Tensor) -> Port:
    if len(example) == 0:
        raise invalid("a context without rows", "at least one row", "pass some rows")

    def draw(rows: int, generator: torch.Generator) -> Tensor:
        return example[torch.arange(rows) % len(example)]

    shape = tuple(example.shape[1:])
    return Port("context", shape, example.dtype, "what the model is conditioned on", draw)
