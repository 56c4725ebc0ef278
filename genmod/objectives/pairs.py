"""Several objectives in one run, each for parameters of its own.

``fit(model, data, [(Bound(), [model.encoder, model.decoder]), (Simple(), model.prior)])`` trains encoder
and decoder on the bound, and the prior on another loss. Each step computes every loss on the same batch
and noise, and one optimizer takes the step. A loss gives no gradient to the parameters of the other pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from genmod.checks import invalid
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.objectives.base import Batch, Objective
from genmod.path import Path
from genmod.random.streams import rewound

Learned: TypeAlias = nn.Module | nn.Parameter | Iterable[nn.Module | nn.Parameter]
"""A module or a parameter, or several of them."""
Pairs: TypeAlias = Sequence[tuple[Objective, Learned]]
"""Objectives, each with what it trains."""
Objectives: TypeAlias = Sequence[Objective | tuple[Objective, Learned]]
"""Objectives of the stages of a run, or pairs."""


class ObjectivePairs(Objective):
    """The sum of several losses, each of which trains parameters of its own.

    Args:
        pairs: objectives and what each of them trains. A parameter in two pairs gets both gradients.
        model: the model that holds the parameters.

    Raises:
        ValueError: no pair; parameters that are not the model's; parameters that learn and are in no pair.
    """

    def __init__(self, pairs: Pairs, model: LatentModel) -> None:
        super().__init__()
        _check_pairs(pairs)
        self.objectives = nn.ModuleList(objective for objective, _ in pairs)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.trained = tuple(_names(learned, names) for _, learned in pairs)
        found = set().union(*self.trained)
        left = [n for n, p in model.named_parameters() if p.requires_grad and n not in found]
        if left:
            raise invalid(
                f"{len(left)} parameters in no pair, such as {left[0] if left else ''}",
                "every parameter that learns in a pair",
                "add it to a pair, or freeze it: parameter.requires_grad_(False)",
            )

    def __iter__(self) -> Iterator[tuple[Objective, tuple[str, ...]]]:
        for objective, names in zip(self.objectives, self.trained, strict=True):
            assert isinstance(objective, Objective)
            yield objective, names

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Tensor, ELBO]:
        """The sum of the losses, and the bound that the first one was computed from."""
        losses, elbos = [], []
        for objective, names in self:
            # Every loss on the same noise, as if it were the only one.
            with only(model, names), rewound():
                loss, elbo = objective(model, batch)
            losses.append(loss)
            elbos.append(elbo)
        return torch.stack(losses).sum(), elbos[0]

    def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
        """Refused: each objective needs a forward pass of its own."""
        raise NotImplementedError(
            "pairs have no loss of one bound: call them on a model and a batch"
        )

    def check(self, model: LatentModel) -> None:
        """Check each objective on the model in which only its own parameters learn."""
        for objective, names in self:
            with only(model, names):
                objective.check(model)

    def update(self, elbo: ELBO, batch: Batch) -> None:
        """Let each objective learn from the step."""
        for objective, _ in self:
            objective.update(elbo, batch)


@contextmanager
def only(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """A block in which only the named parameters learn."""
    kept = set(names)
    frozen = [p for n, p in model.named_parameters() if p.requires_grad and n not in kept]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _check_pairs(pairs: Pairs) -> None:
    fine = all(isinstance(p, tuple | list) and len(p) == 2 for p in pairs)
    if not (len(pairs) >= 1 and fine and all(isinstance(p[0], Objective) for p in pairs)):
        raise invalid(
            f"an objective of type {type(pairs).__name__}",
            "an Objective, or a list of pairs (Objective, parameters)",
            "pass for example [(Bound(), model.encoder), (Simple(), model.prior)]",
        )


def _names(learned: Learned, names: dict[int, str]) -> tuple[str, ...]:
    """The names of the parameters in a module, a parameter, or several of them."""
    given = [learned] if isinstance(learned, nn.Module | nn.Parameter) else list(learned)
    found: list[nn.Parameter] = []
    for each in given:
        found += each.parameters() if isinstance(each, nn.Module) else [each]
    foreign = sum(id(parameter) not in names for parameter in found)
    if found == [] or foreign != 0:
        raise invalid(
            f"a pair with {foreign} of {len(found)} parameters that are not the model's",
            "at least one parameter, and only parameters of the model that is trained",
            "pass modules of the model, such as model.encoder",
        )
    return tuple(dict.fromkeys(names[id(parameter)] for parameter in found))
