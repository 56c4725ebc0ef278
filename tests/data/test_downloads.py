"""Files in IDX format: read as written, refused when changed, and never half downloaded.

The collection here is small and synthetic, and its files are written by hand from the format's
description, not by the code under test.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
from collections.abc import Callable
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor

from genmod.data import images
from genmod.data.downloads import Collection, default_root
from genmod.data.formats import IDXFile
from genmod.data.images import mnist

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def arrays() -> list[Tensor]:
    """Twenty-four training images of 3 x 2 and five for testing; the first byte tells the row."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for rows in (24, 5):
        pictures = torch.randint(0, 256, (rows, 3, 2), generator=generator, dtype=torch.uint8)
        pictures[:, 0, 0] = torch.arange(rows)
        found += [pictures, (torch.arange(rows) % 10).to(torch.uint8)]
    return found


def idx(array: Tensor) -> bytes:
    """A file in IDX format, written out."""
    axes = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + axes + array.numpy().tobytes()


def write(folder: Path, *, packed: bool = False) -> None:
    """The four files in ``folder/MNIST/raw``."""
    place = folder / "MNIST" / "raw"
    place.mkdir(parents=True)
    for name, array in zip(NAMES, arrays(), strict=True):
        if packed:
            (place / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (place / name).write_bytes(idx(array))


def collection(fetch: Callable[[Path], None] = write) -> Collection:
    """The four files with digests of their own."""
    train_images, train_labels, test_images, test_labels = (
        IDXFile(name, tuple(array.shape), hashlib.sha256(array.numpy().tobytes()).hexdigest())
        for name, array in zip(NAMES, arrays(), strict=True)
    )
    files = (train_images, train_labels, test_images, test_labels)
    return Collection("small", "MNIST", files, fetch)


# ---------------------------------------------------------------------- what is read


@pytest.mark.parametrize("packed", [False, True])
def test_files_are_read_as_they_were_written(tmp_path: Path, packed: bool) -> None:
    """Plain or compressed, without a download."""
    write(tmp_path, packed=packed)
    found = collection().load(tmp_path, download=False)
    assert all(torch.equal(a, b) for a, b in zip(found, arrays(), strict=True))


def test_the_test_part_keeps_its_order_and_the_rest_is_split_by_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twelfth of the training images is for validation; labels follow their images."""
    write(tmp_path)
    monkeypatch.setattr(images, "MNIST", collection())
    data = mnist(tmp_path)
    assert [len(part) for part in data.parts().values()] == [22, 2, 5]
    assert torch.equal(data.test[:, 0].long(), arrays()[2].long())
    assert data.shape == (1, 3, 2)
    assert data.bins == 256
    rows = torch.cat([data.train, data.validation])[:, 0].long()
    order = rows[:, 0, 0]
    assert sorted(order.tolist()) == list(range(24))
    assert torch.equal(rows, arrays()[0].long()[order])
    assert data.labels is not None
    for split, part in data.parts().items():
        assert torch.equal(data.labels[split], part[:, 0, 0, 0] % 10)
    assert torch.equal(mnist(tmp_path).train, data.train)
    other = mnist(tmp_path, seed=1)
    assert not torch.equal(other.train, data.train)
    assert torch.equal(other.test, data.test)


def changed(content: bytes) -> bytes:
    """With the lowest bit of the last byte changed."""
    return content[:-1] + bytes([content[-1] ^ 1])


def other_size(content: bytes) -> bytes:
    """With one more row announced."""
    return content[:7] + bytes([content[7] + 1]) + content[8:]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (changed, "bytes have the SHA-256 .*; expected .*, as in the original; some bytes were"),
        (lambda content: content[:-2], "bytes after its header; expected .*a copy cut short"),
        (lambda content: content + b"\0", "bytes after its header; expected"),
        (other_size, "beginning with 00 00 08 .*; expected .*in IDX format, which begin with 00"),
        (lambda content: b"<html>not found</html>", "beginning with 3c 68 74 6d 6c .*; expected"),
        (lambda content: b"", "beginning with ; expected .* bytes in IDX format"),
    ],
    ids=["changed", "short", "long", "other size", "other file", "empty"],
)
def test_a_file_that_was_changed_is_refused_and_left_alone(
    tmp_path: Path, name: str, spoil: Callable[[bytes], bytes], said: str
) -> None:
    """Also where a download is allowed: the user's file is not replaced."""
    write(tmp_path)
    path = tmp_path / "MNIST" / "raw" / name
    path.write_bytes(spoil(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"(?s)got .*{name}.*{said}.*delete it and call again"):
        collection().load(tmp_path, download=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("spoil", [lambda c: c[:-9], lambda c: b"\x05" * 50, lambda c: c[:40]])
def test_a_broken_archive_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    """Cut short, or no archive at all."""
    write(tmp_path, packed=True)
    path = tmp_path / "MNIST" / "raw" / f"{NAMES[0]}.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=r"cannot be uncompressed .*; expected a whole gzip file"):
        collection().load(tmp_path, download=False)


# ---------------------------------------------------------------------- what is fetched


def everything_below(folder: Path) -> list[str]:
    """Every file and folder, by name."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_what_is_missing_is_fetched_once(tmp_path: Path) -> None:
    """A file that is there is kept; the second call fetches nothing."""
    calls: list[Path] = []

    def fetch(beside: Path) -> None:
        calls.append(beside)
        write(beside)

    write(tmp_path)
    place = tmp_path / "MNIST" / "raw"
    (place / NAMES[1]).unlink()
    kept = (place / NAMES[0]).stat().st_mtime_ns
    for _ in range(2):
        found = collection(fetch).load(tmp_path)
        assert all(torch.equal(a, b) for a, b in zip(found, arrays(), strict=True))
    assert len(calls) == 1
    assert (place / NAMES[0]).stat().st_mtime_ns == kept
    assert everything_below(tmp_path) == [
        "MNIST",
        "MNIST/raw",
        *(f"MNIST/raw/{n}" for n in sorted(NAMES)),
    ]


@pytest.mark.parametrize(
    "error",
    [
        URLError("no address"),
        RuntimeError("Error downloading"),
        TimeoutError("timed out"),
        IncompleteRead(b"", 7),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_download_that_fails_half_way_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    """Three files were there, the fourth half, and nothing of it is taken for good afterwards."""

    def fetch(beside: Path) -> None:
        write(beside)
        last = beside / "MNIST" / "raw" / NAMES[3]
        last.write_bytes(last.read_bytes()[:-2])
        raise error

    with pytest.raises(
        ValueError, match=r"without train.*the download failed: .*; expected the four"
    ):
        collection(fetch).load(tmp_path / "new")
    assert everything_below(tmp_path / "new") == []
    with pytest.raises(ValueError, match="put them there, or name the folder that holds MNIST/raw"):
        collection().load(tmp_path / "new", download=False)
    assert len(collection().load(tmp_path / "new")) == 4


def test_fetched_files_are_checked_before_they_can_be_found(tmp_path: Path) -> None:
    """Other bytes from a mirror are refused."""

    def fetch(beside: Path) -> None:
        write(beside)
        last = beside / "MNIST" / "raw" / NAMES[3]
        last.write_bytes(changed(last.read_bytes()))

    with pytest.raises(ValueError, match="SHA-256"):
        collection(fetch).load(tmp_path)
    assert everything_below(tmp_path) == []


def test_a_root_that_cannot_be_created_gives_an_error(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"the download failed: .*; expected the four files of MNIST"
    ):
        collection().load(tmp_path / "file" / "below")


def test_the_root_is_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project's own variable first, then the cache's, then the home's cache."""
    monkeypatch.setenv("GENMOD_DATA", str(tmp_path / "named"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert default_root() == tmp_path / "named"
    write(tmp_path / "named")
    assert len(collection().load(download=False)) == 4
    monkeypatch.setenv("GENMOD_DATA", "")
    assert default_root() == tmp_path / "cache" / "genmod"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_root() == tmp_path / ".cache" / "genmod"


def test_importing_data_loads_neither_torchvision_nor_scikit_learn() -> None:
    """Each takes a second to import, and most users of the data need neither."""
    for path in Path(images.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            rooms = {name.split(".")[0] for name in names}
            assert not rooms & {"torchvision", "sklearn"}, f"{path.name} at line {node.lineno}"
