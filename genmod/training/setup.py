"""What all stages of a run share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from genmod.checks import invalid
from genmod.model import LatentModel
from genmod.objectives import Objective
from genmod.training.augment import Transform
from genmod.training.checkpoint import Checkpoints
from genmod.training.config import TrainingConfig
from genmod.training.data import TrainingData
from genmod.training.devices import Devices
from genmod.training.identity import Identity
from genmod.training.metrics import MetricsLog, OnProgress
from genmod.training.parallel import Whole
from genmod.training.sharding import Shards
from genmod.training.state import TrainingState

_LARGEST = (1 << 25) - (1 << 16)
"""Bytes of the largest block by which glibc raises its thresholds: 32 MB with its header."""


def keep_freed_memory(device: torch.device) -> None:
    """Let the C library keep the memory that one step frees for the next one; on CPUs, with glibc.

    By default glibc returns the end of its heap to the system as soon as a few hundred kilobytes of it are
    free, in each step. The next step takes it back page by page: 200 page faults, and up to 5 % of the step
    of a small diffusion. Freeing one large block raises this threshold for the process, here to 64 MB, and
    that for blocks outside of the heap to 32 MB. The block is never written to, so it takes no memory.

    Reference: mallopt(3), ``M_MMAP_THRESHOLD`` (the dynamic threshold) and ``M_TRIM_THRESHOLD``.
    """
    if device.type == "cpu":
        torch.empty(_LARGEST, dtype=torch.uint8)


@dataclass(frozen=True, eq=False)
class Setup:
    """What all stages of a run share.

    Args:
        model: the whole model.
        config: the settings.
        data: the training and validation rows.
        device: the device to train on.
        optimizer: the user's own, or ``None``.
        checkpoints: where checkpoints are written, or ``None``.
        identity: the identity of the run; empty without checkpoints.
        progress: whether a bar is shown, or the function that is called instead.
        augment: transforms of every batch.
        metrics: what the numbers of a step are written to.
        devices: the processes that share the batches of this run.
    """

    model: LatentModel
    config: TrainingConfig
    data: TrainingData
    device: torch.device
    optimizer: torch.optim.Optimizer | None
    checkpoints: Checkpoints | None
    identity: Identity
    progress: bool | OnProgress
    augment: Sequence[Transform]
    metrics: MetricsLog
    devices: Devices

    def state(self, model: LatentModel, objective: Objective) -> TrainingState:
        """A model at the start of its training."""
        keep_freed_memory(self.device)
        model.to(self.device)
        model.check_full_precision("train")
        if any(parameter.is_inference() for parameter in model.parameters()):
            raise invalid(
                f"a {type(model).__name__} whose parameters were made in torch.inference_mode()",
                "parameters that can learn",
                "build or copy the model outside of inference mode",
            )
        objective.to(self.device).train()
        objective.begin()
        self.devices.equalize(model, objective)
        kind = Shards if self.config.shard and self.devices.count > 1 else Whole
        return TrainingState(kind(model, objective, self.devices), self.optimizer, self.config)

    @property
    def half(self) -> AbstractContextManager[object]:
        """A block in which networks run in half precision, if ``autocast`` is set."""
        kind = self.config.autocast
        return nullcontext() if kind is None else torch.autocast(self.device.type, kind)
