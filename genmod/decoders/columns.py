"""A decoder of tables: one network, and a law of its own for each column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor, nn

from genmod.checks import invalid
from genmod.columns import Column, ColumnKind
from genmod.decoders.base import Decoder
from genmod.decoders.codes import Categories, IntegerLogisticDecoder, OrderedCategories
from genmod.decoders.counts import NegativeBinomialDecoder
from genmod.decoders.likelihoods import Identity, PredictedScale
from genmod.decoders.reals import StudentTDecoder
from genmod.distributions.base import Factorized
from genmod.distributions.composed import Joined
from genmod.nn.modules import outputs
from genmod.spec import DataSpec, SpecLike

ColumnLaw: TypeAlias = Callable[[nn.Module, DataSpec], Decoder]
"""A builder of the decoder of some columns: a decoder class, or a function of a network and a spec."""

_BROAD, _FLOOR = 0.7, 1e-3
"""The scale that default real columns start from, and the narrowest one, in units of a column's std."""


def robust_columns(network: nn.Module, spec: SpecLike) -> StudentTDecoder:
    """The default law of real columns: Student's t with a predicted scale and learned degrees of freedom.

    On small tables a normal density can lose more nats on one outlier than it gains on all other rows.

    Args:
        network: two numbers for each column, ``(2, D)``: locations, then log-scales.
        spec: real columns.
    """
    return StudentTDecoder(network, spec, PredictedScale(_BROAD, _FLOOR), df=10.0)


COLUMN_LAWS: Mapping[ColumnKind, ColumnLaw] = {
    ColumnKind.REAL: robust_columns,
    ColumnKind.INTEGER: IntegerLogisticDecoder,
    ColumnKind.COUNT: NegativeBinomialDecoder,
    ColumnKind.CATEGORY: Categories,
    ColumnKind.ORDINAL: OrderedCategories,
}
"""The default law of each kind of column."""


class Columns(Decoder):
    r"""A decoder of tables: :math:`p(x | z) = \prod_i p_i(x_i | z)`, each column with a law of its own.

    One network gives the numbers of all columns. Each part reads its own and gives the law of its
    columns. Build it with :meth:`of`, which chooses the parts.

    Args:
        network: gives the numbers of the first part, then those of the second, and so on.
        spec: the columns of the table.
        parts: decoders of some of the columns, each with the network
            :class:`~genmod.decoders.Identity`; together of all columns.

    Raises:
        ValueError: a column without a part, or in two of them; a part that states no ``outputs``, or
            whose entries are not independent given the state.

    >>> from genmod.decoders import StudentTDecoder
    >>> from genmod.nn import MLP
    >>> table = [Column("income"), Column("children", "count"), Column("city", "category", ("A", "B"))]
    >>> spec = DataSpec((3,), columns=table)
    >>> decoder = Columns.of(lambda count: MLP(4, count), spec, {"income": StudentTDecoder})
    >>> print(decoder.formula())
    p(income | z) = t(x; d(z), s)
    p(children | z) = NB(x; mean exp d(z))
    p(city | z) = Categorical(x; softmax(d(z)))
    """

    def __init__(self, network: nn.Module, spec: SpecLike, parts: Sequence[Decoder]) -> None:
        super().__init__(spec)
        self.network, self.parts = network, nn.ModuleList(parts)
        columns = {column.name: place for place, column in enumerate(self.spec.columns or ())}
        named = [[column.name for column in part.spec.columns or ()] for part in parts]
        flat = [name for names in named for name in names]
        if not columns or sorted(flat) != sorted(columns):
            raise invalid(
                f"parts for the columns {flat}",
                f"one part for each of the columns {list(columns)}",
                "build the decoder with Columns.of(network, spec)",
            )
        self.places = [[columns[name] for name in names] for names in named]
        self.sizes = [part.outputs or 0 for part in parts]
        silent = [type(part).__name__ for part in parts if part.outputs is None]
        if silent:
            raise invalid(
                f"parts {silent}, which do not state how many numbers they take",
                "decoders that set outputs",
                "set self.outputs in the decoder's __init__",
            )
        self.outputs = sum(self.sizes)

    @classmethod
    def of(
        cls,
        network: Callable[[int], nn.Module],
        spec: SpecLike,
        laws: Mapping[str, ColumnLaw] | None = None,
    ) -> Columns:
        """The decoder of a table, with the default law of each kind or another one.

        Args:
            network: builds a network with a given number of outputs a row.
            spec: the columns of the table.
            laws: by the name of a column, or of a kind: the class of its decoder.

        Raises:
            ValueError: data without columns, or a law for no column.
        """
        data = DataSpec.of(spec)
        columns, laws = tuple(data.columns or ()), dict(laws or {})
        known = {column.name for column in columns} | {kind.value for kind in ColumnKind}
        unknown = [str(name) for name in laws if name not in known]
        if unknown:
            raise invalid(
                f"laws for {unknown}",
                f"names of columns {[column.name for column in columns]}, or of kinds",
                "check the spelling",
            )
        groups: dict[ColumnLaw, list[Column]] = {}
        for column in columns:
            kind = ColumnKind(column.kind)
            law = laws.get(column.name) or laws.get(kind.value) or COLUMN_LAWS[kind]
            groups.setdefault(law, []).append(column)
        parts = [
            law(Identity(), DataSpec((len(some),), columns=[replace(column) for column in some]))
            for law, some in groups.items()
        ]
        return cls(network(sum(part.outputs or 0 for part in parts)), data, parts)

    def forward(self, state: Tensor, context: Tensor | None = None) -> Joined:
        numbers = outputs(self.network, (self.outputs or 0,), state, context=context)
        pieces = numbers.split(self.sizes, 1)
        laws = [part(piece) for part, piece in zip(self.parts, pieces, strict=True)]
        for part, law in zip(self.parts, laws, strict=True):
            if not isinstance(law, Factorized):
                raise invalid(
                    f"a {type(law).__name__} from {type(part).__name__}",
                    "a law of genmod.distributions, whose entries are independent",
                    "use it for the whole table",
                )
        return Joined(laws, self.places)

    def formula(self) -> str:
        lines = []
        for part in self.parts:
            assert isinstance(part, Decoder)
            names = ", ".join(column.name for column in part.spec.columns or ())
            short = names if len(names) <= 60 else f"{names[:57]}..."
            lines.append(part.formula().replace("p(x |", f"p({short} |"))
        return "\n".join(lines)
