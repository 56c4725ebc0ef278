"""The same model with another denoiser: guided, or told a measurement."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

from genmod.checks import require
from genmod.denoisers import Denoiser
from genmod.diffusion import DiffusionPrior
from genmod.model import LatentModel

Model = TypeVar("Model", bound=LatentModel)


def with_denoiser(model: Model, wrap: Callable[[Denoiser], Denoiser]) -> Model:
    """A diffusion with its denoiser wrapped, to be sampled; all else is shared.

    Every place that asks the denoiser (the chain, the decoder's last step) asks the wrapped one. Schedule,
    decoder and parameters are the same objects, so what trains one model trains the other.

    The result is a model with a bound of its own. Under guidance, or given a measurement, that is a bound
    on the likelihood of the chain that the wrapped denoiser drives, and not on the trained model's.

    Args:
        model: a diffusion, or a latent diffusion.
        wrap: from the model's denoiser to the one wanted.

    Returns:
        A model of the same class.

    Raises:
        ValueError: a model without a denoiser, or with several; a schedule that the wanted one refuses.

    >>> from genmod.denoisers import Guided
    >>> from genmod.models import Diffusion
    >>> model = Diffusion((2,), width=8)
    >>> guided = with_denoiser(model, lambda denoiser: Guided(denoiser, scale=3.0))
    >>> type(guided.prior.denoiser).__name__, guided.prior.schedule is model.prior.schedule
    ('Guided', True)
    """
    denoisers = {
        id(m.denoiser): m.denoiser for m in model.modules() if isinstance(m, DiffusionPrior)
    }
    require(
        len(denoisers) == 1,
        f"a {type(model).__name__} with {len(denoisers)} denoisers",
        "one with a diffusion in it",
        "pass a Diffusion, or a LatentDiffusion",
    )
    (denoiser,) = denoisers.values()
    wrapped = wrap(denoiser)
    for prior in (part for part in model.modules() if isinstance(part, DiffusionPrior)):
        wrapped.check(prior.schedule)
    # A deep copy that is told what to keep: only the modules above the denoiser are made anew.
    kept: dict[int, object] = {
        id(part): part
        for part in model.modules()
        if all(inner is not denoiser for inner in part.modules())
    }
    kept |= {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    kept[id(denoiser)] = wrapped
    return copy.deepcopy(model, kept)
