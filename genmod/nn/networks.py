"""Kinds of networks: what the one-line models build their parts from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from genmod.nn.conditioning import Condition
from genmod.nn.mlp import MLP, DenoisingMLP
from genmod.nn.residual import ConvDecoder, ConvEncoder, ConvNet
from genmod.nn.transformer import DiT
from genmod.nn.unet import UNet
from genmod.shapes import size
from genmod.types import Shape

_LARGE = 16
"""Sides from which on an event is an image and not a table of pixels."""

_WORDS = 256
"""Patches that a transformer looks at, at most, unless it is told how large they are."""


class Networks(ABC):
    """A kind of networks, with its settings.

    It makes a network between any two shapes, for encoders and decoders, and a denoiser's network.
    """

    @property
    @abstractmethod
    def features(self) -> int:
        """How many numbers a vector handed from network to network has."""

    @abstractmethod
    def between(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
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

    def between(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
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
        """A perceptron told the noise level in every block."""
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

    def between(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
        """Down to fewer places, up to more, or across the same; a perceptron between vectors."""
        wide, narrow = max(inputs, outputs, key=_places), min(inputs, outputs, key=_places)
        if len(wide) == 1:
            flat = MLPs(self.features, self.depth, self.dropout)
            return flat.between(inputs, outputs, context)
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
        """A U-Net."""
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
        width: numbers in a word, a multiple of ``head``.
        depth: blocks; ``None`` is 6.
        dropout: the rate of dropout inside each block.
        patch: pixels a side of a patch; ``None`` is the smallest power of two that leaves at most 256
            patches.
        head: numbers of a word that one head of attention sees.
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

    def between(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
        """What is customary between two such shapes: a transformer alone changes none."""
        wide = max(inputs, outputs, key=_places)
        kind = ConvNets if isinstance(default_networks(wide), ConvNets) else MLPs
        return kind(dropout=self.dropout).between(inputs, outputs, context)

    def denoiser(
        self,
        shape: Shape,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> nn.Module:
        """A diffusion transformer."""
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
    """A kind of networks, each of which is told a context.

    Args:
        networks: the kind.
        context: what they are told.
    """

    networks: Networks
    context: Condition

    @property
    def features(self) -> int:
        """As many as the kind has."""
        return self.networks.features

    def between(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
        """A network of the kind, told the context unless it is told another."""
        return self.networks.between(inputs, outputs, context or self.context)

    def denoiser(
        self,
        shape: Shape,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> nn.Module:
        """A denoiser's network of the kind, told the context."""
        return self.networks.denoiser(shape, fourier, outputs, context or self.context)


def default_networks(shape: Shape) -> Networks:
    """Convolutions for events with sides of 16 and more, perceptrons for all others.

    >>> default_networks((1, 28, 28))  # doctest: +ELLIPSIS
    Convolutions(width=32, depth=None, dropout=0.0, patch=None, ...)
    >>> default_networks((1, 8, 8))
    Perceptrons(width=256, depth=None, dropout=0.0)
    """
    return ConvNets() if len(shape) > 1 and min(shape[1:]) >= _LARGE else MLPs()


def _places(shape: Shape) -> int:
    return size(shape[1:]) if len(shape) > 1 else 0


def _patch_for(space: Shape) -> int:
    """The smallest power of two that cuts a space into few enough patches."""
    patch = 1
    while size(tuple(-(-side // patch) for side in space)) > _WORDS:
        patch *= 2
    return patch
