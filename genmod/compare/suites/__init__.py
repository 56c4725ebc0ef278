"""Suites: which models are compared on which data, with the settings they are trained with."""

from __future__ import annotations

from collections.abc import Sequence

from genmod.checks import require
from genmod.compare.candidate import Candidate
from genmod.compare.suites.digits import DIGITS as DIGITS
from genmod.compare.suites.digits import QUICK as QUICK
from genmod.compare.suites.images import IMAGES as IMAGES
from genmod.data import Dataset

SIDE = 16
"""From how many pixels a side on images are worth convolutions."""
MINUTES = 7.0
"""Minutes that each convolutional model may train by default: it would take hours on a slow machine."""


def suite_for(data: Dataset, quick: bool = False) -> Sequence[Candidate]:
    """The default suite for some data: convolutional for images of some size, else perceptrons.

    Args:
        data: any data set; images are channels first, ``(C, H, W)``.
        quick: whether half a minute has to be enough; not for images of some size.

    Raises:
        ValueError: a quick suite for images of 16 pixels a side or more.
    """
    shape = data.shape
    large = len(shape) == 3 and min(shape[1:]) >= SIDE
    if quick:
        # In half a minute no model of larger images beats the per-pixel histogram.
        require(
            not large,
            f"quick=True for images of shape {shape}",
            f"images of fewer than {SIDE} pixels a side, such as the digits",
            "leave --quick out, and limit the time with --minutes",
        )
        return QUICK
    return IMAGES if large else DIGITS


def default_minutes(suite: Sequence[Candidate]) -> float | None:
    """How long each model of a suite may train by default; ``None`` for as long as it takes."""
    return MINUTES if suite is IMAGES else None
