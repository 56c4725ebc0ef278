"""Data: tables, arrays, folders of images, published images, and 2-D densities whose entropy is known.

:func:`load` takes a name, a file, a folder, a frame, rows or a loader. A :class:`Dataset` is three tensors
(train, validation, test) and a :class:`~genmod.spec.DataSpec`. :func:`binarized` makes bits of gray images;
:func:`conditional` makes labels the context of a conditional model; :class:`Prompts` finds labels in words.
"""

from genmod.data.binarized import BernoulliPixels as BernoulliPixels
from genmod.data.binarized import binarized as binarized
from genmod.data.datasets import Dataset as Dataset
from genmod.data.datasets import conditional as conditional
from genmod.data.images import digits as digits
from genmod.data.images import fashion_mnist as fashion_mnist
from genmod.data.images import mnist as mnist
from genmod.data.loading import GivenRows as GivenRows
from genmod.data.loading import load as load
from genmod.data.loading import rows_or_dataset as rows_or_dataset
from genmod.data.prompts import CLOTHES as CLOTHES
from genmod.data.prompts import DIGITS as DIGITS
from genmod.data.prompts import Prompts as Prompts
from genmod.data.rows import Layout as Layout
from genmod.data.rows import dataset as dataset
from genmod.data.toys import toy_dataset as toy_dataset

__all__ = [
    "CLOTHES",
    "DIGITS",
    "BernoulliPixels",
    "Dataset",
    "GivenRows",
    "Layout",
    "Prompts",
    "binarized",
    "conditional",
    "dataset",
    "digits",
    "fashion_mnist",
    "load",
    "mnist",
    "rows_or_dataset",
    "toy_dataset",
]
