r"""Gray pixels as Bernoulli variables: dynamic binarization, and the entropy of its noise.

A pixel of value ``g`` in ``0 .. K - 1`` is a Bernoulli variable with probability
:math:`\pi = g / (K - 1)`; the pixels of an image are independent. Given the image, its bits have entropy

    ``H(b | x) = sum_j h(pi_j)``,  ``h(pi) = - pi log pi - (1 - pi) log(1 - pi)``.

No model of bits has a smaller expected cost, image by image (Gibbs' inequality):

    ``E_b|x [- log p(b)] = H(b | x) + KL(Bernoulli(pi(x)) || p) >= H(b | x)``.

Reference:
    Salakhutdinov and Murray 2008, On the quantitative analysis of deep belief networks (pixels as
    probabilities); Burda, Grosse and Salakhutdinov 2016, Importance weighted autoencoders, section 5
    (bits drawn again at every visit, so that a model cannot memorize their noise).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genmod import random
from genmod.checks import check_integers
from genmod.spec import Bins


@dataclass(frozen=True, eq=False)
class BernoulliPixels:
    """Rows of independent Bernoulli variables, and how to sample them.

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
