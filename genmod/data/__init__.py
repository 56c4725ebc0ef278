"""Data: any tensor or array, the embedded digits, and 2-D densities whose entropy is known.

A :class:`Dataset` is three tensors in memory (train, validation, test) and the number of levels
that their entries can take, if they are integers. :func:`dataset` checks and splits the user's own
numbers.
"""

from genmod.data.images import digits as digits
from genmod.data.splits import Dataset as Dataset
from genmod.data.splits import dataset as dataset
from genmod.data.toys import toy_dataset as toy_dataset

__all__ = ["Dataset", "dataset", "digits", "toy_dataset"]
