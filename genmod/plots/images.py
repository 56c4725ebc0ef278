"""Images: grids of samples, rows of images, reconstructions, and how blurred images are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from genmod.checks import check_at_least, invalid
from genmod.plots.style import INK, LABEL, NOTE, figure, label_axes, letters, palette, plain, wrap
from genmod.signatures import checked


def grid(images: Tensor, columns: int) -> Tensor:
    """Images in one large image, row by row, with one pixel between them.

    Gray images ``(N, 1, H, W)`` give ``(rows, columns)`` pixels, RGB images ``(N, 3, H, W)`` give
    ``(rows, columns, 3)``.

    >>> grid(torch.ones(4, 1, 8, 8), columns=2).shape, grid(torch.ones(4, 3, 8, 8), columns=2).shape
    (torch.Size([19, 19]), torch.Size([19, 19, 3]))
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise invalid(
            f"images of shape {tuple(images.shape)}",
            "(N, 1, H, W), or (N, 3, H, W) for RGB",
            "draw vectors with plots.latent_spaces, or reshape them",
        )
    check_at_least(columns, 1, "columns", "6 is the default")
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    canvas = torch.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), torch.nan)
    for index, image in enumerate(images.double()):
        top, left = (index // columns) * (height + 1) + 1, (index % columns) * (width + 1) + 1
        canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    return canvas[..., 0] if channels == 1 else canvas


@checked
def samples(
    pictures: Mapping[str, Tensor],
    highest: float,
    columns: int = 6,
    *,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Grids of images side by side, such as data and the samples of each model.

    Args:
        pictures: images ``(N, 1, H, W)`` by the title of their grid, which may have several lines.
        highest: the value drawn black; 0 is drawn white.
        columns: the number of images in a row of a grid.
        colors: colors of the titles, by their first line; by default black.
        title: the title of the figure.
        caption: the text below the figure.

    >>> from genmod import plots
    >>> pictures = {"data": torch.rand(12, 1, 8, 8), "VAE": torch.rand(12, 1, 8, 8)}
    >>> [axes.get_title() for axes in plots.samples(pictures, highest=1.0).axes]
    ['data', 'VAE']
    """
    across = min(4, len(pictures))
    down = -(-len(pictures) // across)
    lines = max(name.count("\n") for name in pictures) + 1
    made = figure(2.6 * across, (2.65 + 0.22 * lines) * down + 0.5 * bool(title), title, caption)
    for index, (name, images) in enumerate(pictures.items()):
        axes = made.add_subplot(down, across, index + 1)
        draw(axes, grid(images, columns), highest)
        color = (colors or {}).get(name.split("\n")[0], INK)
        axes.set_title(name, fontsize=LABEL, color=color)
    return made


def reconstructions(
    originals: Tensor,
    pictures: Mapping[str, Tensor],
    highest: float,
    *,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """A row of inputs, and below it a row of reconstructions for each model.

    Args:
        originals: images ``(N, 1, H, W)``.
        pictures: the reconstructions ``(N, 1, H, W)`` by model.
        highest: the value drawn black; 0 is drawn white.
        colors: colors of the models; by default black.
        title: the title of the figure.
        caption: the text below the figure.
    """
    rows = {"input": originals, **pictures}
    made = [
        Row(name, images / highest, color=(colors or {}).get(name, INK))
        for name, images in rows.items()
    ]
    return strips(made, title=title, caption=caption)


@dataclass(frozen=True, eq=False)
class Row:
    """A row of images for :func:`strips`: a name at the left, and a label above or under each image.

    Args:
        name: the text at the left.
        images: gray ``(N, 1, H, W)``, 0 drawn white and 1 black; or RGB ``(N, 3, H, W)`` in [0, 1]. NaN
            is left empty.
        above, under: a label for each image, of one or more lines.
        color: the color of the name.
    """

    name: str
    images: Tensor
    above: Sequence[str] = ()
    under: Sequence[str] = ()
    color: str = INK


LINE = 0.175
"""Inches per line of the smallest text."""


def strips(rows: Sequence[Row], title: str = "", caption: str = "", side: float = 0.72) -> Figure:
    """Rows of images, such as the states of a diffusion at several times.

    Args:
        rows: at least one; all images have the same size.
        title: the title of the figure.
        caption: the text below the figure.
        side: the width of an image in inches.
    """
    if len(rows) == 0:
        raise invalid("no rows", "at least one row of images", "check the models")
    margin = 0.25 + 0.088 * max(letters(line) for row in rows for line in row.name.split("\n"))
    width = margin + side * max(len(row.images) for row in rows) + 0.1
    pictures = [grid(row.images, len(row.images)) for row in rows]
    tall = [
        side * len(row.images) * picture.shape[0] / picture.shape[1]
        for row, picture in zip(rows, pictures, strict=True)
    ]
    words = [(_space(row.above), _space(row.under)) for row in rows]
    last = LINE * len(wrap(caption, width)) + 0.15 if caption else 0.0
    high = sum(tall) + sum(above + under + 0.1 for above, under in words)
    height = high + last + (0.42 if title else 0.05)
    made = figure(width, height, title, caption, free=True)
    top = high + last
    for row, picture, size, (above, under) in zip(rows, pictures, tall, words, strict=True):
        bottom = top - above - size
        axes = made.add_axes(
            (margin / width, bottom / height, side * len(row.images) / width, size / height)
        )
        draw(axes, picture, 1.0)
        axes.set_ylabel(
            row.name, rotation=0, ha="right", va="center", fontsize=LABEL, color=row.color
        )
        _words(axes, row)
        top = bottom - under - 0.1
    return made


def _space(words: Sequence[str]) -> float:
    """The height in inches of the labels above or under a row."""
    lines = max((word.count("\n") + 1 for word in words), default=0)
    return LINE * lines + 0.09 if lines else 0.0


def _words(axes: Axes, row: Row) -> None:
    """Write the labels at the middle of each image, as ticks without marks."""
    step = row.images.shape[-1] + 1
    places = [step * (index + 0.5) for index in range(len(row.images))]
    if row.under:
        axes.set_xticks(places, list(row.under))
        axes.tick_params(axis="x", length=0, labelsize=NOTE, labelcolor=INK)
    if row.above:
        above = axes.secondary_xaxis("top")
        above.set_xticks(places, list(row.above))
        above.tick_params(length=0, labelsize=NOTE, labelcolor=INK)
        above.spines["top"].set_visible(False)


def draw(axes: Axes, picture: Tensor, highest: float) -> None:
    """Show an image without axes: a gray one black on white, an RGB one in its colors."""
    shown = picture if picture.ndim == 2 else (picture / highest).nan_to_num(1.0)
    axes.imshow(shown.numpy(), cmap="gray_r", vmin=0, vmax=highest, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def sharpness(
    bars: Mapping[str, Mapping[str, tuple[float, float]]],
    spectra: Mapping[str, tuple[Tensor, Tensor]] = MappingProxyType({}),
    *,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Blur: the power of images at high spatial frequencies, relative to that of the data.

    Args:
        bars: for each model, the relative power at high frequencies and its standard error, by the kind of
            image ("samples", "reconstructions"); the first kind is drawn in the full color. Without bars
            the figure has one panel, that of the spectra.
        spectra: for each model, spatial frequencies ``(F,)`` and the relative power at each, ``(F,)``.
            Without spectra the figure has one panel, that of the bars.
        colors: the color of each model.
        title: the title of the figure.
        caption: the text below the figure.
    """
    shown = [drawn for drawn in (bars, spectra) if drawn]
    if len(shown) == 0:
        raise invalid("no models", "at least one", "measure the samples of a model first")
    colors = palette({**bars, **spectra}) | dict(colors or {})
    wide = 11.2 if len(shown) == 2 else 7.4
    tall = 1.9 + max(2.4, 0.62 * len(bars)) + 0.5 * bool(caption)
    made = figure(wide, tall, title, caption)
    panels = [plain(made.add_subplot(1, len(shown), index + 1)) for index in range(len(shown))]
    if bars:
        _bars(panels[0], bars, colors)
    if spectra:
        _spectra(panels[-1], spectra, colors)
    return made


def _bars(
    axes: Axes,
    bars: Mapping[str, Mapping[str, tuple[float, float]]],
    colors: Mapping[str, str],
) -> None:
    """The power at high frequencies, a bar for each kind of image; the numbers stand right of all."""
    ends = [mean + error for kinds in bars.values() for mean, error in kinds.values()]
    right = 1.04 * max(1.0, *ends)
    for row, (name, kinds) in enumerate(bars.items()):
        high = 0.76 / len(kinds)
        for index, (kind, (mean, error)) in enumerate(kinds.items()):
            place = row + (index - (len(kinds) - 1) / 2) * high
            axes.barh(
                place, mean, height=high, xerr=error, color=colors[name],
                alpha=(1.0, 0.45)[min(index, 1)], ecolor=INK, error_kw={"lw": 1.2},
            )  # fmt: skip
            axes.annotate(
                f"{mean:.2f}  {kind}", (right, place), va="center", fontsize=NOTE, color=INK,
            )  # fmt: skip
    axes.set_yticks(range(len(bars)), list(bars), fontsize=LABEL)
    axes.invert_yaxis()
    axes.axvline(1, color=INK, lw=1.4, ls="--")
    axes.set_xlim(0, 1.5 * right)  # room for the numbers
    label_axes(axes, "power at high frequencies, data = 1", "")


def _spectra(
    axes: Axes, spectra: Mapping[str, tuple[Tensor, Tensor]], colors: Mapping[str, str]
) -> None:
    """The power at each frequency, a curve for each model."""
    for name, (frequency, power) in spectra.items():
        axes.plot(frequency, power, color=colors[name], lw=2.0, label=name)
    axes.axhline(1, color=INK, lw=1.4, ls="--", label="data")
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # room for the legend
    label_axes(axes, "spatial frequency, cycles per pixel", "power of samples, data = 1")
    axes.legend(frameon=False, fontsize=NOTE, ncols=2, loc="upper right")
