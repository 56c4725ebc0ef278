"""Decoders for bits, integers and real numbers: a network's output is the parameters of a distribution.

A location-scale decoder has a :class:`Scale` (the std of a normal, the scale of a logistic): fixed, learned
or predicted by the network.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from genmod import distributions
from genmod.checks import check_at_least, check_positive, invalid
from genmod.config import Settings
from genmod.decoders.base import Decoder
from genmod.distributions.discretized import Discretized
from genmod.distributions.discretized_normal import DiscretizedNormal
from genmod.nn.modules import outputs
from genmod.spec import Bins, DataSpec, SpecLike
from genmod.tensors import Shape


class BernoulliDecoder(Decoder):
    """Bits: a Bernoulli mass for each, whose log-odds the network gives.

    Args:
        network: one output for each entry of ``x``.
        spec: the event shape of ``x``.
    """

    def __init__(self, network: nn.Module, spec: SpecLike) -> None:
        super().__init__(DataSpec.of(spec, 2))
        self.network = network

    def forward(self, state: Tensor, context: Tensor | None = None) -> distributions.Bernoulli:
        return distributions.Bernoulli(outputs(self.network, self.shape, state, context=context))

    def formula(self) -> str:
        return "p(x | z) = Bernoulli(x; sigmoid(d(z)))"


class CategoricalDecoder(Decoder):
    """Integers without an order: a categorical mass for each entry, whose logits the network gives.

    Args:
        network: ``bins`` outputs for each entry of ``x``; those of one entry lie side by side.
        spec: the event shape of ``x``, or its DataSpec.
        bins: how many values, beside a shape.
    """

    def __init__(self, network: nn.Module, spec: SpecLike, bins: int | None = None) -> None:
        super().__init__(integers(spec, bins))
        self.network = network

    def forward(self, state: Tensor, context: Tensor | None = None) -> distributions.Categorical:
        shape = (*self.shape, self.bins or 0)
        return distributions.Categorical(outputs(self.network, shape, state, context=context))

    def formula(self) -> str:
        return "p(x | z) = Categorical(x; softmax(d(z)))"


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


class LocationScaleDecoder(Decoder):
    """The base class of decoders with a location, given by the network, and a scale for each entry.

    Args:
        network: the location of each entry of ``x``; and its log-scale after that, with
            :class:`~genmod.decoders.PredictedScale`.
        spec: the event shape of ``x``.
        scale: a ``Scale``, or a number that is never learned.
        bins: how many values, for integer data.
    """

    name = ""

    def __init__(
        self, network: nn.Module, spec: SpecLike, scale: Scale | float, bins: int | None = None
    ) -> None:
        super().__init__(DataSpec.of(spec, bins))
        self.network = network
        self.scale = scale if isinstance(scale, Scale) else FixedScale(scale)
        self.outputs = self.spec.size * (1 + self.scale.outputs)

    def both(self, state: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The location and the log-scale of each entry."""
        shape = self.spec.shape
        if self.scale.outputs == 0:
            location = outputs(self.network, shape, state, context=context)
            return location, self.scale(location)
        both = (1 + self.scale.outputs, *shape)
        output = outputs(self.network, both, state, context=context)
        # Not output[:, 0] and output[:, 1:], whose gradients are two tensors of the size of the output.
        location, rest = output.split((1, output.shape[1] - 1), 1)
        return location.squeeze(1), self.scale(rest)

    def formula(self) -> str:
        spread = {FixedScale: "s", GlobalScale: "s"}.get(type(self.scale), "s_i")
        spread = "s_i(z)" if isinstance(self.scale, PredictedScale) else spread
        return f"p(x | z) = {self.name}(x; d(z), {spread})"


class GaussianDecoder(LocationScaleDecoder):
    """Real numbers: ``N(d(z), std^2)`` for each entry (see :class:`LocationScaleDecoder`)."""

    name = "N"

    def __init__(
        self, network: nn.Module, spec: SpecLike, scale: Scale | float | None = None
    ) -> None:
        super().__init__(network, spec, GlobalScale() if scale is None else scale)

    def forward(self, state: Tensor, context: Tensor | None = None) -> distributions.Normal:
        return distributions.Normal(*self.both(state, context))


class BinnedDecoder(LocationScaleDecoder):
    """Integers: a distribution on [-1, 1], integrated over bins (see :class:`LocationScaleDecoder`).

    Args:
        network: as for :class:`LocationScaleDecoder`.
        spec: the event shape of ``x``, or its DataSpec.
        bins: how many values, beside a shape.
        scale: one learned number that starts at the width of a bin, by default.
    """

    law: type[Discretized]

    def __init__(
        self,
        network: nn.Module,
        spec: SpecLike,
        bins: int | None = None,
        scale: Scale | float | None = None,
    ) -> None:
        data = integers(spec, bins)
        super().__init__(network, data, GlobalScale(data.width) if scale is None else scale)
        self.values = Bins(data.bins or 0)

    def forward(self, state: Tensor, context: Tensor | None = None) -> Discretized:
        return self.law(*self.both(state, context), self.values)


class DiscretizedLogisticDecoder(BinnedDecoder):
    """Integers: a logistic distribution on [-1, 1], integrated over bins."""

    name, law = "Logistic over bins", distributions.DiscretizedLogistic


class DiscretizedGaussianDecoder(BinnedDecoder):
    """Integers: a normal distribution on [-1, 1], integrated over bins."""

    name, law = "N over bins", DiscretizedNormal


class Identity(Settings, nn.Module):
    """A network that returns its input, for decoders whose state is already the location."""

    def forward(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """The state."""
        return state


def integers(spec: SpecLike, bins: int | None) -> DataSpec:
    """The spec of integer data.

    Raises:
        ValueError: real data.
    """
    found = DataSpec.of(spec, bins)
    if not found.is_integer:
        raise invalid(
            f"real data of shape {found.shape} for a decoder of integers",
            "how many values they have",
            "pass bins=..., or use decoders.GaussianDecoder",
        )
    return found
