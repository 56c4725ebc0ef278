"""The default optimizer, its step, and the clipping of gradients: the same numbers as torch's, sooner.

On a small network, torch's optimizer spends most of a step on gathering its tensors and on hooks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from genmod.checks import invalid
from genmod.model import LatentModel
from genmod.training.config import Cycle, TrainingConfig


def adam(model: LatentModel, config: TrainingConfig) -> torch.optim.AdamW:
    """Fused AdamW over the parameters of a model that learn."""
    learned = [p for p in model.parameters() if p.requires_grad]
    if len(learned) == 0:
        raise invalid(
            "a model without parameters that learn",
            "at least one",
            "unfreeze a part: parameter.requires_grad_(True)",
        )
    return torch.optim.AdamW(
        learned, config.learning_rate, weight_decay=config.weight_decay, fused=True
    )


def learning_rate(config: TrainingConfig, cycle: Cycle, step: int) -> float:
    """The learning rate of a step, divided by its peak: a linear warm-up times a cosine to 0.

    Args:
        config: its settings; see :class:`~genmod.training.config.TrainingConfig` for the formula.
        cycle: the cycle of the run that the step belongs to.
        step: the number of steps before it.

    >>> learning_rate(TrainingConfig(steps=100, warmup=0), Cycle(0, 100), 50)  # half-way down the cosine
    0.5
    """
    made = step - cycle.first
    ramp = min(1.0, (made + 1) / (config.warmup + 1))
    if not config.decay:
        return ramp
    return ramp * 0.5 * (1 + math.cos(math.pi * made / (cycle.last - cycle.first)))


class FusedStep:
    """``optimizer.step()`` of :func:`adam`, which gathers the tensors of the optimizer only once.

    A step in which a parameter has no gradient is torch's own, and so is the first one, which makes the
    moments. The step counts of all parameters become views of one tensor, so that adding one to them is one
    operation. In torch's step it takes as long as the rest of the update of a small network.

    Args:
        optimizer: from :func:`adam`: one group of parameters of one type, without hooks.
    """

    def __init__(self, optimizer: torch.optim.AdamW) -> None:
        self.optimizer = optimizer
        (group,) = optimizer.param_groups
        self._one_type = len({(p.dtype, p.device) for p in group["params"]}) == 1
        self._first: dict[str, Tensor] | None = None
        self._means: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._counts = torch.empty(0)
        self._steps: list[Tensor] = []

    def __call__(self) -> None:
        """Make a step; inside ``torch.no_grad()``."""
        # Not kept: loading a state makes new groups.
        group = self.optimizer.param_groups[0]
        gradients = [parameter.grad for parameter in group["params"]]
        known = self._one_type and all(each is not None for each in gradients)
        if not known or not self._gather(group["params"]):
            self.optimizer.step()
            return
        self._counts.add_(1)
        torch._fused_adamw_(
            group["params"],
            gradients,
            self._means,
            self._squares,
            [],
            self._steps,
            amsgrad=False,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _gather(self, parameters: Sequence[Tensor]) -> bool:
        """Gather the moments, also anew after a checkpoint was loaded; whether all parameters have them."""
        state = self.optimizer.state
        first = state.get(parameters[0])
        if first is None or first is not self._first:
            every = [state.get(parameter, {}) for parameter in parameters]
            if not all(every):
                return False
            self._means = [each["exp_avg"] for each in every]
            self._squares = [each["exp_avg_sq"] for each in every]
            self._counts = torch.stack([each["step"] for each in every])
            self._steps = list(self._counts)
            for each, count in zip(every, self._steps, strict=True):
                each["step"] = count
            self._first = first
        return True


def norm_of_all(parameters: Sequence[Tensor], norms: Tensor) -> Tensor:
    """The norm of the gradients of all parameters, from the norm of each."""
    norm: Tensor = torch.linalg.vector_norm(norms)
    return norm


def clip_gradients(
    parameters: Sequence[nn.Parameter],
    largest: float,
    total: Callable[[Sequence[Tensor], Tensor], Tensor] = norm_of_all,
) -> Tensor:
    """Scale all gradients together to a norm of at most ``largest``; their norm before that.

    As ``torch.nn.utils.clip_grad_norm_``, in half its time, because all are on one device.

    Args:
        parameters: those without a gradient are left out.
        largest: the largest norm.
        total: the norm of all gradients, from the parameters that have one and the norm of each.
    """
    given = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [own for parameter in given if (own := parameter.grad) is not None]
    if not gradients:
        return torch.zeros(())
    norms = torch.stack(torch._foreach_norm(gradients))
    norm = total(given, norms)
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm
