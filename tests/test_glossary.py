"""The glossary lists every public word, and no word that is gone."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
WORD = re.compile(r"`([A-Za-z_]\w*)`")
MODULES = sorted(
    {
        name
        for page in (ROOT / "docs" / "reference").glob("*.md")
        for name in re.findall(r"^::: (genmod[\w.]*)$", page.read_text(encoding="utf-8"), re.M)
    }
)
"""What the reference pages document."""


def public(module: ModuleType) -> set[str]:
    """The functions and classes that a module offers: its ``__all__``, or what it says is public.

    A module offers what is written in it, and what it imports by ``from a import b as b``.
    """
    if "__all__" in vars(module):
        return set(module.__all__)
    imports = [node for node in _tree(module).body if isinstance(node, ast.ImportFrom)]
    passed_on = {alias.asname for node in imports for alias in node.names}
    names = vars(module).items()
    return {
        name
        for name, value in names
        if (inspect.isclass(value) or inspect.isfunction(value))
        and not name.startswith("_")
        and (name in passed_on or value.__module__ == module.__name__)
    }


def _tree(module: ModuleType) -> ast.Module:
    assert module.__file__ is not None
    return ast.parse(Path(module.__file__).read_text(encoding="utf-8"))


def listed() -> set[str]:
    """The words of the first column of the tables below "The package"."""
    tables = GLOSSARY.split("## The package", 1)[1]
    cells = [line.split("|")[1] for line in tables.splitlines() if line.startswith("| `")]
    return {word for cell in cells for word in WORD.findall(cell)}


@pytest.mark.parametrize("name", MODULES)
def test_the_glossary_lists_every_public_name(name: str) -> None:
    missing = public(importlib.import_module(name)) - listed()
    assert not missing, f"{name}: add to docs/glossary.md: {sorted(missing)}"


def test_the_glossary_lists_public_names_only() -> None:
    offered = set().union(*(vars(importlib.import_module(name)) for name in MODULES))
    gone = listed() - offered
    assert not gone, f"remove from docs/glossary.md: {sorted(gone)}"


def test_every_row_is_a_line_of_three_cells() -> None:
    rows = [line for line in GLOSSARY.splitlines() if line.startswith("|")]
    ragged = [row for row in rows if len(re.split(r"(?<!\\)\|", row)) != 5]
    assert not ragged
