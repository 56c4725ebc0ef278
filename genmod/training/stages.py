"""The stages in which a model is trained by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from genmod.model import LatentModel
from genmod.models.latent_diffusion import LatentDiffusion


class Stages(Enum):
    """How a model is trained that has parts to train one after another."""

    JOINT = "joint"
    """All parts together, on the plain bound."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of training.

    Args:
        name: what is trained, for progress and records.
        model: the model that is trained; it shares its parts with the whole.
        before: called with the training data and their context before the stage begins.
    """

    name: str
    model: LatentModel
    before: Callable[[Tensor, Tensor | None], object] | None = None


def stages_of(model: LatentModel, stages: Stages | str | None) -> Sequence[Stage]:
    """The stages of a run: the model's own recipe, or one.

    Raises:
        ValueError: another name than ``"joint"``.
    """
    whole = Stage(type(model).__name__, model)
    if stages is not None:
        _named(stages)
        return [whole]
    if not isinstance(model, LatentDiffusion):
        return [whole]
    if not any(p.requires_grad for part in model.fixed() for p in part.parameters()):
        return [whole]
    return [
        Stage("VAE", model.first_stage()),
        Stage(type(model).__name__, model, model.freeze),
    ]


def _named(stages: Stages | str) -> Stages:
    if isinstance(stages, Stages):
        return stages
    known = {each.value: each for each in Stages}
    if stages not in known:
        raise ValueError(
            f"got stages={stages!r}; expected None (the model's own recipe) or 'joint'; leave it out for "
            "the recipe"
        )
    return known[stages]


@contextmanager
def as_if_frozen(stages: Sequence[Stage]) -> Iterator[LatentModel]:
    """The model of the last stage, frozen as it will be when that stage begins."""
    earlier = [p for stage in stages[:-1] for p in stage.model.parameters() if p.requires_grad]
    for parameter in earlier:
        parameter.requires_grad_(False)
    try:
        yield stages[-1].model
    finally:
        for parameter in earlier:
            parameter.requires_grad_(True)
