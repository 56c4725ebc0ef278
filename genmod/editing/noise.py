"""SDEdit: noise data part of the way, and denoise them again."""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.arrays import Context, Rows, as_context, as_tensor
from genmod.checks import check_at_least, invalid
from genmod.diffusion import DiffusionPrior
from genmod.diffusion.noising import NoisingPosterior
from genmod.encoders.base import require_distribution
from genmod.model import LatentModel
from genmod.priors import NestedPrior
from genmod.samplers import Ancestral, Sampler
from genmod.signatures import checked


@torch.no_grad()
@checked
def sdedit(
    model: LatentModel,
    x: Rows,
    t: float,
    *,
    steps: int = 50,
    sampler: Sampler | None = None,
    context: Context = None,
) -> Tensor:
    r"""SDEdit: noise data to time ``t`` and denoise them again, so that a drawn stroke becomes a digit.

    .. math:: z_t = \alpha_t x + \sigma_t \varepsilon, \qquad z_t \to z_0, \qquad p(x | z_0)

    At ``t = 0`` the data come back unchanged, except for the decoder's noise. At ``t = 1`` the result is
    a sample that does not depend on them.

    Args:
        model: a diffusion; or a latent one, whose latents are then edited.
        x: data as the model takes them, ``(B, *event)``.
        t: how far to noise them, in [0, 1].
        steps: the number of denoising steps.
        sampler: any of :mod:`genmod.samplers`; the chain's own steps by default.
        context: what the model is conditioned on, ``(B, ...)``.

    Returns:
        Data of the same shape.

    Raises:
        ValueError: a model that is no diffusion, a time outside [0, 1], or no steps; a sampler bound to
            another schedule.

    Reference: Meng et al., "SDEdit: guided image synthesis and editing with stochastic differential
    equations" (2022), algorithm 1.

    >>> from genmod.models import Diffusion
    >>> sdedit(Diffusion((1, 8, 8), bins=17), torch.zeros(2, 1, 8, 8).long(), 0.5, steps=2).shape
    torch.Size([2, 1, 8, 8])
    """
    if not 0 <= t <= 1:
        raise invalid(f"t={t}", "a time in [0, 1]", "0 is clean, 1 is noise")
    check_at_least(steps, 1, "steps", "50 is common")
    return _edited(model, as_tensor(x), t, steps, sampler, context)


def _edited(
    model: LatentModel, x: Tensor, t: float, steps: int, sampler: Sampler | None, context: Context
) -> Tensor:
    """The data, edited, of checked settings."""
    prior = model.prior
    context = as_context(context, len(x))
    posterior = model.posterior(x, context)
    if isinstance(prior, NestedPrior):
        q = require_distribution(posterior, prior.shape)
        inside = prior.inside(q.mean)
        edited = sdedit(prior.model, inside, t, steps=steps, sampler=sampler, context=context)
        state = prior.outside(edited)
    else:
        denoising = _diffusion(model)
        assert isinstance(posterior, NoisingPosterior)
        times = t * denoising.times(steps + 1).flip(0)
        z = posterior.at(times[:1].expand(len(x))).sample()
        bound = (sampler or Ancestral(variance=denoising.variance)).bind_missing(
            denoising.denoiser, denoising.schedule
        )
        state = bound.run(z, times, context) if t > 0 else z
    return model.draw(state, context)


def _diffusion(model: LatentModel) -> DiffusionPrior:
    if not isinstance(model.prior, DiffusionPrior):
        raise invalid(
            f"a {type(model).__name__}",
            "a diffusion",
            "only a prior that denoises can noise data part of the way: pass a Diffusion or a "
            "LatentDiffusion",
        )
    return model.prior
