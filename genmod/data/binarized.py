r"""Dynamic binarization: gray pixels as Bernoulli variables, and the entropy of their noise.

A pixel of value ``g`` in ``0 .. K - 1`` is a Bernoulli variable with probability
:math:`\pi = g / (K - 1)`; the pixels of an image are independent. Given the image, its bits have entropy

    ``H(b | x) = sum_j h(pi_j)``,  ``h(pi) = - pi log pi - (1 - pi) log(1 - pi)``.

It bounds the expected negative log-likelihood of every model, image by image (Gibbs' inequality):

    ``E_b|x [- log p(b)] = H(b | x) + KL(Bernoulli(pi(x)) || p) >= H(b | x)``.

Reference:
    Salakhutdinov and Murray 2008, On the quantitative analysis of deep belief networks (pixels as
    probabilities); Burda, Grosse and Salakhutdinov 2016, Importance weighted autoencoders, section 5
    (bits drawn again at every visit, so that a model cannot memorize their noise).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genmod import random
from genmod.checks import check_integers, invalid
from genmod.random.streams import mix
from genmod.signatures import checked
from genmod.spec import Bins

if TYPE_CHECKING:
    from genmod.data.datasets import Dataset

_BITS = 0xF11B
"""Part of the key of the bits, so that other noise of the same seed is independent of them."""
_BLOCK = 1024
"""Rows drawn together: part of the key of the noise, and few enough for the memory."""


@dataclass(frozen=True, eq=False)
class BernoulliPixels:
    """Rows of independent Bernoulli variables with known probabilities.

    Args:
        gray: integers ``(N, *event)`` in ``0 .. bins - 1``; entry ``g`` has probability ``g / (bins - 1)``.
        bins: how many values an entry can take.

    Raises:
        ValueError: values outside ``0 .. bins - 1``.

    >>> pixels = BernoulliPixels(torch.tensor([[0, 1, 2]]), bins=3)
    >>> pixels.entropy()  # only the middle pixel is random: log 2
    tensor([0.6931], dtype=torch.float64)
    """

    gray: Tensor
    bins: int

    def __post_init__(self) -> None:
        check_integers(self.gray, Bins(self.bins).count, name="gray")

    def __len__(self) -> int:
        return len(self.gray)

    @property
    def device(self) -> torch.device:
        """The device of the gray values."""
        return self.gray.device

    def to(self, device: torch.device) -> BernoulliPixels:
        """The same variables on another device."""
        return BernoulliPixels(self.gray.to(device), self.bins)

    def sample(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """One draw of each variable: bits, ``torch.uint8``.

        The noise comes through :mod:`genmod.random`: inside :func:`genmod.random.keyed` equal keys
        give equal bits.

        Args:
            rows: which rows; all of them by default.
        """
        gray = self.gray[rows]
        # Always float32: data must not depend on torch's default type.
        noise = random.uniform(tuple(gray.shape), torch.float32, gray.device)
        return (noise < gray.to(torch.float32) / (self.bins - 1)).to(torch.uint8)

    def entropy(self) -> Tensor:
        """``H(b | x)`` of each row in nats, ``(N,)``, float64, on the CPU (not every device has it)."""
        probability = torch.arange(self.bins, dtype=torch.float64) / (self.bins - 1)
        nats = torch.special.entr(probability) + torch.special.entr(1 - probability)
        found: Tensor = nats[self.gray.cpu().long()].flatten(1).sum(1)
        return found


@checked
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

    >>> from genmod.data import load
    >>> bits = binarized(load("digits"))
    >>> bits.name, bits.bins, round(bits.entropy_floor, 1)
    ('binarized digits', 2, 13.6)
    """
    if data.bins is None or data.bins <= 2:
        raise invalid(
            data.summary(),
            "gray values: integers with bins of at least 3",
            "pass bins=... to genmod.data.load; bits need no binarization",
        )
    pixels = [BernoulliPixels(part, data.bins or 0) for part in data.parts().values()]
    train, validation, test = (_draw(each, seed, place) for place, each in enumerate(pixels))
    return replace(
        data,
        name=f"binarized {data.name}",
        train=train,
        validation=validation,
        test=test,
        bins=2,
        resample=pixels[0],
        entropy=pixels[-1].entropy(),
    )


def _draw(pixels: BernoulliPixels, seed: int, place: int) -> Tensor:
    """The bits of a part; those of a row depend on the seed, the part and the row number alone."""
    bits = torch.empty_like(pixels.gray, dtype=torch.uint8)
    for start in range(0, len(pixels), _BLOCK):
        rows = slice(start, start + _BLOCK)
        with random.keyed(mix(seed, _BITS), place, start=start, block=_BLOCK):
            bits[rows] = pixels.sample(rows)
    return bits


def check_resample(resample: BernoulliPixels, train: Tensor, bins: int | None) -> None:
    if bins != 2 or resample.gray.shape != train.shape:
        raise invalid(
            f"Bernoulli pixels of shape {tuple(resample.gray.shape)} for a training part of shape "
            f"{tuple(train.shape)} with bins={bins}",
            "bits (bins=2), and a pixel for each of them",
            "use genmod.data.binarized",
        )


def check_entropy(entropy: Tensor, test: Tensor) -> None:
    if entropy.shape != (len(test),):
        raise invalid(
            f"an entropy of shape {tuple(entropy.shape)} for a test part of {len(test)} rows",
            "one for each of them",
            "cut both with data.cut('test', rows), or cut the gray images before "
            "genmod.data.binarized",
        )
    wrong = int((~(entropy.isfinite() & (entropy >= 0))).sum())
    if wrong > 0:
        raise invalid(
            f"{wrong} entropies that are negative or not finite",
            "nats for each row, at least 0",
            "use genmod.data.binarized",
        )
