"""What the one-line constructors share: settings checked, networks of the customary kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from genmod.checks import require
from genmod.decoders import Decoder, likelihood
from genmod.nn import Condition, Conditional, ConvNets, MLPs, Networks, default_networks
from genmod.shapes import size
from genmod.types import Shape


def event_shape(shape: Shape | int | None, part: str) -> Shape:
    """The shape as a tuple, required where a part has to be built from it.

    Raises:
        ValueError: no shape, or one with an empty dimension.
    """
    if shape is None:
        raise ValueError(
            f"got no shape and no {part}; expected one of them; pass shape=(1, 8, 8), or like, "
            f"or a {part} of your own"
        )
    return as_shape(shape)


def as_shape(shape: Sequence[int] | int) -> Shape:
    """A shape as a tuple; one number is a vector's.

    Raises:
        ValueError: an empty shape, or one with an empty dimension.
    """
    found = (shape,) if isinstance(shape, int) else tuple(shape)
    require(
        len(found) > 0 and all(side >= 1 for side in found),
        f"shape={shape}",
        "an event shape of positive sides",
        "leave the batch dimension out: (1, 28, 28) for gray images, (d,) for vectors",
    )
    return found


def resolve_networks(
    networks: Networks | None,
    shape: Shape,
    width: int | None,
    depth: int | None,
    dropout: float,
    condition: Condition | None = None,
) -> Networks:
    """The networks asked for, or the customary kind for a shape with the settings asked for.

    Where there is a condition, each of them is told it.

    Raises:
        ValueError: both.
    """
    if condition is not None:
        return Conditional(resolve_networks(networks, shape, width, depth, dropout), condition)
    if networks is not None:
        require(
            width is None and depth is None and dropout == 0,
            f"networks={networks} beside width={width}, depth={depth}, dropout={dropout}",
            "one or the other",
            "put the settings into the networks: Convolutions(width=32, dropout=0.1)",
        )
        return networks
    kind = default_networks(shape)
    assert isinstance(kind, MLPs | ConvNets)
    return replace(
        kind,
        width=kind.width if width is None else width,
        depth=kind.depth if depth is None else depth,
        dropout=dropout,
    )


def unconditional(condition: Condition | None, *parts: object | None) -> None:
    """Refuse a condition where no network is left to be told it: each part is the user's own.

    Raises:
        ValueError: a condition, and all of the parts.
    """
    require(
        condition is None or any(part is None for part in parts),
        f"condition={condition} beside parts of your own",
        "one or the other",
        "tell the networks of your parts: UNet(shape, context=Labels(10)), or like",
    )


def multiply_channels(shape: Shape, count: int) -> Shape:
    """The shape of ``count`` numbers for each entry of an event: that many times its channels."""
    return (count * shape[0], *shape[1:])


def default_decoder(networks: Networks, code: Shape, shape: Shape, bins: int | None) -> Decoder:
    """The customary likelihood for this kind of data, on these networks."""
    return likelihood(
        lambda outputs: networks.build(code, multiply_channels(shape, outputs // size(shape))),
        shape,
        bins,
    )
