r"""Targets: what a network predicts. Each is linear in the others, so any converts to any.

With :math:`z = \alpha x + \sigma \varepsilon`, :math:`\alpha^2 + \sigma^2 = 1` and, for EDM,
:math:`d` the standard deviation of the data and :math:`\rho = \sqrt{\sigma^2 + \alpha^2 d^2}`:

============  ==============================================  ==============================================
target        the network's output ``o``                      :math:`\hat x`
============  ==============================================  ==============================================
Noise         :math:`\varepsilon`                             :math:`(z - \sigma o) / \alpha`
Data          :math:`x`                                       :math:`o`
Velocity      :math:`\alpha \varepsilon - \sigma x`           :math:`\alpha z - \sigma o`
Score         :math:`-\varepsilon / \sigma`                   :math:`(z + \sigma^2 o) / \alpha`
FlowVelocity  :math:`\varepsilon - x`                         :math:`(z - \sigma o)/(\alpha + \sigma)`
EDM           :math:`(\sigma x/d -\alpha d\varepsilon)/\rho`  :math:`(\alpha d^2 z + \sigma d\rho o)/\rho^2`
============  ==============================================  ==============================================

An output for one target becomes that for another by ``wanted.output(given.x_hat(o, z, alpha, sigma),
z, alpha, sigma)``, which is :func:`convert`. Errors convert by a factor alone, because the states
cancel:

.. math:: \|\varepsilon - \hat\varepsilon\|^2 = \frac{\alpha^2}{\sigma^2} \|x - \hat x\|^2
    = \alpha^2 \|v - \hat v\|^2 = \sigma^2 \|s - \hat s\|^2
    = \frac{\alpha^2}{(\alpha + \sigma)^2} \|u - \hat u\|^2
    = \frac{\alpha^2 d^2}{\rho^2} \|F - \hat F\|^2

for the noise, data, velocity, score, flow velocity and EDM's output in turn.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genmod.checks import check_positive
from genmod.config import Settings
from genmod.shapes import PerSample, Real, expand_like

NOISIEST = -20.0
"""The lowest log-SNR at which noise still determines the data.

Reading data from it divides by alpha, here 4.5e-5: float32's rounding of ``z``, 6e-8, becomes 1.3e-3 of
the data's spread. At -40 it would be 29 times that spread: noise, whatever the network predicts.
"""


def scales_of(log_snr: PerSample, z: Tensor) -> tuple[Tensor, Tensor]:
    """The variance-preserving alpha and sigma of a log-SNR, to broadcast against ``z``."""
    level = expand_like(log_snr, z)
    return level.sigmoid().sqrt(), (-level).sigmoid().sqrt()


class Target(Settings, ABC):
    """What a network predicts: the map from its output to ``x_hat``, and back."""

    noisiest = -math.inf
    """The lowest log-SNR at which ``x_hat`` is usable: minus infinity if nothing divides by alpha."""

    @abstractmethod
    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The data that an output stands for."""

    @abstractmethod
    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The output that stands for given data: the inverse of :meth:`x_hat`."""

    def inputs(self, z: Tensor, log_snr: PerSample) -> Tensor:
        """The network's input: the state itself, unless a target scales it."""
        return z

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class NoiseTarget(Target):
    r"""The network predicts :math:`\varepsilon` (Ho et al. 2020, eq. 11)."""

    noisiest = NOISIEST

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The data that an output stands for."""
        return torch.addcmul(z, sigma, output, value=-1).div_(alpha)

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The noise that stands for given data."""
        return (z - alpha * x_hat) / sigma


class DataTarget(Target):
    """The network predicts ``x`` (data prediction)."""

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The data that an output stands for: itself."""
        return output

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The output that stands for given data: itself."""
        return x_hat


class VelocityTarget(Target):
    r"""The network predicts :math:`v = \alpha\varepsilon - \sigma x` (Salimans, Ho 2022, section 4)."""

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The data that an output stands for."""
        return (alpha * z).addcmul_(sigma, output, value=-1)

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The velocity that stands for given data."""
        return (alpha * z - x_hat) / sigma


class ScoreTarget(Target):
    r"""The network predicts :math:`\nabla_z \log q(z)` (Song et al. 2021, eq. 7).

    It is the score of the variance-preserving state. That of a state ``h`` times as large is its
    ``h``-th part.
    """

    noisiest = NOISIEST

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The data that an output stands for."""
        return torch.addcmul(z, sigma.square(), output).div_(alpha)

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The score that stands for given data."""
        return (alpha * x_hat - z) / sigma.square()


class FlowVelocityTarget(Target):
    r"""The network predicts :math:`u = \varepsilon - x`, the velocity of a rectified flow.

    On the straight line :math:`(1 - t) x + t \varepsilon` it is the derivative by ``t``, which runs
    from data to noise here as everywhere (in the papers from noise to data: their sign is the other).
    The variance-preserving state of one log-SNR lies on that line at
    :math:`t = \sigma / (\alpha + \sigma)` once it is divided by :math:`\alpha + \sigma`; the network
    is given the state itself, of variance one.

    Reference: Liu, Gong, Liu, "Flow Straight and Fast" (2023), eq. 1; Lipman, Chen, Ben-Hamu, Nickel,
    Le, "Flow Matching for Generative Modeling" (2023), eq. 23.
    """

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The data that an output stands for."""
        return (z - sigma * output) / (alpha + sigma)

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The velocity that stands for given data."""
        return (z - (alpha + sigma) * x_hat) / sigma


class EDMTarget(Target):
    r"""The network is preconditioned: its input and its target have variance one.

    In the paper's variance-exploding state :math:`y = z / \alpha`, of noise :math:`s = \sigma / \alpha`,

    .. math:: \hat x = c_\text{skip} y + c_\text{out} F(c_\text{in} y),\quad
        c_\text{skip} = \frac{d^2}{s^2 + d^2},\quad c_\text{out} = \frac{s d}{\sqrt{s^2 + d^2}},\quad
        c_\text{in} = \frac{1}{\sqrt{s^2 + d^2}}

    which is the table's row in terms of ``z``. The paper's fourth, :math:`c_\text{noise} = \tfrac14 \ln s`,
    is minus an eighth of the log-SNR, which every network here is given. With ``sigma_data = 1`` it is
    :class:`VelocityTarget` with the other sign.

    Args:
        sigma_data: ``d``, the standard deviation of the data as they are noised.

    Reference: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based
    Generative Models" (2022), eq. 7 and table 1.

    >>> EDMTarget(0.5)
    EDMTarget(sigma_data=0.5)
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        check_positive(sigma_data, "sigma_data")
        self.sigma_data = sigma_data

    def inputs(self, z: Tensor, log_snr: PerSample) -> Tensor:
        """The state divided by its standard deviation."""
        return z / self._std(*scales_of(log_snr, z))

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The data that an output stands for."""
        std = self._std(alpha, sigma)
        skip = alpha * self.sigma_data**2 / std.square()
        return skip * z + (sigma * self.sigma_data / std) * output

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The output that stands for given data."""
        std = self._std(alpha, sigma)
        skip = alpha * self.sigma_data**2 / std.square()
        return (x_hat - skip * z) * (std / (sigma * self.sigma_data))

    def _std(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha * self.sigma_data).hypot(sigma)

    def __repr__(self) -> str:
        return f"EDMTarget(sigma_data={self.sigma_data})"


def convert(output: Real, given: Target, wanted: Target, z: Real, log_snr: PerSample) -> Real:
    """The output for one target, converted to that for another: exact, in both directions.

    Args:
        output: in the terms of ``given``, ``(B, *event)``.
        given: the target of the output.
        wanted: the target it is wanted as; :class:`DataTarget` for ``x_hat``.
        z: the state, variance preserving, ``(B, *event)``.
        log_snr: of the state, ``(B,)``.

    Returns:
        The output in the terms of ``wanted``, ``(B, *event)``.

    >>> import torch
    >>> z, log_snr = torch.ones(1, 1), torch.zeros(1)
    >>> convert(torch.zeros(1, 1), VelocityTarget(), NoiseTarget(), z, log_snr)
    tensor([[0.7071]])
    """
    alpha, sigma = scales_of(log_snr, z)
    return wanted.output(given.x_hat(output, z, alpha, sigma), z, alpha, sigma)
