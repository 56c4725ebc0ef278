"""DDIM: from the probability flow (eta = 0) to the ancestral chain (eta = 1), and past it."""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.checks import require
from genmod.denoisers import Denoiser
from genmod.samplers.base import Linear, Rule
from genmod.samplers.walk import Walk
from genmod.schedules import Schedule


class DDIM(Linear):
    r"""A chain with the same marginals for any amount of noise.

    .. math:: z_s = \alpha_s \hat x + \sqrt{\sigma_s^2 - v}\, \hat\varepsilon + \sqrt v\, \varepsilon,
        \qquad v = \eta^2 \sigma_s^2 \left(1 - \frac{\mathrm{SNR}_t}{\mathrm{SNR}_s}\right)

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        eta: 0 is Euler's method on the probability flow, 1 the ancestral chain with the posterior's
            variance. More is possible while :math:`v \le \sigma_s^2`, that is, with short steps.

    Raises:
        ValueError: a negative ``eta``; on a path, an ``eta`` too large for its steps.

    Reference: Song, Meng, Ermon, "Denoising Diffusion Implicit Models" (2021), eqs. 12 and 16.
    """

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        *,
        eta: float = 0.0,
    ) -> None:
        super().__init__(denoiser, schedule)
        require(eta >= 0, f"eta={eta}", "eta >= 0", "0 is deterministic, 1 ancestral")
        self.eta = eta
        self.draws = eta > 0

    def rule(self, walk: Walk) -> Rule:
        """The factors of every step."""
        rise = walk.rises
        fresh = -torch.expm1(-2 * rise)
        if self.eta > 1:
            require(
                bool((self.eta**2 * fresh <= 1).all()),
                f"eta={self.eta:g} on steps that raise log-SNR by up to {2 * float(rise.max()):.3g}",
                f"eta <= {float(fresh.max().rsqrt()):.4g} for these steps",
                "take more steps, or less noise",
            )
        # log sqrt(1 - eta^2 fresh); at eta = 1 it is -h, to the last bit.
        damped = -rise if self.eta == 1 else 0.5 * torch.log1p(-(self.eta**2) * fresh)
        noise: Tensor | None = None
        if self.draws:
            noise = self.eta * walk.sigma[1:] * fresh.sqrt()
        data = -walk.alpha[1:] * torch.expm1(damped - rise)
        return Rule(walk.shrinkage * damped.exp(), [data], noise)

    def extra_repr(self) -> str:
        """Its settings."""
        return f"eta={self.eta:g}"
