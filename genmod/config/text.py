"""Settings as text: YAML documents, and one setting on a line.

Documents follow YAML 1.2: ``1e-3`` is a number, ``no`` is a word, ``010`` is ten. Tags, anchors and
aliases are refused, because a file of settings needs none and each of them has been used for attacks.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import yaml

from genmod.checks import invalid

try:
    from yaml import CSafeDumper as _BaseDumper
    from yaml import CSafeLoader as _Base
except ImportError:  # PyYAML without the C library.
    from yaml import SafeDumper as _BaseDumper
    from yaml import SafeLoader as _Base

Plain = Any

_DEPTH = 64
"""Levels of a document, at most."""
_LENGTH = 1 << 24
"""Characters of a document, at most."""
_ADVICE = "correct that line, or write the file again"
_RESOLVED = (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+0123456789."),
    ),
)
"""The core schema of YAML 1.2: the kinds of plain scalars, in the order in which they are tried."""


class _Loader(_Base):
    """PyYAML's safe loader with the scalars of YAML 1.2; a key twice is refused."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        """A mapping whose keys are different strings."""
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = self.construct_object(key_node), key_node.start_mark.line + 1
            if not isinstance(key, str) or key in found:
                raise invalid(
                    f"{key_node.start_mark.name} with the key {key!r} in line {line}",
                    "different words as keys",
                    "quote a number that is meant as a word, and keep one of two equal keys",
                )
            found[key] = self.construct_object(value_node, deep=True)
        return found


class _Dumper(_BaseDumper):
    """PyYAML's safe dumper: what YAML 1.2 would take for a number is quoted."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def ignore_aliases(self, data: object) -> bool:
        """An object in two places is written twice."""
        return True


def _whole(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _real(loader: Any, node: Any) -> float:
    text = loader.construct_scalar(node).lower()
    if text.endswith("inf"):
        return -math.inf if text[0] == "-" else math.inf
    return math.nan if text == ".nan" else float(text)


def _list(dumper: Any, values: Any) -> Any:
    """A list on one line, unless it holds lists or mappings."""
    flat = not any(isinstance(each, list | tuple | dict) for each in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=flat)


def _mapping(loader: Any, node: Any) -> dict[str, Any]:
    found: dict[str, Any] = loader.construct_mapping(node)
    return found


for _kind, _pattern, _first in _RESOLVED:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), _first)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(tuple, _list)
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _real)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def from_yaml(text: str, name: str) -> dict[str, Plain]:
    r"""The mapping that a YAML document holds.

    Args:
        text: the document.
        name: the name of the document in messages.

    Raises:
        ValueError: no YAML; a tag, an anchor or an alias; a key twice; no mapping.

    >>> from_yaml("learning_rate: 1e-3\nname: no", "the settings")
    {'learning_rate': 0.001, 'name': 'no'}
    """
    if len(text) > _LENGTH:
        raise invalid(f"{name} of {len(text)} characters", f"at most {_LENGTH}", _ADVICE)
    try:
        _check_events(text, name)
        # A loader built on the safe one: it builds numbers, words, lists and mappings, and nothing else.
        loader = _Loader(text)
        loader.name = name
        found = loader.get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        if "; expected " in reason:
            raise
        raise invalid(f"{name}, which is no YAML ({reason})", "settings", _ADVICE) from None
    if not isinstance(found, dict):
        expected, advice = "settings by name, as in 'model: vae'", "see docs/guides/runs.md"
        raise invalid(f"{name} with a {type(found).__name__}", expected, advice)
    return dict(found)


def _check_events(text: str, name: str) -> None:
    """Refuse what no file of settings needs, before anything is built."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        line = event.start_mark.line + 1
        tag, anchor = getattr(event, "tag", None), getattr(event, "anchor", None)
        if tag is not None:
            raise invalid(
                f"{name} with the tag {tag!r} in line {line}",
                "numbers, words, lists and mappings",
                f"no file of settings needs a tag: {_ADVICE}",
            )
        if anchor is not None:
            raise invalid(
                f"{name} with the anchor or alias {anchor!r} in line {line}",
                "each value written out",
                _ADVICE,
            )
        starts = isinstance(event, yaml.CollectionStartEvent)
        depth += starts - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise invalid(f"{name} of {depth} levels", f"at most {_DEPTH}", _ADVICE)


def to_yaml(content: Mapping[str, Plain]) -> str:
    """A mapping of plain data as a YAML document; :func:`from_yaml` reads it back, bit for bit.

    >>> print(to_yaml({"model": {"class": "VAE", "latents": [4, 2]}, "learning_rate": 1e-5}), end="")
    model:
      class: VAE
      latents: [4, 2]
    learning_rate: 1.0e-05
    """
    text: str = yaml.dump(
        dict(content),
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=100,
    )
    return text


def read_value(text: str) -> Plain:
    """One setting from a command line, by the rules of YAML.

    >>> read_value("1e-3"), read_value("[4, 2]"), read_value("top-down"), read_value("null")
    (0.001, [4, 2], 'top-down', None)
    """
    try:
        return from_yaml(f"value: {text}", f"the value {text!r}")["value"]
    except ValueError:
        # A word with a colon or a bracket in it, such as a path or a call.
        return text


def read_call(text: str) -> tuple[str, list[Plain], dict[str, Plain]]:
    """A class with arguments, written as in code: its name, its arguments by place and by name.

    The arguments are numbers, words and lists; nothing is evaluated.

    Raises:
        ValueError: something else.

    >>> read_call("Labels(10)"), read_call("top-down")
    (('Labels', [10], {}), ('top-down', [], {}))
    """
    if "(" not in text:
        return text, [], {}
    try:
        name, given = text.split("(", 1)
        found = ast.parse(f"_({given}", mode="eval").body
        assert isinstance(found, ast.Call)
        values = [ast.literal_eval(each) for each in found.args]
        settings = {str(each.arg): ast.literal_eval(each.value) for each in found.keywords}
    except (SyntaxError, ValueError, AssertionError, RecursionError, MemoryError) as error:
        raise invalid(
            f"{text!r}",
            "a class with numbers or words as arguments, as in 'Labels(10)'",
            "correct it",
        ) from error
    return name.strip(), [_plain(v) for v in values], {k: _plain(v) for k, v in settings.items()}


def _plain(value: object) -> Plain:
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
