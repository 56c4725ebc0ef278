r"""Decoders of counts: Poisson and negative binomial masses, and either with more zeros.

The network gives the logarithm of the mean, relative to the column's own mean where it is known:

.. math:: \log m = \log \bar m + 20 \tanh(d(z) / 20)

so that an output of zero is a good start, and no output overflows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genmod import distributions
from genmod.checks import invalid
from genmod.columns import ColumnKind
from genmod.decoders.base import Decoder
from genmod.distributions.counts import ZeroInflated
from genmod.nn.modules import outputs
from genmod.spec import DataSpec, SpecLike

_REACH = 20.0
"""The largest distance of a log-mean from the column's own: a factor of 5e8."""
_FEW = -2.0
"""The log-odds of an added zero that an output of zero stands for: 12 %."""
_GAIN = 10.0
"""How fast a learned log-concentration moves: see ``gain`` of :class:`genmod.decoders.GlobalScale`."""


class CountDecoder(Decoder):
    """The base class of decoders of counts.

    Args:
        network: what :attr:`per_column` numbers for each column, ``(per_column, D)``; the log-means first.
        spec: columns of counts.

    Raises:
        ValueError: data of another kind.
    """

    name = ""
    per_column = 1
    log_base: Tensor

    def __init__(self, network: nn.Module, spec: SpecLike) -> None:
        super().__init__(require_kind(DataSpec.of(spec), ColumnKind.COUNT, type(self).__name__))
        self.network = network
        self.outputs = self.per_column * self.spec.size
        means = [column.mean for column in self.spec.columns or ()]
        base = torch.tensor([math.log(mean) if mean > 0 else 0.0 for mean in means])
        self.register_buffer("log_base", base, persistent=False)

    def numbers(self, state: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The log-mean of each count, ``(B, D)``, and the further numbers, ``(B, per_column - 1, D)``."""
        found = outputs(self.network, (self.per_column, *self.shape), state, context=context)
        # Unbounded, a log-mean of 90 in one early step is an infinite mean in float32.
        return self.log_base + _REACH * torch.tanh(found[:, 0] / _REACH), found[:, 1:]

    def formula(self) -> str:
        return f"p(x | z) = {self.name}(x; mean exp d(z))"


class PoissonDecoder(CountDecoder):
    """Counts: a Poisson mass, whose variance is its mean.

    Args:
        network: one number for each column: the log-mean.
        spec: columns of counts.

    >>> from genmod.spec import Column
    >>> spec = DataSpec((2,), columns=[Column("cats", "count"), Column("dogs", "count")])
    >>> PoissonDecoder(nn.Linear(3, 2), spec)(torch.zeros(1, 3)).event_shape
    torch.Size([2])
    """

    name = "Poisson"

    def forward(self, state: Tensor, context: Tensor | None = None) -> distributions.Poisson:
        return distributions.Poisson(self.numbers(state, context)[0])


class NegativeBinomialDecoder(CountDecoder):
    """Counts whose variance exceeds the mean: ``m + m^2 / r``, with one learned ``r`` for each column.

    Args:
        network: one number for each column: the log-mean.
        spec: columns of counts.

    Reference: Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018), methods.
    """

    name = "NB"

    def __init__(self, network: nn.Module, spec: SpecLike) -> None:
        super().__init__(network, spec)
        self.log_concentration = nn.Parameter(torch.zeros(self.shape))

    def forward(
        self, state: Tensor, context: Tensor | None = None
    ) -> distributions.NegativeBinomial:
        log_mean, _ = self.numbers(state, context)
        return distributions.NegativeBinomial(log_mean, _GAIN * self.log_concentration)


class ZeroInflatedPoissonDecoder(CountDecoder):
    """Counts with more zeros (ZIP): 0 with a probability from the network, else a Poisson count.

    Args:
        network: two numbers for each column, ``(2, D)``: log-means, then log-odds of an added zero.
        spec: columns of counts.

    Reference: Lambert, "Zero-Inflated Poisson Regression" (1992), section 1.
    """

    name = "ZIP"
    per_column = 2

    def forward(self, state: Tensor, context: Tensor | None = None) -> ZeroInflated:
        log_mean, rest = self.numbers(state, context)
        return ZeroInflated(distributions.Poisson(log_mean), rest[:, 0] + _FEW)


class ZeroInflatedNegativeBinomialDecoder(CountDecoder):
    """Counts with more zeros (ZINB): 0 with a probability from the network, else negative binomial.

    Args:
        network: two numbers for each column, ``(2, D)``: log-means, then log-odds of an added zero.
        spec: columns of counts.

    Reference: Lopez et al., "Deep generative modeling for single-cell transcriptomics" (2018), methods.
    """

    name = "ZINB"
    per_column = 2

    def __init__(self, network: nn.Module, spec: SpecLike) -> None:
        super().__init__(network, spec)
        self.log_concentration = nn.Parameter(torch.zeros(self.shape))

    def forward(self, state: Tensor, context: Tensor | None = None) -> ZeroInflated:
        log_mean, rest = self.numbers(state, context)
        counts = distributions.NegativeBinomial(log_mean, _GAIN * self.log_concentration)
        return ZeroInflated(counts, rest[:, 0] + _FEW)


def require_kind(spec: DataSpec, kind: ColumnKind, name: str) -> DataSpec:
    """Require a table whose columns are all of one kind.

    Raises:
        ValueError: other data, or a column of another kind.
    """
    columns = spec.columns or ()
    if len(columns) == 0 or not all(column.kind is kind for column in columns):
        raise invalid(
            f"data of {spec} for a {name}",
            f"columns of the kind {kind.value!r} alone",
            f"describe them by DataSpec((d,), columns=[Column(name, {kind.value!r}, ...), ...]), "
            "and use decoders.Columns for columns of several kinds",
        )
    return spec
