"""Formats of published images: IDX files (MNIST), CIFAR's binary records, SVHN's MATLAB files.

An IDX file is ``0, 0``, a byte for the type of its numbers (8: unsigned bytes), a byte for how many
axes they have, the length of each axis (32 bits, the high byte first), then the numbers in rows.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from genmod.checks import invalid
from genmod.tensors import Shape, size

_UNSIGNED_BYTE = 8


@dataclass(frozen=True)
class IDXFile:
    """A published IDX file, identified by the digest of its values.

    Args:
        name: of the file; with ``.gz`` after it where it is compressed.
        shape: of its array of bytes.
        sha256: the SHA-256 of that array, row by row, without the header.
    """

    name: str
    shape: Shape
    sha256: str

    @property
    def header(self) -> bytes:
        """The bytes before the values."""
        axes = len(self.shape)
        return struct.pack(f">4B{axes}I", 0, 0, _UNSIGNED_BYTE, axes, *self.shape)

    def find(self, folder: Path) -> Path | None:
        """Its path in a folder, uncompressed or compressed by gzip; ``None`` if it is missing."""
        places = (folder / self.name, folder / f"{self.name}.gz")
        return next((place for place in places if place.is_file()), None)

    def read(self, path: Path) -> Tensor:
        """The values, ``torch.uint8``; every byte is checked.

        Raises:
            ValueError: a file that is cut short or changed, or another file of the same name.
        """
        content = _content(path)
        header = self.header
        numbers = memoryview(content)[len(header) :]
        wanted = f"{' x '.join(map(str, self.shape))} bytes in IDX format"
        advice = (
            "delete it and call again with download=True, or put the original in its place; data of "
            "your own go through genmod.data.load"
        )
        if not content.startswith(header):
            raise invalid(
                f"{path} beginning with {content[: len(header)].hex(' ')}",
                f"{wanted}, which begin with {header.hex(' ')}",
                advice,
            )
        if len(numbers) != size(self.shape):
            raise invalid(
                f"{path} with {len(numbers)} bytes after its header",
                f"{size(self.shape)}: {wanted}",
                f"it may be a copy cut short: {advice}",
            )
        digest = hashlib.sha256(numbers).hexdigest()
        if digest != self.sha256:
            raise invalid(
                f"{path} whose bytes have the SHA-256 {digest}",
                f"{self.sha256}, as in the original",
                f"some bytes were changed: {advice}",
            )
        return torch.frombuffer(numbers, dtype=torch.uint8).reshape(self.shape)


def _content(path: Path) -> bytearray:
    """All bytes of a file, uncompressed. A ``bytearray``, because a tensor's memory must be writable."""
    if path.suffix != ".gz":
        return bytearray(path.read_bytes())
    try:
        with gzip.open(path) as file:
            return bytearray(file.read())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise invalid(
            f"{path}, which cannot be uncompressed ({error})",
            "a whole gzip file",
            "delete it and call again with download=True, or put the original in its place",
        ) from error


def parse_idx(content: bytes, name: str) -> Tensor:
    """The bytes of an IDX file as an array of the shape that its header states.

    Raises:
        ValueError: another format, or another number of bytes.
    """
    axes = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * axes
    if len(content) <= start or content[:3] != bytes([0, 0, _UNSIGNED_BYTE]):
        raise invalid(
            f"{name} beginning with {content[:4].hex(' ')}",
            "bytes in IDX format, which begin with 00 00 08",
            "fetch it again",
        )
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) - start != size(shape):
        raise invalid(
            f"{name} with {len(content) - start} bytes after its header",
            f"{size(shape)}, because its header has {shape}",
            "fetch it again",
        )
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).reshape(shape)


def read_idx(path: Path) -> Tensor:
    """An IDX file compressed by gzip, whose digest has been checked."""
    return parse_idx(bytes(_content(path)), str(path))


def read_zipped_idx(path: Path, member: str) -> Tensor:
    """An IDX file compressed by gzip inside a zip archive whose digest has been checked.

    Raises:
        ValueError: an archive without it.
    """
    try:
        with ZipFile(path) as archive:
            return parse_idx(gzip.decompress(archive.read(member)), f"{path} ({member})")
    except (KeyError, BadZipFile, OSError, EOFError, zlib.error) as error:
        raise invalid(
            f"{path} without a whole {member} ({error})",
            "the published archive",
            "delete it and load the data again",
        ) from error


CIFAR_SHAPE = (3, 32, 32)


def read_cifar(
    path: Path, members: Sequence[str], names: str, labels: int = 1
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Images, labels and class names of CIFAR's binary archive.

    A record is ``labels`` bytes, the last of which is the class, then 3072 bytes: the red, green and blue
    plane of a 32 x 32 image. Nothing is unpickled, and nothing is written to the disk.

    Args:
        path: the ``.tar.gz`` archive, whose digest has been checked.
        members: the files of records in it, in order.
        names: the file of the class names, one a line.
        labels: bytes of labels in a record: 1 in CIFAR-10; 2 in CIFAR-100 (coarse, then fine).

    Reference:
        Krizhevsky 2009, Learning multiple layers of features from tiny images, section 3.

    Raises:
        ValueError: an archive without these files, or of another record length.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in (*members, names):
                file = archive.extractfile(member)
                found[member] = b"" if file is None else file.read()
    except (KeyError, tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise invalid(
            f"{path}, which cannot be read ({error})",
            "the published archive in binary format",
            "delete it and load the data again",
        ) from error
    length = labels + size(CIFAR_SHAPE)
    content = bytearray(b"".join(found[member] for member in members))
    if len(content) == 0 or len(content) % length != 0:
        raise invalid(
            f"{path} with {len(content)} bytes of records",
            f"whole records of {length} bytes",
            "delete it and load the data again",
        )
    records = torch.frombuffer(content, dtype=torch.uint8).reshape(-1, length)
    classes = tuple(found[names].decode("ascii", "replace").split())
    return records[:, labels:].reshape(-1, *CIFAR_SHAPE), records[:, labels - 1].long(), classes


def read_svhn(path: Path) -> tuple[Tensor, Tensor]:
    """Images ``(N, 3, 32, 32)`` and labels of SVHN's MATLAB files, in which the label 10 means 0.

    Raises:
        ValueError: another kind of file.
    """
    # Not at the top: only this data set needs it.
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        arrays = loadmat(path, variable_names=["X", "y"])
        x, y = torch.from_numpy(arrays["X"]), torch.from_numpy(arrays["y"])
    except (MatReadError, OSError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise invalid(
            f"{path}, which cannot be read ({error!r})",
            "MATLAB arrays X and y",
            "delete it and load the data again",
        ) from error
    return x.permute(3, 2, 0, 1).contiguous(), y.flatten().long() % 10
