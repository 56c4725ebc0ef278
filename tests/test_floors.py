"""The structure: imports go down the layers, without a circle; files and functions stay small.

Read from the source alone (AST), so a broken import cannot hide a broken rule.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "genmod"

FLOORS: list[set[str]] = [
    {"tensors", "checks", "signatures", "errors", "version"}  # ground
    | {
        "random",
        "chunks",
        "files",
        "nn",
        "config",
        "units",
        "columns",
        "spec",
        "arrays",
        "saving",
        "hub",
    },
    {"stamps", "elbo", "gaussian"},  # the words of the bound need no density
    {"distributions"},  # rates of pairs of densities
    {"schedules", "denoisers", "encoders", "decoders"}  # parts
    | {"path", "prior", "priors", "imputation", "generative", "model"},
    {"diffusion"},
    {"samplers", "inverse", "editing"},  # users of diffusion, never used by it
    {"models"},
    {
        "objectives",
        "training",
        "evaluation",
        "data",
        "plots",
        "interop",
        "compression",
        "export",
    },  # use
    {"runs", "compare", "sklearn", "lab"},  # the face
    {"cli"},
]
FACE = {"", "__main__"}
"""The package's own ``__init__`` (lazy) and ``python -m genmod``: they may see every room."""

PASSES_ON = {"config.settings", "signatures", "cli.settings", "training.fitting"}
"""Arguments passed on as they are: of any constructor, the flags of a command, those of ``fit``."""
LINES_OF_A_FILE = 300
LINES_OF_A_FUNCTION = 40


def files() -> list[Path]:
    """Every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """A file's dotted name inside the package; the package itself is empty."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    """The parsed source."""
    return ast.parse(path.read_text(encoding="utf-8"))


MODULES = {name_of(path): path for path in files()}


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _statements(node: ast.AST, deep: bool) -> Iterator[ast.AST]:
    """Statements that run: at import only, or (``deep``) those inside functions too."""
    for child in ast.iter_child_nodes(node):
        if _for_types_only(child):
            continue
        yield child
        if deep or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _statements(child, deep)


def imports(path: Path, deep: bool) -> set[str]:
    """The package's modules that a file imports, by dotted name inside the package."""
    found: set[str] = set()
    for node in _statements(tree(path), deep):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = (name.split(".")[1:] for name in found if name.split(".")[0] == "genmod")
    # ``from genmod.elbo import Rate`` names a member: the longest prefix that is a module counts.
    resolved = set()
    for parts in ours:
        while parts and ".".join(parts) not in MODULES:
            parts = parts[:-1]
        resolved.add(".".join(parts))
    return resolved


def floor_of(room: str) -> int:
    """The layer of a subpackage."""
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("module", [name for name in MODULES if name not in FACE])
def test_imports_go_down_the_layers(module: str) -> None:
    """Inside functions as well: a late import up is an import up."""
    room = module.split(".")[0]
    for target in imports(MODULES[module], deep=True) - {""}:
        other = target.split(".")[0]
        assert floor_of(other) <= floor_of(room), f"{module} imports {target}, a floor above"


def test_every_subpackage_has_a_layer() -> None:
    rooms = {name.split(".")[0] for name in MODULES} - FACE
    planned = set().union(*FLOORS)
    assert rooms <= planned, f"no floor for {rooms - planned}"
    assert sum(map(len, FLOORS)) == len(planned), "a room on two floors"


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    """At module level. A package's ``__init__`` counts as a module of its own."""
    graph = {name: imports(path, deep=False) - {""} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a circle: {' -> '.join((*trail, name))}"
        if name not in done:
            for target in sorted(graph[name] - {name}):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_names_of_classes_are_unique() -> None:
    """A name in a message, a saved model or the glossary means one class; private ones are free."""
    found: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, set()).add(name)
    assert {name: where for name, where in found.items() if len(where) > 1} == {}


def _calls(path: Path, name: str) -> Iterator[ast.Call]:
    """The calls of a function by its bare name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def _beginning(node: ast.expr) -> str:
    """The words that a string begins with, up to the first part that is computed."""
    first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
    return str(first.value) if isinstance(first, ast.Constant) else ""


def test_every_refusal_is_worded_by_one_function() -> None:
    """``raise invalid(got, expected, advice)``: words of a refusal are built only for an error."""
    by_hand = {
        f"{name}:{call.lineno}"
        for name, path in MODULES.items()
        for call in _calls(path, "ValueError")
        if name != "checks"
    }
    assert by_hand == set()
    for name, path in MODULES.items():
        for call in _calls(path, "invalid"):
            where, words = f"{name}:{call.lineno}", call.args
            assert len(words) == 3 or isinstance(words[-1], ast.Starred), where
            for word, prefix in zip(words, ("got ", "expected ", ";"), strict=False):
                assert not _beginning(word).startswith(prefix), f"{where} repeats {prefix!r}"


@pytest.mark.parametrize("path", files(), ids=lambda path: name_of(path) or "genmod")
def test_files_and_functions_stay_small(path: Path) -> None:
    """A function's docstring and signature explain it; they do not count against its length."""
    count = len(path.read_text(encoding="utf-8").splitlines())
    assert count <= LINES_OF_A_FILE, f"{count} lines"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= LINES_OF_A_FUNCTION, f"{node.name}: {lines} lines"


@pytest.mark.parametrize("path", files(), ids=lambda path: name_of(path) or "genmod")
def test_refused_habits_do_not_occur(path: Path) -> None:
    """No ``hasattr``, no ``**kwargs``, no bare or blanket ``except``, no ``type: ignore``."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name):
            assert node.id != "hasattr", f"hasattr at line {node.lineno}"
        if isinstance(node, ast.arguments) and name_of(path) not in PASSES_ON:
            assert node.kwarg is None, f"**{node.kwarg and node.kwarg.arg}"
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            assert caught not in {"", "Exception", "BaseException"}, f"line {node.lineno}"
    assert "type: ignore" not in path.read_text(encoding="utf-8")


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_does_not_wait_for_torch() -> None:
    heavy = "{'torch', 'numpy', 'matplotlib', 'scipy', 'sklearn', 'pyro', 'jaxtyping'}"
    code = f"import sys, genmod; dir(genmod); print(sorted({heavy} & set(sys.modules)))"
    assert run(code) == "[]"


def test_public_names_arrive_when_asked_for_and_change_nothing_global() -> None:
    """No default type, thread count, seed or warning filter changes when the subpackages are imported."""
    code = """
import warnings, torch
state = lambda: (torch.get_default_dtype(), torch.get_num_threads(), torch.initial_seed(),
                 torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled())
before, filters = state(), list(warnings.filters)
import genmod
assert genmod.ELBO.__name__ == 'ELBO' and genmod.models.VAE.__name__ == 'VAE'
for room in 'decoders denoisers distributions encoders gaussian nn priors samplers'.split():
    assert getattr(genmod, room).__name__ == 'genmod.' + room
try:
    genmod.nothing
except AttributeError as error:
    assert str(error) == "module 'genmod' has no attribute 'nothing'"
print(before == state() and filters == list(warnings.filters))
"""
    assert run(code) == "True"
