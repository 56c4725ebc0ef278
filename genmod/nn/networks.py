"""Kinds of networks: what the one-line models build their parts from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from genmod.nn.mlp import MLP, DenoisingMLP
from genmod.nn.residual import ConvDecoder, ConvEncoder, ConvNet
from genmod.nn.unet import UNet
from genmod.shapes import size
from genmod.types import Shape

_LARGE = 16
"""Sides from which on an event is an image and not a table of pixels."""


class Networks(ABC):
    """A kind of networks, with its settings.

    It makes a network between any two shapes, for encoders and decoders, and a denoiser's network.
    """

    @property
    @abstractmethod
    def features(self) -> int:
        """How many numbers a vector handed from network to network has."""

    @abstractmethod
    def between(self, inputs: Shape, outputs: Shape) -> nn.Module:
        """A network from events of one shape to those of another."""

    @abstractmethod
    def denoiser(
        self, shape: Shape, fourier: tuple[int, ...] = (), outputs: int | None = None
    ) -> nn.Module:
        """A network ``net(z, log_snr)`` from an event to one of the same shape.

        Args:
            shape: the event's shape.
            fourier: exponents of the Fourier features fed beside ``z``.
            outputs: channels it gives; as many as the event has, by default.
        """


@dataclass(frozen=True)
class Perceptrons(Networks):
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

    def between(self, inputs: Shape, outputs: Shape) -> nn.Module:
        """A perceptron; its outputs are flat."""
        depth = 2 if self.depth is None else self.depth
        return MLP(inputs, size(outputs), width=self.width, depth=depth, dropout=self.dropout)

    def denoiser(
        self, shape: Shape, fourier: tuple[int, ...] = (), outputs: int | None = None
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
        )


@dataclass(frozen=True)
class Convolutions(Networks):
    """Residual convolutional networks, and a U-Net for a denoiser: for sequences, images, volumes.

    Args:
        width: channels at the first resolution.
        depth: residual blocks at each resolution; ``None`` is 1.
        dropout: the rate of dropout inside each block.
        patch: pixels a side that the first layer takes together; ``None`` is 2 where every side has
            at least 16, and 1 below.
    """

    width: int = 32
    depth: int | None = None
    dropout: float = 0.0
    patch: int | None = None

    @property
    def features(self) -> int:
        """As many as eight places have channels."""
        return 8 * self.width

    def between(self, inputs: Shape, outputs: Shape) -> nn.Module:
        """Down to fewer places, up to more, or across the same; a perceptron between vectors."""
        wide, narrow = max(inputs, outputs, key=_places), min(inputs, outputs, key=_places)
        if len(wide) == 1:
            return Perceptrons(self.features, self.depth, self.dropout).between(inputs, outputs)
        same = wide[1:] == narrow[1:]
        kind = ConvNet if same else ConvEncoder if wide is inputs else ConvDecoder
        return kind(
            inputs,
            outputs,
            width=self.width,
            depth=self.depth or 1,
            patch=self._patch(wide),
            dropout=self.dropout,
        )

    def denoiser(
        self, shape: Shape, fourier: tuple[int, ...] = (), outputs: int | None = None
    ) -> nn.Module:
        """A U-Net of two resolutions."""
        return UNet(
            shape,
            width=self.width,
            blocks=self.depth or 1,
            patch=self._patch(shape),
            dropout=self.dropout,
            fourier=fourier,
            outputs=outputs,
        )

    def _patch(self, shape: Shape) -> int:
        return self.patch or (2 if min(shape[1:]) >= _LARGE else 1)


def customary(shape: Shape) -> Networks:
    """Convolutions for events with sides of 16 and more, perceptrons for all others.

    >>> customary((1, 28, 28))
    Convolutions(width=32, depth=None, dropout=0.0, patch=None)
    >>> customary((1, 8, 8))
    Perceptrons(width=256, depth=None, dropout=0.0)
    """
    return Convolutions() if len(shape) > 1 and min(shape[1:]) >= _LARGE else Perceptrons()


def _places(shape: Shape) -> int:
    return size(shape[1:]) if len(shape) > 1 else 0
