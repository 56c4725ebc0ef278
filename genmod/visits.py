r"""Which levels of a diffusion a row visits, when it does not visit all.

A visit is a place ``u`` in [0, 1) and a weight, so that for every function ``f`` of the level

.. math:: \mathbb{E}\Big[\sum_j w_j f(u_j)\Big] = \int_0^1 f(u)\, du

for each row. Where the visits fall decides how noisy an estimate is, never what it estimates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from torch import Tensor, nn

from genmod import random
from genmod.checks import require
from genmod.types import PerLevel


class Visits(nn.Module, ABC):
    """A way to choose levels.

    Args:
        draws: how many levels a row visits.
    """

    def __init__(self, draws: int = 1) -> None:
        super().__init__()
        require(draws >= 1, f"draws={draws}", "draws >= 1, or None", "None visits every level")
        self.draws = draws

    @abstractmethod
    def forward(
        self, rows: int, dtype: torch.dtype, device: torch.device | str | None = None
    ) -> tuple[PerLevel, PerLevel]:
        """Places ``u`` in [0, 1) and their weights, ``(rows, draws)`` each."""

    def extra_repr(self) -> str:
        """How many."""
        return f"draws={self.draws}"


class Stratified(Visits):
    """Each row an even cover of all levels, and the batch an even one too: the customary way.

    Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), appendix I.1.
    """

    def forward(
        self, rows: int, dtype: torch.dtype, device: torch.device | str | None = None
    ) -> tuple[PerLevel, PerLevel]:
        """Places ``u`` in [0, 1), and the weight of each: one over how many there are."""
        u = random.stratified(rows, self.draws, dtype, device)
        return u, torch.full_like(u, 1 / self.draws)


Draws: TypeAlias = int | Visits | None
"""How many levels of a diffusion to visit: ``n`` stratified ones, those of a way to choose them, or
(``None``) all."""


def visits(draws: int | Visits) -> Visits:
    """The way to choose levels that is asked for."""
    return draws if isinstance(draws, Visits) else Stratified(draws)


def places(u: Tensor, count: int) -> Tensor:
    """Which of ``count`` equal levels each place falls into, as a number from 0 to ``count - 1``."""
    return (u * count).floor()
