"""One table of all settings of a run: flags, YAML and docstrings share names, defaults and words.

The table is read from the source of :func:`genmod.data.load`, the models and :func:`genmod.fit`, so that
``--help`` prints the docstrings without importing torch.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

MODELS = ("autoencoder", "vae", "hvae", "diffusion", "latent-diffusion")
"""The models by name."""
SUITE = (
    "autoencoder",
    "vae",
    "hvae-bottom-up",
    "hvae-top-down",
    "diffusion",
    "latent-diffusion",
)
"""The models of the default suites of ``genmod compare``."""
DATA = ("digits", "mnist", "fashion-mnist")
"""Data sets by name; files of one's own go by their path."""

_PACKAGE = Path(__file__).parents[1]
_SOURCES = (
    ("training", "training", ("fit",)),
    ("data", "data", ("load",)),
    ("model", "models", ("VAE", "Autoencoder", "HVAE", "Diffusion", "LatentDiffusion")),
)
"""Section, package, and the functions and classes whose arguments are settings; the first owns a name."""
_LEFT_OUT = {
    "training": {
        "model",
        "data",
        "optimizer",
        "checkpoint",
        "metrics",
        "progress",
        "accelerator",
    },
    "data": {"x", "seed", "spec", "observed"},
    "model": {
        "self",
        "spec",
        "bins",
        "encoder",
        "decoder",
        "denoiser",
        "vae",
        "prior",
        "diffusion",
    },
}
"""Arguments without a flag: no word or number stands for them. ``--set`` and YAML reach most."""
_EXTRA = (
    ("binarize", "data", "bool", "Turn gray values into random bits, drawn again at every visit."),
    ("context_dropout", "data", "float", "The share of training rows whose label is hidden."),
)


@dataclass(frozen=True)
class Setting:
    """A setting of a run.

    Args:
        name: the name of the argument; the flag has hyphens in place of underscores.
        section: ``data``, ``model`` or ``training``.
        kind: the type that a flag's text is read as; ``str`` is read by the rules of YAML.
        default: the default value, as it is written in the source.
        help: the first sentence on it in the docstring.
    """

    name: str
    section: str
    kind: type
    default: str
    help: str

    @property
    def flag(self) -> str:
        """``--learning-rate``."""
        return f"--{self.name.replace('_', '-')}"


@cache
def table() -> tuple[Setting, ...]:
    """Every setting that has a flag, training first; a name has one flag."""
    found: dict[str, Setting] = {}
    for section, room, owners in _SOURCES:
        for owner in owners:
            for name, annotation, default, text in _arguments(room, owner):
                if name in _LEFT_OUT[section] or name in found:
                    continue
                kind = _kind(annotation)
                found[name] = Setting(name, section, kind, default, text)
    for name, section, kind_name, text in _EXTRA:
        kind = {"bool": bool, "float": float}[kind_name]
        found[name] = Setting(name, section, kind, "None", text)
    return tuple(found.values())


_DEFAULTS = {
    "vae": "VAE",
    "hvae": "HVAE",
    "diffusion": "Diffusion",
    "latent-diffusion": "LatentDiffusion",
}
"""Models to train where none is named, the first that has all settings that were passed."""


def default_model(names: Iterable[str]) -> str:
    """The model where none is named: a VAE, or the first that has the settings passed.

    >>> default_model(["latents"]), default_model(["schedule"]), default_model(["levels", "width"])
    ('vae', 'diffusion', 'hvae')
    """
    wanted = set(names)
    for name, owner in _DEFAULTS.items():
        if wanted <= {each for each, *_ in _arguments("models", owner)}:
            return name
    return "vae"


def _arguments(room: str, owner: str) -> Iterator[tuple[str, str, str, str]]:
    """Name, annotation, default and help of each argument of a function, or of a class's constructor."""
    node = _definition(room, owner)
    made: ast.AST = node
    if isinstance(node, ast.ClassDef):
        made = next(
            each
            for each in node.body
            if isinstance(each, ast.FunctionDef) and each.name == "__init__"
        )
    assert isinstance(made, ast.FunctionDef)
    texts = _documented(ast.get_docstring(node) or "")
    plain = made.args.args
    defaults = [None] * (len(plain) - len(made.args.defaults)) + list(made.args.defaults)
    pairs = [*zip(plain, defaults, strict=True)]
    pairs += [*zip(made.args.kwonlyargs, made.args.kw_defaults, strict=True)]
    for argument, default in pairs:
        annotation = "" if argument.annotation is None else ast.unparse(argument.annotation)
        shown = "" if default is None else ast.unparse(default)
        if re.fullmatch(r"[A-Z]\w*\.[A-Z_]+", shown):
            shown = shown.split(".")[1].lower().replace("_", "-")  # a member of an enumeration
        yield argument.arg, annotation, shown, texts.get(argument.arg, "")


def _definition(room: str, owner: str) -> ast.FunctionDef | ast.ClassDef:
    for path in sorted((_PACKAGE / room).glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if f"\ndef {owner}(" in text or f"\nclass {owner}(" in text:
            for node in ast.parse(text).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == owner:
                    return node
    raise AssertionError(f"no {owner} in genmod/{room}")


def _documented(docstring: str) -> dict[str, str]:
    """The first sentence on each argument, as plain text."""
    found: dict[str, str] = {}
    part = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", docstring, re.M | re.S)
    for entry in re.split(r"\n(?=    \S)", part[1].rstrip()) if part else []:
        names, _, text = entry.strip().partition(": ")
        words = " ".join(text.split())
        words = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", words).replace("``", "")
        sentence = re.split(r"(?<=[a-z0-9)])[.;] ", f"{words} ")[0].strip().rstrip(".;:")
        for name in names.split(", "):
            found[name] = sentence[:1].upper() + sentence[1:] + "."
    return found


def _kind(annotation: str) -> type:
    names = {each.strip() for each in annotation.split("|")} - {"None"}
    simple: dict[str, type] = {"bool": bool, "int": int, "float": float, "SupportsIndex": int}
    return simple[names.pop()] if len(names) == 1 and names <= simple.keys() else str


# ---------------------------------------------------------------------- a command with these flags


def with_settings(command: Callable[..., None], sections: tuple[str, ...]) -> Callable[..., None]:
    """A command that takes a flag for every setting of some sections, beside its own options.

    Args:
        command: called with its own options, and ``given``: the settings that were passed, by name.
        sections: whose settings it takes.
    """
    own = inspect.signature(command)
    settings = {each.name: each for each in table() if each.section in sections}

    def run(**values: Any) -> None:
        passed = {name: values.pop(name) for name in settings}
        given = {n: _read(settings[n], each) for n, each in passed.items() if each is not None}
        command(**values, given=given)
        return

    flags = [_flag(each) for each in settings.values()]
    hints = inspect.get_annotations(command, eval_str=True)
    parameters = [each for name, each in own.parameters.items() if name != "given"]
    kept = [each.replace(annotation=hints[each.name]) for each in parameters]
    run.__annotations__ = {each.name: each.annotation for each in [*kept, *flags]}
    setattr(run, "__signature__", own.replace(parameters=[*kept, *flags]))  # noqa: B010  mypy
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    return run


def _flag(setting: Setting) -> inspect.Parameter:
    default = "" if setting.default in ("", "None", "()") else f" By default {setting.default}."
    names = [setting.flag]
    if setting.kind is bool:
        names = [f"{setting.flag}/--no-{setting.flag[2:]}"]
    option = typer.Option(
        *names,
        help=f"{setting.help}{default}",
        rich_help_panel=f"Settings: {setting.section}",
        show_default=False,
    )
    kind: Any = Annotated[setting.kind | None, option]
    place = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(setting.name, place, default=None, annotation=kind)


def _read(setting: Setting, value: Any) -> Any:
    """A flag's value; text is read by the rules of YAML."""
    if setting.kind is not str:
        return value
    # Not at the top: the package of settings imports torch.
    from genmod.config.text import read_value

    text = str(value)
    return read_value(f"[{text}]" if re.fullmatch(r"\d+(,\s*\d+)+", text) else text)


# ---------------------------------------------------------------------- merging


def merge(settings: dict[str, Any], given: Mapping[str, Any], changes: list[str]) -> dict[str, Any]:
    """Settings of a file, then those of flags, then those of ``--set a.b=c``.

    Raises:
        ValueError: a change without a value, or of a setting that no section has.
    """
    merged = dict(settings)
    homes = {setting.name: setting.section for setting in table()}
    for name, value in given.items():
        _put(merged, [homes[name], name], value)
    for change in changes:
        # Not at the top: both import torch.
        from genmod.checks import invalid
        from genmod.config.text import read_value

        path, equals, text = change.partition("=")
        if not equals or not path:
            raise invalid(
                f"--set {change}", "a setting and its value", "write --set model.width=64"
            )
        places = path.split(".")
        if len(places) == 1 and places[0] not in ("data", "model"):
            near = difflib.get_close_matches(places[0], homes, 1)
            if places[0] not in homes:
                raise invalid(
                    f"--set {change}",
                    "section.setting=value",
                    f"did you mean {homes[near[0]]}.{near[0]}?" if near else "name its section",
                )
            places = [homes[places[0]], *places]
        _put(merged, places, read_value(text))
    return merged


_WORD = {"data": "x"}
"""What a section that is one word is called inside; everywhere else it is a class."""


def _put(settings: dict[str, Any], places: list[str], value: Any) -> None:
    """Set a value deep inside; what is one word so far becomes a class with settings."""
    inside = settings
    for place in places[:-1]:
        found = inside.get(place)
        if not isinstance(found, dict):
            found = {} if found is None else {_WORD.get(place, "class"): found}
        inside[place] = dict(found)
        inside = inside[place]
    inside[places[-1]] = value
