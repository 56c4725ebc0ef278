"""Decoders that read a network's output as the parameters of a distribution."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from genmod import distributions
from genmod.checks import require
from genmod.decoders.base import Decoder
from genmod.decoders.scales import FixedScale, GlobalScale, PredictedScale, Scale
from genmod.elbo import Measure
from genmod.nn import outputs
from genmod.schedules import Schedule
from genmod.shapes import size
from genmod.spec import Bins
from genmod.types import Shape

_BROAD = 0.1
"""The narrowest scale a customary decoder starts from, where levels lie in [-1, 1]."""


class BernoulliDecoder(Decoder):
    """Bits: the network gives the log-odds of each.

    Args:
        network: one output for each entry of ``x``.
        shape: the event shape of ``x``.
    """

    def __init__(self, network: nn.Module, shape: Shape) -> None:
        super().__init__(shape, Measure.MASS, bins=2)
        self.network = network

    def forward(self, state: Tensor, context: Tensor | None = None) -> distributions.Bernoulli:
        """The distribution of each row."""
        return distributions.Bernoulli(outputs(self.network, self.shape, state, context=context))

    def formula(self) -> str:
        """The decoder as it would stand on paper."""
        return "p(x | z) = Bernoulli(x; sigmoid(d(z)))"


class CategoricalDecoder(Decoder):
    """Levels without an order: the network gives the logits of each entry's levels.

    Args:
        network: ``bins`` outputs for each entry of ``x``, the level changing fastest.
        shape: the event shape of ``x``.
        bins: how many levels.
    """

    def __init__(self, network: nn.Module, shape: Shape, bins: int) -> None:
        super().__init__(shape, Measure.MASS, bins=Bins(bins).count)
        self.network = network

    def forward(self, state: Tensor, context: Tensor | None = None) -> distributions.Categorical:
        """The distribution of each row."""
        shape = (*self.shape, self.bins or 0)
        return distributions.Categorical(outputs(self.network, shape, state, context=context))

    def formula(self) -> str:
        """The decoder as it would stand on paper."""
        return "p(x | z) = Categorical(x; softmax(d(z)))"


class LocationScaleDecoder(Decoder):
    """A location that the network gives for each entry, and a scale.

    Args:
        network: the location of each entry of ``x``; and its log-scale after that, with
            :class:`~genmod.decoders.PredictedScale`.
        shape: the event shape of ``x``.
        scale: a :class:`~genmod.decoders.Scale`, or a number that is never learned.
        bins: how many levels, for integer data.
    """

    name = ""

    def __init__(
        self, network: nn.Module, shape: Shape, scale: Scale | float, bins: int | None = None
    ) -> None:
        super().__init__(shape, Measure.DENSITY if bins is None else Measure.MASS, bins)
        self.network = network
        self.scale = scale if isinstance(scale, Scale) else FixedScale(scale)

    def both(self, state: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The location and the log-scale of each entry."""
        if self.scale.outputs == 0:
            location = outputs(self.network, self.shape, state, context=context)
            return location, self.scale(location)
        shape = (1 + self.scale.outputs, *self.shape)
        said = outputs(self.network, shape, state, context=context)
        return said[:, 0], self.scale(said[:, 1:])

    def formula(self) -> str:
        """The decoder as it would stand on paper."""
        spread = {FixedScale: "s", GlobalScale: "s"}.get(type(self.scale), "s_i")
        spread = "s_i(z)" if isinstance(self.scale, PredictedScale) else spread
        return f"p(x | z) = {self.name}(x; d(z), {spread})"


class GaussianDecoder(LocationScaleDecoder):
    """Real numbers: ``N(d(z), std^2)`` for each entry (see :class:`LocationScaleDecoder`)."""

    name = "N"

    def __init__(
        self, network: nn.Module, shape: Shape, scale: Scale | float | None = None
    ) -> None:
        super().__init__(network, shape, GlobalScale() if scale is None else scale)

    def forward(self, state: Tensor, context: Tensor | None = None) -> distributions.Normal:
        """The distribution of each row."""
        return distributions.Normal(*self.both(state, context))


class BinnedDecoder(LocationScaleDecoder):
    """Integers: a distribution on [-1, 1], integrated over bins (see :class:`LocationScaleDecoder`).

    Args:
        network: as for :class:`LocationScaleDecoder`.
        shape: the event shape of ``x``.
        bins: how many levels.
        scale: one learned number that starts at the width of a bin, by default.
    """

    law: type[distributions.Discretized]

    def __init__(
        self, network: nn.Module, shape: Shape, bins: int, scale: Scale | float | None = None
    ) -> None:
        levels = Bins(bins)
        super().__init__(
            network, shape, GlobalScale(levels.width) if scale is None else scale, bins
        )
        self.levels = levels

    def forward(self, state: Tensor, context: Tensor | None = None) -> distributions.Discretized:
        """The distribution of each row."""
        return self.law(*self.both(state, context), self.levels)


class DiscretizedLogisticDecoder(BinnedDecoder):
    """Integers: a logistic distribution on [-1, 1], integrated over bins."""

    name, law = "Logistic over bins", distributions.DiscretizedLogistic


class DiscretizedGaussianDecoder(BinnedDecoder):
    """Integers: a normal distribution on [-1, 1], integrated over bins."""

    name, law = "N over bins", distributions.DiscretizedNormal


class DiscretizedMixtureDecoder(Decoder):
    """Integers: a mixture of logistic distributions on [-1, 1] for each entry, integrated over bins.

    For data with favorite levels, such as a background, that one bump cannot hold beside the rest.

    Args:
        network: three numbers for each component of each entry of ``x``: the logits of all
            components, then their locations, then their log-scales, each ``(components, *shape)``.
        shape: the event shape of ``x``.
        bins: how many levels.
        components: how many bumps a mixture has. They start side by side over [-1, 1], or over what
            ``around`` leaves open, as wide as the distance between them.
        around: the schedule of a diffusion whose ``z_0`` the state is: the network then says how far
            ``x`` is from ``z_0 / alpha_0``, in units of two standard deviations of the noise that is
            left there, and need not learn to repeat what it is given. For images with texture.

    Raises:
        ValueError: fewer than one component.

    Reference: Salimans, Karpathy, Chen, Kingma, "PixelCNN++" (2017), eqs. 1-2.
    """

    offsets: Tensor

    def __init__(
        self,
        network: nn.Module,
        shape: Shape,
        bins: int,
        components: int = 5,
        around: Schedule | None = None,
    ) -> None:
        super().__init__(shape, Measure.MASS, bins)
        require(components >= 1, f"components={components}", "at least 1", "5 are customary")
        self.network, self.levels, self.components = network, Bins(bins), components
        self.schedule, self.begin = (
            around,
            (1.0, 0.0) if around is None else around.scales_at_zero(),
        )
        centers = (2 * torch.arange(components) + 1) / components - 1
        self.register_buffer(
            "offsets", centers.reshape(-1, *[1] * len(self.shape)), persistent=False
        )

    def forward(
        self, state: Tensor, context: Tensor | None = None
    ) -> distributions.DiscretizedMixture:
        """The distribution of each row."""
        shape = (3, self.components, *self.shape)
        logits, shift, log_scale = outputs(self.network, shape, state, context=context).unbind(1)
        location, reach = shift + self.offsets, 1.0
        if self.schedule is not None:
            alpha, sigma = self.begin
            reach = 2 * sigma / alpha
            location = torch.add((state / alpha)[:, None], location, alpha=reach)
        wide = math.log(2 * reach / self.components)
        return distributions.DiscretizedMixture(logits, location, log_scale + wide, self.levels)

    def formula(self) -> str:
        """The decoder as it would stand on paper."""
        where, given = (
            ("d_c(z)", "z") if self.schedule is None else ("z_0 / alpha_0 + d_c(z_0)", "z_0")
        )
        law = f"sum of {self.components} Logistics over bins"
        return f"p(x | {given}) = {law}(x; {where}, s_c({given}))"


class Identity(nn.Module):
    """A network that says what it is given: for a decoder whose state already is the location."""

    def forward(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """The state."""
        return state


def likelihood(
    network: Callable[[int], nn.Module],
    shape: Shape,
    bins: int | None,
    scale: Scale | float | None = None,
) -> Decoder:
    """The decoder one would reach for first: by the number of levels of the data.

    Real data get a Gaussian with one learned std, bits a Bernoulli, integers a discretized logistic
    whose scale the network says.

    Args:
        network: builds a network with a given number of outputs a row.
        shape: the event shape of ``x``.
        bins: how many levels, or ``None`` for real data.
        scale: another scale than the customary one.
    """
    entries = size(shape)
    if bins == 2 and scale is None:
        return BernoulliDecoder(network(entries), shape)
    if bins is None:
        chosen: Scale | float = GlobalScale() if scale is None else scale
    else:
        # As narrow as a bin of 256, it would begin with 80 bits a pixel and steps to match.
        chosen = PredictedScale(max(Bins(bins).width, _BROAD)) if scale is None else scale
    count = entries * (1 + (chosen.outputs if isinstance(chosen, Scale) else 0))
    if bins is None:
        return GaussianDecoder(network(count), shape, chosen)
    return DiscretizedLogisticDecoder(network(count), shape, bins, chosen)
