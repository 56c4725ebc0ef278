"""Prompts: from a few words to the label that they name, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from genmod.checks import invalid
from genmod.nn.conditioning import NULL_LABEL

Names: TypeAlias = tuple[tuple[str, ...], ...]
"""For each label, its names; the first is the usual one."""

DIGITS: Names = (
    ("zero", "0", "nought"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
)
"""The ten digits in words."""

CLOTHES: Names = (
    ("t-shirt", "tshirt", "t shirt", "top"),
    ("trousers", "trouser", "pants"),
    ("pullover", "sweater", "jumper"),
    ("dress", "gown"),
    ("coat", "jacket"),
    ("sandal", "sandals"),
    ("shirt", "blouse"),
    ("sneaker", "sneakers", "trainer"),
    ("bag", "handbag"),
    ("ankle boot", "boot", "boots"),
)
"""The classes of Fashion-MNIST in words (Xiao et al. 2017, table 2)."""


@dataclass(frozen=True)
class Prompts:
    """A tiny text encoder: it finds the one known name in a prompt, and skips all other words.

    It does the work of the text encoder in a text-to-image model, for a handful of words. Its labels
    are the context of a network built with ``Labels(prompts.classes)``.

    Args:
        names: for each label, in order, the words or phrases that mean it; the first is its name.

    Raises:
        ValueError: a label without a name, or a name that two labels share.

    >>> prompts = Prompts.digits()
    >>> prompts.encode(["a seven", "an image of a 3", ""])
    tensor([   7,    3, -100])
    >>> prompts.name(7)
    'seven'
    """

    names: Names

    def __post_init__(self) -> None:
        found = [tuple(_words(name)) for names in self.names for name in names]
        if not (all(self.names) and all(found) and len(set(found)) == len(found)):
            raise invalid(
                f"names={self.names}",
                "at least one name a label, each of one label alone",
                "give every label a word of its own",
            )

    @classmethod
    def digits(cls) -> Prompts:
        """The names of the digits: "zero", "0", "one", ... for the digits and MNIST."""
        return cls(DIGITS)

    @classmethod
    def clothes(cls) -> Prompts:
        """The names of the classes of Fashion-MNIST: "t-shirt", "trousers", ..."""
        return cls(CLOTHES)

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return len(self.names)

    def name(self, label: int) -> str:
        """The usual name of a label; the empty prompt for ``NULL_LABEL``."""
        return "" if label == NULL_LABEL else self.names[label][0]

    def encode(self, texts: Iterable[str]) -> Tensor:
        """The label of each prompt, ``(B,)``; ``NULL_LABEL`` for an empty prompt.

        A name inside a longer one does not count: "t-shirt" is no "shirt".

        Raises:
            ValueError: a prompt that names no label, or several.
        """
        return torch.tensor([self._label(text) for text in texts], dtype=torch.int64)

    def _label(self, text: str) -> int:
        words = _words(text)
        if not words:
            return NULL_LABEL
        found, start, phrases = set(), 0, self._phrases()
        while start < len(words):
            match = next((p for p in phrases if tuple(words[start : start + len(p)]) == p), None)
            if match is not None:
                found.add(phrases[match])
            start += 1 if match is None else len(match)
        if len(found) != 1:
            raise invalid(
                f"a prompt {text!r} that names {sorted(map(self.name, found)) or 'no label'}",
                f"one of {[names[0] for names in self.names]}",
                "use one of these words, among any others; the empty prompt leaves the label open",
            )
        return found.pop()

    def _phrases(self) -> dict[tuple[str, ...], int]:
        """Every name as words with its label, the longest first."""
        pairs = [(tuple(_words(n)), label) for label, names in enumerate(self.names) for n in names]
        return dict(sorted(pairs, key=lambda pair: -len(pair[0])))


def _words(text: str) -> list[str]:
    """Letters, digits and hyphens in a row, in lower case."""
    return re.findall(r"[\w-]+", text.lower())
