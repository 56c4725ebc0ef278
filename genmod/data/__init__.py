"""Data: tables, arrays, folders of images, published images, and 2-D densities whose entropy is known.

:func:`load` takes a name, a file, a folder, a frame, rows or a loader. A :class:`Dataset` is three tensors
(train, validation, test) and a :class:`~genmod.spec.DataSpec`. :func:`binarized` makes bits of gray images,
and :func:`conditional` makes labels the context of a conditional model. :func:`impute` fills in a frame.
:class:`Standardize` holds the means and stds by which models standardize real columns.
:mod:`~genmod.data.toys` has the densities.
"""

from genmod.data import toys as toys
from genmod.data.binarized import binarized as binarized
from genmod.data.datasets import Dataset as Dataset
from genmod.data.datasets import conditional as conditional
from genmod.data.filling import impute as impute
from genmod.data.loading import load as load
from genmod.units import Standardize as Standardize

__all__ = [
    "Dataset",
    "Standardize",
    "binarized",
    "conditional",
    "impute",
    "load",
]
