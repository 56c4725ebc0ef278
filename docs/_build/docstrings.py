"""How the site reads the package's docstrings: a Griffe extension that makes Markdown of them.

In the source a docstring is plain text that reads well in an editor: Sphinx roles, ``.. math::``,
``>>>`` examples, ``Args:`` that share a line, a ``Reference:``. Markdown would print most of these
raw, so they are rewritten here, once, and the source stays as it is.
"""

from __future__ import annotations

import re
from textwrap import dedent

from griffe import Alias, Extension, GriffeLoader, Module, NameResolutionError, Object

_ROLE = re.compile(r":(class|meth|func|mod|attr|data):`(~?)([\w.]+)`", re.ASCII)
_INLINE_MATH = re.compile(r":math:`([^`]+)`")
_BLOCK_MATH = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*|(?=\n\1 +\S)))*)", re.MULTILINE)
_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1\S.*|\n\1 +\S.*)*", re.MULTILINE)
_REFERENCE = re.compile(r"^( *)Reference:\s+(\S.*(?:\n *\S.*)*)", re.MULTILINE)
_SHARED = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +\S.*)*)", re.MULTILINE)


class Markdown(Extension):
    """Rewrites every docstring of a package, and publishes what its rooms re-export."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **_: object) -> None:
        """Called by Griffe when a package has been read."""
        if pkg.path == "genmod":
            _visit(pkg)


def _visit(obj: Object) -> None:
    if obj.docstring is not None:
        obj.docstring.value = to_markdown(obj.docstring.value, obj)
    if isinstance(obj, Module) and obj.exports is None:
        # ``from a import b as b`` is how a room says that ``b`` is public; what it defines is, too.
        names = [n for n, m in obj.members.items() if _offered(n, m)]
        obj.exports = [*names] if obj.is_init_module and names else None
    for member in obj.members.values():
        if not isinstance(member, Alias):
            _visit(member)


def _offered(name: str, member: Object | Alias) -> bool:
    if name.startswith("_"):
        return False
    if isinstance(member, Alias):
        return member.target_path.startswith("genmod.")
    return member.is_function or member.is_class


def to_markdown(text: str, obj: Object) -> str:
    """A docstring as Markdown that the Google-style parser understands."""
    text = _SHARED.sub(_one_each, text)
    text = _EXAMPLE.sub(lambda m: f"{m[1]}```pycon\n{m[0]}\n{m[1]}```", text)
    text = _BLOCK_MATH.sub(_display, text)
    text = _INLINE_MATH.sub(r"\\(\1\\)", text)
    text = _REFERENCE.sub(_cited, text)
    return _ROLE.sub(lambda m: _link(m[3], bool(m[2]), obj), text)


def _one_each(match: re.Match[str]) -> str:
    """``a, b: text`` under ``Args:`` as an entry for each name."""
    return "\n".join(f"{match[1]}{name}: {match[3]}" for name in match[2].split(", "))


def _display(match: re.Match[str]) -> str:
    pad, formula = match[1], dedent(match[2]).strip()
    lines = [" ".join(line.split()) for line in formula.splitlines()]
    return "\n".join([f"{pad}\\[", *(pad + line for line in lines if line), f"{pad}\\]"])


def _cited(match: re.Match[str]) -> str:
    return f"{match[1]}**Reference.** {' '.join(match[2].split())}"


def _link(name: str, short: bool, obj: Object) -> str:
    """A reference that becomes a link where the site has its target, and code where it has none."""
    shown = name.rpartition(".")[2] if short else name
    try:
        target = name if name.startswith("genmod.") else obj.resolve(name)
    except NameResolutionError:
        return f"`{shown}`"
    return f'<autoref optional identifier="{target}"><code>{shown}</code></autoref>'
