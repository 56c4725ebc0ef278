"""What options can be chosen from; imports nothing heavy."""

from __future__ import annotations

from enum import StrEnum


class Data(StrEnum):
    """Data sets by name."""

    DIGITS = "digits"
    MNIST = "mnist"
    FASHION_MNIST = "fashion-mnist"
