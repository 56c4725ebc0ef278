"""Families: which models are compared on which data, with the settings they are trained with."""

from __future__ import annotations

from collections.abc import Sequence

from genmod.compare.families.digits import DIGITS as DIGITS
from genmod.compare.families.images import IMAGES as IMAGES
from genmod.compare.member import Member
from genmod.data import Dataset

SIDE = 16
"""From how many pixels a side on images are worth convolutions."""


def family(data: Dataset) -> Sequence[Member]:
    """The customary family for some data: convolutional for images of some size, else perceptrons.

    Args:
        data: any data set; images are channels first, ``(C, H, W)``.
    """
    shape = data.shape
    return IMAGES if len(shape) == 3 and min(shape[1:]) >= SIDE else DIGITS
