"""The stages in which a model is trained by default, and the scale of a last step, fitted afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require
from genmod.decoders import GlobalScale
from genmod.decoders.likelihoods import LocationScaleDecoder
from genmod.denoisers.base import denoise
from genmod.diffusion import LastStepDecoder, NoisingPosterior
from genmod.model import LatentModel
from genmod.models.latent_diffusion import LatentDiffusion
from genmod.models.two_stage import check_two_stages, first_stage, freeze_first_stage
from genmod.nn.modules import evaluation_mode
from genmod.schedules.base import time_dtype
from genmod.spec import Bins


class Stages(Enum):
    """How to train a model whose parts can be trained one after another."""

    JOINT = "joint"
    """All parts together, on the plain bound."""
    TWO_STAGE = "two-stage"
    """First the encoder and decoder under N(0, I), then the prior on the latents of the fixed encoder."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of training.

    Args:
        name: the name of the stage, for the progress bar and the history.
        model: the model that is trained; its parts are those of the whole model.
        before: called with the training data, their context and mask before the stage begins.
    """

    name: str
    model: LatentModel
    before: Callable[[Tensor, Tensor | None, Tensor | None], object] | None = None


def stages_of(model: LatentModel, stages: Stages | str | None) -> Sequence[Stage]:
    """The stages of a run: the model's own recipe, or the whole model at once.

    Raises:
        ValueError: another name than ``"joint"`` and ``"two-stage"``; two stages of a model whose prior is
            not learned.

    Reference: Dai, Wipf, "Diagnosing and Enhancing VAE Models" (2019), section 5, for the two stages.
    """
    whole = Stage(type(model).__name__, model)
    wanted = None if stages is None else _named(stages)
    if wanted is Stages.TWO_STAGE:
        check_two_stages(model)
    if wanted is Stages.JOINT or (wanted is None and not isinstance(model, LatentDiffusion)):
        return [whole]
    first = (model.encoder, model.decoder)
    if not any(p.requires_grad for part in first for p in part.parameters()):
        return [whole]
    before = partial(freeze_first_stage, model)
    return [Stage("VAE", first_stage(model)), replace(whole, before=before)]


def _named(stages: Stages | str) -> Stages:
    if isinstance(stages, Stages):
        return stages
    known = {each.value: each for each in Stages}
    if stages not in known:
        raise ValueError(
            f"got stages={stages!r}; expected None (the model's own recipe), 'joint' or 'two-stage'; leave "
            "it out for the recipe"
        )
    return known[stages]


@contextmanager
def as_if_frozen(stages: Sequence[Stage]) -> Iterator[LatentModel]:
    """The model of the last stage, with the parts of earlier stages frozen, as when that stage begins."""
    earlier = [p for stage in stages[:-1] for p in stage.model.parameters() if p.requires_grad]
    for parameter in earlier:
        parameter.requires_grad_(False)
    try:
        yield stages[-1].model
    finally:
        for parameter in earlier:
            parameter.requires_grad_(True)


SCALES = 49
"""How many scales are tried, evenly spaced in their logarithm (a ratio of about 1.16)."""
FINEST = 16
"""The smallest scale is the width of a bin divided by this; the largest is 1, half of [-1, 1]."""


@torch.no_grad()
def fit_scale(
    model: LatentModel, x: Tensor, context: Tensor | None = None, *, seed: int = 0
) -> float:
    r"""Set the scale of ``p(x | z_0)`` to its maximum-likelihood value, given ``z_0``.

    Many published losses leave the reconstruction out. Then the decoder's scale keeps its initial
    value, and the bound is looser. Fit the scale after training with such a loss, so that models
    that were trained by different losses can be compared.

    Args:
        model: a diffusion of integers whose decoder is the denoiser's own last step with one learned
            scale, as by default; changed in place.
        x: training data, ``(N, *event)``; some hundreds of rows are enough for one number.
        context: what the model is conditioned on, one row a sample.
        seed: the key of the noise.

    Returns:
        The scale.

    Raises:
        ValueError: a model with another decoder, or one that gives NaN.

    >>> from genmod.models import Diffusion
    >>> from genmod.schedules import LinearLogSNR
    >>> clean = LinearLogSNR(13.3)  # z_0 is x, but for a noise of 0.001
    >>> model = Diffusion((1, 8, 8), bins=17, width=8, schedule=clean)
    >>> round(fit_scale(model, torch.randint(0, 17, (64, 1, 8, 8))), 4)
    0.0078
    """
    decoder, scale, bins = _last_step(model)
    device = model.device
    x = x.to(device)
    context = None if context is None else context.to(device)
    with evaluation_mode(model):
        start = decoder.schedule.at(torch.zeros(len(x), dtype=time_dtype(device), device=device))
        posterior = model.posterior(x, context)
        assert isinstance(posterior, NoisingPosterior)
        with random.keyed(seed):
            z = posterior.at(start.t).sample()
        x_hat = denoise(decoder.denoiser, z, start, context).x_hat
        tried = torch.linspace(math.log(bins.width / FINEST), 0, SCALES).tolist()
        likely = []
        for log_scale in tried:
            scale.set(math.exp(log_scale))
            likely.append(float(decoder.decoder(x_hat, context).log_prob(x).mean()))
        require(
            all(map(math.isfinite, likely)),
            "log-masses that are NaN or infinite",
            "finite log-masses",
            "look at x_hat of the denoiser at z_0: its training may have diverged",
        )
        best = tried[max(range(SCALES), key=likely.__getitem__)]
        scale.set(math.exp(best))
    return math.exp(best)


def _last_step(model: LatentModel) -> tuple[LastStepDecoder, GlobalScale, Bins]:
    """The parts whose scale is to be fitted."""
    decoder = model.decoder
    inner = decoder.decoder if isinstance(decoder, LastStepDecoder) else None
    if (
        isinstance(decoder, LastStepDecoder)
        and isinstance(inner, LocationScaleDecoder)
        and isinstance(inner.scale, GlobalScale)
        and inner.bins is not None
    ):
        return decoder, inner.scale, Bins(inner.bins)
    raise ValueError(
        f"got a model with {model.decoder.formula()}; expected a diffusion of integers whose decoder "
        "is a LastStepDecoder with one GlobalScale; train other decoders with the bound"
    )
