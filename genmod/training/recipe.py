"""The settings that decide a run: what resuming must share, and nothing else."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from genmod.checks import check_positive, require


@dataclass(frozen=True)
class Recipe:
    """How to train: see :func:`genmod.training.fit` for each setting.

    Args:
        objective: what is minimized, as it prints.
        samples: how many there are to train on: the order of batches depends on it.
        context_dropout: the share of them told nothing, where the data say so.
    """

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: int
    decay: bool
    ema: float
    clip: float | None
    seed: int
    objective: str
    samples: int
    context_dropout: float | None = None

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps={self.steps}", "steps >= 1", "ask for at least one")
        require(
            self.batch_size >= 1,
            f"batch_size={self.batch_size}",
            "batch_size >= 1",
            "128 is customary",
        )
        check_positive(self.learning_rate, "learning_rate")
        require(
            self.weight_decay >= 0, f"weight_decay={self.weight_decay}", "at least 0", "0 is none"
        )
        require(self.warmup >= 0, f"warmup={self.warmup}", "warmup >= 0", "0 is none")
        require(0 <= self.ema < 1, f"ema={self.ema}", "a decay in [0, 1)", "0.999 is customary")
        if self.clip is not None:
            check_positive(self.clip, "clip")

    def fraction(self, step: int) -> float:
        """What part of the learning rate a step takes: up a ramp, then down a cosine to nothing."""
        ramp = min(1.0, (step + 1) / (self.warmup + 1))
        return ramp * 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.decay else ramp


@dataclass(frozen=True)
class Cadence:
    """What a run does beside training, and how often: see :func:`genmod.training.fit`."""

    validate_every: int
    validation_draws: int
    checkpoint_every: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            require(value >= 1, f"{name}={value}", f"{name} >= 1", "leave it out for the default")
