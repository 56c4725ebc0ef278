"""Training in two stages: first the encoder and decoder under N(0, I), then the prior on their latents."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.checks import invalid
from genmod.chunks import chunks, rows_per_chunk
from genmod.distributions.base import mean_of
from genmod.model import LatentModel
from genmod.nn.modules import evaluation_mode
from genmod.priors import NestedPrior, NormalPrior


def first_stage(model: LatentModel) -> LatentModel:
    """The same encoder and decoder under a standard normal prior."""
    return LatentModel(model.encoder, model.decoder, NormalPrior(model.prior.shape))


def check_two_stages(model: LatentModel) -> None:
    """Require a model whose prior can be trained after its encoder and decoder.

    Raises:
        ValueError: a prior without parameters of its own; a hierarchy whose posterior runs top-down.
    """
    kind, prior = type(model).__name__, model.prior
    apart = {id(p) for part in (model.encoder, model.decoder) for p in part.parameters()}
    if not any(p.requires_grad and id(p) not in apart for p in prior.parameters()):
        raise invalid(
            f"stages='two-stage' for a {kind} whose {type(prior).__name__} has no parameters of "
            "its own",
            "a learned prior",
            "leave stages out, or pass a prior such as priors.MixturePrior(10)",
        )
    if model.encoder.latent_shape != prior.shape:
        raise invalid(
            f"stages='two-stage' for a {kind} whose encoder gives no single latent",
            "one latent, whose prior is learned in the second stage",
            "leave stages out",
        )


@torch.no_grad()
def freeze_first_stage(
    model: LatentModel, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
) -> None:
    """End the first stage: the encoder and decoder stay as they are from now on.

    A nested model then gets latents with the mean and spread that ``q`` gives them over ``x``, measured
    in evaluation mode on the model's device.

    Args:
        model: the model.
        x: data, enough of them to measure a spread.
        context: what the encoder is conditioned on.
        observed: which entries of ``x`` count; ``None``: all.
    """
    if isinstance(model.prior, NestedPrior):
        model.prior.standardize(*latent_moments(model, x, context, observed))
    for part in (model.encoder, model.decoder):
        part.requires_grad_(False)


@torch.no_grad()
def latent_moments(
    model: LatentModel, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each entry of the aggregate posterior over data."""
    model.spec.check(x, observed)
    device, chunk = model.device, rows_per_chunk(model.spec.shape, model.device)

    def cut(each: Tensor | None, rows: slice) -> Tensor | None:
        return None if each is None else each[rows].to(device)

    means, variances = [], []
    with evaluation_mode(model):
        for rows in chunks(len(x), chunk):
            q = model.posterior(x[rows].to(device), cut(context, rows), cut(observed, rows))
            assert isinstance(q, Distribution)
            means.append(mean_of(q, "the posterior"))
            variances.append(q.variance)
    mean = torch.cat(means)
    total = mean.var(0, correction=0) + torch.cat(variances).mean(0)
    return mean.mean(0), total.sqrt()
