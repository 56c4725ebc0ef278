r"""What a network is asked for: noise, data, velocity or score. Each is linear in the others.

With :math:`z = \alpha x + \sigma \varepsilon` and :math:`\alpha^2 + \sigma^2 = 1`:

=========  =============================================  ==================================
target     the network's output                           :math:`\hat x`
=========  =============================================  ==================================
Noise      :math:`\varepsilon`                            :math:`(z - \sigma o) / \alpha`
Data       :math:`x`                                      :math:`o`
Velocity   :math:`\alpha \varepsilon - \sigma x`          :math:`\alpha z - \sigma o`
Score      :math:`-\varepsilon / \sigma`                  :math:`(z + \sigma^2 o) / \alpha`
=========  =============================================  ==================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Target(ABC):
    """One linear reading of a network's output."""

    @abstractmethod
    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The data that an output stands for."""

    @abstractmethod
    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The output that stands for given data: the inverse of :meth:`x_hat`."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Noise(Target):
    r"""The network predicts :math:`\varepsilon` (Ho et al. 2020, eq. 11)."""

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The data that an output stands for."""
        return torch.addcmul(z, sigma, output, value=-1).div_(alpha)

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The noise that stands for given data."""
        return (z - alpha * x_hat) / sigma


class Data(Target):
    """The network predicts ``x`` (the lecture's data prediction)."""

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The data that an output stands for: itself."""
        return output

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The output that stands for given data: itself."""
        return x_hat


class Velocity(Target):
    r"""The network predicts :math:`v = \alpha\varepsilon - \sigma x` (Salimans, Ho 2022, section 4)."""

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The data that an output stands for."""
        return (alpha * z).addcmul_(sigma, output, value=-1)

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The velocity that stands for given data."""
        return (alpha * z - x_hat) / sigma


class Score(Target):
    r"""The network predicts :math:`\nabla_z \log q(z)` (Song et al. 2021, eq. 7)."""

    def x_hat(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The data that an output stands for."""
        return torch.addcmul(z, sigma.square(), output).div_(alpha)

    def output(self, x_hat: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The score that stands for given data."""
        return (alpha * x_hat - z) / sigma.square()
