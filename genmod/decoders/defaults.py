"""The default decoder of each kind of data."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from genmod.checks import invalid
from genmod.decoders.base import Decoder
from genmod.decoders.columns import Columns, robust_columns
from genmod.decoders.likelihoods import (
    BernoulliDecoder,
    DiscretizedLogisticDecoder,
    GaussianDecoder,
    GlobalScale,
    PredictedScale,
    Scale,
)
from genmod.signatures import checked
from genmod.spec import DataSpec, SpecLike

_BROAD = 0.1
"""The narrowest scale that a default decoder starts from, where values lie in [-1, 1]."""

_A_LAW_EACH = ("none", "use Columns.of(network, spec, {name: law}) for laws of your own")


@checked
def likelihood(
    network: Callable[[int], nn.Module],
    spec: SpecLike,
    bins: int | None = None,
    scale: Scale | float | None = None,
) -> Decoder:
    """The default decoder for data of a kind.

    Real data get a Gaussian with one learned std, bits a Bernoulli, other integers a discretized
    logistic whose scale is predicted by the network. A table of real columns gets Student's t with a
    predicted scale; a table of other kinds :class:`~genmod.decoders.Columns`.

    Args:
        network: builds a network with a given number of outputs a row.
        spec: the data, or an event shape.
        bins: beside a shape, how many values integer data have.
        scale: another scale than the default; of the real numbers or integers of one kind.
    """
    spec = DataSpec.of(spec, bins)
    if spec.is_mixed:
        if scale is not None:
            raise invalid(f"scale={scale} for columns of several kinds", *_A_LAW_EACH)
        return Columns.of(network, spec)
    if spec.columns is not None and scale is None:
        return robust_columns(network(2 * spec.size), spec)
    if spec.bins == 2 and scale is None:
        return BernoulliDecoder(network(spec.size), spec)
    if spec.bins is None:
        chosen: Scale | float = GlobalScale() if scale is None else scale
    else:
        # With a scale as narrow as a bin of 256, training would begin at 80 bits a pixel and diverge.
        chosen = PredictedScale(max(spec.width, _BROAD)) if scale is None else scale
    count = spec.size * (1 + (chosen.outputs if isinstance(chosen, Scale) else 0))
    if spec.bins is None:
        return GaussianDecoder(network(count), spec, chosen)
    return DiscretizedLogisticDecoder(network(count), spec, scale=chosen)
