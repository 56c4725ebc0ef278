"""Kinds of networks: factories, with which the one-line models build their parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from genmod.checks import invalid
from genmod.nn.conditioning import Condition
from genmod.nn.mlp import MLP, DenoisingMLP
from genmod.nn.residual import ConvDecoder, ConvEncoder, ConvNet
from genmod.nn.transformer import DiT
from genmod.nn.unet import UNet
from genmod.signatures import check_fields
from genmod.tensors import Shape, size

_LARGE = 16
"""If every side has at least so many pixels, convolutional networks are the default."""

_PATCHES = 256
"""The most patches of a transformer, unless their size is given."""


class Networks(ABC):
    """A kind of networks and its settings: a factory of networks.

    It builds networks between any two shapes, for encoders and decoders, and networks for denoisers.
    A kind of your own is a frozen dataclass with these methods. Pass it as ``networks=`` to a model.
    """

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    @abstractmethod
    def features(self) -> int:
        """The size of the vectors that one network passes on to another inside a model."""

    @abstractmethod
    def build(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
        """A network ``net(x, context)`` from ``(B, *inputs)`` to ``(B, *outputs)``, or its flat form."""

    @abstractmethod
    def denoiser(
        self,
        shape: Shape,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> nn.Module:
        """A network ``net(z, log_snr, context)`` from ``(B, C, *space)`` to ``(B, outputs, *space)``.

        Args:
            shape: the shape of an event.
            fourier: exponents ``n`` of additional inputs ``sin(2^n pi z)`` and ``cos(2^n pi z)``.
            outputs: the number of output channels; that of the event by default.
            context: the kind of context, if any.
        """


@dataclass(frozen=True)
class MLPs(Networks):
    """Residual multilayer perceptrons (MLPs) on flattened events, for vectors, tables and small images.

    Args:
        width: the width of the hidden layers.
        depth: residual blocks in each network; ``None``: 2, and 3 for a denoiser.
        dropout: the probability of dropout inside each block.
    """

    width: int = 256
    depth: int | None = None
    dropout: float = 0.0

    @property
    def features(self) -> int:
        """The width."""
        return self.width

    def build(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
        """An MLP; its outputs are flat."""
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
        depth: residual blocks at each resolution; ``None``: 1.
        dropout: the probability of dropout inside each block.
        patch: pixels along each side of a patch, which becomes one position of the first layer;
            ``None``: 2 if every side has at least 16 pixels, else 1.
        multipliers: channels at each resolution of a U-Net, divided by ``width``.
        attention: for each resolution of a U-Net, whether it has attention; ``None``: only the last.
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
        """Eight times the width."""
        return 8 * self.width

    def build(self, inputs: Shape, outputs: Shape, context: Condition | int = 0) -> nn.Module:
        """A network to a lower, a higher or the same resolution; an MLP between vectors."""
        wide, narrow = max(inputs, outputs, key=_positions), min(inputs, outputs, key=_positions)
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
        """A U-Net; vectors are refused, because they have no spatial dimensions."""
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
    """A diffusion transformer (DiT) for a denoiser, and :class:`ConvNets` or :class:`MLPs` for the rest.

    Args:
        width: the size of a token, a multiple of ``head``.
        depth: the number of blocks; ``None``: 6.
        dropout: the probability of dropout inside each block.
        patch: pixels along each side of a patch; ``None``: the smallest power of two that gives at most
            256 patches.
        head: the size of one head of attention.
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
        """A convolutional network or an MLP, because a transformer keeps the shape of its input."""
        wide = max(inputs, outputs, key=_positions)
        kind = ConvNets if isinstance(default_networks(wide), ConvNets) else MLPs
        return kind(dropout=self.dropout).build(inputs, outputs, context)

    def denoiser(
        self,
        shape: Shape,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> nn.Module:
        """A diffusion transformer; vectors are refused, because they have no patches."""
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
    """A kind of networks that are all conditioned on a context.

    Args:
        networks: the kind of networks.
        context: the kind of context.
    """

    networks: Networks
    context: Condition

    @property
    def features(self) -> int:
        """That of the kind."""
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
    if len(shape) <= 1:
        raise invalid(
            f"{type(kind).__name__} for a denoiser of vectors of shape {tuple(shape)}",
            "an event with spatial dimensions, (C, *space)",
            "use networks=MLPs(), or add a channel dimension: (1, n) is a sequence",
        )


def _positions(shape: Shape) -> int:
    return size(shape[1:]) if len(shape) > 1 else 0


def _patch_for(space: Shape) -> int:
    """The smallest power of two that cuts a space into few enough patches."""
    patch = 1
    while size(tuple(-(-side // patch) for side in space)) > _PATCHES:
        patch *= 2
    return patch
