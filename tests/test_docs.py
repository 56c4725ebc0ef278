"""The documentation holds: its code runs, its pages are listed, its docstrings read as Markdown."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from genmod import version

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONG, SHORT = "steps=2000", "steps=5"
"""Training that a reader waits for, and that a test does not."""
SHORTER = {
    "docs/guides/bounds.md": [("torch.randn(2000, 1)", "torch.randn(50, 1)")],
    "docs/guides/likelihood.md": [("(200,)", "(20,)"), ("randn(200, 2)", "randn(20, 2)")],
}
"""Numbers of rows that a page shows something with, and that its code does not need to run."""
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXECUTED = [page for page in PAGES if page.parent.name == "lecture"]
"""Tutorials: docs/_build/tutorials.py executes their sources."""
WITH_CODE = [p for p in PAGES if p not in EXECUTED and BLOCK.search(p.read_text(encoding="utf-8"))]


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.usefixtures("as_users_run", "few_rows")
@pytest.mark.parametrize("page", WITH_CODE, ids=_name)
def test_the_code_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All blocks of a page, in order, in one namespace, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    for long, short in [(LONG, SHORT), *SHORTER.get(_name(page), [])]:
        assert long in text or long == LONG
        text = text.replace(long, short)
    namespace: dict[str, object] = {"__name__": "page"}
    for match in BLOCK.finditer(text):
        before = text[: match.start(1)].count("\n")
        source = "\n" * before + match[1]  # so that an error names the page's own line
        # Without the future imports of this file: a reader has not typed them.
        exec(compile(source, str(page), "exec", dont_inherit=True), namespace)


def _build_script(name: str) -> ModuleType:
    """A script of ``docs/_build``, which is no package."""
    path = ROOT / "docs" / "_build" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_excerpts_are_the_source(page: Path) -> None:
    """Mend a page that fails with ``python docs/_build/excerpts.py``."""
    text = page.read_text(encoding="utf-8")
    assert _build_script("excerpts").refreshed(text) == text


def test_every_page_is_in_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": (\S+\.md)$", config, re.MULTILINE))
    assert listed == {page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]}


def test_every_subpackage_has_a_reference_page() -> None:
    """Each package, and each module with a name of its own for users, is on a page."""
    rooms = {path.parent.name for path in (ROOT / "genmod").glob("*/__init__.py")}
    rooms = (rooms - {"cli"}) | {"elbo", "objectives", "random", "schedules"}
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert rooms <= set(re.findall(r"^::: genmod\.(\w+)", text, re.MULTILINE))


def test_every_folder_of_tests_is_explained() -> None:
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert not {name for name in folders if f"`{name}/`" not in text}


def test_the_citation_names_the_version() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == version.__version__


def test_readme_has_two_commands_of_one_line() -> None:
    """What continuous integration reads the set-up from."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert len(blocks) == 2
    assert all(block.count("\n") == 1 and block.startswith("python -m venv") for block in blocks)


def test_no_markup_of_another_kind_reaches_the_site() -> None:
    """Sphinx roles, directives and bare examples are rewritten by docs/_build/docstrings.py."""
    griffe = pytest.importorskip("griffe")
    extension = str(ROOT / "docs" / "_build" / "docstrings.py") + ":Markdown"
    package = griffe.load(
        "genmod", search_paths=[ROOT], extensions=griffe.load_extensions(extension)
    )
    raw = re.compile(r":(class|func|meth|mod|math):`|\.\. math::", re.MULTILINE)
    left = [path for path, text in _docstrings(package) if raw.search(text)]
    assert not left
    elbo = package["elbo.ELBO"].docstring.value
    assert "```pycon\n>>> import torch" in elbo
    assert "**Reference.** Kingma" in package["elbo"].docstring.value
    shared = griffe.Parser.google
    arguments = package["models.autoencoders.VAE"].docstring.parse(shared)[1].value
    assert {"width", "depth", "dropout"} <= {argument.name for argument in arguments}


def _docstrings(owner: object) -> list[tuple[str, str]]:
    """Every docstring below an object, with its path."""
    import griffe

    assert isinstance(owner, griffe.Object)
    found = [] if owner.docstring is None else [(owner.path, owner.docstring.value)]
    for member in owner.members.values():
        if isinstance(member, griffe.Object):
            found += _docstrings(member)
    return found
