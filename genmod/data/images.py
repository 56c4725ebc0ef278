"""Images that need no download."""

from __future__ import annotations

import torch

from genmod.data.splits import Dataset, dataset


def digits(seed: int = 0) -> Dataset:
    """Scikit-learn's handwritten digits: 1797 images (1, 8, 8) of 17 ink levels 0..16, with labels.

    A seeded 80/20 split into training and test images; the validation part is a tenth of the 80 %.

    Args:
        seed: of the split.

    Returns:
        1294 training, 144 validation and 359 test images, integers.

    Reference:
        Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (UCI repository; its
        test part is what scikit-learn embeds). Every pixel counts the ink in a 4x4 block of a
        32x32 bitmap, which is why there are 17 levels and not 16.

    >>> digits()
    Dataset(digits: 1294 train + 144 validation + 359 test, event shape (1, 8, 8), integers 0..16)
    """
    # Not at the top: scikit-learn takes a second to import, and only this function needs it.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).reshape(-1, 1, 8, 8)
    return dataset(images, name="digits", bins=17, labels=bunch.target, seed=seed)
