"""Scales of decoders (the std of a normal, the scale of a logistic): fixed, learned or predicted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from genmod.checks import check_at_least, check_positive
from genmod.config import Settings
from genmod.shapes import Shape


class Scale(Settings, nn.Module, ABC):
    """The base class of scales: a log-scale for each entry of ``x``."""

    outputs: int = 0
    """How many outputs an entry it needs from the network."""

    @abstractmethod
    def forward(self, numbers: Tensor) -> Tensor:
        """The log-scale, to broadcast against ``(B, *event)``; ``numbers`` is ``(B, outputs, *event)``."""


class FixedScale(Scale):
    """One fixed scale for all entries, which is not learned.

    Args:
        value: the scale.
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        check_positive(value, "scale")
        self.value = value

    def forward(self, numbers: Tensor) -> Tensor:
        return torch.full((), math.log(self.value), dtype=numbers.dtype, device=numbers.device)

    def extra_repr(self) -> str:
        """The number."""
        return f"{self.value:g}"


class GlobalScale(Scale):
    r"""One learned scale for all entries: :math:`\log s = \log s_0 + g\,\theta`.

    Args:
        initial: :math:`s_0`, the scale at the start.
        gain: :math:`g`. Adam changes :math:`\theta` by at most the learning rate in a step, so at a rate
            of 1e-3 and a gain of 1 a scale needs 700 steps to halve. A gain of 10 needs 70.

    Reference: Dai, Wipf, "Diagnosing and Enhancing VAE Models" (2019), section 5.
    """

    def __init__(self, initial: float = 1.0, gain: float = 10.0) -> None:
        super().__init__()
        check_positive(initial, "initial")
        check_positive(gain, "gain")
        self.gain = gain
        self.log_scale = nn.Parameter(torch.tensor(math.log(initial) / gain))

    def forward(self, numbers: Tensor) -> Tensor:
        return self.gain * self.log_scale

    @torch.no_grad()
    def set(self, scale: float) -> None:
        """Put the scale at a value."""
        check_positive(scale, "scale")
        self.log_scale.fill_(math.log(scale) / self.gain)


class PerDimensionScale(Scale):
    """A learned scale for each entry of ``x``, the same for all samples.

    Args:
        shape: the event shape of ``x``.
        initial: the scale they start from.
        gain: how fast they are learned, as in :class:`GlobalScale`.
    """

    def __init__(self, shape: Shape, initial: float = 1.0, gain: float = 10.0) -> None:
        super().__init__()
        check_positive(initial, "initial")
        check_positive(gain, "gain")
        self.gain = gain
        self.log_scale = nn.Parameter(torch.full(tuple(shape), math.log(initial) / gain))

    def forward(self, numbers: Tensor) -> Tensor:
        return (self.gain * self.log_scale)[None]


class PredictedScale(Scale):
    """A scale for each entry of each sample, predicted by the network.

    Args:
        initial: the scale that an output of zero stands for.
        floor: a lower bound of the scale, ``scale^2 = floor^2 + predicted^2``. Without one, the density at
            real numbers that repeat is unbounded.
    """

    outputs = 1

    def __init__(self, initial: float = 1.0, floor: float = 0.0) -> None:
        super().__init__()
        check_positive(initial, "initial")
        check_at_least(floor, 0, "floor", "0 is no lower bound")
        self.log_initial = math.log(initial)
        self.floor = floor

    def forward(self, numbers: Tensor) -> Tensor:
        log_scale = numbers[:, 0] + self.log_initial
        if not self.floor:
            return log_scale
        lowest = torch.full_like(log_scale, 2 * math.log(self.floor))
        return 0.5 * torch.logaddexp(2 * log_scale, lowest)
