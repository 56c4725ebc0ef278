"""Published images by name. The digits come with scikit-learn; the others are downloaded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from genmod.data.datasets import Dataset
from genmod.data.downloads import FASHION_MNIST, MNIST, Collection, PublishedFile, default_root
from genmod.data.formats import read_cifar, read_idx, read_svhn, read_zipped_idx
from genmod.data.rows import Split, dataset
from genmod.files import as_path

_VALIDATION = 1 / 12
"""Of the training images: 5,000 of 60,000."""


def digits(seed: int = 0) -> Dataset:
    """Scikit-learn's handwritten digits: 1797 images (1, 8, 8) of 17 ink values 0..16, with labels.

    A seeded 80/20 split into training and test images; the validation part is a tenth of the 80 %.

    Args:
        seed: of the split.

    Returns:
        1294 training, 144 validation and 359 test images, integers.

    Reference:
        Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (UCI repository; its
        test part is what scikit-learn contains). Every pixel counts the ink in a 4x4 block of a
        32x32 bitmap, which is why there are 17 values and not 16.

    >>> digits()
    digits: (1, 8, 8), integers 0..16
      train       1,294 rows
      validation    144 rows
      test          359 rows
      labels      one a row
    """
    # Not at the top: scikit-learn takes a second to import, and only this function needs it.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).reshape(-1, 1, 8, 8)
    return dataset(images, name="digits", bins=17, labels=bunch.target, seed=seed)


def mnist(root: Path | str | None = None, seed: int = 0, download: bool = True) -> Dataset:
    """MNIST: 70,000 handwritten digits (1, 28, 28) of 256 gray values, with labels.

    The test part is the standard 10,000 images in their own order, the validation part 5,000 of the
    60,000 training images. The files are checked byte by byte against the originals' digests.

    Args:
        root: the folder that holds ``MNIST/raw``, as torchvision lays it out. By default the one that
            the environment variable ``GENMOD_DATA`` names, else ``genmod`` in the user's cache.
        seed: of the split into training and validation images.
        download: whether to download missing files, through torchvision.

    Returns:
        55,000 training, 5,000 validation and 10,000 test images, integers.

    Raises:
        ValueError: files that are missing and cannot be downloaded, or that are not the original ones.

    Reference:
        LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning applied to document recognition.

    >>> mnist()  # doctest: +SKIP
    mnist: (1, 28, 28), integers 0..255
      train       55,000 rows
      validation   5,000 rows
      test        10,000 rows
      labels      one a row
    """
    return _images(MNIST, root, seed, download)


def fashion_mnist(root: Path | str | None = None, seed: int = 0, download: bool = True) -> Dataset:
    """Fashion-MNIST: 70,000 pictures of clothes (1, 28, 28) of 256 gray values, with labels.

    Parts, checks and arguments are those of :func:`mnist`. Its files are in ``FashionMNIST/raw``.

    Args:
        root: the folder that holds ``FashionMNIST/raw``.
        seed: of the split into training and validation images.
        download: whether to download missing files, through torchvision.

    Returns:
        55,000 training, 5,000 validation and 10,000 test images, integers.

    Raises:
        ValueError: files that are missing and cannot be downloaded, or that are not the original ones.

    Reference:
        Xiao, Rasul and Vollgraf 2017, Fashion-MNIST: a novel image dataset for benchmarking machine
        learning algorithms.
    """
    return _images(FASHION_MNIST, root, seed, download)


def _images(collection: Collection, root: Path | str | None, seed: int, download: bool) -> Dataset:
    images, marks, test, test_marks = collection.load(root, download)
    return _published(collection.name, (images[:, None], marks), (test[:, None], test_marks), seed)


def _kmnist(root: Path | str | None, seed: int = 0, download: bool = True) -> Dataset:
    """Kuzushiji-MNIST: 70,000 cursive Japanese characters (1, 28, 28) of 10 classes.

    Reference:
        Clanuwat, Bober-Irizar, Kitamoto, Lamb, Yamamoto and Ha 2018, Deep learning for classical
        Japanese literature.
    """
    # Not at the top, here and below: torchvision takes a second to import.
    from torchvision.datasets import KMNIST

    place = _place(root, "KMNIST/raw")
    files = [
        PublishedFile(name, KMNIST.mirrors[0] + name, md5).get(place, download)
        for name, md5 in KMNIST.resources
    ]
    x, y, test, test_y = map(read_idx, files)
    classes = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    return _published("kmnist", (x[:, None], y), (test[:, None], test_y), seed, classes)


def _emnist(kind: str, root: Path | str | None, seed: int = 0, download: bool = True) -> Dataset:
    """EMNIST: handwritten letters and digits (1, 28, 28); ``kind`` is one of its six splits.

    The files hold each image with its axes exchanged; here they are upright.

    Reference:
        Cohen, Afshar, Tapson and van Schaik 2017, EMNIST: extending MNIST to handwritten letters.
    """
    from torchvision.datasets import EMNIST

    path = PublishedFile("gzip.zip", EMNIST.url, EMNIST.md5).get(
        _place(root, "EMNIST/raw"), download
    )

    def part(name: str) -> tuple[Tensor, Tensor]:
        images, labels = (
            read_zipped_idx(path, f"gzip/emnist-{kind}-{name}-{each}-ubyte.gz")
            for each in ("images-idx3", "labels-idx1")
        )
        # Letters are numbered from 1, and all others from 0.
        return images.transpose(1, 2)[:, None], labels.long() - int(kind == "letters")

    classes = tuple(each for each in EMNIST.classes_split_dict[kind] if each != "N/A")
    name = "emnist" if kind == "balanced" else f"emnist-{kind}"
    return _published(name, part("train"), part("test"), seed, classes)


def _svhn(root: Path | str | None, seed: int = 0, download: bool = True) -> Dataset:
    """Street View House Numbers: 99,289 color images (3, 32, 32) of the digits 0 to 9.

    Reference:
        Netzer, Wang, Coates, Bissacco, Wu and Ng 2011, Reading digits in natural images with
        unsupervised feature learning.
    """
    from torchvision.datasets import SVHN

    place = _place(root, "SVHN")

    def part(name: str) -> tuple[Tensor, Tensor]:
        url, file, md5 = SVHN.split_list[name]
        return read_svhn(PublishedFile(file, url, md5).get(place, download))

    return _published("svhn", part("train"), part("test"), seed)


_CIFAR = "https://www.cs.toronto.edu/~kriz/"
CIFAR_10 = PublishedFile(
    "cifar-10-binary.tar.gz",
    f"{_CIFAR}cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
)
CIFAR_100 = PublishedFile(
    "cifar-100-binary.tar.gz",
    f"{_CIFAR}cifar-100-binary.tar.gz",
    "03b5dce01913d631647c71ecec9e9cb8",
)


def _cifar_10(root: Path | str | None, seed: int = 0, download: bool = True) -> Dataset:
    """CIFAR-10: 60,000 color images (3, 32, 32) of 10 classes, from the archive in binary format.

    Reference:
        Krizhevsky 2009, Learning multiple layers of features from tiny images.
    """
    path, inside = CIFAR_10.get(_place(root, "CIFAR"), download), "cifar-10-batches-bin"
    batches = [f"{inside}/data_batch_{place}.bin" for place in range(1, 6)]
    *train, classes = read_cifar(path, batches, f"{inside}/batches.meta.txt")
    *test, _ = read_cifar(path, [f"{inside}/test_batch.bin"], f"{inside}/batches.meta.txt")
    return _published("cifar-10", tuple(train), tuple(test), seed, classes)


def _cifar_100(root: Path | str | None, seed: int = 0, download: bool = True) -> Dataset:
    """CIFAR-100: 60,000 color images (3, 32, 32) of 100 classes, from the archive in binary format."""
    path, inside = CIFAR_100.get(_place(root, "CIFAR"), download), "cifar-100-binary"
    names = f"{inside}/fine_label_names.txt"
    *train, classes = read_cifar(path, [f"{inside}/train.bin"], names, labels=2)
    *test, _ = read_cifar(path, [f"{inside}/test.bin"], names, labels=2)
    return _published("cifar-100", tuple(train), tuple(test), seed, classes)


def _place(root: Path | str | None, folder: str) -> Path:
    return (default_root() if root is None else as_path(root)) / folder


def _published(
    name: str,
    train: tuple[Tensor, ...],
    test: tuple[Tensor, ...],
    seed: int,
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """A collection with its own test part, and a validation part cut from its training images."""
    (x, labels), (test_x, test_labels) = train, test
    split = Split(_VALIDATION, 0.0, seed)
    rows, held_out, _ = split.indices(len(x))
    marks = {"train": labels[rows], "validation": labels[held_out], "test": test_labels}
    return Dataset(
        name=name,
        train=x[rows],
        validation=x[held_out],
        test=test_x,
        bins=256,
        labels={part: mark.long() for part, mark in marks.items()},
        classes=classes,
        split={**split.record(), "kind": "published"},
    )


BY_NAME: Mapping[str, Callable[[Path | str | None, int], Dataset]] = {
    "digits": lambda root, seed: digits(seed),
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "kmnist": _kmnist,
    "emnist": partial(_emnist, "balanced"),
    **{
        f"emnist-{kind}": partial(_emnist, kind)
        for kind in ("byclass", "bymerge", "letters", "digits", "mnist")
    },
    "svhn": _svhn,
    "cifar-10": _cifar_10,
    "cifar-100": _cifar_100,
}
"""The data set of each name, from the folder of the data and the seed of the split."""
