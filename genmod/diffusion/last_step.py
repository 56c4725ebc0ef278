r"""The decoder of a diffusion, its last step :math:`p(x | z_0)`, and the fit of its scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod import random
from genmod.checks import invalid
from genmod.decoders import Decoder, GlobalScale
from genmod.decoders.likelihoods import LocationScaleDecoder
from genmod.denoisers import Denoiser
from genmod.denoisers.base import denoise
from genmod.diffusion.noising import NoisingPosterior
from genmod.model import LatentModel
from genmod.nn.modules import evaluation_mode
from genmod.schedules import Schedule
from genmod.schedules.base import time_dtype
from genmod.signatures import checked
from genmod.spec import Bins


class LastStepDecoder(Decoder):
    r"""The decoder of a diffusion: denoise :math:`z_0`, then decode :math:`\hat x` by another decoder.

    .. math:: p(x | z_0) = p_\text{decoder}(x \,|\, \hat x(z_0))

    The denoiser is the same module as the prior's. It is saved once.

    Args:
        denoiser: the denoiser.
        schedule: the diffusion's schedule; a free clean end is set for the decoder's data.
        decoder: takes :math:`\hat x` for its state, for example
            ``GaussianDecoder(Identity(), shape)`` for real data, and
            ``DiscretizedLogisticDecoder(Identity(), DataSpec(shape, bins))`` for integers.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eq. 13.
    """

    schedule: Schedule

    def __init__(self, denoiser: Denoiser, schedule: Schedule, decoder: Decoder) -> None:
        super().__init__(decoder.spec)
        self.denoiser, self.decoder = denoiser, decoder
        self.schedule = schedule.resolve(decoder.spec)

    def forward(self, state: Tensor, context: Tensor | None = None) -> Distribution:
        start = torch.zeros(len(state), dtype=time_dtype(state.device), device=state.device)
        x_hat = denoise(self.denoiser, state, self.schedule.at(start), context).x_hat
        return self.decoder(x_hat, context)

    def formula(self) -> str:
        return self.decoder.formula().replace("| z)", "| z_0)").replace("d(z)", "x_hat(z_0)")


# ---------------------------------------------------------------------- the scale

SCALES = 49
"""How many scales are tried, evenly spaced in their logarithm (a ratio of about 1.16)."""
FINEST = 16
"""The smallest scale is the width of a bin divided by this; the largest is 1, half of [-1, 1]."""


@torch.no_grad()
@checked
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
        if not all(map(math.isfinite, likely)):
            raise invalid(
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
    raise invalid(
        f"a model with {model.decoder.formula()}",
        "a diffusion of integers whose decoder is a LastStepDecoder with one GlobalScale",
        "train other decoders with the bound",
    )
