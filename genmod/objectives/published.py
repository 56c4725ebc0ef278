r"""Published weights on the levels of a diffusion: Min-SNR, P2, EDM, sigmoid, truncated SNR.

Papers give a weight of the error of ``x``, of the noise or of the velocity, and draw times in different
ways. If a paper draws times uniformly, its weight is one on the error of the noise here
(:class:`NoiseWeighted`). If it gives a density of noise levels or writes a weighted bound, the weight is
one on the bound (:class:`BoundWeighted`). The loss does not depend on the target of the network.

Symbols: :math:`\lambda` is the log-SNR, :math:`e^\lambda` the SNR.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genmod.checks import check_positive, invalid
from genmod.diffusion.timesteps import TabulatedTimesteps
from genmod.objectives.weighted import BoundWeighted, NoiseWeighted
from genmod.path import AutoTimesteps, Timesteps
from genmod.schedules import Schedule


class MinSNR(NoiseWeighted):
    r"""Min-SNR-:math:`\gamma`: the weight of the error of ``x`` is the SNR, but at most :math:`\gamma`.

    .. math:: \mathbb{E}_t \min(\mathrm{SNR}, \gamma) \|x - \hat x\|^2
        = \mathbb{E}_t \min(1, \gamma / \mathrm{SNR}) \|\varepsilon - \hat\varepsilon\|^2
        = \mathbb{E}_t \frac{\min(\mathrm{SNR}, \gamma)}{\mathrm{SNR} + 1} \|v - \hat v\|^2

    Args:
        gamma: the largest weight of the error of ``x``.
        timesteps: which levels of a diffusion each row visits.

    Reference: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy" (2023),
    section 3.4.

    >>> MinSNR(5.0).weight(torch.tensor([-2.0, math.log(50.0)]))
    tensor([1.0000, 0.1000])
    """

    def __init__(self, gamma: float = 5.0, timesteps: Timesteps = AutoTimesteps.TRAINING) -> None:
        super().__init__(timesteps)
        check_positive(gamma, "gamma")
        self.gamma = gamma

    def weight(self, log_snr: Tensor) -> Tensor:
        r""":math:`\min(1, \gamma e^{-\lambda})`."""
        return (self.gamma * (-log_snr).exp()).clamp(max=1)

    def extra_repr(self) -> str:
        return self._with_timesteps(f"gamma={self.gamma}")


class TruncatedSNR(NoiseWeighted):
    r"""Truncated SNR: the larger of the errors of ``x`` and of the noise, so that no weight vanishes.

    .. math:: \mathbb{E}_t \max(\|x - \hat x\|^2, \|\varepsilon - \hat\varepsilon\|^2)
        = \mathbb{E}_t \max(\mathrm{SNR}, 1) \|x - \hat x\|^2

    Args:
        timesteps: which levels of a diffusion each row visits.

    Reference: Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models" (2022),
    section 4.

    >>> TruncatedSNR().weight(torch.tensor([3.0, -math.log(7.0)]))
    tensor([1.0000, 7.0000])
    """

    def weight(self, log_snr: Tensor) -> Tensor:
        r""":math:`\max(1, e^{-\lambda})`."""
        return (-log_snr).exp().clamp(min=1)


class P2(NoiseWeighted):
    r"""P2, perception prioritized: less weight on clean levels, whose details are hard to see.

    .. math:: \mathbb{E}_t \frac{1}{(k + \mathrm{SNR})^\gamma} \|\varepsilon - \hat\varepsilon\|^2

    Args:
        gamma: larger values give clean levels less weight; 0 is :class:`Simple`.
        k: levels with an SNR well below ``k`` have about equal weights.
        timesteps: which levels of a diffusion each row visits.

    Reference: Choi et al., "Perception Prioritized Training of Diffusion Models" (2022), eq. 8.

    >>> P2(gamma=0.5).weight(torch.tensor([math.log(8.0)]))
    tensor([0.3333])
    """

    def __init__(
        self, gamma: float = 1.0, k: float = 1.0, timesteps: Timesteps = AutoTimesteps.TRAINING
    ) -> None:
        super().__init__(timesteps)
        if not 0 <= gamma < math.inf:
            raise invalid(f"gamma={gamma}", "gamma >= 0", "the paper's are 0.5 and 1")
        check_positive(k, "k")
        self.gamma, self.k = gamma, k

    def weight(self, log_snr: Tensor) -> Tensor:
        r""":math:`(k + e^\lambda)^{-\gamma}`."""
        return (self.k + log_snr.exp()).pow(-self.gamma)

    def extra_repr(self) -> str:
        return self._with_timesteps(f"gamma={self.gamma}", f"k={self.k}")


class SigmoidWeight(BoundWeighted):
    r"""The sigmoid weight: the bound's steps, with less weight on levels cleaner than a log-SNR.

    .. math:: \tfrac{1}{2} \int \mathrm{sigmoid}(b - \lambda)
        \|\varepsilon - \hat\varepsilon\|^2 d\lambda

    It falls with the log-SNR, so it is a bound on the likelihood of noised data under every schedule.

    Args:
        bias: ``b``, the log-SNR at which the weight is one half.
        timesteps: which levels of a diffusion each row visits.

    Reference: Kingma, Gao, "Understanding Diffusion Objectives as the ELBO with Simple Data
    Augmentation" (2023), section 5; Hoogeboom et al., "Simpler Diffusion (SiD2)" (2024), which writes
    it :math:`e^b\, \mathrm{sigmoid}(\lambda - b)` of the error of ``x``.

    >>> SigmoidWeight(-1.0).weight(torch.tensor([-1.0]))
    tensor([0.5000])
    """

    def __init__(self, bias: float, timesteps: Timesteps = AutoTimesteps.TRAINING) -> None:
        super().__init__(timesteps)
        if not math.isfinite(bias):
            raise invalid(f"bias={bias}", "a log-SNR", "0 is where signal is noise")
        self.bias = bias

    def weight(self, log_snr: Tensor) -> Tensor:
        r""":math:`\mathrm{sigmoid}(b - \lambda)`."""
        return (self.bias - log_snr).sigmoid()

    def extra_repr(self) -> str:
        return self._with_timesteps(f"bias={self.bias}")


class EDMWeight(BoundWeighted):
    r"""The weight of EDM: its loss weight times its log-normal density of noise levels.

    .. math:: \mathbb{E}_{\log\sigma \sim \mathcal{N}(m, s^2)}
        \frac{\sigma^2 + \sigma_d^2}{\sigma^2 \sigma_d^2} \|x - \hat x\|^2
        = \int p(\lambda) \left(1 + \frac{e^{-\lambda}}{\sigma_d^2}\right)
        \|\varepsilon - \hat\varepsilon\|^2 d\lambda

    with :math:`\lambda = -2 \log\sigma \sim \mathcal{N}(-2m, 4s^2)`: in the bound
    :math:`w(\lambda) = 2 p(\lambda)(1 + e^{-\lambda} / \sigma_d^2)` for every schedule, over the log-SNRs
    between its ends. To also visit levels as often as the paper does, pass
    ``timesteps=EDMWeight.timestep_sampler(schedule)``.

    Args:
        mean: ``m``, the mean of :math:`\log\sigma`.
        std: ``s``, its standard deviation.
        data_std: :math:`\sigma_d`, the standard deviation of the data.
        timesteps: which levels of a diffusion each row visits.

    Reference: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative
    Models" (2022), eq. 8 and table 1; Kingma, Gao (2023), table 1.
    """

    def __init__(
        self,
        mean: float = -1.2,
        std: float = 1.2,
        data_std: float = 0.5,
        timesteps: Timesteps = AutoTimesteps.TRAINING,
    ) -> None:
        super().__init__(timesteps)
        if not math.isfinite(mean):
            raise invalid(f"mean={mean}", "the mean of log(sigma)", "it is -1.2 in EDM")
        check_positive(std, "std")
        check_positive(data_std, "data_std")
        self.mean, self.std, self.data_std = mean, std, data_std

    def weight(self, log_snr: Tensor) -> Tensor:
        r""":math:`2 p(\lambda)(1 + e^{-\lambda} / \sigma_d^2)`."""
        z = (log_snr + 2 * self.mean) / (2 * self.std)
        density = (-0.5 * z.square()).exp() / (2 * self.std * math.sqrt(2 * math.pi))
        return 2 * density * (1 + (-log_snr).exp() / self.data_std**2)

    @staticmethod
    def timestep_sampler(
        schedule: Schedule, mean: float = -1.2, std: float = 1.2, n: int = 1, bins: int = 256
    ) -> TabulatedTimesteps:
        r"""A timestep sampler with a normal :math:`\log\sigma`, between the ends of a schedule.

        Args:
            schedule: the schedule of the model, a fixed one.
            mean: ``m``, the mean of :math:`\log\sigma`.
            std: ``s``, its standard deviation.
            n: how many levels a row visits.
            bins: the number of bins of time, inside which the density is constant.
        """
        ends = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
        with torch.no_grad():
            z = (-0.5 * schedule.log_snr(ends) - mean) / std
        # From the smaller tail: at z = 9, a difference of numbers near one is 0. By erfc, because ndtr is
        # 0 below -9.
        near = torch.where(z[:-1] > 0, z[:-1], -z[1:])
        far = torch.where(z[:-1] > 0, z[1:], -z[:-1])
        masses = torch.special.erfc(near * math.sqrt(0.5)) - torch.special.erfc(
            far * math.sqrt(0.5)
        )
        return TabulatedTimesteps(masses, n)

    def extra_repr(self) -> str:
        return self._with_timesteps(
            f"mean={self.mean}", f"std={self.std}", f"data_std={self.data_std}"
        )
