"""The history of a run: its losses and validations, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from genmod.training.config import Leg
from genmod.training.validation import Validation

_LINES = 12
"""Lines of a printed table, at most, beside the best one."""


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """The record of a run. Printed, it is a table.

    A model that is trained in stages has one record a stage in :attr:`stages`; the losses and
    validations are those of the last stage, which trains the final model.

    Args:
        name: what was trained.
        legs: the legs of the run: more than one where it was extended.
        losses: the loss of each step.
        validations: the bounds on held-out data, in order.
        earlier: the records of the stages before the last one.

    >>> History("VAE", (Leg(0, 3),), (3.0, 2.0, 1.0))
    History(VAE: 3 of 3 steps, last loss 1)
    """

    name: str
    legs: tuple[Leg, ...]
    losses: Sequence[float]
    validations: Sequence[Validation] = ()
    earlier: tuple[History, ...] = field(default=())

    @property
    def stages(self) -> tuple[History, ...]:
        """The record of each stage, the last one included."""
        return (*self.earlier, self)

    @property
    def best(self) -> Validation | None:
        """The highest validation, whose averaged weights the model holds; ``None`` without any."""
        known = [v for v in self.validations if not math.isnan(v.nats)]
        # Of equal ones the last, as in training.
        return max(reversed(known), key=lambda v: v.nats, default=None)

    def __repr__(self) -> str:
        made = f"{len(self.losses)} of {self.legs[-1].last} steps"
        if self.best is not None:
            return f"History({self.name}: {made}, best {self.best} at step {self.best.step})"
        last = f", last loss {self.losses[-1]:.4g}" if self.losses else ""
        return f"History({self.name}: {made}{last})"

    def __str__(self) -> str:
        return "\n".join(line for stage in self.stages for line in stage._lines())

    def _repr_html_(self) -> str:
        return f"<pre>{self}</pre>"

    def _lines(self) -> Iterator[str]:
        """The table of one stage."""
        yield f"{self.name}: {len(self.losses)} of {self.legs[-1].last} steps"[:80]
        if len(self.legs) > 1:
            for leg in self.legs[1:]:
                yield f"  extended at step {leg.first} to {leg.last} steps: the rate rises and falls again"
        shown = {v.step: v for v in self.validations}
        yield f"  {'step':>9}  {'loss':>12}  validation{self._scored()}".rstrip()
        steps = _spread(sorted(shown)) if shown else _spread(_even(len(self.losses)))
        best = self.best
        if best is not None:
            steps = sorted({*steps, best.step})
        before = 0
        for step in steps:
            recent = self.losses[before:step] or (math.nan,)
            before = step
            mark = "  best" if best is not None and step == best.step else ""
            loss = sum(recent) / len(recent)
            yield f"  {step:>9}  {loss:>12.5g}  {shown.get(step, '')}{mark}".rstrip()

    def _scored(self) -> str:
        """How many rows the validations scored, where these are not all."""
        last = self.validations[-1] if self.validations else None
        if last is None or last.rows is None or last.total in (None, last.rows):
            return ""
        return f" ({last.rows:,} of {last.total:,} rows)"


def _even(count: int) -> list[int]:
    every = max(1, count // _LINES)
    return sorted({*range(every, count + 1, every), count} - {0})


def _spread(steps: list[int]) -> list[int]:
    """At most so many of them, the last one included."""
    every = -(-len(steps) // _LINES)
    return steps[::-1][:: every or 1][::-1]
