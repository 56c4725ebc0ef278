"""Data: any tensor or array, images by name, and 2-D densities whose entropy is known.

A :class:`Dataset` is three tensors in memory (train, validation, test) and the number of levels
that their entries can take, if they are integers. :func:`dataset` checks and splits the user's own
numbers; :func:`binarized` makes bits of gray images; :func:`conditional` tells a model the labels,
which :class:`Prompts` find in words.
"""

from genmod.data.binarized import binarized as binarized
from genmod.data.coins import BernoulliPixels as BernoulliPixels
from genmod.data.conditional import conditional as conditional
from genmod.data.images import digits as digits
from genmod.data.images import fashion_mnist as fashion_mnist
from genmod.data.images import mnist as mnist
from genmod.data.prompts import CLOTHES as CLOTHES
from genmod.data.prompts import DIGITS as DIGITS
from genmod.data.prompts import Prompts as Prompts
from genmod.data.splits import Dataset as Dataset
from genmod.data.splits import dataset as dataset
from genmod.data.toys import toy_dataset as toy_dataset

__all__ = [
    "CLOTHES",
    "DIGITS",
    "Coins",
    "Dataset",
    "Prompts",
    "binarized",
    "conditional",
    "dataset",
    "digits",
    "fashion_mnist",
    "mnist",
    "toy_dataset",
]
