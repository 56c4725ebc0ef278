"""The gallery: runs the examples, keeps their figures, and writes the page that shows them.

    python docs/_build/gallery.py                   # writes the page from the figures that are kept
    python docs/_build/gallery.py --run vae hvae    # runs these examples first
    python docs/_build/gallery.py --run all         # runs all of them: about an hour on one core
    python docs/_build/gallery.py --take FOLDER     # keeps the figures of a folder with the same names

What each figure shows, and of which run it is, is in ``pictures.toml``, by the figure's name. A
figure without an entry there is not shown. The figures of ``genmod compare`` are kept in the same way.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from tutorials import reduced

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs" / "assets" / "gallery"
PAGE = ROOT / "docs" / "gallery.md"
WIDEST = 1200
"""Pixels of a kept figure."""
HEADER = """# Gallery

Every file of `examples/` is a program of about 100 lines that trains a model, prints its numbers with their stamps, and draws figures. Run one
with `python examples/vae.py`; `--help` lists its options. `genmod compare` draws the figures of the last section. All figures are of the digits
that come with scikit-learn, 8 by 8 pixels, unless a text names others. A click shows a figure in full.

This page is written by `python docs/_build/gallery.py`.
"""


def texts() -> dict[str, dict[str, str]]:
    """By section, then by figure: its text."""
    path = Path(__file__).with_name("pictures.toml")
    return dict(tomllib.loads(path.read_text(encoding="utf-8")))


def examples() -> dict[str, list[str]]:
    """The examples, and the figures that each of them names in its header."""
    found = {}
    for path in sorted((ROOT / "examples").glob("*.py")):
        header = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = list(dict.fromkeys(re.findall(r"(\w+)\.png", header)))
    return found


def title(name: str) -> str:
    """The first line of an example."""
    text = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or name).partition("\n")[0].rstrip(".")


def run(name: str) -> None:
    """An example as a reader runs it; its figures are kept."""
    with tempfile.TemporaryDirectory() as scratch:
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        script = str(ROOT / "examples" / f"{name}.py")
        environment = os.environ | {"PYTHONPATH": paths, "MPLBACKEND": "Agg"}
        subprocess.run([sys.executable, script], cwd=scratch, env=environment, check=True)
        take(Path(scratch) / "runs" / "examples")


def take(folder: Path) -> None:
    """Keep the figures of a folder that have a text, small."""
    from PIL import Image, ImageOps

    KEPT.mkdir(exist_ok=True)
    section = "compare" if folder.name == "figures" else "examples"
    for path in sorted(folder.glob("*.png")):
        if path.stem not in texts()[section]:
            continue
        picture = Image.open(path).convert("RGB")
        if picture.width > WIDEST:
            height = round(picture.height * WIDEST / picture.width)
            picture = picture.resize((WIDEST, height), Image.Resampling.LANCZOS)
        picture = ImageOps.expand(picture, 8, "white")
        file = BytesIO()
        picture.save(file, "PNG")
        kept = f"compare-{path.name}" if section == "compare" else path.name
        (KEPT / kept).write_bytes(reduced(file.getvalue(), (48, 32)))


def shown(name: str, text: str) -> str:
    """A thumbnail that leads to its figure, and its text."""
    path = f"assets/gallery/{name}.png"
    return f"[![{text}]({path}){{ loading=lazy }}]({path})\n{text}\n"


def page() -> str:
    """The gallery."""
    parts, known = [HEADER], texts()
    for name, figures in examples().items():
        kept = [figure for figure in figures if (KEPT / f"{figure}.png").exists()]
        parts.append(f"## {title(name)}\n\n`python examples/{name}.py`\n")
        if kept:
            parts.append(grid({figure: known["examples"][figure] for figure in kept}))
    parts.append("## All models side by side\n\n`genmod compare`\n")
    parts.append(grid({f"compare-{name}": text for name, text in known["compare"].items()}))
    return "\n".join(parts)


def grid(figures: dict[str, str]) -> str:
    """Thumbnails in columns."""
    cells = "\n".join(shown(name, text) for name, text in figures.items())
    return f'<div class="gallery" markdown>\n\n{cells}\n</div>\n'


def main() -> int:
    """The command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", nargs="+", default=[], metavar="NAME", help="examples, or: all")
    parser.add_argument("--take", type=Path, action="append", default=[], help="a folder of figures")
    options = parser.parse_args()
    for folder in options.take:
        take(folder)
    for name in examples() if options.run == ["all"] else options.run:
        run(name)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
