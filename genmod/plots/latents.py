"""Latent spaces: codes of two dimensions, or projected on their two principal directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from torch import Tensor

from genmod.checks import invalid
from genmod.evaluation.maps import LatentMap
from genmod.plots.images import draw, grid
from genmod.plots.style import INK, LABEL, NOTE, PALE, figure, label_axes, plain


@dataclass(frozen=True, eq=False)
class Route:
    """A path through a latent space from A to B, with the decoded image of each code on it.

    Args:
        codes: the codes along the path, ``(K, d)``.
        images: the decoded images, ``(K, 1, H, W)``; 0 is drawn white, 1 black.
        under: a label under each image.
        label: a label under the row of images.
    """

    codes: Tensor
    images: Tensor
    under: Sequence[str] = ()
    label: str = ""


def principal(codes: Tensor, others: Tensor | None = None) -> Tensor:
    """Codes projected on their two principal directions, ``(N, 2)``, without a change of scale.

    The origin of the plane is the origin of the latent space, where N(0, I) is centered. One or two latents
    are shown as they are, without a rotation.

    Args:
        codes: ``(N, d)``; they define the principal directions.
        others: codes ``(M, d)`` to project on these directions instead.
    """
    flat = codes.flatten(1).double()
    shown = flat if others is None else others.flatten(1).double()
    if flat.shape[1] > 2:  # with two, a rotation would hide which axis is which latent
        _, _, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
        shown = shown @ directions[:2].T
    return torch.nn.functional.pad(shown, (0, 2 - shown.shape[1]))


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances between the rows of two sets, ``(N, M)``, in float64.

    They are computed from differences. The faster formula ``|a|^2 - 2 a b + |b|^2`` of ``torch.cdist``
    loses all digits if two neighbors lie far from zero.

    >>> distances(torch.tensor([[1e4, 1.0]]), torch.tensor([[1e4, 1.5]])).item()
    0.5
    """
    a, b = a.flatten(1).double(), b.flatten(1).double()
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def latent_spaces(
    codes: Mapping[str, Tensor | LatentMap],
    labels: Tensor | None = None,
    routes: Mapping[str, Route] | None = None,
    *,
    colors: Mapping[str, str] | None = None,
    axis_names: tuple[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Latent spaces: a scatter plot of codes for each model, colored by label or by a column.

    The dotted circle marks two standard deviations of N(0, I), around the origin of the latent space. Up to
    20 classes are also named, each at the median of its codes, so that the figure does not need its colors.

    Args:
        codes: by title, codes ``(N, d)`` or a map of a data set (:func:`genmod.evaluation.latent_map`),
            which has its own colors, and axes labeled with their share of the variance.
        labels: an integer per row of the codes, ``(N,)``.
        routes: a path through each space, by the same titles. It is drawn over the codes, and its decoded
            images are shown below.
        colors: the color of each title; by default black.
        axis_names: what the axes of plain codes are; by default the latents, or the principal directions of
            more than two latents. A map names its own axes.
        title: the title of the figure.
        caption: the text below the figure.

    >>> from genmod import plots
    >>> figure = plots.latent_spaces({"VAE": torch.randn(50, 3)}, torch.arange(50) % 10)
    >>> figure.axes[0].get_title()
    'VAE'
    """
    if len(codes) == 0:
        raise invalid("no codes", "those of at least one model", "pass {'VAE': codes}")
    routes = routes or {}
    wide, count = 5.2, len(codes)
    tall = 1.15 if routes else 0.0
    legends = sum(isinstance(points, LatentMap) for points in codes.values())
    made = figure(
        wide * count + 0.6 + 0.6 * legends, wide + tall + 0.9 * bool(title), title, caption
    )
    ratios = [wide - 0.4, tall] if routes else [1.0]
    spec = made.add_gridspec(len(ratios), count, height_ratios=ratios)
    above, last = [], None
    for index, (name, points) in enumerate(codes.items()):
        axes = plain(made.add_subplot(spec[0, index]))
        axes.set_title(name, fontsize=LABEL, color=(colors or {}).get(name, INK))
        path = _projected(points, routes[name].codes) if name in routes else torch.zeros(0, 2)
        if isinstance(points, LatentMap):
            groups = _map(axes, points)
        else:
            last = _scatter(axes, points, torch.zeros(len(points)) if labels is None else labels)
            groups = {} if labels is None else _groups(points, labels)
            label_axes(axes, *(axis_names or _axis_names(points)))
            above.append(axes)
        names = _name(axes, groups, path)
        if name in routes:
            _route(axes, path, names)
            _along(made.add_subplot(spec[1, index]), routes[name])
    if last is not None and labels is not None and len(labels.unique()) > 1:
        bar = made.colorbar(last, ax=above, ticks=range(10), shrink=0.9, pad=0.01)
        bar.ax.tick_params(labelsize=NOTE)
        bar.set_label("label", fontsize=LABEL, color=INK)
    return made


def _axis_names(codes: Tensor) -> tuple[str, str]:
    """What the axes of a projection are."""
    units = codes.flatten(1).shape[1]
    if units > 2:
        return "first principal direction", "second principal direction"
    return "first latent", "second latent" if units == 2 else ""


def _projected(points: Tensor | LatentMap, codes: Tensor) -> Tensor:
    """Codes on the axes of a space."""
    if isinstance(points, LatentMap):
        return codes.flatten(1).double().cpu() @ points.directions
    return principal(points, codes)


def _scatter(axes: Axes, codes: Tensor, labels: Tensor) -> PathCollection:
    seen = principal(codes)
    points = axes.scatter(
        seen[:, 0], seen[:, 1], c=labels, cmap=colormaps["tab10"], s=_size(seen), vmin=-0.5,
        vmax=9.5, linewidths=0, alpha=0.75,
    )  # fmt: skip
    _frame(axes, seen)
    return points


def _groups(codes: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The projected codes of each label, if there are at least two."""
    seen, known = principal(codes), labels.unique().tolist()
    return {str(int(k)): seen[labels == k] for k in known} if len(known) > 1 else {}


def _name(axes: Axes, groups: Mapping[str, Tensor], path: Tensor) -> Tensor:
    """Write the name of each class at the median of its points, or beside a path or a name there.

    Long names are left to the legend.

    Returns:
        The places of the names, ``(K, 2)``.
    """
    if not groups or len(groups) > 20 or max(map(len, groups)) > 12:
        return torch.zeros(0, 2)
    turns = torch.linspace(0, 2 * torch.pi, 17)[:-1]
    around = torch.stack([turns.cos(), turns.sin()], 1)
    rings = torch.cat([torch.zeros(1, 2), 8 * around, 16 * around, 24 * around]) * _point(axes)
    taken = torch.cat([path, (path[1:] + path[:-1]) / 2])
    for name, points in groups.items():
        place = _free(points.median(0).values + rings, taken, 14 * _point(axes))
        _bold(axes, place, name, LABEL, 3.5)
        taken = torch.cat([taken, place[None]])
    return taken[-len(groups) :]


def _point(axes: Axes) -> float:
    """About one typographic point, in units of the data: a panel is some 290 points wide."""
    left, right = axes.get_xlim()
    return (right - left) / 290


def _free(places: Tensor, taken: Tensor, gap: float) -> Tensor:
    """The first of the places that keeps a distance from what is taken, or the farthest one."""
    if not len(taken):
        return places[0]
    away = distances(places, taken).min(1).values
    return places[int((away >= gap).int().argmax() if bool((away >= gap).any()) else away.argmax())]


def _bold(axes: Axes, place: Tensor, text: str, size: float, height: float) -> None:
    """A name on a white ground."""
    x, y = place.tolist()
    axes.text(
        x, y, text, ha="center", va="center", fontsize=size, fontweight="bold",
        color=INK, zorder=height,
        bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
    )  # fmt: skip


def _size(seen: Tensor) -> float:
    """The size of a point: smaller where there are many."""
    return max(3.0, min(14.0, 2.5e4 / len(seen)))


def _map(axes: Axes, found: LatentMap) -> dict[str, Tensor]:
    """The points of a map, with a legend of its classes or a bar of its numbers.

    Returns:
        The points of each class.
    """
    x, y = found.points.T
    style: dict[str, Any] = {"s": _size(found.points), "linewidths": 0, "alpha": 0.75}
    color = torch.full_like(x, torch.nan) if found.color is None else found.color
    missing = color.isnan()
    if bool(missing.any()):
        label = "missing" if found.color is not None else None
        axes.scatter(x[missing], y[missing], color=PALE, label=label, **style)
    groups = dict[str, Tensor]()
    if found.classes is not None:
        groups = _classes(axes, found, color, style)
    elif found.color is not None and not bool(missing.all()):
        known = ~missing
        points = axes.scatter(x[known], y[known], c=color[known], cmap="viridis", **style)
        bar = axes.figure.colorbar(points, ax=axes, shrink=0.8, pad=0.02)
        bar.set_label(found.color_name, fontsize=LABEL, color=INK)
        bar.ax.tick_params(labelsize=NOTE)
    _frame(axes, found.points)
    label_axes(axes, *found.labels)
    return groups


def _classes(
    axes: Axes, found: LatentMap, color: Tensor, style: dict[str, Any]
) -> dict[str, Tensor]:
    names = found.classes or ()
    table = colormaps["tab10" if len(names) <= 10 else "tab20"]
    for code, name in enumerate(names):
        own = color == code
        if bool(own.any()):
            points = found.points[own]
            axes.scatter(*points.T, color=table(code % table.N), label=name, **style)
    if len(names) <= 20:
        legend = axes.legend(
            title=found.color_name, fontsize=NOTE, title_fontsize=NOTE, frameon=False,
            loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=1.6, handletextpad=0.2,
        )  # fmt: skip
        legend.get_title().set_color(INK)
    groups = {name: found.points[color == code] for code, name in enumerate(names)}
    return {name: points for name, points in groups.items() if len(points)}


def _frame(axes: Axes, seen: Tensor) -> None:
    """The circle of two standard deviations, and equal scales around the origin."""
    turn = torch.linspace(0, 2 * torch.pi, 200)
    axes.plot(2 * turn.cos(), 2 * turn.sin(), color=INK, lw=1.2, ls=":")
    axes.text(
        0.99, 0.01, "dotted: 2 std of N(0, I)", transform=axes.transAxes, ha="right", va="bottom",
        fontsize=NOTE, color=INK,
    )  # fmt: skip
    reach = 1.08 * max(2.0, float(seen.abs().max()))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


def _route(axes: Axes, seen: Tensor, names: Tensor) -> None:
    """Draw the path over the points; A and B keep away from the names of the classes."""
    axes.plot(*seen.T, color="white", lw=4.0, zorder=4)
    axes.plot(*seen.T, color=INK, lw=1.8, zorder=5, marker="o", ms=5.5, mfc="white", mew=1.5)
    away = torch.nn.functional.normalize(seen[-1] - seen[0], dim=0)
    turns = torch.tensor([0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5], dtype=away.dtype)
    for place, side, name in ((seen[0], -away, "A"), (seen[-1], away, "B")):
        angles = torch.atan2(side[1], side[0]) + turns
        around = place + 14 * _point(axes) * torch.stack([angles.cos(), angles.sin()], 1)
        _bold(axes, _free(around, names, 18 * _point(axes)), name, LABEL + 2, 6)


def _along(axes: Axes, route: Route) -> None:
    """Show the images along the path, with a label under each."""
    draw(axes, grid(route.images, len(route.images)), 1.0)
    step = route.images.shape[-1] + 1
    count = len(route.images)
    under = list(route.under) or ["A", *[""] * (count - 2), "B"]
    axes.set_xticks([step * (index + 0.5) for index in range(count)], under)
    axes.tick_params(axis="x", length=0, labelsize=NOTE, labelcolor=INK)
    if route.label:
        axes.set_xlabel(route.label, fontsize=NOTE, color=INK)
