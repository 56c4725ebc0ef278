"""Kinds of networks: the factories that the one-line models build their parts with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from genmod.checks import require
from genmod.nn.conditioning import Condition
from genmod.nn.mlp import MLP, DenoisingMLP
from genmod.nn.residual import ConvDecoder, ConvEncoder, ConvNet
from genmod.nn.transformer import DiT
from genmod.nn.unet import UNet
from genmod.shapes import Shape, size

_LARGE = 16
"""Sides from which on an event is an image and not a table of pixels."""

_WORDS = 256
"""Patches of a transformer, at most, unless their size is given."""


class Networks(ABC):
    """A kind of networks, with its settings.

    It builds a network between any two shapes, for encoders and decoders, and a denoiser's network.
    A kind of your own is a frozen dataclass with these two methods.
    """

    @property
    @abstractmethod
    def features(self) -> int:
        """The size of a vector handed from network to network."""

    @abstractmethod
    def build(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
        """A network ``net(x, context)`` from events of one shape to those of another."""

    @abstractmethod
    def denoiser(
        self,
        shape: Shape,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> nn.Module:
        """A network ``net(z, log_snr, context)`` from an event to one of the same sides.

        Args:
            shape: the event's shape.
            fourier: exponents of the Fourier features fed beside ``z``.
            outputs: channels it gives; as many as the event has, by default.
            context: the kind of context, if it takes one.
        """


@dataclass(frozen=True)
class MLPs(Networks):
    """Residual perceptrons on flattened events: for vectors, tables and small images.

    Args:
        width: of every hidden layer.
        depth: residual blocks in each network; ``None`` is 2, and 3 for a denoiser.
        dropout: the rate of dropout inside each block.
    """

    width: int = 256
    depth: int | None = None
    dropout: float = 0.0

    @property
    def features(self) -> int:
        """The width."""
        return self.width

    def build(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
        """A perceptron; its outputs are flat."""
        depth = 2 if self.depth is None else self.depth
        return MLP(
            inputs,
            size(outputs),
            width=self.width,
            depth=depth,
            dropout=self.dropout,
            context=context,
        )

    def denoiser(
        self,
        shape: Shape,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> nn.Module:
        """A residual MLP conditioned on the noise level in every block."""
        depth = 3 if self.depth is None else self.depth
        return DenoisingMLP(
            shape,
            width=self.width,
            depth=depth,
            dropout=self.dropout,
            fourier=fourier,
            outputs=outputs,
            context=context,
        )


@dataclass(frozen=True)
class ConvNets(Networks):
    """Residual convolutional networks, and a U-Net for a denoiser: for sequences, images, volumes.

    Args:
        width: channels at the first resolution.
        depth: residual blocks at each resolution; ``None`` is 1.
        dropout: the rate of dropout inside each block.
        patch: pixels a side that the first layer takes together; ``None`` is 2 where every side has
            at least 16, and 1 below.
        multipliers: of a denoiser's U-Net: how many times ``width`` channels each resolution has.
        attention: of a denoiser's U-Net: a flag for each resolution; ``None`` is the last alone.
        head: channels of one head of attention.
    """

    width: int = 32
    depth: int | None = None
    dropout: float = 0.0
    patch: int | None = None
    multipliers: tuple[int, ...] = (1, 2)
    attention: tuple[bool, ...] | None = None
    head: int = 32

    @property
    def features(self) -> int:
        """As many as eight places have channels."""
        return 8 * self.width

    def build(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
        """Down to fewer places, up to more, or across the same; a perceptron between vectors."""
        wide, narrow = max(inputs, outputs, key=_places), min(inputs, outputs, key=_places)
        if len(wide) == 1:
            flat = MLPs(self.features, self.depth, self.dropout)
            return flat.build(inputs, outputs, context)
        same = wide[1:] == narrow[1:]
        kind = ConvNet if same else ConvEncoder if wide is inputs else ConvDecoder
        return kind(
            inputs,
            outputs,
            width=self.width,
            depth=self.depth or 1,
            patch=self._patch(wide),
            dropout=self.dropout,
            context=context,
        )

    def denoiser(
        self,
        shape: Shape,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> nn.Module:
        """A U-Net; refuses vectors, which have no sides to convolve over."""
        _check_sides(self, shape)
        return UNet(
            shape,
            width=self.width,
            multipliers=self.multipliers,
            blocks=self.depth or 1,
            attention=self.attention,
            head=self.head,
            patch=self._patch(shape),
            dropout=self.dropout,
            fourier=fourier,
            outputs=outputs,
            context=context,
        )

    def _patch(self, shape: Shape) -> int:
        return self.patch or (2 if min(shape[1:]) >= _LARGE else 1)


@dataclass(frozen=True)
class DiTs(Networks):
    """A diffusion transformer for a denoiser; convolutions or perceptrons for everything else.

    Args:
        width: numbers in a token, a multiple of ``head``.
        depth: blocks; ``None`` is 6.
        dropout: the rate of dropout inside each block.
        patch: pixels a side of a patch; ``None`` is the smallest power of two that leaves at most 256
            patches.
        head: numbers of a token in one head of attention.
    """

    width: int = 192
    depth: int | None = None
    dropout: float = 0.0
    patch: int | None = None
    head: int = 32

    @property
    def features(self) -> int:
        """The width."""
        return self.width

    def build(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
        """Convolutions or an MLP, by the shapes: a transformer keeps the shape of its input."""
        wide = max(inputs, outputs, key=_places)
        kind = ConvNets if isinstance(default_networks(wide), ConvNets) else MLPs
        return kind(dropout=self.dropout).build(inputs, outputs, context)

    def denoiser(
        self,
        shape: Shape,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> nn.Module:
        """A diffusion transformer; refuses vectors, which have no patches."""
        _check_sides(self, shape)
        return DiT(
            shape,
            width=self.width,
            depth=self.depth or 6,
            head=self.head,
            patch=self.patch or _patch_for(shape[1:]),
            dropout=self.dropout,
            fourier=fourier,
            outputs=outputs,
            context=context,
        )


@dataclass(frozen=True)
class Conditional(Networks):
    """A kind of networks, each of them conditioned on a context.

    Args:
        networks: the kind.
        context: the kind of context.
    """

    networks: Networks
    context: Condition

    @property
    def features(self) -> int:
        """As many as the kind has."""
        return self.networks.features

    def build(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
        """A network of the kind, conditioned on the context unless another is given."""
        return self.networks.build(inputs, outputs, context or self.context)

    def denoiser(
        self,
        shape: Shape,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> nn.Module:
        """A denoiser's network of the kind, conditioned on the context."""
        return self.networks.denoiser(shape, fourier, outputs, context or self.context)


def default_networks(shape: Shape) -> Networks:
    """:class:`ConvNets` if every side is at least 16, else :class:`MLPs`.

    >>> default_networks((1, 28, 28))  # doctest: +ELLIPSIS
    ConvNets(width=32, depth=None, dropout=0.0, patch=None, ...)
    >>> default_networks((1, 8, 8))
    MLPs(width=256, depth=None, dropout=0.0)
    """
    return ConvNets() if len(shape) > 1 and min(shape[1:]) >= _LARGE else MLPs()


def _check_sides(kind: Networks, shape: Shape) -> None:
    require(
        len(shape) > 1,
        f"{type(kind).__name__} for a denoiser of vectors of shape {tuple(shape)}",
        "an event with sides, (C, *space)",
        "use networks=MLPs(), or give the data a channel axis: (1, n) is a sequence",
    )


def _places(shape: Shape) -> int:
    return size(shape[1:]) if len(shape) > 1 else 0


def _patch_for(space: Shape) -> int:
    """The smallest power of two that cuts a space into few enough patches."""
    patch = 1
    while size(tuple(-(-side // patch) for side in space)) > _WORDS:
        patch *= 2
    return patch
