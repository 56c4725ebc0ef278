r"""Schedules defined by the distribution of the log-SNR under uniform times.

If ``t`` is uniform, :math:`\lambda_t` has the density :math:`p(\lambda) = -1 / \lambda'(t)`. Here the
distribution is given, and the schedule is its quantile function, cut at two given log-SNRs.

Reference: Kingma, Gao, "Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation"
(2023), section 2.1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genmod.checks import invalid
from genmod.schedules.consistency import NOMINAL
from genmod.schedules.curve import Curve


class Quantiles(Curve, ABC):
    r"""The base class: :math:`\lambda = \text{location} + \text{scale}\, w` with ``w`` symmetric about 0.

    Cut at its ends, :math:`\lambda_t` is the value that the log-SNR exceeds with probability
    :math:`P(\lambda > \text{clean}) + t\, P(\text{noisy} < \lambda < \text{clean})`.

    Args:
        location: the median of the whole distribution.
        scale: the factor of ``w``.
        clean: log-SNR at t = 0; ``None`` leaves it free: a model sets it for its data.
        noisy: log-SNR at t = 1.
    """

    def __init__(
        self,
        location: float,
        scale: float,
        clean: float | None,
        noisy: float,
        nominal: float = NOMINAL,
    ) -> None:
        if not scale > 0:
            raise invalid(f"scale={scale}", "a scale above 0", "at 0 the log-SNR is constant")
        self.location, self.scale = location, scale
        super().__init__(clean, noisy, nominal)
        self.check()

    def _set_ends(self, clean: float, noisy: float) -> None:
        super()._set_ends(clean, noisy)
        ends = torch.tensor([clean - self.location, self.location - noisy], dtype=torch.float64)
        # Each tail is computed directly: at w = 9, one minus the other probability is 0.
        self.over, self.under = self._tail(ends / self.scale).tolist()
        self.inside = 1 - self.over - self.under

    @abstractmethod
    def _tail(self, w: Tensor) -> Tensor:
        """The probability of more than ``w``, precise where it is small."""

    @abstractmethod
    def _above(self, p: Tensor) -> Tensor:
        """The inverse of ``_tail``: the ``w`` that is exceeded with probability ``p``, at most 1/2."""

    @abstractmethod
    def _density(self, w: Tensor) -> Tensor:
        """The density of ``w``."""

    def _standard(self, t: Tensor) -> Tensor:
        """``w`` at each time."""
        more = self.over + self.inside * t
        less = self.under + self.inside * (1 - t)
        w = self._above(torch.where(more < less, more, less))
        return torch.where(more < less, w, -w)

    def log_snr(self, t: Tensor) -> Tensor:
        return self.location + self.scale * self._standard(t)

    def slope(self, t: Tensor) -> Tensor:
        """Its derivative: minus one over the density of the log-SNR between the ends."""
        slope: Tensor = -self.scale * self.inside / self._density(self._standard(t))
        return slope

    def _time(self, log_snr: Tensor) -> Tensor:
        w = (log_snr - self.location) / self.scale
        passed = (self._tail(w) - self.over) / self.inside
        left = (self._tail(-w) - self.under) / self.inside
        return torch.where(w > 0, passed, 1 - left)


class LogNormal(Quantiles):
    r"""EDM's noise levels for training: :math:`\log(\sigma / \alpha)` is normal, and so is the log-SNR.

    The logit-normal times of Stable Diffusion 3, of mean ``m`` and standard deviation ``s``, are
    ``RectifiedFlow(LogNormal(m, s))``.

    Args:
        mean: of :math:`\log(\sigma / \alpha)`.
        std: of :math:`\log(\sigma / \alpha)`.
        clean: log-SNR at t = 0; ``None`` leaves it free: a model sets it for its data.
        noisy: log-SNR at t = 1; by default that of EDM's largest noise level, 80.

    Reference: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative
    Models" (2022), table 1 (its scales are those of ``VarianceExploding(LogNormal())``). Esser et al.,
    "Scaling Rectified Flow Transformers" (2024), eq. 19.

    >>> LogNormal().log_snr(torch.tensor([0.5], dtype=torch.float64))  # the median: cut a little
    tensor([2.4000], dtype=torch.float64)
    """

    def __init__(
        self,
        mean: float = -1.2,
        std: float = 1.2,
        clean: float | None = None,
        noisy: float = -2 * math.log(80),
    ) -> None:
        super().__init__(-2 * mean, 2 * std, clean, noisy, nominal=-2 * math.log(0.002))

    def _tail(self, w: Tensor) -> Tensor:
        # ndtr is one plus an error function: 2 % short at w = 8, zero from 9 on.
        tail: Tensor = 0.5 * torch.special.erfc(w * math.sqrt(0.5))
        return tail

    def _above(self, p: Tensor) -> Tensor:
        above: Tensor = -torch.special.ndtri(p)
        return above

    def _density(self, w: Tensor) -> Tensor:
        return (-0.5 * w.square()).exp() / math.sqrt(2 * math.pi)


class Laplace(Quantiles):
    r"""The Laplace schedule: the log-SNR has a Laplace distribution, with a peak and exponential tails.

    .. math:: \lambda_t = \mu - b\, \mathrm{sign}(\tfrac{1}{2} - t) \log(1 - 2|t - \tfrac{1}{2}|)

    where the ends do not cut it.

    Args:
        location: :math:`\mu`.
        scale: :math:`b`.
        clean: log-SNR at t = 0; ``None`` leaves it free: a model sets it for its data.
        noisy: log-SNR at t = 1.

    Reference: Hang, Gu, Geng, Guo, "Improved Noise Schedule for Diffusion Training" (2024), table 1.

    >>> Laplace().log_snr(torch.tensor([0.25, 0.75], dtype=torch.float64))
    tensor([ 0.3466, -0.3465], dtype=torch.float64)
    """

    def __init__(
        self,
        location: float = 0.0,
        scale: float = 0.5,
        clean: float | None = None,
        noisy: float = -5.0,
    ) -> None:
        super().__init__(location, scale, clean, noisy)

    def _tail(self, w: Tensor) -> Tensor:
        half = 0.5 * (-w.abs()).exp()
        return torch.where(w > 0, half, 1 - half)

    def _above(self, p: Tensor) -> Tensor:
        return -(2 * p).log()

    def _density(self, w: Tensor) -> Tensor:
        return 0.5 * (-w.abs()).exp()


class Logistic(Quantiles):
    r"""The log-SNR of a rectified flow: :math:`\lambda = 2 \log\frac{1-u}{u}` with ``u`` linear in ``t``.

    Its states have variance one. :class:`RectifiedFlow` has the same log-SNR on the straight line's states.

    Args:
        location: the median.
        scale: 2 for the straight line.
        clean: log-SNR at t = 0; ``None`` leaves it free: a model sets it for its data.
        noisy: log-SNR at t = 1.

    Reference: Lipman et al., "Flow Matching for Generative Modeling" (2023), eq. 20; Liu, Gong, Liu,
    "Flow Straight and Fast" (2023).

    >>> Logistic().log_snr(torch.tensor([0.5]))
    tensor([0.])
    """

    def __init__(
        self,
        location: float = 0.0,
        scale: float = 2.0,
        clean: float | None = None,
        noisy: float = -13.3,
    ) -> None:
        super().__init__(location, scale, clean, noisy)

    def _tail(self, w: Tensor) -> Tensor:
        return (-w).sigmoid()

    def _above(self, p: Tensor) -> Tensor:
        return -p.logit()

    def _density(self, w: Tensor) -> Tensor:
        return w.sigmoid() * (-w).sigmoid()
