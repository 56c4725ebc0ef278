r"""Noise schedules: log-SNR against time, the one thing a diffusion's encoder decides.

Symbols: :math:`z_t = \alpha_t x + \sigma_t \varepsilon`, :math:`\lambda_t = \log(\alpha_t^2 / \sigma_t^2)`
(``log_snr``), ``t`` in [0, 1] from clean (0) to noise (1), ``s < t``. Every schedule is strictly
decreasing and finite at both ends, so no level is ever free or infinitely dear. All is computed in
float64 where the device has it: at a million steps, float32 does not resolve neighboring levels.

The lecture's :math:`\bar\alpha_t` is :math:`\alpha_t^2` here.

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), sections 3.1 and 3.2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from genmod.checks import require


def time_dtype(device: torch.device) -> torch.dtype:
    """The type of times: float64, except where the device has none (Apple's MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


class Point(NamedTuple):
    """A schedule at one time a row; each field is ``(B,)``."""

    t: Tensor
    log_snr: Tensor
    alpha: Tensor
    sigma: Tensor
    preserving: bool


class Bridge(NamedTuple):
    r"""The law of :math:`z_s` given :math:`z_t` and ``x``, for ``s < t``; each field is ``(B,)``.

    .. math:: q(z_s | z_t, x) = \mathcal{N}(\text{state}\, z_t + \text{data}\, x,\ \exp(\text{log_std})^2)
    """

    state: Tensor
    data: Tensor
    log_std: Tensor
    ratio: Tensor
    """``log(sigma_t / sigma_s)``: the log-std of the forward step above the posterior's."""


class Schedule(nn.Module, ABC):
    """A strictly decreasing log-SNR on [0, 1], finite at both ends."""

    preserving = True
    """Whether alpha^2 + sigma^2 is one; a schedule with scales of its own says ``False``."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """The log signal-to-noise ratio at each time."""

    def slope(self, t: Tensor) -> Tensor:
        """The derivative of :meth:`log_snr` at each time (negative), by automatic differentiation."""
        with torch.enable_grad():
            time = t.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.log_snr(time).sum(), time, create_graph=True)
        return slope if torch.is_grad_enabled() else slope.detach()

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`(\alpha_t, \sigma_t)`; variance preserving: their squares sum to one."""
        return self._scales(self.log_snr(t))

    def at(self, t: Tensor) -> Point:
        """All of the schedule at once."""
        log_snr = self.log_snr(t)
        return Point(t, log_snr, *self._scales(log_snr), self.preserving)

    def _scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()

    def bridge(self, s: Tensor, t: Tensor) -> Bridge:
        r"""The law of :math:`z_s` given :math:`z_t` and ``x``.

        With :math:`c = 1 - \mathrm{SNR}_t / \mathrm{SNR}_s` its mean is
        :math:`\frac{\alpha_t \sigma_s^2}{\alpha_s \sigma_t^2} z_t + \alpha_s c\, x` and its variance
        :math:`\sigma_s^2 c`.

        Reference: Kingma et al. (2021), appendix A.2, eqs. 25-27.
        """
        near, far = self.at(s), self.at(t)
        kept = -torch.expm1(far.log_snr - near.log_snr)
        state = (far.alpha / near.alpha) * (near.sigma / far.sigma).square()
        return Bridge(
            state=state,
            data=near.alpha * kept,
            log_std=near.sigma.log() + 0.5 * kept.log(),
            ratio=(far.sigma / near.sigma).log(),
        )

    def ends(self) -> tuple[float, float]:
        """The log-SNR at the clean end (t = 0) and at the noisy end (t = 1)."""
        clean, noisy = self.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        return clean, noisy

    def check(self) -> None:
        """Require the schedule to be one.

        Raises:
            ValueError: its log-SNR is infinite somewhere, or does not decrease.
        """
        with torch.no_grad():
            log_snr = self.log_snr(torch.linspace(0, 1, 1001, dtype=torch.float64))
            alpha, sigma = self._scales(log_snr)
        require(
            bool(log_snr.isfinite().all()),
            f"{type(self).__name__} with log-SNR {log_snr[0]:g} at t=0 and {log_snr[-1]:g} at t=1",
            "a finite log-SNR on all of [0, 1]",
            "clip its ends (an infinite log-SNR makes a level free or infinitely dear)",
        )
        worst = int(log_snr.diff().argmax())
        require(
            bool((log_snr.diff() < 0).all()),
            f"{type(self).__name__} whose log-SNR rises or rests near t={worst / 1000:.3f}",
            "a strictly decreasing log-SNR",
            "t runs from clean (0) to noise (1): reverse time, or remove the flat part",
        )
        require(
            not self.preserving or bool(((alpha.square() + sigma.square() - 1).abs() < 1e-9).all()),
            f"{type(self).__name__}, whose scales' squares do not add up to one",
            "a variance-preserving schedule",
            "set preserving = False in the class that overrides _scales",
        )

    def extra_repr(self) -> str:
        """The ends, as printed."""
        clean, noisy = self.ends()
        return f"log_snr {clean:.4g} .. {noisy:.4g}"


class LinearLogSNR(Schedule):
    r""":math:`\lambda_t` falls linearly in ``t``.

    Args:
        clean: log-SNR at t = 0. 13.3 is where the learned schedule of VDM ends on 8-bit images.
        noisy: log-SNR at t = 1.

    Reference: Kingma et al. (2021), appendix I.2.

    >>> LinearLogSNR().log_snr(torch.tensor([0.0, 1.0]))
    tensor([13.3000, -5.0000])
    """

    def __init__(self, clean: float = 13.3, noisy: float = -5.0) -> None:
        super().__init__()
        self.clean, self.noisy = clean, noisy
        self.check()

    def log_snr(self, t: Tensor) -> Tensor:
        """The log signal-to-noise ratio at each time."""
        return self.clean + (self.noisy - self.clean) * t

    def slope(self, t: Tensor) -> Tensor:
        """Its derivative: a constant."""
        return torch.full_like(t, self.noisy - self.clean)


class Cosine(Schedule):
    r"""The cosine schedule, cut at stated log-SNR ends.

    .. math:: \bar\alpha = \cos^2\theta / \cos^2\theta_0, \qquad
        \theta_0 = \tfrac{\pi}{2} \tfrac{o}{1 + o}

    where :math:`\theta` runs linearly in ``t``. The lecture's has offset :math:`o = 0`; that of
    Improved DDPM has 0.008. Uncut, their log-SNR is infinite at both ends (at one, with an offset),
    so ``t`` runs over the part between the ends given here; inside, the curve is unchanged.

    Args:
        offset: the offset, at least 0.
        clean: log-SNR at t = 0.
        noisy: log-SNR at t = 1.

    Reference: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 17;
    cut as in Hoogeboom, Heek, Salimans, "Simple diffusion" (2023), appendix A.

    >>> Cosine().scales(torch.tensor([0.5], dtype=torch.float64))[0].square()
    tensor([0.5403], dtype=torch.float64)
    """

    def __init__(self, offset: float = 0.0, clean: float = 13.3, noisy: float = -5.0) -> None:
        super().__init__()
        require(offset >= 0, f"offset={offset}", "offset >= 0", "the paper's is 0.008")
        require(clean > noisy, f"ends {clean}, {noisy}", "clean > noisy", "swap them")
        self.offset, self.clean, self.noisy = offset, clean, noisy
        self.start = 0.5 * math.pi * offset / (1 + offset)
        self.first, self.last = self._angle(clean), self._angle(noisy)
        self.check()

    def _angle(self, log_snr: float) -> float:
        r""":math:`\theta` where :math:`\cos^2\theta = \cos^2\theta_0\, \mathrm{sigmoid}(\lambda)`."""
        noise = 1 / (1 + math.exp(log_snr))
        # From the sine: the cosine of a small angle rounds to 1.
        rest = noise + math.sin(self.start) ** 2 * (1 - noise)
        return math.asin(math.sqrt(rest))

    def log_snr(self, t: Tensor) -> Tensor:
        r""":math:`2 \log\cos\theta - \log\sin(\theta - \theta_0) - \log\sin(\theta + \theta_0)`."""
        theta = self.first + (self.last - self.first) * t
        apart = (theta - self.start).sin().log() + (theta + self.start).sin().log()
        return 2 * theta.cos().log() - apart

    def slope(self, t: Tensor) -> Tensor:
        """Its derivative in closed form."""
        width = self.last - self.first
        theta = self.first + width * t
        return -width * (
            2 * theta.tan() + 1 / (theta - self.start).tan() + 1 / (theta + self.start).tan()
        )


class Table(Schedule):
    r"""A table of log-SNRs at :math:`t = 0, 1/(T-1), \dots, 1`, with straight lines between.

    Args:
        log_snrs: ``(T,)``, strictly decreasing, at least two.
    """

    def __init__(self, log_snrs: Tensor) -> None:
        super().__init__()
        require(
            log_snrs.ndim == 1 and len(log_snrs) >= 2,
            f"a table of shape {tuple(log_snrs.shape)}",
            "one dimension and at least 2 entries",
            "a diffusion of one latent needs no table: use steps=1 with any schedule",
        )
        # A plain attribute, not a buffer: .half() must not round it.
        self.table = log_snrs.detach().double().cpu()
        self._placed: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        rising = (self.table.diff() >= 0).nonzero().flatten()
        require(
            bool(self.table.isfinite().all()) and not len(rising),
            f"a table with infinite entries or a rise at {rising[:3].tolist()}",
            "finite, strictly decreasing log-SNRs",
            "clip betas away from 0 and 1",
        )

    @classmethod
    def from_betas(cls, betas: Tensor) -> Table:
        r"""The table of the lecture's :math:`\beta_1, \dots, \beta_T`; :math:`x_i` lies at ``(i-1)/(T-1)``.

        Raises:
            ValueError: a beta outside (0, 1).
        """
        require(
            bool(((betas > 0) & (betas < 1)).all()),
            f"betas from {float(betas.min()):g} to {float(betas.max()):g}",
            "every beta inside (0, 1)",
            "beta = 1 makes the log-SNR infinite: clip it to 0.999 as Improved DDPM does",
        )
        log_alpha_bar = torch.log1p(-betas.double()).cumsum(0)
        return cls(log_alpha_bar - (-torch.expm1(log_alpha_bar)).log())

    def _place(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        place = t.device, t.dtype
        if place not in self._placed:
            self._placed[place] = self.table.to(dtype=t.dtype, device=t.device)
        table = self._placed[place]
        cell = t * (len(table) - 1)
        left = cell.floor().clamp(0, len(table) - 2)
        index = left.long()
        low, high = table[index], table[index + 1]
        return low, high - low, cell - left

    def log_snr(self, t: Tensor) -> Tensor:
        """The log signal-to-noise ratio at each time."""
        low, rise, part = self._place(t)
        return low + rise * part

    def slope(self, t: Tensor) -> Tensor:
        """Its derivative: a constant between two entries."""
        return self._place(t)[1] * (len(self.table) - 1)


class LinearBeta(Table):
    r"""The exact table of DDPM: :math:`\beta_i` linear from ``first`` to ``last``.

    Args:
        steps: the number of betas, ``T``.
        first: :math:`\beta_1`.
        last: :math:`\beta_T`.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), section 4.

    >>> LinearBeta(1000).ends()[0] > 9
    True
    """

    def __init__(self, steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> None:
        betas = torch.linspace(first, last, steps, dtype=torch.float64)
        super().__init__(Table.from_betas(betas).table)
