"""Files of bytes in IDX format, each known by its shape and its digest.

An IDX file is ``0, 0``, a byte for the type of its numbers (8: unsigned bytes), a byte for how many
axes they have, the length of each axis (32 bits, the high byte first), then the numbers in rows.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genmod.checks import require
from genmod.shapes import Shape, size

_UNSIGNED_BYTE = 8


@dataclass(frozen=True)
class IDXFile:
    """A file that everybody has the same copy of.

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
        """What stands before the numbers."""
        axes = len(self.shape)
        return struct.pack(f">4B{axes}I", 0, 0, _UNSIGNED_BYTE, axes, *self.shape)

    def find(self, folder: Path) -> Path | None:
        """Where it lies in a folder, plain before compressed; ``None`` if it is not there."""
        places = (folder / self.name, folder / f"{self.name}.gz")
        return next((place for place in places if place.is_file()), None)

    def read(self, path: Path) -> Tensor:
        """The array, ``torch.uint8``, every byte of it checked.

        Raises:
            ValueError: the file is not this one: cut short, changed, or another file under its name.
        """
        content = _content(path)
        header = self.header
        numbers = memoryview(content)[len(header) :]
        wanted = f"{' x '.join(map(str, self.shape))} bytes in IDX format"
        advice = (
            "delete it and call again with download=True, or put the original in its place; data of "
            "your own go through genmod.data.dataset"
        )
        require(
            content.startswith(header),
            f"{path} beginning with {content[: len(header)].hex(' ')}",
            f"{wanted}, which begin with {header.hex(' ')}",
            advice,
        )
        require(
            len(numbers) == size(self.shape),
            f"{path} with {len(numbers)} bytes after its header",
            f"{size(self.shape)}: {wanted}",
            f"it may be a copy cut short: {advice}",
        )
        digest = hashlib.sha256(numbers).hexdigest()
        require(
            digest == self.sha256,
            f"{path} whose bytes have the SHA-256 {digest}",
            f"{self.sha256}, as in the original",
            f"some bytes were changed: {advice}",
        )
        return torch.frombuffer(numbers, dtype=torch.uint8).reshape(self.shape)


def _content(path: Path) -> bytearray:
    """All bytes of a file, uncompressed (a ``bytearray``, because a tensor may be written to)."""
    if path.suffix != ".gz":
        return bytearray(path.read_bytes())
    try:
        with gzip.open(path) as file:
            return bytearray(file.read())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"got {path}, which cannot be uncompressed ({error}); expected a whole gzip file; delete it "
            "and call again with download=True, or put the original in its place"
        ) from error
