r"""Gray pixels as biased coins: dynamic binarization, and the nats in it that nobody can save.

A pixel of level ``g`` in ``0 .. K - 1`` is a coin that shows one with probability
:math:`\pi = g / (K - 1)`; an image is a row of independent coins. Given the image, its bits cost

    ``H(b | x) = sum_j h(pi_j)``,  ``h(pi) = - pi log pi - (1 - pi) log(1 - pi)``.

No model of bits gets below that, image by image: by Gibbs' inequality

    ``E_b|x [- log p(b)] = H(b | x) + KL(Bernoulli(pi(x)) || p) >= H(b | x)``.

Reference:
    Salakhutdinov and Murray 2008, On the quantitative analysis of deep belief networks (pixels as
    probabilities); Burda, Grosse and Salakhutdinov 2016, Importance weighted autoencoders, section 5
    (bits drawn anew, so that a model cannot learn their noise by heart).
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
    """Rows of coins, and how to flip them.

    Args:
        gray: integers ``(N, *event)`` in ``0 .. bins - 1``; entry ``g`` is a coin of bias
            ``g / (bins - 1)``. The first level never shows a one, the last always does.
        bins: how many levels an entry can take.

    Raises:
        ValueError: values outside ``0 .. bins - 1``.

    >>> fair = BernoulliPixels(torch.tensor([[0, 1, 2]]), bins=3)
    >>> fair.entropy()  # only the coin in the middle can surprise: log 2
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
        """Where the coins are flipped."""
        return self.gray.device

    def to(self, device: torch.device) -> BernoulliPixels:
        """The same coins elsewhere."""
        return BernoulliPixels(self.gray.to(device), self.bins)

    def flip(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """One flip of every coin: bits as integers, like the rows.

        The noise comes through :mod:`genmod.random`: inside :func:`genmod.random.keyed` equal keys
        give equal bits, however the rows are cut.

        Args:
            rows: which rows; all of them by default.
        """
        gray = self.gray[rows]
        # Always float32: data must not depend on torch's default type.
        noise = random.uniform(tuple(gray.shape), torch.float32, gray.device)
        return (noise < gray.to(torch.float32) / (self.bins - 1)).long()

    def entropy(self) -> Tensor:
        """``H(b | x)`` of each row in nats, ``(N,)``, float64, on the CPU (not every device has it)."""
        bias = torch.arange(self.bins, dtype=torch.float64) / (self.bins - 1)
        nats = torch.special.entr(bias) + torch.special.entr(1 - bias)
        return nats[self.gray.cpu().long()].flatten(1).sum(1)
