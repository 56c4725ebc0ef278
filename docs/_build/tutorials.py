"""The lecture in code: executes the tutorials of ``docs/lecture`` and writes their pages.

    python docs/_build/tutorials.py             # executes the stale pages and writes them
    python docs/_build/tutorials.py NAME ...    # these pages, stale or not: 01, 01-progress
    python docs/_build/tutorials.py --all       # every page
    python docs/_build/tutorials.py --few       # executes with few steps and writes nothing
    python docs/_build/tutorials.py --check     # lists the stale pages and executes nothing

A tutorial is ``docs/lecture/NN-name.py`` in percent format: cells that begin with ``# %%``, or with
``# %% [markdown]`` for text. Its page is ``NN-name.md``, its figures ``NN-name/figure-1.png`` and so
on, its notebook ``NN-name.ipynb``, without output. All are committed, so that building the site
executes nothing.

* ``STEPS = 1_500  # few: 20``: the value of a run with few steps.
* ``# alt: What the picture shows.``: the alternative text of a figure, one for each figure of the
  cell, in order. A line that follows and begins with three spaces after ``#`` continues it.
* ``# fmt: skip``: the formatter leaves the statement as it is.
* A cell that ends with a figure shows it.

Readers see none of these comments. Cells run in ``docs/lecture``. A run with few steps also executes the
Python blocks of the text, which are the solutions of the exercises.

The digest of a page is that of its source and of the version of genmod.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from base64 import b64decode
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

ROOT = Path(__file__).parents[2]
LECTURE = ROOT / "docs" / "lecture"
LARGEST = 150_000
"""Bytes of a figure, at most."""
SECONDS = 900
"""For one cell."""
SHARPNESS = 1.5
"""Pixels of a figure for each pixel of the page."""
_FEW = re.compile(r"^(\w+(?:: [^=\n]+)? = )(.+?)  # few: (.+)$", re.MULTILINE)
_ALT = re.compile(r"^ *# alt: (.*(?:\n *#   .*)*)\n?", re.MULTILINE)
SKIP = re.compile(r" *# fmt: skip$", re.MULTILINE)
_PICTURE = re.compile(r"!\[.*?\]\((\S+?\.png)\)")
_CODE = re.compile(r"^( *)```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_FOLDED = re.compile(r'^(!!!|\?\?\?\+?) (\w+)(?: "(.*)")?\n((?:\n| {4}.*\n?)+)', re.MULTILINE)
_LINK = re.compile(r"\[([^\]\n]+)\]\[[\w.]+\]|\[([^\]\n]+)\]\((?!https?:)[^)\n]+\)")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SETUP = f"""
import io
import warnings
import matplotlib
from matplotlib.figure import Figure

def _png(figure):
    file = io.BytesIO()
    options = dict(dpi={96 * SHARPNESS}, bbox_inches="tight", facecolor="white")
    figure.savefig(file, format="png", metadata={{"Software": None}}, **options)
    return file.getvalue()

matplotlib.use("Agg")
for category in (UserWarning, RuntimeWarning, FutureWarning):
    warnings.simplefilter("error", category)
get_ipython().display_formatter.formatters["image/png"].for_type(Figure, _png)
"""


def sources() -> list[Path]:
    """The tutorials, in the order of the lecture."""
    return sorted(LECTURE.glob("[0-9][0-9]-*.py"))


def digest(source: Path) -> str:
    """What a page was made from: its source, and the version of the package."""
    version = (ROOT / "genmod" / "version.py").read_text(encoding="utf-8")
    text = source.read_text(encoding="utf-8")
    return sha256("\n".join((version, text)).encode()).hexdigest()[:16]


def stale() -> dict[str, str]:
    """Pages that must be executed again, by name, with the reason. Nothing is executed."""
    found = {}
    for source in sources():
        page, notebook = source.with_suffix(".md"), source.with_suffix(".ipynb")
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        pictures = [LECTURE / name for name in _PICTURE.findall(text)]
        lost = [path.name for path in (*pictures, notebook) if not path.exists()]
        if not text:
            found[source.stem] = "it was never executed"
        elif f"digest: {digest(source)}\n" not in text:
            found[source.stem] = "its source, or the version, is another one"
        elif lost or len(set(pictures)) != len(list(source.with_suffix("").glob("*.png"))):
            found[source.stem] = "its figures or its notebook are not those of the page"
    pages = {page.stem for page in LECTURE.glob("[0-9][0-9]-*.md")}
    return found | {name: "it has no source" for name in pages - {p.stem for p in sources()}}


def execute(source: Path, *, few: bool = False) -> Any:
    """The notebook of a tutorial, with its output; cell 0 is this file's own.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raises an error, or warns.
    """
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    notebook = jupytext.read(source, fmt="py:percent")
    cells = [nbformat.v4.new_code_cell(_SETUP)]
    for cell in notebook.cells:
        if cell.cell_type == "code" and few:
            cell.source = _FEW.sub(r"\1\3", cell.source)
        cells.append(cell)
        if cell.cell_type == "markdown" and few:
            solutions = [dedent(match[0]) for match in _CODE.finditer(cell.source)]
            bodies = [text.split("\n", 1)[1].rsplit("\n", 1)[0] for text in solutions]
            cells += [nbformat.v4.new_code_cell(body) for body in bodies]
    notebook.cells = cells
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    environment = os.environ | threads | {"PYTHONPATH": os.pathsep.join(paths)}
    quiet = ["--IPKernelApp.log_level=40"]
    folder = {"metadata": {"path": str(LECTURE)}}
    more: Any = {"resources": folder, "extra_arguments": quiet}
    client = NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", **more)
    return client.execute(env=environment)


def render(source: Path, notebook: Any) -> tuple[str, list[bytes]]:
    """The page as Markdown, and its figures.

    Raises:
        ValueError: a figure has no alternative text, or a text no figure.
    """
    parts, figures = [f"---\ndigest: {digest(source)}\n---"], list[bytes]()
    for cell in notebook.cells[1:]:
        if cell.cell_type == "markdown":
            parts.append(SKIP.sub("", cell.source).strip())
            continue
        alts = [" ".join(re.split(r"\s*\n *#\s*", m[1])) for m in _ALT.finditer(cell.source)]
        parts.append(f"```python\n{visible(cell.source)}\n```")
        printed, pictures = outputs(cell)
        if len(pictures) != len(alts):
            raise ValueError(
                f"got {len(pictures)} figures and {len(alts)} comments '# alt: ...' in a cell of"
                f" {source.name}; expected one for each figure; the cell is:\n{cell.source}"
            )
        if printed:
            parts.append(f"``` {{ .text .output }}\n{printed}\n```")
        for alt, picture in zip(alts, pictures, strict=True):
            figures.append(reduced(picture))
            parts.append(shown(alt, f"{source.stem}/figure-{len(figures)}.png", figures[-1]))
    offered = (
        f"[Notebook]({source.stem}.ipynb){{ download }} ·"
        f" [Python file]({source.name}){{ download }}\n{{ .offered }}"
    )
    title, _, rest = parts[1].partition("\n")
    return "\n\n".join([parts[0], title, offered, rest.strip(), *parts[2:]]) + "\n", figures


def visible(code: str) -> str:
    """Code as readers see it: without the comments that are for this file."""
    return SKIP.sub("", _FEW.sub(r"\1\2", _ALT.sub("", code))).strip()


def outputs(cell: Any) -> tuple[str, list[bytes]]:
    """What a cell printed, and its figures."""
    printed, pictures = [], []
    for output in cell.outputs:
        if output.output_type == "stream":
            printed += [output.text] if output.name == "stdout" else []
        elif "image/png" in output.data:
            pictures.append(b64decode(output.data["image/png"]))
        else:
            printed.append(output.data["text/plain"] + "\n")
    text = _ESCAPE.sub("", "".join(printed))
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines()), pictures


def reduced(png: bytes, palettes: tuple[int, ...] = (256, 64, 16)) -> bytes:
    """A picture with a palette, as small as it must be.

    Raises:
        ValueError: it stays too large.
    """
    from PIL import Image

    picture = Image.open(BytesIO(png)).convert("RGB")
    for colors in palettes:
        file = BytesIO()
        method, dither = Image.Quantize.MEDIANCUT, Image.Dither.NONE
        palette = picture.quantize(colors, method=method, kmeans=1, dither=dither)
        palette.save(file, "PNG", optimize=True)
        if file.tell() <= LARGEST:
            return file.getvalue()
    raise ValueError(
        f"got a figure of {file.tell()} bytes; expected {LARGEST} at most; draw it smaller"
    )


def shown(alt: str, path: str, png: bytes) -> str:
    """A picture in Markdown, with its width on the page."""
    from PIL import Image

    width = round(Image.open(BytesIO(png)).width / SHARPNESS)
    text = alt.replace("[", "(").replace("]", ")").strip()
    return f"![{text}]({path}){{ width={width} loading=lazy }}"


def notebook_text(source: Path) -> str:
    """The notebook that is offered: no output, and text that a notebook can show."""
    import jupytext
    import nbformat

    notebook = jupytext.read(source, fmt="py:percent")
    for index, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{index}", {}
        if cell.cell_type == "code":
            # A notebook shows what pyplot drew by itself: the cell's last name would repeat it.
            code = visible(cell.source)
            cell.source = re.sub(r"\n\w+$", "", code) if "plt." in code else code
        else:
            cell.source = plain(SKIP.sub("", cell.source))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel}
    nbformat.validate(notebook)
    return str(nbformat.writes(notebook)) + "\n"


def plain(text: str) -> str:
    """Markdown of the site as Markdown of a notebook: boxes become quotes, or folded text."""

    def box(match: re.Match[str]) -> str:
        body, title = dedent(match[4]).strip("\n"), match[3] or match[2].capitalize()
        if match[1] == "!!!":
            return indent(f"**{title}**\n\n{body}", "> ", lambda _: True) + "\n\n"
        return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>\n\n"

    return _LINK.sub(lambda m: m[1] or m[2], _FOLDED.sub(box, text + "\n")).strip()


def write(source: Path, page: str, figures: list[bytes], notebook: str) -> None:
    """All files of a page; the page itself comes last."""
    folder = source.with_suffix("")
    for path in folder.glob("*.png"):
        path.unlink()
    folder.mkdir(exist_ok=True)
    for number, figure in enumerate(figures, 1):
        (folder / f"figure-{number}.png").write_bytes(figure)
    source.with_suffix(".ipynb").write_text(notebook, encoding="utf-8")
    source.with_suffix(".md").write_text(page, encoding="utf-8")


def main() -> int:
    """The command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="pages, or their numbers")
    parser.add_argument("--all", action="store_true", help="every page, stale or not")
    parser.add_argument("--few", action="store_true", help="few steps; nothing is written")
    parser.add_argument("--check", action="store_true", help="list the stale pages")
    options = parser.parse_args()
    old = stale()
    if options.check:
        print("\n".join(f"{name}: {reason}" for name, reason in old.items()) or "none is stale")
        return len(old)
    known = {path.stem: path for path in sources()}
    named = {name for name in known if {name, name[:2]} & set(options.names)}
    if len(named) < len(set(options.names)):
        parser.error(f"got {options.names}; expected some of {list(known)}")
    if not options.names:
        named = set(known) if options.all or options.few else set(known) & set(old)
    for name in sorted(named):
        begun = time.perf_counter()
        page, figures = render(known[name], execute(known[name], few=options.few))
        if not options.few:
            write(known[name], page, figures, notebook_text(known[name]))
        print(f"{name}: {len(figures)} figures, {time.perf_counter() - begun:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
