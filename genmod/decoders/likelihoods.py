"""Decoders for bits, integers and real numbers: a network's output is the parameters of a distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genmod import distributions
from genmod.checks import check_at_least, invalid
from genmod.config import Settings
from genmod.decoders.base import Decoder
from genmod.decoders.scales import FixedScale, GlobalScale, PredictedScale, Scale
from genmod.distributions.discretized import (
    Discretized,
    DiscretizedMixture,
    DiscretizedNormal,
)
from genmod.nn.modules import outputs
from genmod.schedules import Schedule
from genmod.spec import Bins, DataSpec, SpecLike


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
        super().__init__(_integers(spec, bins))
        self.network = network

    def forward(self, state: Tensor, context: Tensor | None = None) -> distributions.Categorical:
        shape = (*self.shape, self.bins or 0)
        return distributions.Categorical(outputs(self.network, shape, state, context=context))

    def formula(self) -> str:
        return "p(x | z) = Categorical(x; softmax(d(z)))"


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
        data = _integers(spec, bins)
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


class DiscretizedMixtureDecoder(Decoder):
    """Integers: a mixture of logistic distributions on [-1, 1] for each entry, integrated over bins.

    For data with several frequent values, such as a background, that one component cannot fit.

    Args:
        network: three numbers for each component of each entry of ``x``: the logits of all
            components, then their locations, then their log-scales, each ``(components, *shape)``.
        spec: the event shape of ``x``, or its DataSpec.
        bins: how many values, beside a shape.
        components: how many components a mixture has. They start evenly spaced, as wide as the
            distance between them: over [-1, 1], or with ``around`` over two standard deviations on
            both sides of ``z_0 / alpha_0``.
        around: the schedule of the diffusion, if the state is its ``z_0``. The network then predicts
            how far ``x`` is from ``z_0 / alpha_0``, in units of two standard deviations of the noise
            in ``z_0``, and need not learn to copy its input. For images with texture.

    Raises:
        ValueError: fewer than one component.

    Reference: Salimans, Karpathy, Chen, Kingma, "PixelCNN++" (2017), eqs. 1-2.
    """

    offsets: Tensor

    def __init__(
        self,
        network: nn.Module,
        spec: SpecLike,
        bins: int | None = None,
        components: int = 5,
        around: Schedule | None = None,
    ) -> None:
        super().__init__(_integers(spec, bins))
        check_at_least(components, 1, "components", "5 is the default")
        self.network, self.values, self.components = network, Bins(self.spec.bins or 0), components
        self.schedule = None if around is None else around.resolve(self.spec)
        self.begin = (1.0, 0.0) if self.schedule is None else self.schedule.scales_at_zero()
        centers = (2 * torch.arange(components) + 1) / components - 1
        self.register_buffer(
            "offsets", centers.reshape(-1, *[1] * len(self.shape)), persistent=False
        )

    def forward(self, state: Tensor, context: Tensor | None = None) -> DiscretizedMixture:
        shape = (3, self.components, *self.shape)
        logits, shift, log_scale = outputs(self.network, shape, state, context=context).unbind(1)
        location, reach = shift + self.offsets, 1.0
        if self.schedule is not None:
            alpha, sigma = self.begin
            reach = 2 * sigma / alpha
            location = torch.add((state / alpha)[:, None], location, alpha=reach)
        wide = math.log(2 * reach / self.components)
        return DiscretizedMixture(logits, location, log_scale + wide, self.values)

    def formula(self) -> str:
        where, given = (
            ("d_c(z)", "z") if self.schedule is None else ("z_0 / alpha_0 + d_c(z_0)", "z_0")
        )
        law = f"sum of {self.components} Logistics over bins"
        return f"p(x | {given}) = {law}(x; {where}, s_c({given}))"


class Identity(Settings, nn.Module):
    """A network that returns its input, for decoders whose state is already the location."""

    def forward(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """The state."""
        return state


def _integers(spec: SpecLike, bins: int | None) -> DataSpec:
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
