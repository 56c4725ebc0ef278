"""The site: its pages are narrow enough, its pictures have texts, and nothing comes from a network."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from genmod import version

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)|<img\b([^>]*)>")
FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]* src=[\"']?((?:https?:)?//[^\"' >]+)"
    r"|<link\b[^>]*rel=[\"']?(?:stylesheet|preload|preconnect|icon)[^>]* "
    r"href=[\"']?((?:https?:)?//[^\"' >]+)"
)
"""What a browser fetches when it opens a page; links that a reader may follow are none."""
IN_STYLE = re.compile(r"url\([\"']?((?:https?:)?//[^)\"']+)|@import [\"'](https?:[^\"']+)")


class Loader(yaml.SafeLoader):
    """YAML with the tags of MkDocs."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def config() -> dict[str, object]:
    found = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    assert isinstance(found, dict)
    return found


def pictures(page: Path) -> Iterator[tuple[str, str]]:
    """Alternative text and path of each picture of a page, code blocks left out."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for alt, path, attributes in IMAGE.findall(text):
        if path:
            yield alt, path
        else:
            found = dict(re.findall(r'(\w+)="([^"]*)"', attributes))
            yield found.get("alt", ""), found["src"]


def test_no_page_is_twice_in_the_navigation() -> None:
    """Nor a section: each page has one place, so that previous and next are one way."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    places = re.findall(r": (\S+\.md)$", text, re.MULTILINE)
    sections = re.findall(r"^  - ([^:\n]+):$", text, re.MULTILINE)
    assert len(places) == len(set(places))
    assert len(sections) == len(set(sections))


def test_the_site_shows_the_version() -> None:
    assert str(config()["copyright"]).startswith(f"genmod {version.__version__} ")


def test_every_picture_has_a_text_and_is_there() -> None:
    wrong = []
    for page in PAGES:
        for alt, path in pictures(page):
            if len(alt.strip()) < 5 or not (page.parent / path).is_file():
                wrong.append(f"{page.relative_to(DOCS)}: {path}: {alt!r}")
    assert not wrong


def test_no_page_is_heavy() -> None:
    """Three megabytes with its pictures, at most."""
    for page in PAGES:
        paths = {page.parent / path for _, path in pictures(page)}
        assert page.stat().st_size + sum(path.stat().st_size for path in paths) < 2_500_000, page


def test_code_has_eighty_columns() -> None:
    """What is typed. Excerpts of the package have its 100 columns; what is printed scrolls."""
    wide = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^ *```(\S+)([^\n]*)\n(.*?)^ *```", text, re.M | re.S):
            language, options, code = match.groups()
            if language in {"text", "{"} or "title=" in options:
                continue
            most = 100 if page.parent.name == "lecture" else 80  # strings of tables are not broken
            lines = [line for line in code.splitlines() if len(line) > most]
            wide += [f"{page.relative_to(DOCS)}: {line}" for line in lines]
    assert not wide


def test_no_figure_is_clipped() -> None:
    """Along its border a figure has one color: whatever it shows ends before."""
    for page in PAGES:
        for _, path in pictures(page):
            if not path.endswith(".png"):
                continue
            picture = Image.open(page.parent / path).convert("L")
            width, height = picture.size
            sides = [(0, 0, width, 1), (0, height - 1, width, height)]
            sides += [(0, 0, 1, height), (width - 1, 0, width, height)]
            for side in sides:
                low, high = picture.crop(side).getextrema()
                assert high - low < 40, f"{page.name}: {path} is cut off at {side}"  # type: ignore[operator]


@pytest.mark.slow
def test_the_site_is_built_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    for path in tmp_path.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not FETCHED.findall(text), path.name
        assert len(text.encode()) < 3_000_000
    for path in tmp_path.rglob("*.css"):
        assert not IN_STYLE.findall(path.read_text(encoding="utf-8")), path.name
    assert (tmp_path / "search" / "search_index.js").exists()  # search without a server


@pytest.mark.slow
def test_the_script_that_looks_sees_faults(tmp_path: Path) -> None:
    """A page with one fault of each kind, and one without."""
    pytest.importorskip("playwright")
    from playwright.sync_api import sync_playwright

    spec = importlib.util.spec_from_file_location("look", DOCS / "_build" / "look.py")
    assert spec is not None
    assert spec.loader is not None
    look = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(look)
    try:
        browser = look.chromium(None)
    except ValueError as error:
        pytest.skip(str(error))
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    bad = (
        '<article><p>We have $x^2$ here.</p><p><img src="a.png"></p><p><img src="b.png" alt="b"></p>'
        '<p><img src="a.png" alt="c" style="width:99px;height:99px"></p>'
        '<div style="width:3000px">wide</div><span class="katex-error" title="t">x</span>'
        '<script>throw Error("no")</script><script src="https://example.org/a.js"></script></article>'
    )
    (tmp_path / "bad.html").write_text(bad)
    (tmp_path / "good.html").write_text('<article><p><img src="a.png" alt="A bar"></p></article>')
    with sync_playwright() as driver:
        window = driver.chromium.launch(executable_path=browser)
        context = window.new_context(offline=True)
        faults = " ".join(look.look(context, tmp_path / "bad.html")[0])
        assert not look.look(context, tmp_path / "good.html")[0]
        window.close()
    expected = ["raw TeX", "without alternative", "missing: b.png", "distorted", "wide on a screen"]
    expected += ["KaTeX refuses", "script: no", "network: https://example.org"]
    assert [text for text in expected if text not in faults] == []


def test_markdown_within_html_is_drawn() -> None:
    """A block with the attribute ``markdown`` needs its extension: without it, readers see the source."""
    within = [page for page in PAGES if re.search(r"<\w+[^>]* markdown>", page.read_text("utf-8"))]
    extensions = config()["markdown_extensions"]
    assert isinstance(extensions, list)
    assert within
    assert "md_in_html" in extensions


def test_the_gallery_shows_every_example() -> None:
    """Each has a heading and its command; a figure that is kept is shown, with its text."""
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    for path in (ROOT / "examples").glob("*.py"):
        assert f"`python examples/{path.name}`" in text
    kept = {path.name for path in (DOCS / "assets" / "gallery").glob("*.png")}
    assert kept == {Path(path).name for _, path in pictures(DOCS / "gallery.md")}


def test_the_site_has_many_pictures() -> None:
    """Different files, on all pages together."""
    files = {(page.parent / path).resolve() for page in PAGES for _, path in pictures(page)}
    assert len(files) >= 80
