"""Dynamic binarization of a data set of gray images."""

from __future__ import annotations

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require
from genmod.data.coins import BernoulliPixels
from genmod.data.splits import Dataset

_FLIPS = 0xF11B
"""Part of the key of the bits, so that no other noise of the same seed resembles them."""
_BLOCK = 1024
"""Rows flipped together: part of the key of the noise, and few enough to spare the memory."""


def binarized(data: Dataset, seed: int = 0) -> Dataset:
    """Gray images as bits, ``b ~ Bernoulli(gray / (bins - 1))``, each pixel on its own.

    Validation and test bits are drawn once, keyed by ``seed``, so that every model is measured on the
    same ones. Training bits are drawn anew whenever :func:`~genmod.training.fit` visits a row, keyed by
    its own seed; ``train`` holds a first draw, for all who look at data without training on them.

    What the coins alone cost, ``E_x H(b | x)`` over the test part, is :attr:`Dataset.irreducible`, and
    goes with the data into every report.

    Args:
        data: integers of at least three levels.
        seed: of the validation and test bits, and of the first draw of the training bits.

    Returns:
        A data set of two levels, with the rows, parts and labels of ``data``.

    Raises:
        ValueError: real data, or data that already are bits.

    Reference:
        Burda, Grosse and Salakhutdinov 2016, Importance weighted autoencoders, section 5.

    >>> from genmod.data import digits
    >>> bits = binarized(digits())
    >>> bits.name, bits.bins, round(bits.irreducible, 1)
    ('binarized digits', 2, 13.6)
    """
    require(
        data.bins is not None and data.bins > 2,
        f"{data}",
        "gray levels: integers with bins of at least 3",
        "pass bins=... to genmod.data.dataset; bits need no binarization",
    )
    coins = [BernoulliPixels(part, data.bins or 0) for part in data.parts().values()]
    train, validation, test = (_flip(each, seed, place) for place, each in enumerate(coins))
    return Dataset(
        name=f"binarized {data.name}",
        train=train,
        validation=validation,
        test=test,
        bins=2,
        labels=data.labels,
        redraw=coins[0],
        floors=coins[-1].entropy(),
        context_dropout=data.context_dropout,
    )


def _flip(coins: BernoulliPixels, seed: int, place: int) -> Tensor:
    """The bits of the part at a place, each part with noise of its own; row by row, whatever the rest."""
    bits = torch.empty_like(coins.gray)
    for start in range(0, len(coins), _BLOCK):
        rows = slice(start, start + _BLOCK)
        with random.keyed(random.mix(seed, _FLIPS), place, start=start, block=_BLOCK):
            bits[rows] = coins.flip(rows)
    return bits
