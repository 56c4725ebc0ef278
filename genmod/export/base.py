"""The base class of exported parts, facts of a model that several parts need, and laws as outputs."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from genmod.diffusion import DiffusionPrior
from genmod.distributions import Dirac, Normal
from genmod.distributions.composed import Joined, Rescaled
from genmod.export.ports import Port
from genmod.model import LatentModel
from genmod.path import run_path
from genmod.priors import NestedPrior
from genmod.schedules import Schedule

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


def diffusion_of(model: LatentModel) -> DiffusionPrior | None:
    """The diffusion in a model, if it has one."""
    innermost = nesting(model)[-1]
    return innermost if isinstance(innermost, DiffusionPrior) else None


def nesting(model: LatentModel) -> list[nn.Module]:
    """The priors of a model and of the models nested in it, from the outermost on."""
    found: list[nn.Module] = [model.prior]
    while isinstance(found[-1], NestedPrior):
        found.append(found[-1].model.prior)
    return found


def level_shapes(model: LatentModel, context: Port | None) -> dict[str, tuple[int, ...]]:
    """The shape of each level of a top-down hierarchy, in the order in which they are drawn."""
    found: dict[str, tuple[int, ...]] = {}
    given = None if context is None else context.draw(1, torch.Generator())

    def keep(step: tuple[str, Distribution]) -> Tensor:
        name, law = step
        found[name] = tuple(law.event_shape)
        return law.mean

    with torch.no_grad():
        run_path(model.prior.generate(1, given), keep)
    return found


def size_at_zero(schedule: Schedule | None) -> float:
    """The factor from variance-preserving states at t = 0 to the schedule's own."""
    return 1.0 if schedule is None else math.hypot(*schedule.scales_at_zero())


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
