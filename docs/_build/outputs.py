"""What the code blocks of the guides print and draw: executed once, and kept in the page.

    python docs/_build/outputs.py               # executes the stale pages
    python docs/_build/outputs.py start.md      # this page, stale or not
    python docs/_build/outputs.py --check       # lists the stale pages and executes nothing

A block that is followed by a block of output shows what it prints:

    ``` { .text .output }
    ```

A picture of ``assets/guides`` is drawn by the block above it. Its name is that of the page, a dash,
and the variable that holds the figure: ``![An error](../assets/guides/samplers-orders.png)`` in
``samplers.md`` shows ``orders``.

Blocks of a page run in order, in one namespace, in an empty folder, after ``torch.manual_seed(0)``.
The digests of their code are in ``assets/guides/digests.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from contextlib import redirect_stdout
from hashlib import sha256
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from tutorials import SHARPNESS, reduced

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
KEPT = DOCS / "assets" / "guides"
DIGESTS = KEPT / "digests.json"
PIECE = re.compile(
    r"^```python\n(?P<code>.*?)^```$"
    r"|^``` \{ \.text \.output \}\n(?P<output>.*?)^```$"
    r"|^!\[(?P<alt>[^\]]*)\]\((?P<path>(?:\.\./)?assets/guides/(?P<name>[\w-]+)\.png)\)[^\n]*$",
    re.MULTILINE | re.DOTALL,
)


def shown(page: Path) -> bool:
    """Whether a page shows what its blocks print or draw."""
    found = PIECE.finditer(page.read_text(encoding="utf-8"))
    return page.parent.name != "lecture" and any(m["code"] is None for m in found)


def pages() -> list[Path]:
    """The pages that show output."""
    return [page for page in sorted(DOCS.rglob("*.md")) if shown(page)]


def digest(page: Path) -> str:
    """That of the code of a page, and of the places of its output."""
    parts = [(ROOT / "genmod" / "version.py").read_text(encoding="utf-8")]
    for match in PIECE.finditer(page.read_text(encoding="utf-8")):
        parts.append(match["code"] or match["name"] or "output")
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def digests() -> dict[str, str]:
    """The digests of the pages when they were last executed."""
    return dict(json.loads(DIGESTS.read_text(encoding="utf-8"))) if DIGESTS.exists() else {}


def name_of(page: Path) -> str:
    """A page's path below ``docs``."""
    return page.relative_to(DOCS).as_posix()


def stale() -> list[str]:
    """Pages whose code is not the one that was executed, and lost or unknown pictures."""
    known = digests()
    found = {name_of(page): digest(page) for page in pages()}
    changed = [name for name in found if known.get(name) != found[name]]
    gone = [f"{name} (shows no output any more)" for name in known if name not in found]
    named = {
        match["name"]
        for page in pages()
        for match in PIECE.finditer(page.read_text(encoding="utf-8"))
        if match["name"]
    }
    files = {path.stem for path in KEPT.glob("*.png")}
    return changed + gone + [f"assets/guides/{name}.png" for name in sorted(named ^ files)]


def executed(page: Path) -> str:
    """The page's text with its output; pictures are written beside the others.

    Raises:
        ValueError: a picture names no figure of the page.
    """
    import torch

    namespace: dict[str, Any] = {"__name__": "page"}
    text, done, printed, result = page.read_text(encoding="utf-8"), 0, "", list[str]()
    torch.manual_seed(0)
    for match in PIECE.finditer(text):
        result.append(text[done : match.start()])
        done = match.end()
        if match["code"] is not None:
            out = StringIO()
            lines = "\n" * text[: match.start("code")].count("\n")
            with redirect_stdout(out):
                # Without the future imports of this file: a reader has not typed them.
                code = compile(lines + match["code"], str(page), "exec", dont_inherit=True)
                exec(code, namespace)
            printed = "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())
            result.append(match[0])
        elif match["output"] is not None:
            result.append(f"``` {{ .text .output }}\n{printed}```")
        else:
            picture = drawn(page, match["name"], namespace)
            (KEPT / f"{match['name']}.png").write_bytes(picture)
            width = round(int.from_bytes(picture[16:20], "big") / SHARPNESS)
            options = f"{{ width={width} loading=lazy }}"
            result.append(f"![{match['alt']}]({match['path']}){options}")
    return "".join([*result, text[done:]])


def drawn(page: Path, name: str, namespace: dict[str, Any]) -> bytes:
    """The figure that a picture's name asks for."""
    from matplotlib.figure import Figure

    figure = namespace.get(name.removeprefix(f"{page.stem}-").replace("-", "_"))
    if not isinstance(figure, Figure):
        raise ValueError(
            f"got the picture {name!r} of {page.name}, and no figure of that name in its blocks;"
            f" expected {page.stem}-VARIABLE; assign the figure to that variable"
        )
    file = BytesIO()
    figure.savefig(
        file, format="png", dpi=96 * SHARPNESS, bbox_inches="tight", metadata={"Software": None}
    )
    return reduced(file.getvalue())


def main() -> int:
    """The command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="PAGE", help="pages below docs")
    parser.add_argument("--check", action="store_true", help="list the stale pages")
    options = parser.parse_args()
    old = stale()
    if options.check:
        print("\n".join(old) or "none is stale")
        return len(old)
    os.environ.setdefault("MPLBACKEND", "Agg")
    KEPT.mkdir(exist_ok=True)
    listed = {name_of(page): page for page in pages()}
    for name in options.names or [name for name in old if name in listed]:
        begun, page = time.perf_counter(), listed[name]
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            page.write_text(executed(page), encoding="utf-8")
            os.chdir(ROOT)
        found = digests() | {name: digest(page)}
        kept = {key: found[key] for key in sorted(found) if key in listed}
        DIGESTS.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
