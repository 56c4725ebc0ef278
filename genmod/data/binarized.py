"""Dynamic binarization of a data set of gray images."""

from __future__ import annotations

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require
from genmod.data.bernoulli import BernoulliPixels
from genmod.data.datasets import Dataset
from genmod.random.streams import mix

_BITS = 0xF11B
"""Part of the key of the bits, so that no other noise of the same seed resembles them."""
_BLOCK = 1024
"""Rows drawn together: part of the key of the noise, and few enough to spare the memory."""


def binarized(data: Dataset, seed: int = 0) -> Dataset:
    """Gray images as bits, ``b ~ Bernoulli(gray / (bins - 1))``, each pixel on its own.

    Validation and test bits are drawn once, keyed by ``seed``, so that every model is scored on the
    same ones. Training bits are drawn again whenever :func:`~genmod.training.fit` visits a row, keyed by
    its own seed; ``train`` holds a first draw.

    The entropy of the noise, ``E_x H(b | x)`` over the test part, is :attr:`Dataset.entropy_floor`, and
    reports carry it.

    Args:
        data: integers of at least three values.
        seed: of the validation and test bits, and of the first draw of the training bits.

    Returns:
        A data set of two values, with the rows, parts and labels of ``data``.

    Raises:
        ValueError: real data, or data that already are bits.

    Reference:
        Burda, Grosse and Salakhutdinov 2016, Importance weighted autoencoders, section 5.

    >>> from genmod.data import digits
    >>> bits = binarized(digits())
    >>> bits.name, bits.bins, round(bits.entropy_floor, 1)
    ('binarized digits', 2, 13.6)
    """
    require(
        data.bins is not None and data.bins > 2,
        data.summary(),
        "gray values: integers with bins of at least 3",
        "pass bins=... to genmod.data.dataset; bits need no binarization",
    )
    pixels = [BernoulliPixels(part, data.bins or 0) for part in data.parts().values()]
    train, validation, test = (_draw(each, seed, place) for place, each in enumerate(pixels))
    return Dataset(
        name=f"binarized {data.name}",
        train=train,
        validation=validation,
        test=test,
        bins=2,
        labels=data.labels,
        resample=pixels[0],
        entropy=pixels[-1].entropy(),
        context_dropout=data.context_dropout,
    )


def _draw(pixels: BernoulliPixels, seed: int, place: int) -> Tensor:
    """The bits of the part at a place; row by row, whatever the other rows are."""
    bits = torch.empty_like(pixels.gray, dtype=torch.uint8)
    for start in range(0, len(pixels), _BLOCK):
        rows = slice(start, start + _BLOCK)
        with random.keyed(mix(seed, _BITS), place, start=start, block=_BLOCK):
            bits[rows] = pixels.sample(rows)
    return bits
