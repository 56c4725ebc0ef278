"""Advice for a misfit of a predictive check: what to try, by the kind of statistic that is off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from genmod import decoders

Classes: TypeAlias = frozenset[type]
"""The classes of the modules of a decoder."""
_LOWER = ("minimum", "5 % quantile")
"""How the names of statistics begin that fall as the spread grows."""


class Group(Enum):
    """The kind of a statistic, with what a misfit in it calls for."""

    LEVEL = "level"
    SPREAD = "spread"
    COUNTED_SPREAD = "spread of counts"
    TAIL = "tail"
    ZEROS = "zeros"
    COUNTED_ZEROS = "zeros of counts"
    SHARE = "share"
    CORRELATION = "correlation"
    OWN = "own"

    def advice(self, name: str, model_too_low: bool, used: Classes = frozenset()) -> str:
        """What to do where the replicates are below the data (or above them).

        Args:
            name: of the statistic. A larger minimum or lower quantile means a smaller spread.
            model_too_low: whether the replicates are below the data.
            used: the classes in the decoder of the column, which are not advised again.
        """
        side = "below" if model_too_low else "above"
        short = model_too_low != name.startswith(_LOWER)
        options = _ADVICE[self][0 if short else 1]
        fresh = [each.words for each in options if not used & each.tried]
        return f"the replicates are {side} the data; {', or '.join(fresh or _words(_TRAIN))}"


@dataclass(frozen=True)
class _Option:
    """One advice.

    Args:
        words: what to try.
        tried: a decoder with a module of one of these classes has it already.
    """

    words: str
    tried: Classes = frozenset()


def _words(options: Sequence[_Option]) -> list[str]:
    return [each.words for each in options]


def _use(before: str, kind: type, *alike: type) -> _Option:
    """The advice to use a class of :mod:`genmod.decoders`; those ``alike`` have what it has."""
    return _Option(f"{before} decoders.{kind.__name__}", frozenset((kind, *alike)))


_LONGER = _Option("train longer")
_TRAIN = (_LONGER, _Option("with more latents"))
_OVERDISPERSED = (
    _use(
        "counts vary more than the model's: use",
        decoders.NegativeBinomialDecoder,
        decoders.ZeroInflatedNegativeBinomialDecoder,
    ),
    _use("for more zeros use", decoders.ZeroInflatedNegativeBinomialDecoder),
)
_PREDICTED = _use("let the decoder predict its scale by", decoders.PredictedScale)
_ADVICE: dict[Group, tuple[tuple[_Option, ...], tuple[_Option, ...]]] = {
    Group.LEVEL: (_TRAIN, _TRAIN),
    Group.SPREAD: (
        (_PREDICTED, _Option("use more latents")),
        (_Option("its noise is too wide: train longer"), _PREDICTED),
    ),
    Group.COUNTED_SPREAD: (
        _OVERDISPERSED,
        (_LONGER, _use("use a law with less spread such as", decoders.PoissonDecoder)),
    ),
    Group.TAIL: (
        (_use("use a law with heavier tails, such as", decoders.StudentTDecoder),),
        (_use("use a law with lighter tails, such as", decoders.GaussianDecoder),),
    ),
    Group.ZEROS: ((_Option("describe the column as a count or as integers"),), _TRAIN),
    Group.COUNTED_ZEROS: (_OVERDISPERSED, (_Option("use a law without added zeros"),)),
    Group.SHARE: (_TRAIN, _TRAIN),
    Group.CORRELATION: (_TRAIN, _TRAIN),
    Group.OWN: ((_Option("see what this statistic measures"),),) * 2,
}
