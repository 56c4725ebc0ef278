"""Every public class and function is used in code that a reader sees and a test runs."""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]

BASES = {"Posterior"}
"""Base classes, whose subclasses are used."""
MINUTES = {"compare"}
"""It trains several models. The tests of its own folder call it."""


def public_names() -> set[str]:
    """What the packages export."""
    found: set[str] = set()
    for path in (ROOT / "genmod").rglob("__init__.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("genmod"):
                # ``from x import A as A`` exports; ``from x import A`` is a package's own use.
                found |= {alias.name for alias in node.names if alias.asname == alias.name}
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found |= set(ast.literal_eval(node.value))
    return {name for name in found if not name.startswith("_")}


def code_of_examples() -> Iterator[str]:
    """Code blocks of pages, examples, tutorials, and the examples of docstrings."""
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        blocks = r"^( *)```(?:python|pycon)\n(.*?)^\1```"
        for match in re.finditer(blocks, page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            yield dedent(match[2])
    for folder in ("examples", "docs/lecture"):
        yield from (path.read_text("utf-8") for path in (ROOT / folder).glob("*.py"))
    parser = doctest.DocTestParser()
    for path in (ROOT / "genmod").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                yield from (example.source for example in parser.get_examples(text))


def names_in_use() -> set[str]:
    """Names that code uses: an import alone, a comment or a text is no use; a module, by its path."""
    found = set[str]()
    for code in code_of_examples():
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.ImportFrom):
                found |= set((node.module or "").split(".")[2:])
    return found


def test_every_public_name_is_in_an_executed_example() -> None:
    """Add a missing one to ``docs/guides/parts.md``, or to an example in its docstring."""
    names, known = public_names(), BASES | MINUTES
    assert len(names) > 200
    without = names - names_in_use()
    assert sorted(without - known) == []
    assert sorted(known - without) == [], "these have an example, or are not public: remove them"
