"""Residual cells: the networks of very deep hierarchies, on vectors and on feature maps.

A state is a vector ``(B, width)`` or a feature map ``(B, width, *space)``. All states of a network have the
same width, so that a sum joins any two of them.

Reference: Child, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images"
(2021), figure 3 and section 3; Vahdat, Kautz, "NVAE" (2020), section 3.1, for the residual cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genmod.config import Settings
from genmod.nn.conditioning import Condition
from genmod.nn.convolution import channels_last, convolution, group_norm, patches
from genmod.nn.mlp import ContextEmbedding
from genmod.nn.modules import in_full, zero
from genmod.nn.residual import resolutions
from genmod.tensors import Shape, size


class Cell(Settings, nn.Module):
    r"""A bottleneck network on a state: ``last(silu(middle(silu(first(silu(norm(h)))))))``.

    On vectors its three layers are linear. On feature maps the first and the last look at one position, the
    one between at its neighbors.

    Args:
        inputs: the shape of its input, ``(C,)`` or ``(C, *space)``.
        outputs: the number of output channels.
        hidden: the number of channels inside.
        dropout: the probability of dropout before the last layer.
        scale: the factor on the initial weights of the last layer; 0 starts at zero.

    >>> Cell((8, 4, 4), 6, hidden=4)(torch.zeros(2, 8, 4, 4)).shape
    torch.Size([2, 6, 4, 4])
    """

    def __init__(
        self, inputs: Shape, outputs: int, *, hidden: int, dropout: float = 0.0, scale: float = 1.0
    ) -> None:
        super().__init__()
        channels, space = inputs[0], tuple(inputs[1:])
        wide = 3 if space and max(space) > 1 else 1
        self.norm = group_norm(channels) if space else nn.LayerNorm(channels)
        self.first = pointwise(space, channels, hidden)
        self.middle = _layer(space, hidden, hidden, wide)
        self.drop = nn.Dropout(dropout)
        self.last = scaled(pointwise(space, hidden, outputs), scale)

    def forward(self, h: Tensor) -> Tensor:
        """``(B, *inputs)`` to ``(B, outputs, *space)``."""
        h = self.middle(F.silu(self.first(F.silu(in_full(self.norm, h)))))
        output: Tensor = self.last(self.drop(F.silu(h)))
        return output


def pointwise(space: Shape, inputs: int, outputs: int) -> nn.Module:
    """A linear layer on the channels of each position."""
    return _layer(space, inputs, outputs, 1)


def _layer(space: Shape, inputs: int, outputs: int, kernel: int) -> nn.Module:
    if not space:
        return nn.Linear(inputs, outputs)
    return convolution(len(space), inputs, outputs, kernel)


def scaled(layer: nn.Module, scale: float) -> nn.Module:
    """The layer with its initial weights times a factor, and no bias."""
    if scale == 0:
        return zero(layer)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.mul_(0.0 if name.endswith("bias") else scale)
    return layer


def resized(h: Tensor, space: Shape) -> Tensor:
    """A feature map at another resolution: halved by means of positions, or enlarged by copies of them.

    >>> resized(torch.arange(4.0).reshape(1, 1, 4), (2,)), resized(torch.ones(1, 1, 1), (3,))
    (tensor([[[0.5000, 2.5000]]]), tensor([[[1., 1., 1.]]]))
    """
    if sum(space) > sum(h.shape[2:]):
        return F.interpolate(h, tuple(space), mode="nearest")
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[h.ndim - 3] if space else None
    while pool is not None and h.shape[2:] != tuple(space):
        # With an odd number of positions the last mean is over one of them.
        window = [min(2, side) for side in h.shape[2:]]
        h = pool(h, window, ceil_mode=True, count_include_pad=False)
    return h


def plus(h: Tensor, embedding: Tensor | None) -> Tensor:
    """A state plus an embedding of the context, the same at each position."""
    if embedding is None:
        return h
    return h + embedding.reshape(*embedding.shape, *[1] * (h.ndim - 2))


class Pyramid(Settings, nn.Module):
    """The bottom-up pass of a very deep hierarchy: residual cells, whose states are each level's features.

    Args:
        inputs: the shape of the data's features, ``(n,)`` or ``(C, *space)``.
        shapes: the shape of each level's state, from the level next to the data upwards: ``(width,)``, or
            ``(width, *space)`` at falling resolutions.
        hidden: channels inside a cell.
        patch: pixels along each side of a patch, which becomes one position of the first layer.
        dropout: the probability of dropout inside each cell.
        context: the kind of context, if any.
    """

    def __init__(
        self,
        inputs: Shape,
        shapes: Sequence[Shape],
        *,
        hidden: int,
        patch: int = 1,
        dropout: float = 0.0,
        context: Condition | int = 0,
    ) -> None:
        super().__init__()
        self.shapes, self.patch = [tuple(shape) for shape in shapes], patch
        width, space = self.shapes[0][0], self.shapes[0][1:]
        if space:
            self.first: nn.Module = convolution(len(space), inputs[0] * patch ** len(space), width)
        else:
            self.first = nn.Linear(size(inputs), width)
        self.embed = ContextEmbedding(context, width)
        scale = len(self.shapes) ** -0.5
        self.cells = nn.ModuleList(
            Cell(shape, width, hidden=hidden, dropout=dropout, scale=scale) for shape in self.shapes
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> list[Tensor]:
        """``(B, *inputs)`` to the features of each level, the one next to the data first."""
        if len(self.shapes[0]) == 1:
            h = self.first(x.flatten(1))
        else:
            h = channels_last(in_full(self.first, channels_last(patches(x, self.patch))))
        h, found = plus(h, self.embed(context, len(x))), []
        for shape, cell in zip(self.shapes, self.cells, strict=True):
            h = resized(h, shape[1:])
            h = h + cell(h)
            found.append(h)
        return found


def level_shapes(levels: int, width: int, space: Shape, patch: int) -> list[Shape]:
    """The shape of each level's state, from the level next to the data upwards.

    The levels are spread evenly over the resolutions from that of the patches to a single position. Where
    there are fewer levels than resolutions, some are left out, never the first and the last.

    >>> level_shapes(4, 32, (8, 8), 1)
    [(32, 8, 8), (32, 4, 4), (32, 2, 2), (32, 1, 1)]
    >>> level_shapes(2, 32, (28, 28), 2), level_shapes(3, 16, (), 1)
    ([(32, 14, 14), (32, 1, 1)], [(16,), (16,), (16,)])
    """
    if not space:
        return [(width,)] * levels
    found = list(resolutions(space, patch))
    if levels <= len(found):
        last = max(levels - 1, 1)
        # A single level is a vector, as in a VAE.
        places = [round(i * (len(found) - 1) / last) for i in range(levels)] if levels > 1 else [-1]
    else:
        places = [i * len(found) // levels for i in range(levels)]
    return [(width, *found[place]) for place in places]
