"""Looks at every page of the site in headless Chromium, and counts what a reader would call a fault.

    python docs/_build/look.py                        # builds the site, looks at every page
    python docs/_build/look.py --out pictures         # keeps the pictures there
    python docs/_build/look.py --site site guides/    # a site that is built; pages below guides/

Each page is opened from disk without a network, on a desktop and on a phone, light and dark. Faults:
TeX and Markdown that were not drawn, a page that scrolls sideways, pictures that are missing, cut off,
distorted or without alternative text, messages of errors, requests to the network, pages of more than 3 MB. The
exit status is their number, 99 at most.

Chromium is the one of ``--chromium``, ``$CHROMIUM``, or the system's. The driver is Playwright
(``pip install playwright``; its own browsers are not needed).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")
LARGEST = 3_000_000
"""Bytes of a page with its pictures."""
TALLEST = 12_000
"""Pixels of a picture of a page."""
NAMES = ("chromium", "chromium-browser", "google-chrome")

FAULTS = r"""
async () => {
  const faults = [];
  const name = (node) => {
    const text = (node.getAttribute?.("alt") || node.textContent || "").trim();
    return `${node.nodeName.toLowerCase()} ${JSON.stringify(text.slice(0, 60))}`;
  };
  for (const node of document.querySelectorAll(".katex-error"))
    faults.push(`a formula that KaTeX refuses: ${node.getAttribute("title")}`);
  for (const node of document.querySelectorAll(".katex *"))
    if (/cc0000/.test(node.getAttribute("style") || ""))
      faults.push(`a command that KaTeX does not know: ${name(node)}`);
  for (const node of document.querySelectorAll(".arithmatex"))
    if (!node.querySelector(".katex")) faults.push(`a formula that is not drawn: ${name(node)}`);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const raw = /\\[a-zA-Z]+\{|\\[()[\]]|\$\$|\$[^$\n]{1,200}\$|\\(frac|sigma|alpha|mathbb|log)\b/;
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (raw.test(node.data) && !parent.closest("code, pre, script, style, .katex, .arithmatex"))
      faults.push(`raw TeX: ${name(parent)}`);
    if (/\]\(\S+\)/.test(node.data) && !parent.closest("code, pre, script, style"))
      faults.push(`Markdown that was not drawn: ${name(parent)}`);
  }
  const root = document.documentElement, width = root.clientWidth;
  if (root.scrollWidth > width + 1) {
    faults.push(`the page is ${root.scrollWidth} wide on a screen of ${width}`);
    const free = "pre, code, .md-typeset__scrollwrap, .katex-display, .md-sidebar, .md-header, .md-tabs";
    const wide = [...document.querySelectorAll("article *")].filter(
      (node) => node.getBoundingClientRect().right > width + 1 && !node.closest(free));
    for (const node of wide.slice(0, 3)) faults.push(`too wide: ${name(node)}`);
  }
  const screen = width > 1000;
  for (const node of document.querySelectorAll(".katex-display"))
    if (screen && node.scrollWidth > node.clientWidth + 1)
      faults.push(`a formula that scrolls on a desktop: ${name(node)}`);
  for (const image of document.querySelectorAll("article img")) {
    image.loading = "eager";
    await image.decode().catch(() => {});
    const alt = (image.getAttribute("alt") || "").trim(), source = image.getAttribute("src");
    if (!alt) faults.push(`a picture without alternative text: ${source}`);
    if (!image.naturalWidth) { faults.push(`a picture that is missing: ${source}`); continue; }
    const box = image.getBoundingClientRect();
    if (!box.width) continue; // folded away
    const fits = getComputedStyle(image).objectFit === "contain";
    const shape = box.width / box.height / (image.naturalWidth / image.naturalHeight);
    if (!fits && Math.abs(shape - 1) > 0.03) faults.push(`a distorted picture: ${source}`);
    const holder = image.closest("p, td, div, figure").getBoundingClientRect();
    if (box.right > holder.right + 2 || box.left < holder.left - 2)
      faults.push(`a picture that is cut off: ${source}`);
  }
  return [...new Set(faults)];
}
"""


def build(folder: Path) -> None:
    """The site, strictly."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    subprocess.run([*command, "--site-dir", str(folder)], cwd=ROOT, check=True)


def chromium(named: str | None) -> str:
    """The browser's path.

    Raises:
        ValueError: there is none.
    """
    named = named or os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise ValueError(f"got none of {NAMES} on the path; expected Chromium; name it: --chromium")
    return found


def pages(site: Path, wanted: Sequence[str]) -> list[Path]:
    """The pages of a site, or those below the wanted paths."""
    # 404.html names its style sheets from the root of a server.
    found = sorted(path for path in site.rglob("*.html") if path.name != "404.html")
    names = [path.relative_to(site).as_posix() for path in found]
    kept = [not wanted or name.startswith(tuple(wanted)) for name in names]
    return [path for path, keep in zip(found, kept, strict=True) if keep]


def weigh(page: Path) -> Iterator[str]:
    """Faults of the size of a page with its pictures."""
    text = page.read_text(encoding="utf-8")
    sources = {(page.parent / name).resolve() for name in re.findall(r'<img[^>]* src="([^"]+)"', text)}
    size = page.stat().st_size + sum(path.stat().st_size for path in sources if path.is_file())
    if size > LARGEST:
        yield f"{size:,} bytes with its pictures; {LARGEST:,} at most"


def look(context: Any, page: Path) -> tuple[list[str], bytes]:
    """The faults of a page in one window, and its picture."""
    faults = list[str]()
    tab = context.new_page()
    tab.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" else None)
    tab.on("pageerror", lambda error: faults.append(f"script: {error}"))
    tab.on("request", lambda r: faults.append(f"network: {r.url}") if remote(r.url) else None)
    tab.goto(page.as_uri(), wait_until="load")
    faults += tab.evaluate(FAULTS)
    height = tab.evaluate("document.documentElement.scrollHeight")
    size = tab.viewport_size
    tab.set_viewport_size({"width": size["width"], "height": min(max(height, 600), TALLEST)})
    picture = tab.screenshot(type="jpeg", quality=60)
    tab.close()
    return faults, picture


def remote(url: str) -> bool:
    """Whether an address is on the network."""
    return url.startswith(("http:", "https:", "ws:", "wss:", "//"))


def look_at_all(browser: Any, site: Path, wanted: Sequence[str], out: Path) -> int:
    """Every page in every window; prints the faults, and returns their number."""
    chosen, count = pages(site, wanted), 0
    for page in chosen:
        for fault in weigh(page):
            print(f"{page.relative_to(site)}: {fault}")
            count += 1
    for size, (width, height) in SIZES.items():
        for scheme in SCHEMES:
            window = {"width": width, "height": height}
            context = browser.new_context(
                viewport=window, color_scheme=scheme, offline=True, has_touch=size == "phone"
            )
            for page in chosen:
                name = page.relative_to(site).as_posix()
                faults, picture = look(context, page)
                place = out / f"{size}-{scheme}" / name.replace("/", "_").replace(".html", ".jpg")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(picture)
                for fault in faults:
                    print(f"{name} ({size}, {scheme}): {fault}", flush=True)
                count += len(faults)
            context.close()
    print(f"{len(chosen)} pages in {len(SIZES) * len(SCHEMES)} windows: {count} faults; see {out}")
    return count


def main() -> int:
    """The command."""
    from playwright.sync_api import sync_playwright

    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="beginnings of paths in the site")
    parser.add_argument("--site", type=Path, help="a site that is built; by default it is built")
    parser.add_argument("--out", type=Path, help="folder of the pictures")
    parser.add_argument("--chromium", help="the browser")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="genmod-pages-"))
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        site = (options.site or Path(scratch)).resolve()
        if options.site is None:
            build(site)
        browser = driver.chromium.launch(executable_path=chromium(options.chromium))
        count = look_at_all(browser, site, options.pages, out)
        browser.close()
    return min(count, 99)


if __name__ == "__main__":
    sys.exit(main())
