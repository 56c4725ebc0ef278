"""Data: tables, arrays, folders of images, published images, and 2-D densities whose entropy is known.

:func:`load` takes a name, a file, a folder, a frame, rows or a loader. A :class:`Dataset` is three tensors
(train, validation, test) and a :class:`~genmod.spec.DataSpec`. :func:`binarized` makes bits of gray images,
and :func:`conditional` makes labels the context of a conditional model. :func:`impute` fills in a frame.
:class:`Standardize` holds the means and stds by which models standardize real columns.
:mod:`~genmod.data.toys` has the densities.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex

import torch
from torch import Tensor

from genmod.arrays import as_tensor
from genmod.data import toys as toys
from genmod.data.binarized import binarized as binarized
from genmod.data.datasets import Dataset as Dataset
from genmod.data.datasets import conditional as conditional
from genmod.data.filling import impute as impute
from genmod.data.folders import Resize
from genmod.data.kinds import Kinds
from genmod.data.loaders import collect, gives_batches, is_torch_dataset
from genmod.data.readers import from_frame, is_frame
from genmod.data.rows import Layout
from genmod.data.sources import LoadSettings, RowsSource, TableSource, check_settings, source_of
from genmod.data.tables import TableSettings, numbers
from genmod.data.values import pair
from genmod.signatures import checked
from genmod.spec import DataSpec, HasSpec
from genmod.units import Standardize as Standardize

__all__ = [
    "Dataset",
    "Standardize",
    "binarized",
    "conditional",
    "impute",
    "load",
]


@checked
def load(
    x: object,
    *,
    bins: int | None = None,
    labels: object = None,
    name: str | None = None,
    validation: float = 0.1,
    test: float = 0.2,
    seed: SupportsIndex = 0,
    groups: object = None,
    time: object = None,
    kinds: Kinds | None = None,
    drop: Iterable[str] = (),
    standardize: bool | Standardize | None = None,
    observed: object = None,
    size: int | tuple[int, int] | None = None,
    resize: Resize | str = Resize.CROP,
    channels: int | None = None,
    layout: Layout | str = Layout.AUTO,
    spec: DataSpec | HasSpec | None = None,
    root: Path | str | None = None,
) -> Dataset:
    """A data set from a name, a file, a folder of images, a frame, rows in memory, or a loader.

    Args:
        x: one of

            * a name: ``"digits"``, ``"mnist"``, ``"fashion-mnist"``, ``"kmnist"``, ``"emnist"``,
              ``"svhn"``, ``"cifar-10"``, ``"cifar-100"``; or a density
              on the plane: ``"moons"``, ``"ring"`` ...;
            * a table: a ``.csv``, ``.tsv`` or ``.parquet`` file, or a frame of pandas, polars or Arrow;
            * a folder of images, with labels from its subfolders;
            * a ``.npy`` file of rows (read in place if it is large), or a ``.npz`` file with ``x`` and
              perhaps ``y`` (labels);
            * rows ``(N, *event)`` as a tensor, an array or a list; or the pair ``(rows, labels)``;
            * a torch ``Dataset``, a ``DataLoader`` or an iterable of batches: all rows, in memory;
            * a :class:`~genmod.data.Dataset`, which is returned as it is.
        bins: the number of values of integer data. 8-bit integers have 256 and booleans 2 by default.
        labels: one label a row; of a table also the name of a column. Text becomes codes.
        name: what reports call the data; the file's name by default.
        validation: fraction of the rows left by the test part, in [0, 1).
        test: fraction of all rows, in [0, 1).
        seed: of the split. A random one depends on the seed and the number of rows alone.
        groups: one value a row, or the name of a column: rows of equal value stay in one part.
        time: one value a row, or the name of a column: the latest rows are the test part.
        kinds: of a table: kinds of columns by name, where the guess (``print(data)``) is wrong:
            ``"real"``, ``"integer"``, ``"count"``, ``"category"``, ``"ordinal"``, or a list of the
            values of an ordinal from low to high.
        drop: of a table: names of columns to leave out.
        standardize: whether models standardize real columns by the mean and standard deviation of the
            training rows; or the means and stds, a :class:`~genmod.data.Standardize`. By default columns of
            tables are, and those of arrays and tensors are not.
        observed: of rows in memory: which entries are not missing. Empty cells of a table are missing.
        size: of images in a folder: ``(height, width)``, or one number for both.
        resize: how images are brought to it: ``"crop"`` or ``"stretch"``.
        channels: of images in a folder: 1 for gray, 3 for RGB.
        layout: what the axes of one event mean: ``"as-given"`` (channels first), ``"gray"`` for (height,
            width), or ``"channels-last"``. By default images of integers may have any of them. Real data of
            such shapes are refused unless the layout is given.
        spec: a data set, a model or a ``DataSpec``: a table is read by its columns (kinds, codes, units).
        root: the folder of named images, as torchvision lays it out (``root/MNIST/raw``, ...). By default
            the one that the environment variable ``GENMOD_DATA`` names, else ``genmod`` in the user's
            cache. Missing files are downloaded.

    Raises:
        ValueError: an unknown name; a missing or torn file; rows, columns or images that cannot be used;
            a setting that would change nothing.

    >>> load("digits").spec
    DataSpec(shape=(1, 8, 8), bins=17)
    >>> load(([[0.1 * i, 0.01 * i**2] for i in range(10)], list(range(10)))).summary()
    'data (7 train + 1 validation + 2 test rows of (2,), real numbers)'
    """
    settings = LoadSettings(
        bins, labels, name, validation, test, operator.index(seed), groups, time, kinds, drop, standardize,
        observed, size, resize, channels, layout, spec, root,
    )  # fmt: skip
    if isinstance(x, Dataset):
        check_settings(settings, (), x.name)
        return x
    return source_of(x).load(settings)


@dataclass(frozen=True, eq=False)
class GivenRows:
    """Rows that are used whole, without a split.

    Args:
        x: ``(N, *event)``.
        context: what each row is conditioned on, ``(N, ...)``.
        observed: which entries are not missing, like ``x``; ``None``: all.
    """

    x: Tensor
    context: Tensor | None = None
    observed: Tensor | None = None


def rows_or_dataset(x: object, spec: DataSpec | None = None) -> Dataset | GivenRows:
    """What ``fit`` and ``evaluate`` take: rows in memory are used whole, names and files are split.

    Args:
        x: whatever :func:`load` takes.
        spec: of the model: tables are read by its columns, integers have its ``bins``.

    Returns:
        A data set for a name, a file, a folder or a data set; the rows themselves for anything in memory.
    """
    if isinstance(x, Dataset | GivenRows):
        return x
    if isinstance(x, str | Path):
        source = source_of(x)
        given = LoadSettings()
        if spec is not None and isinstance(source, TableSource):
            given = LoadSettings(spec=spec)
        elif spec is not None and isinstance(source, RowsSource):
            given = LoadSettings(bins=spec.bins)
        return source.load(given)
    if is_frame(x):
        rows, observed, _ = numbers(from_frame(x), TableSettings(spec=spec))
        whole = bool(observed.all())
        return GivenRows(rows.to(torch.get_default_dtype()), None, None if whole else observed)
    if is_torch_dataset(x) or gives_batches(x):
        return GivenRows(*collect(x))
    alone, labels = pair(x)
    return GivenRows(as_tensor(alone), None if labels is None else as_tensor(labels, "context"))
