r"""The variance of a reverse step, :math:`p(z_s | z_t) = \mathcal{N}(\mu(\hat x), v_p)`.

Symbols: :math:`v_q` is the variance of :math:`q(z_s | z_t, x)` (Ho et al.'s :math:`\tilde\beta_t`), and
:math:`\sigma_t^2 / \sigma_s^2\, v_q` that of the forward step (their :math:`\beta_t`). ``gap`` is
:math:`\mathrm{SNR}_s / \mathrm{SNR}_t - 1` for a step, and ``u`` the denoiser's squared error of the noise
per dimension. Then

=====================  ==========================================================================
variance               :math:`\log (v_p / v_q)`
=====================  ==========================================================================
FixedSmall             0
FixedLarge             :math:`\log (\sigma_t^2 / \sigma_s^2)`
LearnedInterpolation   :math:`\nu \log (\sigma_t^2 / \sigma_s^2)`, the network gives :math:`\nu`
Analytic               :math:`\log (1 + \text{gap}\, u)`
=====================  ==========================================================================

FixedSmall is optimal where the data are one point. FixedLarge, under a variance-preserving schedule, is
optimal where they are :math:`\mathcal{N}(0, I)`. The KL of a step is
:math:`\tfrac{D}{2}\,\text{gap}\, u` with FixedSmall and :math:`\tfrac{D}{2} \log(1 + \text{gap}\, u)`,
which is less, with Analytic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from genmod.checks import invalid
from genmod.config import Settings
from genmod.denoisers import Denoised
from genmod.schedules.base import Bridge
from genmod.tensors import expand_like


class ReverseVariance(Settings, ABC):
    """The base class of reverse variances, each given as its log-std minus the posterior's.

    >>> class Middle(ReverseVariance):
    ...     '''The geometric mean of the variances of FixedSmall and FixedLarge.'''
    ...
    ...     def log_std_ratio(self, bridge, denoised):
    ...         return 0.5 * FixedLarge().log_std_ratio(bridge, denoised)
    >>> Middle()
    Middle()
    """

    learned: ClassVar[bool] = False
    """Whether the network predicts it, in the second half of its output."""
    fixed: ClassVar[bool] = False
    """Whether it depends on the step only, not on the output of the denoiser."""

    @abstractmethod
    def log_std_ratio(self, bridge: Bridge, denoised: Denoised) -> Tensor:
        """``log(std_p / std_q)``: ``(B, *event)``, or ``(B, 1, ...)`` where all entries share one.

        Args:
            bridge: the step.
            denoised: what the denoiser returned for the state at the start of the step.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class FixedSmall(ReverseVariance):
    r"""The posterior's variance, :math:`\tilde\beta_t`: the default, and the only one in continuous time.

    It is optimal where the data are one point. As the number of steps grows, :class:`FixedLarge` tends to
    it, and the KL of any variance at a fixed other ratio to it tends to infinity.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), section 3.2.
    """

    fixed = True

    def log_std_ratio(self, bridge: Bridge, denoised: Denoised) -> Tensor:
        return torch.zeros_like(expand_like(bridge.log_sigma_ratio, denoised.x_hat))


class FixedLarge(ReverseVariance):
    r"""The forward step's variance, :math:`\beta_t`: optimal for :math:`x \sim \mathcal{N}(0, I)`.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), section 3.2.
    """

    fixed = True

    def log_std_ratio(self, bridge: Bridge, denoised: Denoised) -> Tensor:
        return expand_like(bridge.log_sigma_ratio, denoised.x_hat)


class LearnedInterpolation(ReverseVariance):
    r"""A learned reverse variance: an interpolation of the two fixed ones, with a weight for each entry.

    .. math:: \log v_p = \nu \log \beta_t + (1 - \nu) \log \tilde\beta_t

    The denoiser is a :class:`genmod.denoisers.Learned` with ``interpolation=True``, whose network gives
    twice as many channels; the one-line models do that by default. As in the paper, nothing
    keeps :math:`\nu` between 0 and 1. :class:`genmod.objectives.Bound` trains mean and variance by the
    bound; :class:`genmod.objectives.Hybrid` trains the mean by ``Simple`` and the variance by the bound.

    Raises:
        ValueError: the denoiser does not predict the variance.

    Reference: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 15.
    """

    learned = True

    def log_std_ratio(self, bridge: Bridge, denoised: Denoised) -> Tensor:
        place = denoised.interpolation
        if place is None:
            raise invalid(
                "a denoiser without a reverse variance",
                "one with twice the outputs",
                "build it with Learned(network, interpolation=True)",
            )
        return place * expand_like(bridge.log_sigma_ratio, place)


class Analytic(ReverseVariance):
    r"""The optimal reverse variance: that of the step given ``x``, plus that of ``x`` given the state.

    .. math:: v_p = v_q + c^2\, \mathrm{Var}[x | z_t]
        = v_q \big(1 + \text{gap}\; \mathrm{SNR}_t\, \mathrm{Var}[x | z_t]\big)

    with ``c`` the factor of ``x`` in the step's mean. The denoiser gives the variance of ``x``:
    the exact one of :class:`genmod.denoisers.GaussianDenoiser` and
    :class:`genmod.denoisers.EmpiricalDenoiser`, or for a network the one that
    :func:`genmod.denoisers.calibrate` has measured.

    Raises:
        ValueError: the denoiser returns no variance.

    Reference: Bao, Li, Zhu, Zhang, "Analytic-DPM: an Analytic Estimate of the Optimal Reverse Variance
    in Diffusion Probabilistic Models" (2022), theorem 1.
    """

    def log_std_ratio(self, bridge: Bridge, denoised: Denoised) -> Tensor:
        r""":math:`\tfrac12 \log(1 + c^2 \mathrm{Var}[x|z_t] / v_q)`."""
        unknown = denoised.variance
        if unknown is None:
            raise invalid(
                "a denoiser that returns no variance of x",
                "one that does",
                "measure it on data with denoisers.calibrate(denoiser, schedule, x), and use what "
                "that returns",
            )
        relative = (2 * (bridge.coef_x.log() - bridge.log_std)).exp()
        return 0.5 * torch.log1p(expand_like(relative, unknown) * unknown)
