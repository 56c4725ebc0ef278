"""What an objective requires of a model: a fixed encoder, a prior that normalizes.

Where the levels of a diffusion have unequal weights, an encoder learns to put information where the weight
is small. So such a loss must reach no encoder, nested ones included.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from genmod.checks import invalid
from genmod.diffusion import DiffusionPrior
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.objectives.base import Objective


def encoders(model: LatentModel) -> list[nn.Module]:
    """Every encoder that a gradient of the bound reaches: the model's, and those of nested models."""
    return [part.encoder for part in model.modules() if isinstance(part, LatentModel)]


def encoder_learns(model: LatentModel, apart: Iterable[nn.Parameter] = ()) -> bool:
    """Whether an encoder, also of a nested model, has trainable parameters other than ``apart``."""
    known = {id(parameter) for parameter in apart}
    return any(
        parameter.requires_grad and id(parameter) not in known
        for encoder in encoders(model)
        for parameter in encoder.parameters()
    )


def weights_levels(loss: Tensor, elbo: ELBO) -> bool:
    r"""Whether a loss weights the levels of a diffusion unequally, or leaves terms of the bound out.

    It differentiates the loss by the nats of each level. Each derivative is divided by the weight of the
    visit, and by the derivative by the reconstruction. For the bound, also with a weight on a whole rate,
    this ratio is the same for all levels.

    Args:
        loss: the loss of an objective; its graph is kept.
        elbo: the bound from which it was computed.
    """
    levels = [rate for rate in elbo.rates.values() if rate.noise is not None]
    terms = [elbo.reconstruction, *(rate.nats for rate in levels)]
    if not levels or not all(term.requires_grad for term in terms):
        return False
    slopes = torch.autograd.grad(loss, terms, retain_graph=True, allow_unused=True)
    if any(slope is None for slope in slopes):
        return True
    reconstruction = -slopes[0][:, None]
    for rate, slope in zip(levels, slopes[1:], strict=True):
        each = slope / rate.weight
        # Rows without any weight in the loss give 0 / 0 here.
        used = ((each != 0) | (reconstruction != 0)).expand_as(each)
        ratio = (each / reconstruction)[used]
        if ratio.numel() and not torch.allclose(ratio, ratio.mean(), rtol=1e-3, atol=1e-6):
            return True
    return False


def require_fixed_encoder(
    model: LatentModel, name: str, apart: Iterable[nn.Parameter] = ()
) -> None:
    """Refuse a model with an encoder that has trainable parameters other than ``apart``.

    Encoders of nested models count, such as the middle one of a bottom-up hierarchy.

    Raises:
        ValueError: there is such an encoder.
    """
    if encoder_learns(model, apart):
        raise invalid(
            f"{name} on a model whose encoder learns",
            "a fixed encoder, in nested models too",
            "where the levels of a diffusion have unequal weights, an encoder learns to put "
            "information where the weight is small: train in two stages, or use Bound",
        )


def require_prior(model: LatentModel, name: str) -> None:
    """Refuse a model whose latents have no rate, because its prior does not normalize.

    Raises:
        ValueError: there is no rate.
    """
    if not model.prior.proper:
        raise invalid(
            f"{name} on {type(model).__name__}, whose prior is flat",
            "a rate: a prior that normalizes",
            "use VAE, or objectives.Bound",
        )


def refuse_weighted_levels(
    model: LatentModel, objective: Objective, loss: Tensor, elbo: ELBO
) -> None:
    """Refuse an objective of the user's own that would train an encoder by weighted timesteps.

    Raises:
        ValueError: it does.
    """
    priors = [part for part in model.modules() if isinstance(part, DiffusionPrior)]
    schedules = [parameter for prior in priors for parameter in prior.schedule.parameters()]
    if objective.needs_path or not encoder_learns(model, schedules):
        return
    if weights_levels(loss, elbo):
        require_fixed_encoder(model, type(objective).__name__, schedules)
