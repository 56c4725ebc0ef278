r"""Latent traversals: one unit moved over quantiles while the others stay, and the decoder's answer.

Symbols: ``U`` units are traversed over ``K`` values each, around the code of one row of the data.

In a hierarchy the levels above the moved one keep their codes. A level below, whose prior is Gaussian given
the levels above, keeps its standardized code :math:`(z_l - m_l) / s_l`: it follows the moved level, and
at the code itself the result is the reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.checks import check_at_least, check_positive, invalid, one_of
from genmod.chunks import chunks, rows_per_chunk
from genmod.columns import CODED, ColumnKind
from genmod.distributions.base import elementwise
from genmod.evaluation.batching import Ids, RowSet, evaluating
from genmod.evaluation.latents import Code, Unit, posterior_draws, units_by_use
from genmod.model import LatentModel
from genmod.models.replace import FIRST_STAGE, has_diffusion
from genmod.signatures import checked
from genmod.spec import DataSpec
from genmod.tensors import is_image

_ROWS = 4096
"""Rows whose posteriors the quantiles of the aggregate posterior are taken from, at most."""


@dataclass(frozen=True, eq=False, repr=False)
class Traversal:
    """One latent unit after another, moved over quantiles; it prints as a table.

    Args:
        name: the model's class.
        spec: the data.
        units: the traversed units, the most used first.
        row: the row of the data around whose code they move.
        over: the law whose quantiles were taken: ``"prior"`` or ``"posterior"`` (the aggregate one).
        probabilities: of the quantiles, ``(K,)``.
        values: of each unit at each quantile, ``(U, K)``.
        means: the decoder's means, ``(U, K, *event)``.
        center: the decoder's mean at the code itself, ``(*event)``.
        features: the names of the columns, or of their categories; none for images.
        changes: how far the mean of each feature is from the center, in standard deviations of the data,
            ``(U, K, F)``; ``None`` for images.
    """

    name: str
    spec: DataSpec
    units: tuple[Unit, ...]
    row: int
    over: str
    probabilities: Tensor
    values: Tensor
    means: Tensor
    center: Tensor
    features: tuple[str, ...] = ()
    changes: Tensor | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Each unit with its level, where there are several, and its nats (or its activity)."""
        several = len({unit.level for unit in self.units}) > 1
        return tuple(unit.label(several) for unit in self.units)

    def __repr__(self) -> str:
        low, high = (100 * float(self.probabilities[end]) for end in (0, -1))
        law = "prior" if self.over == "prior" else "aggregate posterior"
        head = f"Traversal of {self.name} around row {self.row}:"
        head += f"\n  quantiles of the {law}, {low:.1f} % to {high:.1f} %"
        wide = max(len("unit"), *map(len, self.labels))
        lines = [head, f"  {'unit':<{wide}}  {'from':>7}  {'to':>7}  changes most"]
        for index, label in enumerate(self.labels):
            ends = f"{float(self.values[index, 0]):7.2f}  {float(self.values[index, -1]):7.2f}"
            lines.append(f"  {label:<{wide}}  {ends}  {self._largest(index)}")
        return "\n".join(lines)

    def _largest(self, index: int) -> str:
        """The feature that a unit changes most, or the mean absolute change of a pixel."""
        if self.changes is None:
            moved = (self.means[index, -1] - self.means[index, 0]).abs().mean()
            return f"{float(moved):.3g} a pixel"
        span = self.changes[index, -1] - self.changes[index, 0]
        most = int(span.abs().argmax())
        return f"{self.features[most][:20]}, {float(span[most]):+.2f} std"


@checked
def traverse(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    row: int = 0,
    over: str = "prior",
    count: int = 7,
    reach: float = 2.0,
    units: int = 10,
    level: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    observed: object = None,
    progress: bool = False,
) -> Traversal:
    r"""Latent traversal: move one unit at a time over quantiles, keep the others, and decode.

    Units are ordered by the nats that they carry over the data, most used first. Each is moved over the
    quantiles at :math:`\Phi(-r), \dots, \Phi(r)`, around the code of one row.

    Args:
        model: a model whose encoder learns; of a latent diffusion ``model.first_stage()``.
        data: a data set, whose test part is used, or rows ``(N, *event)``. They decide which units are
            used, and the scale of the changes.
        context: what the model is conditioned on, one row per sample. That of ``row`` is kept.
        row: the row of the data around whose code units move.
        over: ``"prior"``: quantiles of the unit's prior; in a hierarchy given the levels above.
            ``"posterior"``: of the aggregate posterior, the codes that the data have.
        count: ``K``, the number of values of each unit.
        reach: :math:`r`; under N(0, 1) the values go evenly from ``-reach`` to ``reach``.
        units: how many units to traverse at most.
        level: the name of one level of a hierarchy, such as ``"z2"``; ``None``: units of all levels.
        seed: the seed of the draws.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row, on which its draws depend.
        observed: which entries are not missing, like the rows; by default what the data state.
        progress: whether to show a progress bar.

    Returns:
        A :class:`Traversal`: ``.units`` with level, index and nats; ``.values``; the decoder's ``.means``.
        It prints as a table, and :func:`genmod.plots.traversal` draws it.

    Raises:
        ValueError: a diffusion, whose latents are noise; the prior of an autoencoder, which has none; a row
            or a level that is not there.

    Reference: Higgins et al., "beta-VAE: learning basic visual concepts with a constrained variational
    framework" (2017), figures 1 to 3; Burgess et al., "Understanding disentangling in beta-VAE" (2018),
    figure 3, for the order by KL.

    >>> from genmod.models import VAE
    >>> found = traverse(VAE(3, latents=2, width=8), torch.randn(50, 3), count=5)
    >>> found.means.shape, found.values.shape
    (torch.Size([2, 5, 3]), torch.Size([2, 5]))
    """
    _check(model, over, count, reach, units)
    rows = RowSet.of(model, data, context, ids=ids, observed=observed, masked=True)
    if not 0 <= row < len(rows):
        raise invalid(f"row={row} of {len(rows)} rows", "the number of a row", "row=0 is the first")
    ordered = units_by_use(model, rows, seed=seed, batch_size=batch_size, progress=progress)
    if level is not None:
        one_of(dict.fromkeys(unit.level for unit in ordered), level, "level")
        ordered = [unit for unit in ordered if unit.level == level]
    chosen = tuple(ordered[:units])
    center = rows.part(slice(place := int((rows.order == row).nonzero()), place + 1))
    grid = torch.linspace(-reach, reach, count, dtype=torch.float64)
    probabilities = torch.special.ndtr(grid)
    with evaluating(model):
        code = Code.of(model, center)
        if over == "prior":
            values = code.prior_quantiles(chosen, probabilities, seed)
        else:
            some = rows.sample(_ROWS, seed)
            draws = posterior_draws(model, some, chosen, seed=seed, batch_size=batch_size)
            values = torch.quantile(draws, probabilities, dim=0).T
        features = None if is_image(model.spec.shape) else Features.of(model.spec, rows)
        means, changes = _decode(code, chosen, values, features, batch_size)
        middle = code.law().mean[0].cpu()
    names = () if features is None else features.names
    kind = type(model).__name__
    return Traversal(
        kind, model.spec, chosen, row, over, probabilities, values, means, middle, names, changes
    )


def _check(model: LatentModel, over: str, count: int, reach: float, units: int) -> None:
    kind = type(model).__name__
    one_of(("prior", "posterior"), over, "over")
    if has_diffusion(model):
        raise invalid(
            f"a {kind} with a diffusion, whose latents are noise",
            "latents of an encoder that learns",
            FIRST_STAGE,
        )
    if not model.prior.proper and over != "posterior":
        raise invalid(
            f'over="prior" for a {kind} with a flat prior',
            "a prior that normalizes",
            'pass over="posterior": quantiles of the codes of the data',
        )
    check_at_least(count, 2, "count", "7 is the default")
    check_at_least(units, 1, "units", "10 is the default")
    check_positive(reach, "reach")


def _decode(
    code: Code, chosen: Sequence[Unit], values: Tensor, features: Features | None, batch: int | None
) -> tuple[Tensor, Tensor | None]:
    """The decoder's means with each unit at each value, and the changes of the features."""
    spec, device = code.model.spec, code.model.device
    most = rows_per_chunk(spec.shape, device, batch_size=batch)
    center = None if features is None else features.means(code.law())
    means, changes = [], []
    for unit, row in zip(chosen, values, strict=True):
        for part in chunks(len(row), most):
            law = code.law(unit, row[part])
            means.append(law.mean.cpu())
            if features is not None and center is not None:
                changes.append((features.means(law) - center) / features.std)
    shape = (len(chosen), values.shape[1])
    whole = torch.cat(means).reshape(*shape, *spec.shape)
    return whole, torch.cat(changes).reshape(*shape, -1) if changes else None


@dataclass(frozen=True, eq=False)
class Features:
    """One number for each column, and one for each value of a category: whether it has that value.

    Args:
        spec: the data.
        names: of the features.
        std: the standard deviation of each over the data, ``(F,)``; one where it is constant.
    """

    spec: DataSpec
    names: tuple[str, ...]
    std: Tensor

    @classmethod
    def of(cls, spec: DataSpec, rows: RowSet) -> Features:
        """The features of some data, and their spreads; missing entries are left out."""
        x = rows.x.flatten(1).double().cpu()
        seen = torch.ones_like(x)
        if rows.observed is not None:
            seen = rows.observed.flatten(1).double().cpu()
            x = torch.where(seen > 0, x, 0.0)
        places, codes, names = zip(*_slots(spec), strict=True)
        seen, values = seen[:, places], x[:, places]
        for index, code in enumerate(codes):
            if code is not None:
                values[:, index] = (values[:, index] == code).double()
        count = seen.sum(0).clamp(min=1)
        mean = (values * seen).sum(0) / count
        std = (((values - mean) * seen).square().sum(0) / count).sqrt()
        return cls(spec, names, torch.where(std > 0, std, 1.0))

    def means(self, law: Distribution) -> Tensor:
        """The mean of each feature under a law of data, ``(B, F)``, in float64.

        Of a category it is the probability of a value; of an ordinal, the mean code.
        """
        mean = law.mean.double().cpu().flatten(1)
        masses = {
            place: code_masses(law, self.spec, place)
            for place, column in enumerate(self.spec.columns or ())
            if column.kind in CODED
        }
        found = []
        for place, code, _ in _slots(self.spec):
            if place not in masses:
                found.append(mean[:, place])
            elif code is not None:
                found.append(masses[place][:, code])
            else:
                codes = torch.arange(masses[place].shape[1], dtype=torch.float64)
                found.append(masses[place] @ codes)
        return torch.stack(found, 1)


def code_masses(law: Distribution, spec: DataSpec, place: int) -> Tensor:
    """The probability of each value of a category or ordinal, ``(B, n)``, in float64."""
    columns, x, nats = spec.columns or (), law.mean.clone(), []
    x[:, [other for other, column in enumerate(columns) if column.kind in CODED]] = 0
    for code in range(columns[place].count):
        x[:, place] = code
        nats.append(elementwise(law, x)[:, place].double().cpu())
    return torch.stack(nats, 1).exp()


def _slots(spec: DataSpec) -> list[tuple[int, int | None, str]]:
    """Place, code and name of each feature; the code is ``None`` but for categories."""
    if spec.columns is None:
        return [(place, None, f"x{place}") for place in range(spec.size)]
    found: list[tuple[int, int | None, str]] = []
    for place, column in enumerate(spec.columns):
        if column.kind is ColumnKind.CATEGORY:
            values = enumerate(column.values or ())
            found += [(place, code, f"{column.name}={value}") for code, value in values]
        else:
            found.append((place, None, column.name))
    return found
