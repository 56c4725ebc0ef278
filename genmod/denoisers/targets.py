r"""Targets: what a network predicts (diffusers' ``prediction_type``), and its conversion to ``x_hat``.

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

Each target is linear in the others, so any output converts to any other: by :func:`convert`. Errors convert
by a factor only, because the states cancel:

.. math:: \|\varepsilon - \hat\varepsilon\|^2 = \frac{\alpha^2}{\sigma^2} \|x - \hat x\|^2
    = \alpha^2 \|v - \hat v\|^2 = \sigma^2 \|s - \hat s\|^2
    = \frac{\alpha^2}{(\alpha + \sigma)^2} \|u - \hat u\|^2
    = \frac{\alpha^2 d^2}{\rho^2} \|F - \hat F\|^2

for the noise, the data, the velocity, the score, the flow velocity and EDM's output, in this order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genmod.checks import check_positive
from genmod.config import Settings
from genmod.signatures import checked
from genmod.tensors import PerSample, Real, expand_like

NOISIEST = -20.0
"""The lowest log-SNR at which ``x_hat`` can be computed from a predicted noise or score.

That divides by alpha, here 4.5e-5. The rounding of ``z`` in float32, 6e-8, becomes 1.3e-3 of the standard
deviation of the data. At -40 it would be 29 times that deviation: noise, whatever the network predicts.
"""


def scales_of(log_snr: PerSample, z: Tensor) -> tuple[Tensor, Tensor]:
    """The variance-preserving alpha and sigma of a log-SNR, to broadcast against ``z``."""
    level = expand_like(log_snr, z)
    return level.sigmoid().sqrt(), (-level).sigmoid().sqrt()


class Target(Settings, ABC):
    r"""The base class of targets: what a network predicts, as a map from its output to ``x_hat``.

    With :math:`z = \alpha x + \sigma \varepsilon` and :math:`\alpha^2 + \sigma^2 = 1`, a target of your own
    implements :meth:`x_hat` and its inverse, :meth:`output`. All tensors are ``(B, *event)``, or broadcast
    to it.

    >>> class NegativeNoise(Target):
    ...     def x_hat(self, output, z, alpha, sigma):
    ...         return (z + sigma * output) / alpha
    ...     def output(self, x_hat, z, alpha, sigma):
    ...         return (alpha * x_hat - z) / sigma
    """

    noisiest = -math.inf
    """The lowest log-SNR at which ``x_hat`` is precise: minus infinity if nothing divides by alpha."""

    @abstractmethod
    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The estimate of ``x`` for an output of the network."""

    @abstractmethod
    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The output of the network for an ``x_hat``: the inverse of :meth:`x_hat`."""

    def inputs(self, z: Tensor, log_snr: PerSample) -> Tensor:
        """The network's input: the state itself, unless a target scales it."""
        return z

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class NoiseTarget(Target):
    r"""The network predicts the noise, :math:`\varepsilon` (noise prediction).

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eq. 11.
    """

    noisiest = NOISIEST

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.addcmul(z, sigma, output, value=-1).div_(alpha)

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (z - alpha * x_hat) / sigma


class DataTarget(Target):
    """The network predicts ``x`` (data prediction)."""

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return output

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x_hat


class VelocityTarget(Target):
    r"""The network predicts the velocity, :math:`v = \alpha\varepsilon - \sigma x`. The default.

    Reference: Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models" (2022),
    section 4 and appendix D.
    """

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha * z).addcmul_(sigma, output, value=-1)

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha * z - x_hat) / sigma


class ScoreTarget(Target):
    r"""The network predicts the score, :math:`\nabla_z \log q(z)`, of the variance-preserving state.

    The score of a state ``h`` times as large is this score divided by ``h``.

    Reference: Song et al., "Score-Based Generative Modeling through SDEs" (2021), eq. 7.
    """

    noisiest = NOISIEST

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.addcmul(z, sigma.square(), output).div_(alpha)

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha * x_hat - z) / sigma.square()


class FlowVelocityTarget(Target):
    r"""The network predicts :math:`u = \varepsilon - x`, the velocity of a rectified flow.

    On the straight line :math:`(1 - t) x + t \varepsilon` it is the derivative by ``t``. Here ``t`` runs
    from data to noise; in the papers it runs from noise to data, which changes the sign. The
    variance-preserving state, divided by :math:`\alpha + \sigma`, lies on that line at
    :math:`t = \sigma / (\alpha + \sigma)`. The network is given the state itself, of variance one.

    Reference: Liu, Gong, Liu, "Flow Straight and Fast" (2023), eq. 1; Lipman, Chen, Ben-Hamu, Nickel,
    Le, "Flow Matching for Generative Modeling" (2023), eq. 23.
    """

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (z - sigma * output) / (alpha + sigma)

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (z - (alpha + sigma) * x_hat) / sigma


class EDMTarget(Target):
    r"""EDM's preconditioning: the input of the network and its target have variance one.

    In the paper's variance-exploding state :math:`y = z / \alpha`, of noise :math:`s = \sigma / \alpha`,

    .. math:: \hat x = c_\text{skip} y + c_\text{out} F(c_\text{in} y),\quad
        c_\text{skip} = \frac{d^2}{s^2 + d^2},\quad c_\text{out} = \frac{s d}{\sqrt{s^2 + d^2}},\quad
        c_\text{in} = \frac{1}{\sqrt{s^2 + d^2}}

    In terms of ``z`` it is the table's row. The paper's :math:`c_\text{noise} = \tfrac14 \ln s` is minus
    an eighth of the log-SNR, which every network here gets. With ``sigma_data = 1`` this target is
    :class:`VelocityTarget` with the opposite sign.

    Args:
        sigma_data: ``d``, the standard deviation of the real data that enter the diffusion.

    Reference: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based
    Generative Models" (2022), eq. 7 and table 1.

    >>> EDMTarget(0.5)
    EDMTarget(sigma_data=0.5)
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        check_positive(sigma_data, "sigma_data")
        self.sigma_data = sigma_data

    def inputs(self, z: Tensor, log_snr: PerSample) -> Tensor:
        return z / self._std(*scales_of(log_snr, z))

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        std = self._std(alpha, sigma)
        skip = alpha * self.sigma_data**2 / std.square()
        return skip * z + (sigma * self.sigma_data / std) * output

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        std = self._std(alpha, sigma)
        skip = alpha * self.sigma_data**2 / std.square()
        return (x_hat - skip * z) * (std / (sigma * self.sigma_data))

    def _std(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha * self.sigma_data).hypot(sigma)

    def __repr__(self) -> str:
        return f"EDMTarget(sigma_data={self.sigma_data})"


@checked
def convert(output: Real, source: Target, target: Target, z: Real, log_snr: PerSample) -> Real:
    """Convert a prediction from one target to another, for example noise to velocity. It is exact.

    Args:
        output: a prediction of ``source``, ``(B, *event)``.
        source: the target of ``output``.
        target: the target to convert to; :class:`DataTarget` gives ``x_hat``.
        z: the state, variance preserving, ``(B, *event)``.
        log_snr: of the state, ``(B,)``.

    Returns:
        The prediction of ``target``, ``(B, *event)``.

    >>> import torch
    >>> z, log_snr = torch.ones(1, 1), torch.zeros(1)
    >>> convert(torch.zeros(1, 1), VelocityTarget(), NoiseTarget(), z, log_snr)
    tensor([[0.7071]])
    """
    alpha, sigma = scales_of(log_snr, z)
    return target.output(source.x_hat(output, z, alpha, sigma), z, alpha, sigma)
