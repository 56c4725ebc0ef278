"""Images by name: the digits, which need no download, MNIST and Fashion-MNIST, which need one."""

from __future__ import annotations

from pathlib import Path

import torch

from genmod.data.datasets import Dataset
from genmod.data.downloads import FASHION_MNIST, MNIST, Collection
from genmod.data.splits import dataset, split_rows

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
        test part is what scikit-learn embeds). Every pixel counts the ink in a 4x4 block of a
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
        download: whether to fetch files that are not there, through torchvision.

    Returns:
        55,000 training, 5,000 validation and 10,000 test images, integers.

    Raises:
        ValueError: files that are missing and cannot be fetched, or that are not the original ones.

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

    Parts, checks and arguments are those of :func:`mnist`; the files lie in ``FashionMNIST/raw``.

    Args:
        root: the folder that holds ``FashionMNIST/raw``.
        seed: of the split into training and validation images.
        download: whether to fetch files that are not there, through torchvision.

    Returns:
        55,000 training, 5,000 validation and 10,000 test images, integers.

    Raises:
        ValueError: files that are missing and cannot be fetched, or that are not the original ones.

    Reference:
        Xiao, Rasul and Vollgraf 2017, Fashion-MNIST: a novel image dataset for benchmarking machine
        learning algorithms.
    """
    return _images(FASHION_MNIST, root, seed, download)


def _images(collection: Collection, root: Path | str | None, seed: int, download: bool) -> Dataset:
    """A collection with its own test part, and a validation part cut from its training images."""
    images, marks, test, test_marks = collection.load(root, download)
    train, validation, _ = split_rows(len(images), _VALIDATION, 0.0, seed)
    return Dataset(
        name=collection.name,
        train=images[train, None],
        validation=images[validation, None],
        test=test[:, None],
        bins=256,
        labels={
            "train": marks[train].long(),
            "validation": marks[validation].long(),
            "test": test_marks.long(),
        },
    )
