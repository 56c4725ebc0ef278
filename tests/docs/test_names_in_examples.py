"""Every public class and function is used in code that a reader sees and a test runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

BASES = {"Posterior"}
"""Base classes, whose subclasses are used."""


def public_names() -> set[str]:
    """What the packages export."""
    found: set[str] = set()
    for path in (ROOT / "genmod").rglob("__init__.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("genmod"):
                # ``from x import A as A`` exports; ``from x import A`` is a package's own use.
                found |= {alias.name for alias in node.names if alias.asname == alias.name}
    return {name for name in found if not name.startswith("_")}


def words_of_examples() -> set[str]:
    """The words of code blocks, examples, tutorials and docstrings' examples."""
    code: list[str] = []
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        code += re.findall(r"```(?:python|pycon)\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    for folder in ("examples", "docs/lecture"):
        code += [path.read_text("utf-8") for path in (ROOT / folder).glob("*.py")]
    for path in (ROOT / "genmod").rglob("*.py"):
        code += re.findall(r"^\s*(?:>>>|\.\.\.) (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return set(re.findall(r"\w+", "\n".join(code)))


def test_every_public_name_is_in_an_executed_example() -> None:
    """Add a missing one to ``docs/guides/parts.md``, or to an example in its docstring."""
    names = public_names()
    assert len(names) > 200
    without = names - words_of_examples()
    assert sorted(without - BASES) == []
