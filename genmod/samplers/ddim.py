"""DDIM: from the probability flow (eta = 0) to the ancestral chain (eta = 1), and past it."""

from __future__ import annotations

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require
from genmod.denoisers import Denoiser
from genmod.samplers.base import SingleStep
from genmod.schedules import Schedule


class DDIM(SingleStep):
    r"""DDIM: steps with the same marginals for any amount of fresh noise.

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
        self.stochastic = eta > 0

    def update(self, z_t: Tensor, x_hat: Tensor, t: Tensor, s: Tensor) -> Tensor:
        r"""The formula above, with :math:`\hat\varepsilon = (z_t - \alpha_t \hat x) / \sigma_t`."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = map(self.schedule.scales, (t, s))
        h = 0.5 * (self.schedule.log_snr(s) - self.schedule.log_snr(t))
        kept, std = shares(h, self.eta)
        factor = kept * sigma_s / sigma_t
        z_s = factor * z_t + (alpha_s - factor * alpha_t) * x_hat
        return z_s + sigma_s * std * random.normal_like(z_t) if self.stochastic else z_s

    def extra_repr(self) -> str:
        """Its settings."""
        return f"eta={self.eta:g}"


def shares(h: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    r"""Of :math:`\sigma_s`, the shares of old noise, :math:`\sqrt{1 - \eta^2 c}`, and of fresh noise,
    :math:`\eta \sqrt c`, with :math:`c = 1 - \mathrm{SNR}_t / \mathrm{SNR}_s = 1 - e^{-2h}`.

    Raises:
        ValueError: ``eta`` is too large for one of the steps.
    """
    if eta == 0:
        return torch.ones_like(h), torch.zeros_like(h)
    fresh = -torch.expm1(-2 * h)
    if eta > 1 and not bool((eta**2 * fresh <= 1).all()):
        raise ValueError(
            f"got eta={eta:g} on steps that raise log-SNR by up to {2 * float(h.max()):.3g}; expected "
            f"eta <= {float(fresh.max().rsqrt()):.4g} for these steps; take more steps, or less noise"
        )
    # At eta = 1 it is e^-h, to the last bit.
    kept = torch.exp(-h) if eta == 1 else torch.exp(0.5 * torch.log1p(-(eta**2) * fresh))
    return kept, eta * fresh.sqrt()
