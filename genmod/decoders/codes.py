"""Decoders of codes and whole numbers: categories, ordered categories, integers of either sign."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genmod import distributions
from genmod.columns import ColumnKind
from genmod.decoders.base import Decoder
from genmod.decoders.counts import require_kind
from genmod.decoders.likelihoods import LocationScaleDecoder, PredictedScale, Scale
from genmod.distributions.discrete import IntegerLogistic, OrderedCategorical
from genmod.nn.modules import outputs
from genmod.spec import DataSpec, SpecLike

_GAIN = 10.0
"""How fast learned thresholds and scales move: see ``gain`` of :class:`genmod.decoders.GlobalScale`."""


class Categories(Decoder):
    """Columns of categories, each with a categorical mass over its own number of values.

    Args:
        network: the logits of the first column's values, then those of the second, and so on.
        spec: columns of categories.

    Raises:
        ValueError: columns of another kind.
    """

    index: Tensor

    def __init__(self, network: nn.Module, spec: SpecLike) -> None:
        super().__init__(require_kind(DataSpec.of(spec), ColumnKind.CATEGORY, "Categories"))
        self.network = network
        counts = [column.count for column in self.spec.columns or ()]
        self.outputs, start, rows = sum(counts), 0, []
        for count in counts:
            # A column with fewer values than the largest reads its other logits from a column of -inf.
            rows.append(
                [start + code if code < count else sum(counts) for code in range(max(counts))]
            )
            start += count
        self.register_buffer("index", torch.tensor(rows), persistent=False)

    def forward(self, state: Tensor, context: Tensor | None = None) -> distributions.Categorical:
        logits = outputs(self.network, (self.outputs or 0,), state, context=context)
        padded = nn.functional.pad(logits, (0, 1), value=-torch.inf)
        return distributions.Categorical(padded[:, self.index])

    def formula(self) -> str:
        return "p(x | z) = Categorical(x; softmax(d(z)))"


class OrderedCategories(Decoder):
    r"""Values in order, by cumulative logits: :math:`P(x \le k) = \sigma(c_k - d(z))`.

    The network gives one number for each entry, and the ascending thresholds :math:`c_k` of each entry are
    learned. With a network that gives 0, all values have the same probability at the start.

    Args:
        network: one number for each entry: a larger one moves mass to higher values.
        spec: ordinal columns, or integers ``0 .. bins - 1`` of any shape.

    Raises:
        ValueError: columns of another kind, or real data.

    Reference: McCullagh, "Regression Models for Ordinal Data" (1980), eq. 2.2.

    >>> OrderedCategories(nn.Linear(2, 4), DataSpec((4,), bins=5))(torch.zeros(1, 2)).masses().shape
    torch.Size([1, 4, 5])
    """

    inner: Tensor

    def __init__(self, network: nn.Module, spec: SpecLike) -> None:
        data = DataSpec.of(spec)
        if not data.is_integer:
            require_kind(data, ColumnKind.ORDINAL, "OrderedCategories")
        super().__init__(data)
        self.network, self.outputs = network, data.size
        counts = torch.full(self.shape, data.bins or 0)
        if data.columns is not None:
            counts = torch.tensor([column.count for column in data.columns])
        most = max(int(counts.max()), 2)
        # Even probabilities: the k-th of n - 1 thresholds is logit(k / n).
        place = torch.arange(1, most).expand(*self.shape, -1) / counts[..., None]
        start = torch.logit(place.clamp(max=1 - 1 / (2 * most)))
        self.first = nn.Parameter(start[..., 0] / _GAIN)
        gaps = start.diff(dim=-1).clamp(min=1 / most)
        self.log_gaps = nn.Parameter(gaps.log() / _GAIN)
        self.register_buffer("inner", torch.arange(1, most) < counts[..., None], persistent=False)

    def thresholds(self) -> Tensor:
        """The ends of each value's interval, ``(*shape, n + 1)``, infinite outside."""
        first = _GAIN * self.first[..., None]
        points = torch.cat([first, first + (_GAIN * self.log_gaps).exp().cumsum(-1)], -1)
        points = torch.where(self.inner, points, torch.inf)
        return nn.functional.pad(
            nn.functional.pad(points, (1, 0), value=-torch.inf), (0, 1), value=torch.inf
        )

    def forward(self, state: Tensor, context: Tensor | None = None) -> OrderedCategorical:
        location = outputs(self.network, self.shape, state, context=context)
        return OrderedCategorical(location, self.thresholds())

    def formula(self) -> str:
        return "p(x | z) = Ordered(x; sigmoid(c_k - d(z)))"


class IntegerLogisticDecoder(LocationScaleDecoder):
    """Whole numbers of either sign, such as years: a logistic density, integrated over each of them.

    Args:
        network: the location of each column in units of its std around its mean; and its log-scale
            after that, unless ``scale`` is of another kind.
        spec: columns of integers.
        scale: in units of the column's std; predicted by the network by default.

    Raises:
        ValueError: columns of another kind.
    """

    name = "Logistic over integers"
    origin: Tensor
    unit: Tensor
    limits: Tensor

    def __init__(
        self, network: nn.Module, spec: SpecLike, scale: Scale | float | None = None
    ) -> None:
        data = require_kind(DataSpec.of(spec), ColumnKind.INTEGER, type(self).__name__)
        # A logistic of scale s has a standard deviation of 1.81 s.
        broad = PredictedScale(math.sqrt(3) / math.pi)
        super().__init__(network, data, broad if scale is None else scale)
        columns = data.columns or ()
        self.register_buffer(
            "origin", torch.tensor([c.mean for c in columns]).round(), persistent=False
        )
        self.register_buffer("unit", torch.tensor([c.std for c in columns]), persistent=False)
        self.register_buffer("limits", torch.tensor([c.limits for c in columns]), persistent=False)

    def forward(self, state: Tensor, context: Tensor | None = None) -> IntegerLogistic:
        location, log_scale = self.both(state, context)
        low, high = self.limits.unbind(-1)
        return IntegerLogistic(
            self.unit * location, log_scale + self.unit.log(), self.origin, low, high
        )
