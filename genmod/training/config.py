"""The settings of a training run, and the learning rate of each step."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from genmod.checks import check_at_least, check_positive, invalid, whole_number

BATCH_SIZE = 128
"""Rows in a batch, by default."""
VALIDATION_TIMESTEPS = 8
"""Timesteps of a diffusion that a validation visits for each row, by default."""
VALIDATION_SHARE = 0.15
"""The largest cost of validation, as a fraction of the cost of training, by default."""
VALIDATION_ROWS = 150
"""The least rows that a validation scores, if there are so many."""
_PASSES = 3
"""The cost of a training step for each row, in forward passes: the backward pass costs about two."""


@dataclass(frozen=True)
class TrainingConfig:
    r"""The settings of a training run, as a frozen value. :func:`fit` takes them one by one.

    The learning rate of step :math:`n` (from 0) out of :math:`N`, with :math:`w` = ``warmup``, is

    .. math:: \eta_n = \eta \min\!\left(1, \tfrac{n + 1}{w + 1}\right)
        \tfrac12 \left(1 + \cos \tfrac{\pi n}{N}\right)

    and without ``decay`` the cosine factor is left out.

    Args:
        steps: the number of optimizer steps.
        batch_size: rows in a batch; ``None``: 128, or all rows where there are fewer.
        learning_rate: the peak :math:`\eta`, above 0.
        weight_decay: the weight decay of AdamW, at least 0.
        warmup: steps over which the learning rate rises linearly.
        decay: whether the learning rate falls along a cosine to 0.
        ema: the decay of the moving average of the weights, in [0, 1).
        clip: the largest norm of the gradient; ``None``: no limit.
        seed: the key of batches, noise and dropout.
        autocast: the half-precision type of the networks; ``None``: full precision.
        validate_every: steps between two validations; ``None``: a twentieth of the run.
        validation_rows: validation rows that each validation scores; ``None``: so many that validation
            costs at most about 15 % of training, at least 150.
        validation_timesteps: timesteps of a diffusion that a validation visits for each row.
        checkpoint_every: steps between two checkpoints.
        accumulate: batches whose gradients are added up for one step.
        patience: validations without a better one after which the run stops; ``None``: never.
        compile: whether networks run under ``torch.compile``.
        log_every: steps between two lines of metrics.
        skip_nonfinite: the most batches in a row that are skipped for a loss or gradient that is NaN or
            infinite; 0: the run stops at the first.
        shard: whether each of several processes keeps a part of the weights only.

    Raises:
        ValueError: a setting out of its range.

    Reference: Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017), eq. 5.
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
    accumulate: int = 1
    patience: int | None = None
    compile: bool = False
    log_every: int = 10
    skip_nonfinite: int = 0
    shard: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if "int" in str(field.type) and value is not None:
                object.__setattr__(self, field.name, whole_number(value, field.name))
        for name in (
            "steps",
            "batch_size",
            "validate_every",
            "validation_rows",
            "validation_timesteps",
            "checkpoint_every",
            "accumulate",
            "patience",
            "log_every",
        ):
            value = getattr(self, name)
            if value is not None:
                check_at_least(value, 1, name, f"leave {name} out for the default")
        if self.autocast not in (None, torch.bfloat16, torch.float16):
            raise invalid(
                f"autocast={self.autocast!r}",
                "a half-precision type",
                "pass torch.bfloat16, or leave it out",
            )
        if self.shard and self.compile:
            raise invalid("shard=True with compile=True", "one of them", "leave the other one out")
        check_positive(self.learning_rate, "learning_rate")
        check_at_least(self.weight_decay, 0, "weight_decay", "pass 0 for no decay")
        check_at_least(self.warmup, 0, "warmup", "pass 0 for none")
        if not 0 <= self.ema < 1:
            raise invalid(f"ema={self.ema}", "a decay in [0, 1)", "the default is 0.999")
        check_at_least(self.skip_nonfinite, 0, "skip_nonfinite", "pass 0 to stop at the first")
        if self.clip is not None:
            check_positive(self.clip, "clip")

    def between_validations(self, cycle: Cycle) -> int:
        """The steps between two validations in a cycle; one follows its last step, too."""
        return self.validate_every or max(1, (cycle.last - cycle.first) // 20)

    def scored_rows(self, total: int, cycle: Cycle, batch_size: int, timesteps: int) -> int:
        """How many validation rows each validation scores.

        By default as many that a validation costs at most ``VALIDATION_SHARE`` of the training between
        two of them, and at least ``VALIDATION_ROWS``.

        Args:
            total: the number of validation rows.
            cycle: the first cycle of the run: later ones score the same rows.
            batch_size: rows of a training step.
            timesteps: how many timesteps of a diffusion each row visits; 1 for another model.

        >>> config = TrainingConfig(steps=2000)
        >>> first = Cycle(0, 2000)
        >>> config.scored_rows(5000, first, 128, 8), config.scored_rows(5000, first, 128, 1)
        (720, 5000)
        """
        cost = _PASSES * batch_size * self.between_validations(cycle)
        cheap = max(VALIDATION_ROWS, int(VALIDATION_SHARE * cost / timesteps))
        return min(total, self.validation_rows or cheap)


@dataclass(frozen=True)
class Cycle:
    """One cycle of the learning rate: the steps of a run over which it rises and falls once.

    A run has one cycle. It gets another one when it continues from a checkpoint with more ``steps``.

    Args:
        first: the number of steps before the cycle.
        last: the number of steps at its end.
    """

    first: int
    last: int

    def describe(self, config: TrainingConfig) -> str:
        """A sentence about the learning rate of the cycle."""
        peak = self.first + min(config.warmup, self.last - self.first)
        end = f"falls along a cosine to 0 at step {self.last}" if config.decay else "stays there"
        return (
            f"steps {self.first + 1} to {self.last}: the learning rate rises to its peak until step "
            f"{peak}, then {end}"
        )
