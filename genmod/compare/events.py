"""What is told of members while they are trained; small, and the same from every process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Began:
    """A member begins (or goes on) to train.

    Args:
        name: of the member.
        steps: how many it makes in all.
    """

    name: str
    steps: int


@dataclass(frozen=True)
class Progressed:
    """A member made steps.

    Args:
        name: of the member.
        step: how many so far.
        said: the loss, the bound, the best.
    """

    name: str
    step: int
    said: str


@dataclass(frozen=True)
class Scored:
    """A member is trained, and is being scored."""

    name: str


@dataclass(frozen=True)
class Ended:
    """A member is done, and its files are written."""

    name: str


@dataclass(frozen=True)
class Failed:
    """A member cannot be trained.

    Args:
        name: of the member.
        message: why, in a sentence.
    """

    name: str
    message: str


Event: TypeAlias = Began | Progressed | Scored | Ended | Failed
Tell: TypeAlias = Callable[[Event], None]
