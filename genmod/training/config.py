"""The settings of a training run, and the learning rate that they give each step."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, fields
from typing import SupportsIndex

import torch

from genmod.checks import check_positive, require

BATCH_SIZE = 128
"""Rows in a batch, where the caller leaves it open."""
VALIDATION_TIMESTEPS = 8
"""Levels of a diffusion that a validation visits, where the caller leaves it open."""
VALIDATION_SHARE = 0.15
"""What validation may cost, as a share of training, where the caller leaves it open."""
VALIDATION_ROWS = 150
"""Rows that a validation scores all the same, where there are so many."""
_PASSES = 3
"""Forward passes that a training step costs a row: the backward pass costs about two."""


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of :func:`genmod.training.fit`, which documents each of them.

    >>> TrainingConfig(steps=100).rate(Leg(0, 100), 50)  # half-way down the cosine
    0.000252475247...
    """

    steps: int = 2000
    batch_size: int | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup: int = 100
    decay: bool = True
    ema: float = 0.999
    clip: float | None = 1.0
    seed: int = 0
    autocast: torch.dtype | None = None
    validate_every: int | None = None
    validation_rows: int | None = None
    validation_timesteps: int | None = None
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if "int" in str(field.type) and value is not None:
                object.__setattr__(self, field.name, _whole(field.name, value))
        for name in (
            "steps",
            "batch_size",
            "validate_every",
            "validation_rows",
            "validation_timesteps",
            "checkpoint_every",
        ):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name}={value}", f"{name} >= 1", "leave it out")
        check_positive(self.learning_rate, "learning_rate")
        require(
            self.weight_decay >= 0, f"weight_decay={self.weight_decay}", "at least 0", "0 is none"
        )
        require(self.warmup >= 0, f"warmup={self.warmup}", "warmup >= 0", "0 is none")
        require(0 <= self.ema < 1, f"ema={self.ema}", "a decay in [0, 1)", "the default is 0.999")
        if self.clip is not None:
            check_positive(self.clip, "clip")

    def fraction(self, leg: Leg, step: int) -> float:
        """The part of the peak learning rate that a step takes: a linear warm-up, then a cosine to 0.

        Args:
            leg: the leg of the run that the step belongs to.
            step: how many steps were made before it.
        """
        made = step - leg.first
        ramp = min(1.0, (made + 1) / (self.warmup + 1))
        if not self.decay:
            return ramp
        return ramp * 0.5 * (1 + math.cos(math.pi * made / (leg.last - leg.first)))

    def rate(self, leg: Leg, step: int) -> float:
        """The learning rate of a step."""
        return self.learning_rate * self.fraction(leg, step)

    def validates(self, leg: Leg, step: int) -> bool:
        """Whether the run is validated after a step: every twentieth part of the leg by default."""
        return step % self._every(leg) == 0 or step == leg.last

    def scored_rows(self, total: int, leg: Leg, batch_size: int, timesteps: int) -> int:
        """How many validation rows each validation scores.

        Left open, so many that a validation costs at most ``VALIDATION_SHARE`` of the training
        between two of them, and at least ``VALIDATION_ROWS``.

        Args:
            total: how many there are.
            leg: the first leg of the run: later ones score the same rows.
            batch_size: rows in a training batch.
            timesteps: how many levels of a diffusion each row visits; 1 for another model.

        >>> config = TrainingConfig(steps=2000)
        >>> config.scored_rows(5000, Leg(0, 2000), 128, 8), config.scored_rows(5000, Leg(0, 2000), 128, 1)
        (720, 5000)
        """
        cost = _PASSES * batch_size * self._every(leg)
        cheap = max(VALIDATION_ROWS, int(VALIDATION_SHARE * cost / timesteps))
        return min(total, self.validation_rows or cheap)

    def _every(self, leg: Leg) -> int:
        return self.validate_every or max(1, (leg.last - leg.first) // 20)


@dataclass(frozen=True)
class Leg:
    """Some steps of a run, over which the learning rate rises and falls once.

    A run has one leg. It gets another when it is continued from a checkpoint with more ``steps``.

    Args:
        first: how many steps were made before it.
        last: how many have been made at its end.
    """

    first: int
    last: int

    def describe(self, config: TrainingConfig) -> str:
        """The curve of the learning rate in words."""
        peak = self.first + min(config.warmup, self.last - self.first)
        end = f"falls along a cosine to 0 at step {self.last}" if config.decay else "stays there"
        return (
            f"steps {self.first + 1} to {self.last}: the learning rate rises to its peak until step "
            f"{peak}, then {end}"
        )


def _whole(name: str, value: SupportsIndex) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"got {name}={value!r}; expected a whole number; pass an int") from None
