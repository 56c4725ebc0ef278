"""A model in training of which each process keeps a part: torch's FSDP2, ``fully_shard``.

Each of ``R`` processes holds one of ``R`` parts of every weight of a network, of its gradient, of Adam's
moments and of the averages. A network is gathered while it is used, block by block where it is one of this
package. What lies outside of networks (scales, schedules, learned priors), and parameters that are one
number, are whole in every process.

Three models have one structure. ``plain`` is the user's: it gets whole weights for validations and at the
end. ``whole`` is a copy under ``fully_shard``, which computes the loss and its gradients. ``trained`` is
never called: its parameters are the parts of this process as plain tensors, in the same memory as those of
``whole``. So optimizer, average, clipping and best weights are those of a run without shards.

Reference: Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel" (2023).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from inspect import signature

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

from genmod.checks import invalid
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.nn.modules import weights
from genmod.objectives import Batch, Objective
from genmod.objectives.pairs import ObjectivePairs
from genmod.training.compiled import networks
from genmod.training.devices import Devices
from genmod.training.optimizer import Average, copied
from genmod.training.parallel import LossModule, Owner, Parallelism, training_mode


class Shards(Parallelism):
    """A model whose networks are spread over the processes of a run.

    Args:
        plain: the model, with equal weights in all processes.
        objective: what is minimized. It is not copied, and stays whole.
        devices: the processes.
    """

    def __init__(self, plain: LatentModel, objective: Objective, devices: Devices) -> None:
        fully_shard = import_module("torch.distributed.fsdp").fully_shard
        self.stale = False
        """Whether the parts have changed since :meth:`finish`."""
        self.whole = copied(plain, {})
        self._loss = LossModule(self.whole, objective)
        inside = {id(p) for net in networks(self.whole) for p in net.parameters() if p.ndim}
        alike = {p for p in self._loss.parameters() if id(p) not in inside}
        mesh = init_device_mesh(devices.device.type, (devices.count,))
        for module in (*_groups(self.whole), self._loss):
            fully_shard(module, mesh=mesh, ignored_params=alike)
        self._own: dict[str, Tensor] = dict(self.whole.named_parameters())
        pairs = zip(plain.buffers(), self.whole.buffers(), strict=True)
        memo: dict[int, object] = {id(old): new for old, new in pairs}
        for name, parameter in plain.named_parameters():
            memo[id(parameter)] = nn.Parameter(_local(self._own[name]), parameter.requires_grad)
        super().__init__(plain, copied(plain, memo), objective, devices)
        # Networks of this package may return views, which nothing changes in place.
        own = {type(net).__name__ for net in networks(plain) if _is_own(net)}
        self._views = rf"FSDP2-wrapped module \(FSDP({'|'.join(own)})\) returned a view"
        self.rest()

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        # After an error in one process alone, the others do not come to gather weights: it would wait
        # forever. A loss that is not finite is an error in all.
        if error is not None and not issubclass(error, ArithmeticError):
            self.stale = False

    def train(self) -> None:
        training_mode(self.trained)
        training_mode(self.whole)
        self.rest()

    def loss(self, batch: Batch) -> tuple[Tensor, ELBO]:
        self.stale = True
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=self._views)
            loss: Tensor = self._loss(batch)
        assert self._loss.elbo is not None
        return loss, self._loss.elbo

    def part_of_step(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext()

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Hand the gradients, which ``fully_shard`` has averaged over processes, to the parts."""
        alike: list[Tensor] = []
        for name, part in self.trained.named_parameters():
            own = self._own[name]
            part.grad = None if own.grad is None else _local(own.grad)
            own.grad = None
            if part.grad is not None and not isinstance(own, DTensor):
                alike.append(part.grad)
        if alike:
            total = self.devices.sum(torch.cat([gradient.flatten() for gradient in alike]))
            means = (total / self.devices.count).split([gradient.numel() for gradient in alike])
            for gradient, mean in zip(alike, means, strict=True):
                gradient.copy_(mean.reshape(gradient.shape))

    def norm(self, parameters: Sequence[Tensor], norms: Tensor) -> Tensor:
        named = self.trained.named_parameters()
        spread = {id(part) for name, part in named if isinstance(self._own[name], DTensor)}
        # What every process has whole counts once.
        counted = [float(self.devices.is_main or id(part) in spread) for part in parameters]
        squares = norms.square() * torch.tensor(counted).to(norms)
        return self.devices.sum(squares.sum()).sqrt()

    @torch.no_grad()
    def fill(self) -> LatentModel:
        """Give the plain model the weights of all parts, on the device of this process, and return it."""
        self.plain.to(self.devices.device)
        parts = weights(self.trained)
        for name, tensor in weights(self.plain).items():
            tensor.copy_(self._gathered(name, parts[name]))
        # Running statistics are each process's own: those of the main one count.
        self.devices.broadcast(list(self.plain.buffers()))
        return self.plain

    @contextmanager
    def scored(self) -> Iterator[LatentModel]:
        try:
            yield self.fill()
        finally:
            self.rest()

    def averaged(self, average: Average) -> LatentModel:
        raise invalid(
            "a run with shard=True, whose averages are spread over processes",
            "one in which each process holds them",
            "look at the model after the loop, when it holds the averaged weights",
        )

    def finish(self) -> None:
        """Give the plain model the weights of all parts in evaluation mode, if they have changed."""
        if self.stale:
            self.fill().eval()
            self.stale = False

    def rest(self) -> None:
        """Put the plain model on the CPU, so that the device holds parts only."""
        self.plain.to("cpu")

    def gather(self, tensors: Mapping[str, Tensor], owner: Owner) -> dict[str, Tensor]:
        """The tensors of a checkpoint with each part made whole, on the CPU of the main process."""
        found = {}
        for name, tensor in tensors.items():
            whole = self._gathered(owner(name), tensor)
            if self.devices.is_main:
                found[name] = whole.cpu()
        return found

    def scatter(self, tensors: Mapping[str, Tensor], owner: Owner) -> dict[str, Tensor]:
        """The parts of this process, from the tensors of a checkpoint."""
        self.stale = True
        return {name: self._scattered(owner(name), tensor) for name, tensor in tensors.items()}

    def _gathered(self, name: str, part: Tensor) -> Tensor:
        """The whole of a tensor from the parts of all processes; others are returned as they are."""
        own = self._own.get(name)
        if not isinstance(own, DTensor) or part.shape != _local(own).shape:
            return part
        shape, stride = own.shape, own.stride()
        spread = DTensor.from_local(
            part, own.device_mesh, own.placements, shape=shape, stride=stride
        )
        return spread.full_tensor()

    def _scattered(self, name: str, whole: Tensor) -> Tensor:
        own = self._own.get(name)
        if not isinstance(own, DTensor) or whole.shape != own.shape:
            return whole
        placed = whole.to(self.devices.device)
        return _local(distribute_tensor(placed, own.device_mesh, own.placements))


@torch.no_grad()
def _local(tensor: Tensor) -> Tensor:
    """The part of a tensor in this process, in the same memory; a tensor that is whole itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def _groups(model: LatentModel) -> Iterator[nn.Module]:
    """The modules whose weights are gathered together: the blocks of a network before the network."""
    for network in networks(model):
        # What stands inside of a block comes before it.
        for part in reversed(list(network.modules() if _is_own(network) else ())):
            if isinstance(part, nn.ModuleList):
                yield from (block for block in part if _is_block(block))
        yield network


def _is_own(module: nn.Module) -> bool:
    """Whether a module is a network of this package."""
    return type(module).__module__.startswith("genmod.nn")


def _is_block(module: nn.Module) -> bool:
    """Whether a module uses its weights in its call alone. Those of other packages may return functions."""
    own = _is_own(module) or type(module).__module__.startswith("torch.nn")
    return own and not isinstance(module, nn.ModuleList)


def check_sharding(
    model: LatentModel, objective: Objective, optimizer: torch.optim.Optimizer | None
) -> None:
    """Refuse what cannot be spread over processes.

    Raises:
        ValueError: torch before 2.7; an optimizer of the user's own, which holds whole weights; pairs of
            objectives, or an objective that holds parameters of the model.
    """
    advice = "leave shard out: then each process holds the whole model"
    if (
        "ignored_params"
        not in signature(import_module("torch.distributed.fsdp").fully_shard).parameters
    ):
        raise invalid(f"shard=True with torch {torch.__version__}", "torch 2.7 or later", advice)
    if optimizer is not None:
        kind = type(optimizer).__name__
        got = f"shard=True with an optimizer of type {kind}, which holds whole weights"
        raise invalid(got, "the default one", "leave optimizer out, or shard")
    if isinstance(objective, ObjectivePairs):
        raise invalid("shard=True with pairs of objectives", "one objective", advice)
    own = {id(parameter) for parameter in model.parameters()}
    if any(id(parameter) in own for parameter in objective.parameters()):
        got = f"shard=True with an objective {type(objective).__name__} that holds the model's weights"
        raise invalid(got, "an objective without them", advice)
