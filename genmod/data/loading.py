"""Loading data by name, from a file, or from memory: :func:`load`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import SupportsIndex
from zipfile import BadZipFile

import numpy as np
from torch import Tensor

from genmod.arrays import as_tensor
from genmod.checks import one_of, require
from genmod.data import toys
from genmod.data.datasets import Dataset
from genmod.data.images import digits, fashion_mnist, mnist
from genmod.data.splits import Layout, dataset
from genmod.data.values import BYTE, Array, is_array
from genmod.files import as_path

TOYS: Mapping[str, Callable[[], toys.Toy]] = {
    "banana": toys.Banana,
    "checkerboard": toys.Checkerboard,
    "correlated": toys.Correlated,
    "gaussian-mixture": toys.GaussianMixture.circle,
    "moons": toys.Moons,
    "ring": toys.Ring,
    "spiral": toys.Spiral,
}
"""Densities on the plane by name."""

NAMES = ("digits", "mnist", "fashion-mnist", *TOYS)
"""The names of the data sets that :func:`load` can load."""

_TOY_ROWS = 10_000


def load(
    x: object,
    *,
    bins: int | None = None,
    labels: object = None,
    name: str | None = None,
    validation: float = 0.1,
    test: float = 0.2,
    seed: SupportsIndex = 0,
    root: Path | str | None = None,
    layout: Layout | str = Layout.AUTO,
) -> Dataset:
    """A data set from a name, a file, or rows in memory.

    Args:
        x: one of

            * a name: ``"digits"``, ``"mnist"``, ``"fashion-mnist"``, or a density on the plane:
              ``"moons"``, ``"checkerboard"``, ``"ring"`` ... (10,000 points);
            * a ``.npy`` file of rows, or a ``.npz`` file with ``x`` and perhaps ``y`` (labels);
            * rows ``(N, *event)`` as a tensor, an array or a list; or the pair ``(rows, labels)``;
            * a :class:`~genmod.data.Dataset`, which is returned as it is.
        bins: the number of values of integer data. 8-bit integers have 256 and booleans 2 by default.
        labels: one label a row.
        name: what reports call the data; the file's name by default.
        validation: fraction of the rows left by the test part; see :func:`~genmod.data.dataset`.
        test: fraction of all rows.
        seed: of the split.
        layout: what the axes of one event mean, a :class:`~genmod.data.Layout` or its name.
        root: where MNIST and Fashion-MNIST lie; see :func:`~genmod.data.mnist`.

    Raises:
        ValueError: an unknown name, a missing or torn file, rows that :func:`~genmod.data.dataset` refuses.

    >>> load("digits").spec
    DataSpec(shape=(1, 8, 8), bins=17)
    >>> load(([[0.0, 1.0]] * 10, list(range(10)))).summary()
    'data (7 train + 1 validation + 2 test rows of (2,), real numbers)'
    """
    if isinstance(x, Dataset):
        _unused(x.name, {"bins": bins, "labels": labels, "name": name, "root": root})
        return x
    if isinstance(x, str) and _is_name(x):
        _unused(x, {"bins": bins, "labels": labels, "name": name})
        return _by_name(x, operator.index(seed), root)
    _unused("your own data", {"root": root})
    found: object
    if isinstance(x, str | Path):
        name = as_path(x).stem if name is None else name
        x, found = read(as_path(x))
    else:
        x, found = _pair(x)
    require(
        found is None or labels is None,
        "labels beside data that hold labels",
        "one of the two",
        "leave labels out",
    )
    return dataset(
        x,
        name="data" if name is None else name,
        bins=_byte(x) if bins is None else bins,
        labels=found if labels is None else labels,
        validation=validation,
        test=test,
        seed=seed,
        layout=layout,
    )


def rows_or_dataset(x: object, bins: int | None = None) -> Dataset | Tensor | tuple[Tensor, Tensor]:
    """What ``fit`` and ``evaluate`` take: rows in memory are used whole, names and files are split.

    Args:
        x: whatever :func:`load` takes.
        bins: of the model's data, for files.

    Returns:
        A data set for a name, a file or a data set; rows, or rows and labels, for anything in memory.
    """
    if isinstance(x, Dataset):
        return x
    if isinstance(x, str | Path):
        return load(x) if isinstance(x, str) and _is_name(x) else load(x, bins=bins)
    rows, labels = _pair(x)
    found = as_tensor(rows)
    return found if labels is None else (found, as_tensor(labels, "context"))


def read(path: Path) -> tuple[Array, Array | None]:
    """The rows of a ``.npy`` or ``.npz`` file, and its labels if it has some; nothing is unpickled.

    Raises:
        ValueError: a file that is missing, torn, of another kind, or whose arrays have other names.
    """
    require(path.exists(), f"{path}, which does not exist", "a file", "check the path")
    require(
        path.is_file() and path.suffix in (".npy", ".npz"),
        f"{path}",
        "a .npy or .npz file",
        "tables and folders of images are not read: write their numbers with numpy.save",
    )
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None
            return _named({key: loaded[key] for key in loaded.files}, path)
    except (OSError, EOFError, ValueError, BadZipFile) as error:
        if str(error).startswith("got "):
            raise
        raise ValueError(
            f"got {path}, which cannot be read ({error}); expected a whole file of numbers that "
            "numpy.save or numpy.savez wrote (nothing is unpickled); write it again"
        ) from error


def _named(arrays: Mapping[str, Array], path: Path) -> tuple[Array, Array | None]:
    if len(arrays) == 1:
        return next(iter(arrays.values())), None
    require(
        arrays.keys() == {"x", "y"},
        f"{path} with arrays named {sorted(arrays)}",
        "one array, or x (rows) and y (labels)",
        "pass the arrays themselves: load(file['...'], labels=file['...'])",
    )
    return arrays["x"], arrays["y"]


def _is_name(x: str) -> bool:
    """Whether a string can only be a name; refuses one that is neither a name nor a path."""
    if x in NAMES:
        return True
    if Path(x).suffix or "/" in x or "\\" in x or as_path(x).exists():
        return False
    one_of(NAMES, x, "data")
    return True


def _by_name(name: str, seed: int, root: Path | str | None) -> Dataset:
    if name == "mnist":
        return mnist(root, seed)
    if name == "fashion-mnist":
        return fashion_mnist(root, seed)
    _unused(name, {"root": root})
    return digits(seed) if name == "digits" else toys.toy_dataset(TOYS[name](), _TOY_ROWS, seed)


def _unused(what: str, settings: Mapping[str, object]) -> None:
    """Refuse settings that would change nothing."""
    given = [name for name, value in settings.items() if value is not None]
    require(
        not given,
        f"{', '.join(given)} for {what}",
        "only settings that change something",
        f"leave {' and '.join(given)} out",
    )


def _pair(x: object) -> tuple[object, object]:
    """Rows and labels: a tuple of two whose first part is rows of events; else rows alone."""
    if isinstance(x, tuple) and len(x) == 2 and _holds_rows(x[0]) and not _holds_rows(x[1], 3):
        rows, labels = x
        if len(rows) == len(labels):
            return rows, labels
    return x, None


def _holds_rows(x: object, axes: int = 2) -> bool:
    """Whether something has at least so many axes."""
    if is_array(x):
        return isinstance(x, Tensor | np.ndarray) and x.ndim >= axes
    depth = 0
    while isinstance(x, list | tuple) and x:
        depth, x = depth + 1, x[0]
    if isinstance(x, Tensor | np.ndarray):
        depth += x.ndim
    return depth >= axes


def _byte(x: object) -> int | None:
    """The number of values that a type can only mean: 256 for bytes, 2 for booleans."""
    if isinstance(x, Tensor | np.ndarray):
        kind = str(x.dtype).removeprefix("torch.")
        return {"uint8": BYTE, "bool": 2}.get(kind)
    return None
