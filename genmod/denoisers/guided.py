r"""Classifier-free guidance and autoguidance: extrapolate from an unconditional ``x_hat``, or a worse one.

.. math:: \hat x = \hat x_u + w\,(\hat x_c - \hat x_u)

The weights add up to one and both means belong to the same ``z``, so the same formula holds for noise,
velocity and score. Papers define the scale differently:

===============================================  ==========================
paper                                            its scale, in our ``w``
===============================================  ==========================
Ho, Salimans 2022, :math:`(1+w')`                :math:`w = 1 + w'`
Imagen, GLIDE's ``s``, diffusers, EDM2           :math:`w`
===============================================  ==========================
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genmod.checks import invalid
from genmod.denoisers.base import Denoised, Denoiser
from genmod.nn.conditioning import null_context
from genmod.schedules import Schedule
from genmod.tensors import PerSample, Real


class Guided(Denoiser):
    r"""Classifier-free guidance; with a ``worse`` denoiser, autoguidance.

    ``w = 1`` is the conditional denoiser, one call of the network. Any other scale is one call with twice
    the rows (``w = 0``, the unconditional mean, needs the rows once if the denoiser returns no variance).
    Beyond 1 the result is not a posterior mean of any ``x``: guidance trades diversity for typicality.

    The reverse chain of a guided denoiser has its own bound. It bounds the likelihood of *that* chain,
    not of the trained model, nor :math:`p(x|c)^w p(x)^{1-w}`. Where the
    denoisers are optimal, each step's error grows by :math:`(w-1)^2 E\|\hat x_c - \hat x_u\|^2`.

    Args:
        denoiser: a denoiser trained with and without its context.
        scale: ``w``.
        worse: a worse version of the denoiser (smaller, or trained for fewer steps), given the same
            context. Its mean is then :math:`\hat x_u`, from a call of its own.
        interval: ``(low, high)``: guide only where ``low <= log_snr < high``; elsewhere ``w = 1``. For a
            paper's :math:`\sigma` (variance exploding) the log-SNR is :math:`-2 \log \sigma`.
        rescale: :math:`\phi` in [0, 1]. At 1 the standard deviation of :math:`\hat x` over each event
            becomes that of :math:`\hat x_c`; at 0 it is unchanged. The paper rescales the network's
            output, so its result depends on the target. Here ``x_hat`` is rescaled for every target.
        null_context: from a context to the one that means "none", where the network was trained with
            another one, or for a negative prompt.

    Raises:
        ValueError: a scale or a ``rescale`` out of range, or an empty interval; when it is called, a
            context that is missing.

    Reference: Ho, Salimans, "Classifier-free diffusion guidance" (2022), eq. 6; Karras et al., "Guiding a
    diffusion model with a bad version of itself" (2024), eq. 1; Kynkäänniemi et al., "Applying guidance in
    a limited interval improves sample and distribution quality" (2024), eq. 6; Lin, Liu, Li, Yang, "Common
    diffusion noise schedules and sample steps are flawed" (2024), eqs. 14-16.

    >>> from genmod.denoisers import GaussianDenoiser
    >>> good, bad = (GaussianDenoiser(torch.zeros(1), s * torch.eye(1)) for s in (1.0, 3.0))
    >>> z, log_snr = torch.ones(1, 1), torch.zeros(1)
    >>> [round(d(z, log_snr).x_hat.item(), 3) for d in (good, bad, Guided(good, 2.0, worse=bad))]
    [0.707, 1.061, 0.354]
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float,
        *,
        worse: Denoiser | None = None,
        interval: tuple[float, float] | None = None,
        rescale: float = 0.0,
        null_context: Callable[[Tensor], Tensor] = null_context,
    ) -> None:
        super().__init__()
        if not math.isfinite(scale):
            raise invalid(
                f"scale={scale}",
                "a finite number",
                "1 is the conditional model, 0 the unconditional one, 2 to 8 is usual",
            )
        if not 0 <= rescale <= 1:
            raise invalid(
                f"rescale={rescale}",
                "a number from 0 (off) to 1",
                "0.7 is the paper's choice where a large scale overexposes",
            )
        if interval is not None and not interval[0] < interval[1]:
            raise invalid(
                f"interval={interval}",
                "(low, high) in log-SNR, low < high",
                "noise comes first: the lower end is the noisier one",
            )
        self.denoiser, self.worse = denoiser, worse
        self.scale, self.interval, self.rescale = scale, interval, rescale
        self.null_context = null_context

    def forward(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Denoised:
        """The guided mean. A variance or an interpolation is the conditional denoiser's, at any scale."""
        inside = self._inside(log_snr)
        if self.scale == 1 or not bool(inside.any()):
            return self.denoiser(z, log_snr, context)
        if self.scale == 0 and self.rescale == 0 and self.worse is None and bool(inside.all()):
            without = self.denoiser(z, log_snr, self.null_context(_needed(context)))
            # Without a variance, the result of the conditional denoiser is not needed.
            if without.variance is None and without.interpolation is None:
                return without
        conditional, without = self._both(z, log_snr, context)
        x_hat = without.x_hat + self.scale * (conditional.x_hat - without.x_hat)
        if self.rescale > 0:
            x_hat = x_hat * (1 + self.rescale * (_spread_ratio(conditional.x_hat, x_hat) - 1))
        rows = inside.reshape(-1, *[1] * (z.ndim - 1))
        return conditional._replace(x_hat=torch.where(rows, x_hat, conditional.x_hat))

    def _inside(self, log_snr: Tensor) -> Tensor:
        if self.interval is None:
            # On the CPU: reading it does not wait for a GPU.
            return torch.ones(1, dtype=torch.bool)
        low, high = self.interval
        return (log_snr >= low) & (log_snr < high)

    def _both(
        self, z: Tensor, log_snr: Tensor, context: Tensor | None
    ) -> tuple[Denoised, Denoised]:
        """The conditional result, and the unconditional (or worse) one."""
        if self.worse is not None:
            return self.denoiser(z, log_snr, context), self.worse(z, log_snr, context)
        given = _needed(context)
        both = self.denoiser(
            torch.cat([z, z]),
            torch.cat([log_snr, log_snr]),
            torch.cat([given, self.null_context(given)]),
        )
        halves = [(None, None) if part is None else part.chunk(2) for part in both]
        conditional, without = zip(*halves, strict=True)
        return Denoised(*conditional), Denoised(*without)

    def check(self, schedule: Schedule) -> None:
        self.denoiser.check(schedule)
        if self.worse is not None:
            self.worse.check(schedule)

    def extra_repr(self) -> str:
        return f"scale={self.scale}, interval={self.interval}, rescale={self.rescale}"


def _needed(context: Tensor | None) -> Tensor:
    if context is None:
        raise invalid(
            "no context",
            "one to guide towards",
            "pass context=labels to sample(...), or build Guided with worse=another denoiser",
        )
    return context


def _spread_ratio(conditional: Tensor, guided: Tensor) -> Tensor:
    """The standard deviation over each event of the conditional mean, over that of the guided one."""
    dims = tuple(range(1, conditional.ndim))
    right, wide = (x.std(dims, correction=0, keepdim=True) for x in (conditional, guided))
    # A constant event has a standard deviation of zero: 0 / 0.
    return torch.where(wide > 0, right / wide, torch.ones_like(wide))
