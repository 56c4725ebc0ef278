"""Published files: found on disk or downloaded through torchvision, and checked by their digests.

Folders are those of torchvision, such as ``root/MNIST/raw``, so that one copy serves both. A download goes
to a temporary folder first. It is checked there, and then each file is moved to its place in one step. So
an interrupted download leaves no file that is cut short.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from genmod.checks import invalid
from genmod.data.formats import IDXFile

ROOT = "GENMOD_DATA"
"""The environment variable that holds the folder of the data."""


@dataclass(frozen=True)
class Collection:
    """A published collection of images and labels in IDX files, such as MNIST.

    Args:
        name: what reports call it.
        folder: the name of its folder, as torchvision calls it.
        files: training images, training labels, test images, test labels.
        fetch: downloads the files into ``folder/raw`` below the folder that it is given.
    """

    name: str
    folder: str
    files: tuple[IDXFile, IDXFile, IDXFile, IDXFile]
    fetch: Callable[[Path], None]

    def load(self, root: Path | str | None = None, download: bool = True) -> list[Tensor]:
        """The four arrays, ``torch.uint8``, in the order of ``files``.

        Args:
            root: the folder that holds ``folder``; :func:`default_root` if not given.
            download: whether to download files that are missing.

        Raises:
            ValueError: files that are missing and cannot be fetched, or that are not the original ones.
        """
        root = default_root() if root is None else Path(root).expanduser()
        place = root / self.folder / "raw"
        if self._missing(place) and download:
            self._download(root, place)
        paths = [file.find(place) for file in self.files]
        found = [path for path in paths if path is not None]
        if len(found) < len(paths):
            raise self._refusal(place, "download=False")
        return [file.read(path) for file, path in zip(self.files, found, strict=True)]

    def _missing(self, place: Path) -> list[IDXFile]:
        return [file for file in self.files if file.find(place) is None]

    def _download(self, root: Path, place: Path) -> None:
        """Download all files to a temporary folder, check them, and move those that are missing."""

        def fetch(beside: Path) -> Path:
            self.fetch(beside)
            fetched = beside / self.folder / "raw"
            for file in self.files:
                file.read(fetched / file.name)
            return fetched

        missing = [file.name for file in self._missing(place)]
        error = fetch_beside(place, missing, fetch, root)
        if error:
            raise self._refusal(place, f"the download failed: {error}")

    def _refusal(self, place: Path, reason: str) -> ValueError:
        missing = ", ".join(file.name for file in self._missing(place))
        return invalid(
            f"{place} without {missing} ({reason})",
            f"the four files of {self.folder} in IDX format, plain or with .gz after their names",
            f"put them there, or name the folder that holds {self.folder}/raw by root=... or the "
            f"environment variable {ROOT}, or call with download=True where there is a network",
        )


def fetch_beside(
    place: Path, names: Iterable[str], fetch: Callable[[Path], Path], root: Path | None = None
) -> str:
    """Download files into a temporary folder, then move each to its place in one step.

    Args:
        place: the folder that the files belong in.
        names: of the files.
        fetch: downloads the files into a folder, checks them, and returns where they are.
        root: where the temporary folder is made: on the same disk; ``place`` by default.

    Returns:
        Why it failed; empty if it did not.
    """
    beside = place if root is None else root
    try:
        beside.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(suffix=".writing", dir=beside) as folder:
            fetched = fetch(Path(folder))
            place.mkdir(parents=True, exist_ok=True)
            for name in names:
                os.replace(fetched / name, place / name)
    except (OSError, HTTPException, RuntimeError) as error:
        # torchvision raises RuntimeError when every mirror has failed.
        return " ".join(str(error).split()) or type(error).__name__
    return ""


@dataclass(frozen=True)
class PublishedFile:
    """A published file and the digest of its bytes.

    Args:
        name: of the file.
        url: where it is published.
        md5: the MD5 of its bytes, as the authors or torchvision give it.
    """

    name: str
    url: str
    md5: str

    def get(self, place: Path, download: bool = True) -> Path:
        """The path of the file in a folder; it is downloaded if it is missing. Every byte is checked.

        Raises:
            ValueError: it is missing and cannot be fetched, or its digest is another one.
        """
        path = place / self.name
        reason = "download=False"
        if not path.is_file() and download:
            reason = fetch_beside(place, [self.name], self._fetch)
        if not path.is_file():
            raise invalid(
                f"{place} without {self.name} ({reason})",
                f"the file that {self.url} offers",
                "put it there, or name the folder above by root=... or the environment variable "
                f"{ROOT}",
            )
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
        if digest != self.md5:
            raise invalid(
                f"{path} whose bytes have the MD5 {digest}",
                f"{self.md5}, as published",
                "it is cut short or was changed: delete it and load the data again",
            )
        return path

    def _fetch(self, beside: Path) -> Path:
        # Not at the top: only a download needs torchvision, which takes a second to import.
        from torchvision.datasets.utils import download_url

        download_url(self.url, beside, self.name, self.md5)
        return beside


def default_root() -> Path:
    """The folder ``GENMOD_DATA`` names, else ``genmod`` in the user's cache.

    The cache is ``XDG_CACHE_HOME``, else ``~/.cache``. A variable set to nothing counts as not set.
    """
    named = os.environ.get(ROOT)
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "genmod"


def _fetch_mnist(beside: Path) -> None:
    # Not at the top, here and below: only a download needs torchvision, which takes a second to import.
    from torchvision.datasets import MNIST

    MNIST(beside, download=True)


def _fetch_fashion_mnist(beside: Path) -> None:
    from torchvision.datasets import FashionMNIST

    FashionMNIST(beside, download=True)


def _files(
    train_images: str, train_labels: str, test_images: str, test_labels: str
) -> tuple[IDXFile, IDXFile, IDXFile, IDXFile]:
    """The four files from their digests: 60,000 and 10,000 images of 28 x 28."""
    return (
        IDXFile("train-images-idx3-ubyte", (60_000, 28, 28), train_images),
        IDXFile("train-labels-idx1-ubyte", (60_000,), train_labels),
        IDXFile("t10k-images-idx3-ubyte", (10_000, 28, 28), test_images),
        IDXFile("t10k-labels-idx1-ubyte", (10_000,), test_labels),
    )


MNIST = Collection(
    "mnist",
    "MNIST",
    _files(
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
    _fetch_mnist,
)
FASHION_MNIST = Collection(
    "fashion-mnist",
    "FashionMNIST",
    _files(
        "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    ),
    _fetch_fashion_mnist,
)
