"""What the one-line constructors share: settings checked, networks of the customary kind."""

from __future__ import annotations

from genmod.checks import require
from genmod.decoders import Decoder, likelihood
from genmod.nn import MLP
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
    found = (shape,) if isinstance(shape, int) else tuple(shape)
    require(
        len(found) > 0 and all(side >= 1 for side in found),
        f"shape={shape}",
        "an event shape of positive sides",
        "leave the batch dimension out: (1, 28, 28) for gray images, (d,) for vectors",
    )
    return found


def mlp_decoder(
    latents: int, shape: Shape, bins: int | None, width: int, depth: int, dropout: float
) -> Decoder:
    """The customary decoder for this kind of data on a multilayer perceptron."""

    def network(outputs: int) -> MLP:
        return MLP(latents, outputs, width=width, depth=depth, dropout=dropout)

    return likelihood(network, shape, bins)
