"""Arrays in ``.npy`` and ``.npz`` files: checked before they are read, never unpickled, large ones mapped.

A header can state any size, and a small archive can unpack to a huge one. So before anything is read, the
header of each array is compared with the bytes in the file and with the free memory.

A large ``.npy`` file is mapped into memory: the operating system reads the pages that a batch needs and
drops them again. A few rows are drawn for validation and testing. In a private copy of their pages the last
rows of the file take their place, so that the training part is one block. The file itself never changes.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from genmod.checks import invalid
from genmod.data.datasets import SPLITS, Dataset
from genmod.data.rows import Split
from genmod.data.values import Array, as_labels, check_memory

IN_PLACE = 1 << 30
"""A ``.npy`` file of more bytes is read in place."""

_HELD_OUT_ROWS = 10_000
_HELD_OUT_BYTES = 1 << 26
"""Of a file read in place, validation and test get at most so many rows and bytes each."""

_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0
"""MAP_NORESERVE: a private mapping may then be larger than the memory."""


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a ``.npz`` file by name, or the one of a ``.npy`` file under the name "".

    Raises:
        ValueError: a torn file, another kind of file, pickled objects, more than fits in memory.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                return _read_archive(path)
            file.seek(0)
            size = path.stat().st_size
            kind, shape, _ = _header(file, size, str(path))
            check_memory(_bytes(kind, shape), str(path))
            file.seek(0)
            return {"": npy.read_array(file, allow_pickle=False)}
    except (OSError, EOFError, ValueError, BadZipFile, NotImplementedError, RuntimeError) as error:
        if str(error).startswith("got "):
            raise
        reason = " ".join(str(error).split())
        raise invalid(
            f"{path}, which cannot be read ({reason})",
            "a whole file of numbers that numpy.save or numpy.savez wrote (nothing is unpickled)",
            "write it again",
        ) from error


def _read_archive(path: Path) -> dict[str, Array]:
    with ZipFile(path) as archive:
        members = archive.infolist()
        check_memory(sum(member.file_size for member in members), f"{path}, unpacked")
        found = {}
        for member in members:
            with archive.open(member) as file:
                _header(file, member.file_size, f"{path} ({member.filename})")
            with archive.open(member) as file:
                name = member.filename.removesuffix(".npy")
                found[name] = npy.read_array(file, allow_pickle=False)
        return found


def _header(file: Any, size: int, name: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Type, shape, and whether the first axis varies fastest; the size of the file must match them."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, kind = read(file)
    if kind.hasobject:
        raise invalid(
            f"{name} of pickled objects",
            "numbers (nothing is unpickled)",
            "write it again as an array of numbers",
        )
    there = size - file.tell()
    if there != _bytes(kind, shape):
        raise invalid(
            f"{name} with {there:,} bytes of values",
            f"{_bytes(kind, shape):,}, because its header has {shape} of {kind}",
            "it may be a copy cut short: write it again",
        )
    return kind, shape, fortran


def _bytes(kind: np.dtype[Any], shape: tuple[int, ...]) -> int:
    count = kind.itemsize
    for side in shape:
        count *= side
    return count


def is_large(path: Path) -> bool:
    """Whether a file is a ``.npy`` file that is read in place."""
    return path.suffix == ".npy" and path.is_file() and path.stat().st_size > IN_PLACE


def map_file(path: Path) -> Tensor:
    """The array of a ``.npy`` file as a tensor whose values stay in the file until they are used.

    What is written to the tensor stays in this process: the file is never changed.

    Raises:
        ValueError: a torn file, pickled objects, an order of values that cannot be read in place.
    """
    try:
        with path.open("rb") as file:
            kind, shape, fortran = _header(file, path.stat().st_size, str(path))
            start = file.tell()
            if not kind.isnative or fortran or kind.kind not in "biuf":
                raise invalid(
                    f"{path} of type {kind}" + (" in Fortran order" if fortran else ""),
                    "real numbers row by row, in the byte order of this machine",
                    "write it again with numpy.save(path, numpy.ascontiguousarray(x))",
                )
            if sys.platform == "win32":
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            else:
                mapped = mmap.mmap(
                    file.fileno(),
                    0,
                    flags=mmap.MAP_PRIVATE | _NO_RESERVE,
                    prot=mmap.PROT_READ | mmap.PROT_WRITE,
                )
    except (OSError, ValueError) as error:
        if str(error).startswith("got "):
            raise
        raise invalid(
            f"{path}, which cannot be read in place ({error})",
            "a whole file that numpy.save wrote",
            "write it again",
        ) from error
    return torch.from_numpy(np.frombuffer(mapped, kind, offset=start).reshape(shape))


def in_place(
    path: Path, name: str, split: Split, bins: int | None = None, labels: object = None
) -> Dataset:
    """The rows of a large ``.npy`` file as a data set whose training part stays in the file.

    Args:
        path: the file.
        name: what reports call it.
        split: the fractions and the seed. At most 10,000 rows and 64 MB are drawn for each of validation
            and test.
        bins: the number of values of integers.
        labels: one label a row of the file.

    Raises:
        ValueError: a file that cannot be read in place; groups or times; too few rows.
    """
    if split.groups is not None or split.time is not None:
        raise invalid(
            f"groups or time for {path}, which is read in place",
            "a random split",
            "divide the rows into files, or load them as an array",
        )
    x = map_file(path)
    if x.ndim < 2 or len(x) == 0:
        raise invalid(f"{path} of shape {tuple(x.shape)}", *_ROWS)
    count = len(x)
    most = max(1, min(_HELD_OUT_ROWS, _HELD_OUT_BYTES // max(1, x[0].nbytes)))
    tested = min(most, round(split.test * count))
    validated = min(most, round(split.validation * (count - tested)))
    drawn = np.random.default_rng(split.seed).choice(count, tested + validated, replace=False)
    rows = torch.from_numpy(drawn)
    moves = _moves(rows, count)
    parts = _divide(x, rows, moves, tested)
    marks = None
    if labels is not None:
        found = as_labels(labels).clone()
        if len(found) != count:
            raise invalid(f"{len(found)} labels", f"{count}, one a row", "add them")
        marks = _divide(found, rows, moves, tested)
    record = {**split.record(), "kind": "random, in place", "held out": tested + validated}
    train, validation, test = (parts[part] for part in SPLITS)
    return Dataset(name, train, validation, test, bins, marks, split=record)


def _moves(drawn: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Which of the last rows take the place of drawn rows before them."""
    left = count - len(drawn)
    tail = torch.ones(len(drawn), dtype=torch.bool)
    tail[drawn[drawn >= left] - left] = False
    return tail.nonzero()[:, 0] + left, drawn[drawn < left].sort().values


def _divide(
    x: Tensor, drawn: Tensor, moves: tuple[Tensor, Tensor], tested: int
) -> Mapping[str, Tensor]:
    """Copies of the drawn rows, and all others as one block."""
    test, validation = x[drawn[:tested]], x[drawn[tested:]]
    source, place = moves
    x[place] = x[source]
    return dict(zip(SPLITS, (x[: len(x) - len(drawn)], validation, test), strict=True))


_ROWS = ("rows of events, (N, *event)", "write it with an axis of rows first")
