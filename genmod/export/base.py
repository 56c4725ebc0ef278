"""The base class of exported parts, their inputs (each with random rows to check a file with), and laws."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from genmod.checks import invalid
from genmod.columns import CODED, Column, ColumnKind
from genmod.distributions import Dirac, Normal
from genmod.distributions.composed import Joined, Rescaled
from genmod.model import LatentModel
from genmod.nn import NULL_LABEL, Labels, Vectors
from genmod.nn.conditioning import Condition
from genmod.nn.mlp import ContextEmbedding
from genmod.spec import DataSpec
from genmod.tensors import Shape

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


ROWS = 5
"""Rows that a part is traced with."""


class Part(nn.Module, ABC):
    """A part of a model: named rows in, named rows out.

    Args:
        name: the name of its file.
        ports: its inputs.
    """

    def __init__(self, name: str, ports: Iterable[Port | None]) -> None:
        super().__init__()
        self.name = name
        self.ports = tuple(port for port in ports if port is not None)

        # torch.export reads the names of the inputs from the signature.
        def forward(*values: Tensor) -> dict[str, Tensor]:
            found = self.run(self.named(values))
            return {name: tensor for name, tensor in found.items() if name not in self.constants}

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(port.name, kind) for port in self.ports]
        vars(forward)["__signature__"] = inspect.Signature(parameters)
        self.forward = forward
        self.constants: dict[str, Tensor] = {}

    @abstractmethod
    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name."""

    def named(self, values: Sequence[Tensor]) -> dict[str, Tensor]:
        """Inputs in the order of the ports, by name."""
        return {port.name: value for port, value in zip(self.ports, values, strict=True)}

    def laws(self, given: Mapping[str, Tensor]) -> dict[str, object]:
        """The kind of distribution whose parameters the outputs are."""
        return {}

    def draw(self, rows: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs, in the order of the ports."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(port.draw(rows, generator) for port in self.ports)

    @torch.no_grad()
    def separate(self) -> None:
        """Move outputs without a row axis, such as learned thresholds, to ``constants``."""
        few, more = (self.run(self.named(self.draw(rows))) for rows in (ROWS, ROWS + 2))
        self.constants = {
            name: tensor
            for name, tensor in few.items()
            if tensor.shape == more[name].shape or len(tensor) != ROWS
        }


def dtype_of(model: LatentModel) -> torch.dtype:
    return model.dtype or torch.get_default_dtype()


# ---------------------------------------------------------------------- distributions as outputs


def law_outputs(law: Distribution) -> dict[str, Tensor]:
    """The mean of a distribution and its parameters, each by its name in the class.

    The mean is in the data's own units. So is the log-std of a Gaussian. Other parameters of a table's
    real columns are of the standardized columns.

    >>> import torch
    >>> list(law_outputs(Normal(torch.zeros(1, 2), torch.zeros(1, 2))))
    ['mean', 'log_std']
    """
    return {"mean": law.mean} | dict(_parameters(law))


def law_names(law: Distribution) -> dict[str, object]:
    """The kind of a distribution; of a table, the kind and the columns of each of its parts."""
    if isinstance(law, Rescaled):
        return law_names(law.base)
    if not isinstance(law, Joined):
        base = law.base_dist if isinstance(law, Independent) else law
        return {"class": type(base).__name__}
    parts = [
        {"prefix": _prefix(number), "columns": list(places), **law_names(part)}
        for number, (part, places) in enumerate(zip(law.parts, law.places, strict=True))
    ]
    return {"class": "Joined", "parts": parts}


def _parameters(law: Distribution, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(law, Rescaled):
        if isinstance(law.base, Normal):
            yield prefix + "log_std", law.base.log_std + law.scale.log()
        else:
            yield from _parameters(law.base, prefix)
    elif isinstance(law, Independent):
        yield from _parameters(law.base_dist, prefix)
    elif isinstance(law, Joined):
        for number, part in enumerate(law.parts):
            yield from _parameters(part, prefix + _prefix(number))
    elif isinstance(law, Normal | Dirac):
        # Its location is its mean, which is named apart.
        if prefix:
            yield prefix + "mean", law.mean
        if isinstance(law, Normal):
            yield prefix + "log_std", law.log_std
    else:
        for name, value in vars(law).items():
            if isinstance(value, Tensor):
                yield prefix + name.lstrip("_"), value
            elif isinstance(value, Distribution):
                yield from _parameters(value, f"{prefix}{name}.")


def _prefix(number: int) -> str:
    return f"law_{number}."
