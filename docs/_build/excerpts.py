"""Code excerpts of the pages: cut from the package's source, so that they never differ from it.

An excerpt is a block that names its file and object:

    ```py title="genmod/elbo.py: ELBO.value"
    ```

The body of a function is quoted without its docstring; a class is quoted by its annotated fields.
``python docs/_build/excerpts.py`` writes the blocks of every page anew. A test compares them.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r'^```py title="(?P<file>genmod/[\w/]+\.py): (?P<name>[\w.]+)"\n(?P<code>.*?)^```$', re.M | re.S
)
Definition = ast.FunctionDef | ast.ClassDef


@cache
def _source(file: str) -> tuple[list[str], ast.Module]:
    text = (ROOT / file).read_text(encoding="utf-8")
    return text.splitlines(), ast.parse(text)


def _find(file: str, name: str) -> Definition:
    """The definition of a dotted name.

    Raises:
        ValueError: the file has no such object.
    """
    node: ast.Module | Definition = _source(file)[1]
    for part in name.split("."):
        found = [n for n in node.body if isinstance(n, Definition) and n.name == part]
        if not found:
            raise ValueError(f"got {name!r}; expected an object of {file}; mend the page's excerpt")
        node = found[0]
    assert isinstance(node, Definition)
    return node


def excerpt(file: str, name: str) -> str:
    """The source of an object without its docstrings; of a class its fields alone."""
    lines, _ = _source(file)
    node = _find(file, name)
    first = min(each.lineno for each in (node, *node.decorator_list))
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    if isinstance(node, ast.ClassDef):
        # The line before the docstring closes the header, however many lines it takes.
        parts = [(first, node.body[0].lineno - 1)]
        parts += [(n.lineno, n.end_lineno or 0) for n in body if isinstance(n, ast.AnnAssign)]
    elif len(body) < len(node.body):
        docstring = node.body[0]
        parts = [
            (first, docstring.lineno - 1),
            ((docstring.end_lineno or 0) + 1, node.end_lineno or 0),
        ]
    else:
        parts = [(first, node.end_lineno or 0)]
    return dedent("\n".join("\n".join(lines[a - 1 : b]) for a, b in parts)) + "\n"


def refreshed(page: str) -> str:
    """A page's text with its excerpts cut anew."""

    def cut(match: re.Match[str]) -> str:
        head = match[0].split("\n", 1)[0]
        return f"{head}\n{excerpt(match['file'], match['name'])}```"

    return BLOCK.sub(cut, page)


def main() -> None:
    """Write every page's excerpts anew."""
    for path in sorted((ROOT / "docs").rglob("*.md")):
        old = path.read_text(encoding="utf-8")
        new = refreshed(old)
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
