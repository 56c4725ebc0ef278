"""Published collections from small archives in their true layout: KMNIST, EMNIST, SVHN, CIFAR.

The archives are written here from the formats' descriptions, and their digests put in place of the
published ones; that these are the published ones is a test of its own.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision.datasets import EMNIST, KMNIST, SVHN

from genmod.data import Dataset, images, load
from genmod.data.downloads import PublishedFile
from tests.data.test_downloads import idx

RNG = np.random.default_rng(0)
SIZES = {"train": 24, "test": 5}


def md5(path: Path) -> str:
    """Of a file."""
    return hashlib.md5(path.read_bytes()).hexdigest()


def pixels(*shape: int) -> torch.Tensor:
    """Noise in bytes."""
    return torch.from_numpy(RNG.integers(0, 256, shape, np.uint8))


def kmnist(root: Path, patch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Four compressed IDX files."""
    place, found, digests = root / "KMNIST" / "raw", {}, []
    place.mkdir(parents=True)
    for name, _ in KMNIST.resources:
        count = SIZES["test" if name.startswith("t10k") else "train"]
        found[name] = pixels(count, 3, 2) if "images" in name else pixels(count) % 10
        (place / name).write_bytes(gzip.compress(idx(found[name])))
        digests.append((name, md5(place / name)))
    patch.setattr(KMNIST, "resources", digests)
    return found["t10k-images-idx3-ubyte.gz"][:, None], found["t10k-labels-idx1-ubyte.gz"]


def emnist(root: Path, patch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor]:
    """One zip archive; letters are numbered from 1, images have their axes exchanged."""
    place, found = root / "EMNIST" / "raw" / "gzip.zip", {}
    place.parent.mkdir(parents=True)
    with zipfile.ZipFile(place, "w") as archive:
        for part, count in SIZES.items():
            found[part] = pixels(count, 3, 2), pixels(count) % 26
            base = f"gzip/emnist-letters-{part}"
            images_of, labels = found[part]
            upright = images_of.transpose(1, 2).contiguous()
            archive.writestr(f"{base}-images-idx3-ubyte.gz", gzip.compress(idx(upright)))
            archive.writestr(f"{base}-labels-idx1-ubyte.gz", gzip.compress(idx(labels + 1)))
    patch.setattr(EMNIST, "md5", md5(place))
    return found["test"][0][:, None], found["test"][1]


def svhn(root: Path, patch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Two MATLAB files (32, 32, 3, N), in which 10 means 0."""
    (root / "SVHN").mkdir()
    found, listed = {}, {}
    for part, count in SIZES.items():
        x, y = pixels(count, 3, 32, 32), torch.arange(count) % 10
        path = root / "SVHN" / f"{part}_32x32.mat"
        savemat(
            path,
            {"X": x.permute(2, 3, 1, 0).numpy(), "y": torch.where(y == 0, 10, y)[:, None].numpy()},
        )
        found[part], listed[part] = (x, y), ["http://localhost/", path.name, md5(path)]
    patch.setattr(SVHN, "split_list", listed)
    return found["test"]


def tar(path: Path, members: dict[str, bytes]) -> Path:
    """A compressed archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def records(x: torch.Tensor, *labels: torch.Tensor) -> bytes:
    """CIFAR's records: bytes of labels, then red, green and blue planes."""
    marks = torch.stack(labels, 1).to(torch.uint8)
    return torch.cat([marks, x.flatten(1)], 1).numpy().tobytes()


def cifar_10(root: Path, patch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Five training batches and one for testing."""
    x, y = pixels(5, 3, 32, 32), torch.arange(5)
    base = "cifar-10-batches-bin"
    members = {
        f"{base}/data_batch_{i}.bin": records(pixels(4 + i, 3, 32, 32), torch.full((4 + i,), i))
        for i in range(1, 6)
    }
    members |= {
        f"{base}/test_batch.bin": records(x, y),
        f"{base}/batches.meta.txt": b"airplane\nautomobile\nbird\n\n",
    }
    path = tar(root / "CIFAR" / "cifar-10-binary.tar.gz", members)
    patch.setattr(images, "CIFAR_10", replace(images.CIFAR_10, md5=md5(path)))
    return x, y


def cifar_100(root: Path, patch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor]:
    """A coarse label, then a fine one."""
    x, y = pixels(5, 3, 32, 32), torch.arange(5) * 20
    members = {
        "cifar-100-binary/train.bin": records(
            pixels(30, 3, 32, 32), torch.zeros(30), torch.arange(30)
        ),
        "cifar-100-binary/test.bin": records(x, torch.ones(5), y),
        "cifar-100-binary/fine_label_names.txt": b"apple\naquarium_fish\n",
    }
    path = tar(root / "CIFAR" / "cifar-100-binary.tar.gz", members)
    patch.setattr(images, "CIFAR_100", replace(images.CIFAR_100, md5=md5(path)))
    return x, y


MAKERS: dict[str, Callable[[Path, pytest.MonkeyPatch], tuple[torch.Tensor, torch.Tensor]]] = {
    "kmnist": kmnist,
    "emnist-letters": emnist,
    "svhn": svhn,
    "cifar-10": cifar_10,
    "cifar-100": cifar_100,
}


@pytest.mark.parametrize("name", MAKERS)
def test_images_and_labels_are_those_of_the_archive(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = MAKERS[name](tmp_path, monkeypatch)
    data = load(name, root=tmp_path)
    assert isinstance(data, Dataset)
    assert data.name == name
    assert data.bins == 256
    assert data.labels is not None
    assert torch.equal(data.test, x)
    assert torch.equal(data.labels["test"], y.long())
    total = len(data.train) + len(data.validation)
    assert len(data.validation) == round(total / 12)
    assert data.train.dtype is torch.uint8
    assert torch.equal(load(name, root=tmp_path, seed=1).test, data.test)


def files(root: Path) -> list[Path]:
    """Every file below a folder."""
    return sorted(path for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_that_was_changed_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MAKERS[name](tmp_path, monkeypatch)
    for path in files(tmp_path):
        whole = path.read_bytes()
        for spoiled in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
            path.write_bytes(spoiled)
            with pytest.raises(
                ValueError, match=rf"{path.name} whose bytes have the MD5 .*as published"
            ):
                load(name, root=tmp_path)
        path.write_bytes(whole)
    load(name, root=tmp_path)


@pytest.mark.parametrize("name", MAKERS)
def test_without_files_and_network_the_place_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fetch fails; nothing is left behind but folders."""
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", _no_network)
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_: url)
    with pytest.raises(
        ValueError, match=r"^got .* without .*no network.*; expected .*; put it there"
    ):
        load(name, root=tmp_path)
    assert files(tmp_path) == []


def _no_network(*_: object, **__: object) -> None:
    raise OSError("no network")


def test_a_fetched_file_is_checked_before_it_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, path: str | Path, *_: object) -> None:
        Path(path).write_bytes(b"whole")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", fetch)
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_: url)
    good = hashlib.md5(b"whole").hexdigest()
    found = PublishedFile("a.bin", "http://localhost/a.bin", good).get(tmp_path / "good")
    assert found.read_bytes() == b"whole"
    with pytest.raises(ValueError, match="not found or corrupted"):
        PublishedFile("a.bin", "http://localhost/a.bin", "0" * 32).get(tmp_path / "bad")
    assert files(tmp_path / "bad") == []


def test_the_digests_are_the_published_ones() -> None:
    """CIFAR's binary archives as their authors list them; torchvision lists those of its own format."""
    assert images.CIFAR_10.md5 == "c32a1d4ab5d03f1284b67883e8d87530"
    assert images.CIFAR_100.md5 == "03b5dce01913d631647c71ecec9e9cb8"
    for file in (images.CIFAR_10, images.CIFAR_100):
        assert file.url.endswith(f"/{file.name}")


def test_archives_of_another_layout_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right digest, wrong content: half a record, a missing member, no archive."""
    base = "cifar-100-binary"
    for members in (
        {f"{base}/train.bin": b"1" * 3073, f"{base}/fine_label_names.txt": b"a"},
        {f"{base}/other.bin": b""},
    ):
        path = tar(tmp_path / "CIFAR" / "cifar-100-binary.tar.gz", members)
        monkeypatch.setattr(images, "CIFAR_100", replace(images.CIFAR_100, md5=md5(path)))
        with pytest.raises(
            ValueError, match=r"^got .*cifar-100.*; expected .*load the data again$"
        ):
            load("cifar-100", root=tmp_path)
    path.write_bytes(b"no archive")
    monkeypatch.setattr(images, "CIFAR_100", replace(images.CIFAR_100, md5=md5(path)))
    with pytest.raises(ValueError, match="cannot be read"):
        load("cifar-100", root=tmp_path)
