"""How the processes of a run hold its model: each the whole of it, or in shards.

Whatever depends on that is a method of :class:`Parallelism`. So the loop, its state and its checkpoints are
the same for both kinds: :class:`Whole` here, and :class:`~genmod.training.sharding.Shards`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genmod.checks import invalid
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.objectives import Batch, Objective
from genmod.training.devices import Devices
from genmod.training.optimizer import Average, norm_of_all

Owner = Callable[[str], str]
"""The name of the parameter that a tensor of a checkpoint is laid out as, or an empty one."""


def training_mode(model: nn.Module) -> None:
    """Set training mode for modules with parameters that learn, and evaluation mode for frozen ones.

    In training mode, frozen layers would still apply dropout and update their running statistics.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


class LossModule(nn.Module):
    """The loss as a module of the model and the objective: DDP sees which parameters the loss depends on.

    Args:
        model: the model.
        objective: its parameters learn, too.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.elbo: ELBO | None = None

    def forward(self, batch: Batch) -> Tensor:
        """The loss alone: what else is returned would have to take part in the backward pass."""
        loss: Tensor
        loss, self.elbo = self.objective(self.model, batch)
        return loss


class Parallelism(ABC):
    """How the processes of a run hold its model. As a context manager, it surrounds each step.

    Args:
        plain: the user's model.
        trained: the model whose parameters the optimizer changes.
        objective: what is minimized.
        devices: the processes.
    """

    def __init__(
        self, plain: LatentModel, trained: LatentModel, objective: Objective, devices: Devices
    ) -> None:
        self.plain, self.trained = plain, trained
        self.objective, self.devices = objective, devices

    def __enter__(self) -> Parallelism:
        return self

    @abstractmethod
    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        """The end of a step, which an error may have stopped."""

    @abstractmethod
    def train(self) -> None:
        """Set training mode."""

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, ELBO]:
        """The loss of the rows of this process, and their bound, where there are several processes."""

    @abstractmethod
    def part_of_step(self, last: bool) -> AbstractContextManager[object]:
        """A block for the loss and the gradient of one part of a step's batch, or of the last one."""

    @abstractmethod
    def take_gradients(self) -> None:
        """After the last part: give the trained model the gradients of all processes."""

    @abstractmethod
    def norm(self, parameters: Sequence[Tensor], norms: Tensor) -> Tensor:
        """The norm of the whole gradient, from the norms of the gradients of the trained parameters."""

    @abstractmethod
    def scored(self) -> AbstractContextManager[LatentModel]:
        """A block in which a model has the whole weights of the trained one, for a validation."""

    @abstractmethod
    def averaged(self, average: Average) -> LatentModel:
        """A model with the averaged weights, in evaluation mode.

        Raises:
            ValueError: parts that cannot be copied; weights that are spread over processes.
        """

    @abstractmethod
    def finish(self) -> None:
        """Give the user's model the weights of the trained one, which is in evaluation mode."""

    @abstractmethod
    def gather(self, tensors: Mapping[str, Tensor], owner: Owner) -> Mapping[str, Tensor]:
        """The tensors of a checkpoint, whole in the main process, from those of the trained model."""

    @abstractmethod
    def scatter(self, tensors: Mapping[str, Tensor], owner: Owner) -> Mapping[str, Tensor]:
        """What the trained model needs of the tensors of a checkpoint."""


class Whole(Parallelism):
    """Each process holds the whole model; several processes add up their gradients by torch's DDP.

    Args:
        model: the model, with equal weights in all processes.
        objective: what is minimized.
        devices: the processes.

    Reference: Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training" (2020).
    """

    def __init__(self, model: LatentModel, objective: Objective, devices: Devices) -> None:
        super().__init__(model, model, objective, devices)
        self._shared: DistributedDataParallel | None = None
        if devices.count > 1:
            self._shared = devices.accelerator.prepare_model(LossModule(model, objective))

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        """Nothing: no process waits for another one between steps."""

    def train(self) -> None:
        training_mode(self.trained)

    def loss(self, batch: Batch) -> tuple[Tensor, ELBO]:
        assert self._shared is not None, "one process calls the objective itself"
        loss: Tensor = self._shared(batch)
        assert self._shared.module.elbo is not None
        return loss, self._shared.module.elbo

    def part_of_step(self, last: bool) -> AbstractContextManager[object]:
        # DDP adds up the gradients of all processes after the last part only.
        return nullcontext() if self._shared is None or last else self._shared.no_sync()

    def take_gradients(self) -> None:
        """Nothing: the backward pass has done it."""

    norm = staticmethod(norm_of_all)

    def scored(self) -> AbstractContextManager[LatentModel]:
        return nullcontext(self.trained)

    def averaged(self, average: Average) -> LatentModel:
        try:
            return average.model
        except RuntimeError as error:
            raise invalid(
                f"a model that cannot be copied ({error})",
                "parts that copy.deepcopy copies",
                "look at the model after the loop, when it holds the averaged weights",
            ) from error

    def finish(self) -> None:
        """Nothing: it is one model."""

    def gather(self, tensors: Mapping[str, Tensor], owner: Owner) -> Mapping[str, Tensor]:
        return tensors

    def scatter(self, tensors: Mapping[str, Tensor], owner: Owner) -> Mapping[str, Tensor]:
        return tensors
