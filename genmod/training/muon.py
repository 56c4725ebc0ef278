r"""Muon: the update of a weight matrix is its momentum, made orthogonal.

Symbols: :math:`W` a matrix of ``a`` rows and ``b`` columns, :math:`g` its gradient, :math:`m` the momentum,
:math:`\mu` its decay, :math:`\eta` the learning rate, :math:`\lambda` the weight decay.

.. math:: m \leftarrow \mu m + g, \qquad
    W \leftarrow (1 - \eta \lambda) W - 0.2\, \eta \sqrt{\max(a, b)}\; \mathrm{orth}(g + \mu m)

``orth`` replaces all singular values by about one. A gradient has a few large singular values. A step along
it moves the weights in those few directions only; this step moves them in all directions alike.

Reference: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), for the
iteration and its coefficients; Liu et al., "Muon is Scalable for LLM Training" (2025), section 2.2, for the
weight decay and the factor :math:`0.2 \sqrt{\max(a, b)}`, which makes the steps of large matrices about as
large as AdamW's at the same learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from genmod.checks import check_at_least, check_positive, instance, invalid
from genmod.signatures import checked

_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""The layers whose weights are matrices: a row for each output, a column for each of its inputs."""
_QUINTIC = (3.4445, -4.7750, 2.0315)
"""The coefficients of ``a s + b s^3 + c s^5``; iterated, it moves a singular value ``s`` to about one."""
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Muon for the weights of linear layers and convolutions, and AdamW for all other parameters.

    With it, U-Nets of MNIST and Fashion-MNIST needed about half of the steps that AdamW needed for the
    same bound. A step costs a few matrix products more: a tenth of a step of these U-Nets, and up to two
    steps where wide perceptrons hold most of the weights. The kernel of a convolution is a matrix of one
    row for each output channel. Jordan et al. leave the first and the last layer to AdamW; they are
    matrices here, too.

    Args:
        model: the model that is trained. Parameters that are frozen now are left out, also later.
        others: further modules that are trained, such as an objective with parameters of its own.
        learning_rate: the learning rate of all parameters. About four times that of AdamW is a good start.
        weight_decay: the weight decay of all parameters.
        momentum: the decay of Muon's momentum, in [0, 1).
        betas: the decays of AdamW's two moments, in [0, 1).

    Raises:
        ValueError: no parameters that learn, or a number out of its range.

    Reference: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).

    >>> from genmod import VAE, data, fit
    >>> digits = data.load("digits")
    >>> model = VAE(digits, latents=2, width=16)
    >>> history = fit(model, digits, steps=3, optimizer=Muon(model), progress=False)
    >>> len(history.losses)
    3
    """

    @checked
    def __init__(
        self,
        model: nn.Module,
        *others: nn.Module,
        learning_rate: float = 4e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        check_positive(learning_rate, "learning_rate")
        check_at_least(weight_decay, 0, "weight_decay", "0 is none")
        for name, decay in (("momentum", momentum), ("betas", betas[0]), ("betas", betas[1])):
            if not 0 <= decay < 1:
                raise invalid(f"a decay of {decay} in {name}", "one in [0, 1)", f"change {name}")
        modules = [model, *others]
        for module in modules:
            advice = "pass the model, and what else is trained after it: Muon(model, objective)"
            instance(module, nn.Module, "model", advice)
        learned = {id(p): p for module in modules for p in module.parameters() if p.requires_grad}
        matrices = {id(p): p for p in _weights(modules) if id(p) in learned}
        rest = [p for key, p in learned.items() if key not in matrices]
        if len(learned) == 0:
            raise invalid(
                "no parameters that learn",
                "a model with at least one",
                "unfreeze a part: parameter.requires_grad_(True)",
            )
        groups: list[dict[str, Any]] = [
            {"params": list(matrices.values()), "momentum": momentum},
            # By "fused", torch puts the step counts of a loaded state on the device of the weights.
            {"params": rest, "betas": betas, "fused": True},
        ]
        defaults = {"lr": learning_rate, "weight_decay": weight_decay}
        super().__init__([group for group in groups if group["params"]], defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Make a step. Parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            given = [parameter for parameter in group["params"] if parameter.grad is not None]
            if "momentum" in group:
                self._muon(given, group)
            elif given:
                self._adamw(given, group)
        return loss

    def _muon(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Orthogonal steps; matrices of one shape go through the iteration together."""
        rate, momentum = group["lr"], group["momentum"]
        updates = []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].mul_(momentum).add_(parameter.grad)
            update = torch.add(parameter.grad, state["momentum"], alpha=momentum)
            updates.append((parameter, update.flatten(1)))
        ordered = sorted(updates, key=lambda pair: tuple(pair[1].shape))
        for shape, alike in groupby(ordered, key=lambda pair: tuple(pair[1].shape)):
            owners, matrices = zip(*alike, strict=True)
            steps = orthogonal(torch.stack(matrices)) * (0.2 * rate * max(shape) ** 0.5)
            for parameter, step in zip(owners, steps, strict=True):
                parameter.mul_(1 - rate * group["weight_decay"]).sub_(step.view(parameter.shape))

    def _adamw(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Torch's own step of AdamW."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            list[Tensor](parameters),
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            max_exp_avg_sqs=[],
            state_steps=[state["step"] for state in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def _weights(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    """The weights of linear layers and convolutions."""
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, _MATRICES):
                yield layer.weight


def orthogonal(matrices: Tensor) -> Tensor:
    r"""Matrices ``(..., a, b)`` with their singular values replaced by about one, between 0.68 and 1.14.

    With the singular value decomposition :math:`U S V^\top` of a matrix of norm 1, the result is
    :math:`U p(S) V^\top`; ``p`` is a polynomial, iterated five times. No decomposition is computed.
    Singular values below about a thousandth of the norm remain small.

    Reference: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    # A gradient of zero has the norm 0; the smallest number keeps the quotient at 0.
    norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    x = x / norm.clamp(min=torch.finfo(x.dtype).tiny)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x.mT if tall else x
    return result
