"""Decoders of real numbers with outliers: Laplace and Student's t densities."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genmod.checks import check_positive
from genmod.decoders.likelihoods import LocationScaleDecoder
from genmod.decoders.scales import GlobalScale, Scale
from genmod.distributions.tails import LaplaceDensity, StudentT
from genmod.spec import SpecLike


class LaplaceDecoder(LocationScaleDecoder):
    """Real numbers: a Laplace density around ``d(z)``, whose best location is a median.

    Args:
        network: the location of each entry of ``x``, and its log-scale after that, with
            :class:`~genmod.decoders.PredictedScale`.
        spec: the event shape of ``x``.
        scale: a ``Scale``, or a number that is never learned; one learned number by
            default.
    """

    name = "Laplace"

    def __init__(
        self, network: nn.Module, spec: SpecLike, scale: Scale | float | None = None
    ) -> None:
        super().__init__(network, spec, GlobalScale() if scale is None else scale)

    def forward(self, state: Tensor, context: Tensor | None = None) -> LaplaceDensity:
        return LaplaceDensity(*self.both(state, context))


class StudentTDecoder(LocationScaleDecoder):
    """Real numbers with outliers: Student's t density around ``d(z)``.

    Args:
        network: the location of each entry of ``x``, and its log-scale after that, with
            :class:`~genmod.decoders.PredictedScale`.
        spec: the event shape of ``x``.
        scale: a ``Scale``, or a number that is never learned; one learned number by
            default.
        df: the degrees of freedom that the learned ones of each entry start from. The smaller, the heavier
            the tails.

    Reference: Lange, Little, Taylor, "Robust Statistical Modeling Using the t Distribution" (1989).

    >>> decoder = StudentTDecoder(nn.Linear(2, 3), 3)
    >>> decoder(torch.zeros(5, 2)).log_prob(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    name = "t"

    def __init__(
        self,
        network: nn.Module,
        spec: SpecLike,
        scale: Scale | float | None = None,
        df: float = 5.0,
    ) -> None:
        super().__init__(network, spec, GlobalScale() if scale is None else scale)
        check_positive(df, "df")
        # A tenth of log df: Adam moves a parameter by its learning rate a step, and log df has far to go.
        self.log_df = nn.Parameter(torch.full(self.shape, math.log(df) / 10))

    def forward(self, state: Tensor, context: Tensor | None = None) -> StudentT:
        return StudentT(*self.both(state, context), 10 * self.log_df)
