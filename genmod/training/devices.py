r"""Many devices: the processes that share the batches of one run, by accelerate.

Each of ``R`` processes takes its part of the rows of every batch, with the noise that these rows have in
the whole batch. The gradients are added up over processes,

.. math:: \nabla L = \sum_{r=1}^{R} \frac{B_r}{B}\, \nabla L_r,

so that a step equals that of one process with the same batch, up to rounding, where the loss is a mean over
rows. Weights, averages and validations are equal in all processes; the main process alone writes files.
"""

from __future__ import annotations

import atexit
import gc
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias

import torch
from torch import Tensor, distributed, nn

from genmod.arrays import as_device
from genmod.checks import invalid
from genmod.objectives import Batch

Place: TypeAlias = tuple[int, int, int]
"""Rows of a larger batch: the first one, how many, and how many the whole batch has."""

_DATA_PARALLEL = {"NO", "MULTI_CPU", "MULTI_GPU"}
"""The kinds of accelerate's runs in which every process holds the whole model."""


def _default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, eq=False)
class Devices:
    """The processes of a run. Most often it is this one alone.

    Args:
        device: the device of this process.
        accelerator: accelerate's ``Accelerator``; ``None``: this process alone.
        count: the number of processes.
    """

    device: torch.device
    accelerator: Any = None
    count: int = 1

    @classmethod
    def of(cls, accelerator: Any, device: torch.device | str | None) -> Devices:
        """The processes of an accelerator, or of a launcher, if there is one.

        Raises:
            ValueError: a launcher without accelerate; an accelerator that shards or casts the model; a
                device of another kind than the accelerator's.
        """
        launched = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ
        if accelerator is None and not launched:
            return cls(as_device(device) if device is not None else _default_device())
        if accelerator is None:
            accelerator = _accelerator(device)
        kind = str(accelerator.distributed_type.value)
        if kind not in _DATA_PARALLEL or accelerator.mixed_precision != "no":
            raise invalid(
                f"an accelerator of kind {kind} with "
                f"mixed_precision={accelerator.mixed_precision!r}",
                "data parallelism (DDP) without mixed precision",
                "for half precision pass autocast=torch.bfloat16 to fit, and for a sharded model "
                "shard=True",
            )
        found = torch.device(accelerator.device)
        wanted = found if device is None else as_device(device)
        if found.type != wanted.type:
            advice = "leave device out: the accelerator gives each process its own"
            raise invalid(f"device={wanted}", f"{found}", advice)
        return cls(found, accelerator, int(accelerator.num_processes))

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.accelerator is None or bool(self.accelerator.is_main_process)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()

    def equalize(self, *modules: nn.Module) -> None:
        """Give all processes the main one's weights and buffers."""
        self.broadcast([t for m in modules for t in (*m.parameters(), *m.buffers())])

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the main one's values of some tensors."""
        if self.count > 1:
            import_module("accelerate.utils").broadcast([tensor.data for tensor in tensors])

    def rows(self, total: int) -> slice:
        """The rows that this process takes of some."""
        own = 0 if self.count == 1 else int(self.accelerator.process_index)
        return slice(total * own // self.count, total * (own + 1) // self.count)

    def share(self, parts: Sequence[Batch]) -> tuple[list[Batch], list[Place]]:
        """The rows of a step that are this process's, batch by batch, and their places in all of them.

        Raises:
            ValueError: fewer rows than processes.
        """
        sizes = [len(part.x) for part in parts]
        if min(sizes) < self.count:
            raise invalid(
                f"a batch of {min(sizes)} rows for {self.count} processes",
                "at least one row for each process",
                "raise batch_size, or start fewer processes",
            )
        mine: list[Batch] = []
        places: list[Place] = []
        for number, part in enumerate(parts):
            own = self.rows(sizes[number])
            mine.append(part if self.count == 1 else _some(part, own))
            places.append((sum(sizes[:number]) + own.start, own.stop - own.start, sum(sizes)))
        return mine, places

    def sum(self, value: Tensor) -> Tensor:
        """The sum over processes."""
        if self.count == 1:
            return value
        total: Tensor = self.accelerator.reduce(value, "sum")
        return total

    def any(self, condition: bool) -> bool:
        """Whether a condition holds in some process: all processes get the same answer."""
        if self.count == 1:
            return condition
        return bool(self.sum(torch.tensor(float(condition), device=self.device)) > 0)

    def gather(self, values: Tensor, own: slice, total: int) -> Tensor:
        """The numbers of all rows, from those of each process's rows."""
        if self.count == 1:
            return values
        whole = torch.zeros(total, dtype=values.dtype, device=self.device)
        whole[own] = values.to(self.device)
        return self.sum(whole).to(values.device)


def _some(batch: Batch, own: slice) -> Batch:
    """Some rows of a batch."""

    def cut(column: Tensor | None) -> Tensor | None:
        return None if column is None else column[own]

    context, observed, index = map(cut, (batch.context, batch.observed, batch.index))
    return Batch(batch.x[own], context, observed, index, batch.rows)


def _accelerator(device: torch.device | str | None) -> Any:
    """The accelerator for the processes of a launcher."""
    try:
        accelerate: Any = import_module("accelerate")
    except ImportError:
        raise invalid(
            f"{os.environ['WORLD_SIZE']} processes without the package accelerate",
            "the extra 'accelerate'",
            "install it with: pip install 'genmod-torch[accelerate]'",
        ) from None
    # A loss need not use every parameter: DDP would wait for the gradients of the others.
    ddp = accelerate.DistributedDataParallelKwargs(find_unused_parameters=True)
    on_cpu = not torch.cuda.is_available() or (device is not None and "cpu" in str(device))
    # A process group that is there already belongs to its maker, perhaps an earlier run.
    ours = not distributed.is_initialized()
    accelerator = accelerate.Accelerator(cpu=on_cpu, kwargs_handlers=[ddp])
    if ours:
        atexit.register(_leave)
    return accelerator


def _leave() -> None:
    """Leave the processes of a launcher, before the interpreter ends.

    If a thread of the process group needs the interpreter after its end, the process aborts: "terminate
    called without an active exception". So models under DDP are collected, and the threads get a moment.
    """
    if distributed.is_initialized():
        distributed.destroy_process_group()
    gc.collect()
    time.sleep(0.1)
