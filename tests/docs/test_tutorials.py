"""The lecture in code: pages are those of their sources; what readers see of a cell."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
LECTURE = ROOT / "docs" / "lecture"
SOURCES = sorted(LECTURE.glob("[0-9][0-9]-*.py"))
ALT = re.compile(r"!\[(.*?)\]\((\S+?\.png)\)")


@pytest.fixture(scope="module")
def tutorials() -> ModuleType:
    """The script, which is in no package."""
    path = ROOT / "docs" / "_build" / "tutorials.py"
    spec = importlib.util.spec_from_file_location("tutorials", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_page_is_stale(tutorials: ModuleType) -> None:
    """Mend a page that is named here with ``python docs/_build/tutorials.py``."""
    assert not tutorials.stale()


def test_a_changed_source_makes_its_page_stale(
    tutorials: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tutorials, "LECTURE", tmp_path)
    source = tmp_path / "01-a.py"
    source.write_text("# %%\nx = 1\n")
    assert "never" in tutorials.stale()["01-a"]
    tutorials.write(source, f"---\ndigest: {tutorials.digest(source)}\n---\n", [], "{}")
    assert not tutorials.stale()
    source.write_text("# %%\nx = 2\n")
    assert "source" in tutorials.stale()["01-a"]
    source.unlink()
    assert "no source" in tutorials.stale()["01-a"]


def test_a_lost_figure_makes_its_page_stale(
    tutorials: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tutorials, "LECTURE", tmp_path)
    source = tmp_path / "01-a.py"
    source.write_text("# %%\nx = 1\n")
    page = f"---\ndigest: {tutorials.digest(source)}\n---\n![A dot](01-a/figure-1.png)\n"
    tutorials.write(source, page, [b"picture"], "{}")
    assert not tutorials.stale()
    (tmp_path / "01-a" / "figure-1.png").unlink()
    assert "figures" in tutorials.stale()["01-a"]


def test_readers_see_no_comment_of_the_pipeline(tutorials: ModuleType) -> None:
    cell = "# alt: A line\n#   that goes up.\nSTEPS: int = 1_500  # few: 20\nplot()  # keep"
    assert tutorials.visible(cell) == "STEPS: int = 1_500\nplot()  # keep"
    assert tutorials.visible("f(\n  x\n)  # fmt: skip\ny = 1") == "f(\n  x\n)\ny = 1"
    assert tutorials._FEW.sub(r"\1\3", cell).splitlines()[2] == "STEPS: int = 20"


def test_a_page_of_cells(tutorials: ModuleType, tmp_path: Path) -> None:
    """Text, code, output and figures, in order; a figure needs a text in place of it."""
    source = tmp_path / "01-a.py"
    source.write_text("")
    printed = {"output_type": "stream", "name": "stdout", "text": "\x1b[1m3\x1b[0m  \n"}
    picture = {"output_type": "display_data", "data": {"image/png": _png()}}
    outputs = [SimpleNamespace(**printed), SimpleNamespace(**picture)]
    text = SimpleNamespace(cell_type="markdown", source="# Title\nFirst.")
    code = SimpleNamespace(cell_type="code", source="# alt: A [gray]\n#   square.\nf(3)")
    code.outputs = outputs
    page, figures = tutorials.render(source, SimpleNamespace(cells=[None, text, code]))
    order = [
        "# Title",
        "Notebook",
        "First.",
        "```python\nf(3)\n```",
        "\n3\n```",
        "![A (gray) square.]",
    ]
    places = [page.index(part) for part in order]
    assert places == sorted(places)
    assert Image.open(BytesIO(figures[0])).mode == "P"
    code.source = "f(3)"
    with pytest.raises(ValueError, match="1 figures and 0 comments"):
        tutorials.render(source, SimpleNamespace(cells=[None, text, code]))


def _png() -> str:
    from base64 import b64encode

    file = BytesIO()
    Image.fromarray(np.full((8, 8), 128, dtype=np.uint8)).save(file, "PNG")
    return b64encode(file.getvalue()).decode()


def test_boxes_become_what_a_notebook_shows(tutorials: ModuleType) -> None:
    text = '!!! note "The slide"\n    It has $\\sigma^2$.\n\nThen [`VAE`][genmod.models.VAE].\n'
    assert tutorials.plain(text) == "> **The slide**\n> \n> It has $\\sigma^2$.\n\nThen `VAE`."
    folded = tutorials.plain('??? example "Solution"\n    One.\n\n    Two.\n')
    assert folded == "<details><summary>Solution</summary>\n\nOne.\n\nTwo.\n\n</details>"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_page_and_its_notebook_have_the_cells_of_the_source(
    tutorials: ModuleType, source: Path
) -> None:
    """Whatever formats the files of the repository must leave these alone."""
    jupytext = pytest.importorskip("jupytext")
    page = source.with_suffix(".md").read_text(encoding="utf-8")
    first, *cells = jupytext.read(source, fmt="py:percent").cells
    assert first.source.partition("\n")[2].strip() in page
    for cell in cells:
        if cell.cell_type == "code":
            assert f"```python\n{tutorials.visible(cell.source)}\n```" in page
        else:
            assert tutorials.SKIP.sub("", cell.source).strip() in page
    notebook = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert notebook == tutorials.notebook_text(source)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_comment_of_the_pipeline_is_on_a_page(source: Path) -> None:
    """Neither in the page nor in its notebook, not even in a solution."""
    for made in (source.with_suffix(".md"), source.with_suffix(".ipynb")):
        text = made.read_text(encoding="utf-8")
        for comment in ("# fmt:", "# few:", "# alt:"):
            assert comment not in text, made.name


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_tutorial_keeps_its_conventions(source: Path) -> None:
    """Figures with their text, exercises with solutions, small files, and a notebook that parses."""
    page = source.with_suffix(".md").read_text(encoding="utf-8")
    pictures = ALT.findall(page)
    assert pictures
    assert all(len(alt) > 20 for alt, _ in pictures)
    assert all((LECTURE / path).stat().st_size <= 150_000 for _, path in pictures)
    assert "# few:" not in page
    assert "# alt:" not in page
    assert "What you should see" in page
    assert 2 <= page.count('??? example "Solution') <= 4
    cells = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(ast.parse(code) for code in codes)
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_tutorial_runs_with_few_steps(source: Path) -> None:
    script = ROOT / "docs" / "_build" / "tutorials.py"
    command = [sys.executable, str(script), "--few", source.stem]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
