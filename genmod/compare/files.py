"""Files that are never half-written: each is made beside its place, then moved there in one move."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genmod.checks import require


@contextmanager
def into_place(path: Path) -> Iterator[Path]:
    """A path beside another, moved onto it at the end: nobody reads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = beside_of(path)
    yield beside
    os.replace(beside, path)


def beside_of(path: Path) -> Path:
    """Where a file is while it is being written."""
    return path.with_name(path.name + ".writing")


def write_text(path: Path, text: str) -> Path:
    """Write a text file."""
    with into_place(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, content: Mapping[str, object]) -> Path:
    """Write a JSON file. Numbers are written so that they are read back bit for bit."""
    return write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path, mark: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        mark: what its ``"format"`` has to be.

    Raises:
        ValueError: it is none, or one of another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"got {path}, which is no JSON ({error}); expected a file of an earlier comparison; "
            "move it away, or choose another folder"
        ) from error
    found = content.get("format") if isinstance(content, dict) else None
    require(
        found == mark, f"{path} of format {found}", mark, "move it away, or choose another folder"
    )
    return dict(content)
