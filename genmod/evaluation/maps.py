r"""A map of a data set: the posterior means of all rows on two axes of the latent space.

With two units the axes are the units. With more they are the two principal directions of the means, the
leading eigenvectors of their covariance; the share of an axis is the part of the total variance along it.
The origin stays that of the latent space, where N(0, I) is centered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genmod.checks import invalid, one_of
from genmod.diffusion import DiffusionPrior
from genmod.encoders.base import require_distribution
from genmod.evaluation.batching import Ids, RowSet, in_chunks
from genmod.evaluation.latents import FLAT
from genmod.model import LatentModel
from genmod.models.replace import levels_above_diffusion
from genmod.nn.conditioning import is_null_context
from genmod.path import Latent
from genmod.signatures import checked

_WIDEST = 1024
"""Units of which the whole covariance is kept. Beyond, directions come from this many rows."""
_FEW = 20
"""Integer labels below this number are classes."""


@dataclass(frozen=True, eq=False, repr=False)
class LatentMap:
    """The codes of a data set on two axes.

    Args:
        points: where each row lies, ``(N, 2)``, in the order of the rows.
        shares: the part of the variance of the codes along each axis, ``(2,)``.
        axes: the names of the axes; the second is empty for a latent of one unit.
        directions: of the axes in the latent space, ``(D, 2)``.
        level: the name of the latent.
        color: one number a row, ``(N,)``, NaN where it is missing; ``None``: no color.
        color_name: what the colors are.
        classes: what the colors 0, 1, ... stand for, if they are classes.
    """

    points: Tensor
    shares: Tensor
    axes: tuple[str, str]
    directions: Tensor
    level: str
    color: Tensor | None = None
    color_name: str = ""
    classes: tuple[str, ...] | None = None

    @property
    def labels(self) -> tuple[str, str]:
        """The names of the axes, each with its share of the variance; an empty name stays empty."""
        first, second = (
            f"{name} ({100 * float(share):.0f} % of the variance)" if name else ""
            for name, share in zip(self.axes, self.shares, strict=True)
        )
        return first, second

    def __repr__(self) -> str:
        rows, units = len(self.points), len(self.directions)
        title = f"Map of the codes of {rows} rows, {units} unit{'' if units == 1 else 's'}"
        lines = [title, *(f"  {label}" for label in self.labels if label)]
        return "\n".join(lines if self.color is None else [*lines, f"  color: {self.color_name}"])


@checked
def latent_map(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    color: object = None,
    level: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    observed: object = None,
    progress: bool = False,
) -> LatentMap:
    r"""A map of a data set in the plane: the posterior mean of each row, colored by a label or a column.

    Two units are shown as they are, more by principal component analysis (PCA) of the means. Rows are
    encoded in chunks, once for the covariance and once for the map, so that memory grows by two numbers
    a row.

    Args:
        model: a model whose encoder learns, of a latent diffusion its VAE's.
        data: a data set, whose test part is used (for all rows pass ``data.train``); or rows.
        context: what the model is conditioned on, one row per sample.
        color: the name of a column of a table, or one value a row: numbers, or classes as text. By
            default the labels of the data set, if it has some.
        level: the name of a level of a hierarchy, such as ``"z2"``; by default the first that is drawn.
        seed: of the choice of rows where a latent has more than 1024 units.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row.
        observed: which entries are not missing, like the rows; by default what the data state.
        progress: whether to show a progress bar.

    Returns:
        A :class:`LatentMap`; :func:`genmod.plots.latent_spaces` draws it.

    Raises:
        ValueError: a diffusion of the data, whose codes are noise; a column that is not there; colors that
            are not one value a row.

    Reference: Kingma, Welling, "Auto-Encoding Variational Bayes" (2014), appendix A, for maps of two
    latents; Bishop, "Pattern Recognition and Machine Learning" (2006), section 12.1, for PCA.

    >>> from genmod.models import VAE
    >>> found = latent_map(VAE(3, latents=4, width=8), torch.randn(50, 3), color=range(50))
    >>> found.points.shape, found.axes
    (torch.Size([50, 2]), ('PC 1', 'PC 2'))
    """
    if isinstance(model.prior, DiffusionPrior):
        raise invalid(
            f"a {type(model).__name__} whose prior denoises: its codes are noise for every data "
            "set",
            "a model whose encoder learns",
            "use a VAE, an HVAE or a LatentDiffusion",
        )
    rows = RowSet.of(model, data, context, ids=ids, observed=observed, masked=True)
    means = _Means(model, level, batch_size, "codes" if progress else None)
    level, units = means.level_of(rows)
    if units <= 2:
        directions = torch.eye(units, 2, dtype=torch.float64)
        names = ("unit 0", "unit 1" if units == 2 else "")
    else:
        directions, names = means.principal(rows, units, seed), ("PC 1", "PC 2")
    moments, pieces = _Moments(units, whole=False), []
    for z in means.chunks(rows):
        moments.add(z)
        pieces.append(z @ directions)
    points = rows.restore_order(torch.cat(pieces))
    total = float(moments.total)
    spread = (points - points.mean(0)).square().mean(0)
    shares = spread / total if total > 0 else torch.zeros_like(spread)
    values, name, classes = _colors(color, rows, model)
    return LatentMap(points, shares, names, directions, level, values, name, classes)


@dataclass(frozen=True)
class _Means:
    """The posterior means of one latent, chunk by chunk."""

    model: LatentModel
    level: str | None
    batch_size: int | None
    progress: str | None

    def of(
        self, x: Tensor, context: Tensor | None, seen: Tensor | None = None
    ) -> tuple[str, Tensor]:
        """The name of the latent and its means, ``(B, D)``, in float64 on the CPU."""
        model = self.model
        posterior = model.posterior(x, context, seen)
        if not model.prior.proper:
            one_of((FLAT,), self.level or FLAT, "level")
            mean = require_distribution(posterior, model.prior.shape).mean
            return FLAT, mean.flatten(1).double().cpu()
        path, found = model.prior.infer(posterior, context), {}
        above = levels_above_diffusion(model)
        try:
            latent: Latent = next(path)
            while True:
                if latent.q is not None:
                    found[latent.name] = latent.q.mean
                if latent.name == (self.level or latent.name):
                    path.close()
                    return latent.name, found[latent.name].flatten(1).double().cpu()
                if len(found) == above:
                    one_of(found, str(self.level), "level")
                latent = path.send(found[latent.name])
        except StopIteration:
            one_of(found, str(self.level), "level")
            raise AssertionError from None

    def level_of(self, rows: RowSet) -> tuple[str, int]:
        """The name of the latent, and its number of units."""
        ((name, z),) = in_chunks(self.model, rows.part(slice(1)), self.of, seed=0)
        return name, z.shape[1]

    def chunks(self, rows: RowSet) -> Iterator[Tensor]:
        """The means of all rows by ascending ids, a group of chunks at a time."""
        most = 1 << 14
        for start in range(0, len(rows), most):
            part = rows.part(slice(start, start + most))
            for _, z in in_chunks(
                self.model, part, self.of, seed=0, batch_size=self.batch_size,
                progress=self.progress,
            ):  # fmt: skip
                yield z

    def principal(self, rows: RowSet, units: int, seed: int) -> Tensor:
        """The two principal directions, ``(D, 2)``; the largest entry of each is positive."""
        if units > _WIDEST:
            z = torch.cat(list(self.chunks(rows.sample(_WIDEST, seed))))
            _, _, found = torch.linalg.svd(z - z.mean(0), full_matrices=False)
            found = torch.nn.functional.pad(found, (0, 0, 0, max(0, 2 - len(found))))[:2].T
        else:
            moments = _Moments(units, whole=True)
            for z in self.chunks(rows):
                moments.add(z)
            found = torch.linalg.eigh(moments.scatter).eigenvectors.flip(1)[:, :2]
        signs: Tensor = found.gather(0, found.abs().argmax(0, keepdim=True)).sign()
        return torch.mul(found, signs)


class _Moments:
    """The mean of rows, and their scatter around it, from chunks (Chan et al. 1983).

    Args:
        units: ``D``.
        whole: whether the scatter matrix ``(D, D)`` is kept, or its diagonal alone.
    """

    def __init__(self, units: int, whole: bool) -> None:
        self.count, self.mean = 0, torch.zeros(units, dtype=torch.float64)
        self.scatter = torch.zeros((units, units) if whole else (units,), dtype=torch.float64)

    def add(self, z: Tensor) -> None:
        """Take in the rows of a chunk."""
        rows, mean = len(z), z.mean(0)
        off, step = z - mean, mean - self.mean
        weight = self.count * rows / (self.count + rows)
        if self.scatter.ndim == 2:
            self.scatter += off.T @ off + weight * step[:, None] * step
        else:
            self.scatter += off.square().sum(0) + weight * step.square()
        self.mean += step * rows / (self.count + rows)
        self.count += rows

    @property
    def total(self) -> Tensor:
        """The sum of the variances of all units, where the diagonal alone is kept."""
        return self.scatter.sum() / self.count


def _colors(
    color: object, rows: RowSet, model: LatentModel
) -> tuple[Tensor | None, str, tuple[str, ...] | None]:
    """One number a row in the user's order, what it is, and its classes."""
    source = rows.data
    if isinstance(color, str):
        return _column(color, rows, model)
    if color is None:
        if source is None or source.labels is None:
            return None, "", None
        labels = source.labels["test"]
        if labels.ndim > 1:
            return None, "", None
        return _of_labels(labels, source.classes)
    values = color.cpu().numpy() if isinstance(color, Tensor) else np.asarray(color)
    if values.shape != (len(rows),):
        raise invalid(
            f"colors of shape {values.shape} for {len(rows)} rows",
            "one value a row",
            "pass them in the order of the rows, or the name of a column",
        )
    if values.dtype.kind in "biuf":
        return torch.from_numpy(values.astype(np.float64)), "color", None
    names, codes = np.unique(values.astype(str), return_inverse=True)
    return torch.from_numpy(codes.reshape(-1).astype(np.float64)), "color", tuple(names.tolist())


def _of_labels(
    labels: Tensor, classes: tuple[str, ...] | None
) -> tuple[Tensor, str, tuple[str, ...] | None]:
    """Labels ``(N,)`` as colors; NaN for a label that stands for no class, such as the null label."""
    color = labels.double().cpu().masked_fill(is_null_context(labels).cpu(), torch.nan)
    known = color[~color.isnan()]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, torch.inf)
    if classes is None and not labels.is_floating_point() and low >= 0 and high < _FEW:
        classes = tuple(str(each) for each in range(int(high) + 1))
    if classes is not None:
        color = torch.where((color >= 0) & (color < len(classes)), color, torch.nan)
    return color, "label", classes


def _column(
    name: str, rows: RowSet, model: LatentModel
) -> tuple[Tensor, str, tuple[str, ...] | None]:
    columns = {each.name: (at, each) for at, each in enumerate(model.spec.columns or ())}
    if not columns:
        raise invalid(
            f"color={name!r} for data without columns", "one value a row", "pass an array"
        )
    place, column = columns[one_of(columns, name, "color")]
    values = rows.x[:, place].double().cpu()
    if rows.observed is not None:
        values = torch.where(rows.observed[:, place].cpu(), values, torch.nan)
    classes = None if column.values is None else tuple(str(each) for each in column.values)
    return rows.restore_order(values), name, classes
