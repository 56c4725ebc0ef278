"""A page opened from disk in a browser without a window: what its own script finds there."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

_MARK = "found-by-the-test"
_WAIT = 4000
"""Milliseconds of the page's own clock, which the browser does not wait for."""
_SCRIPT = """
<script>
  setTimeout(async () => {{
    const shown = document.createElement("pre");
    shown.id = "{mark}";
    try {{
      shown.textContent = JSON.stringify(await (async () => {{ {body} }})());
    }} catch (error) {{
      shown.textContent = JSON.stringify({{ failed: String(error.stack) }});
    }}
    document.body.append(shown);
  }}, 0);
</script>
"""


@dataclass(frozen=True)
class Visit:
    """What a script found in a page, and what the browser wrote to its console."""

    found: Any
    console: list[str]


def visit(page: Path, body: str, clock: bool = True, fragment: str = "") -> Visit:
    """Open a copy of a page with a script added, as wide as a phone.

    Args:
        page: its HTML file.
        body: the body of an asynchronous function; what it returns comes back, through JSON.
        clock: whether the page's timers run without waiting; times measured there mean nothing.
        fragment: the part of the address after ``#``.
    """
    assert CHROMIUM is not None
    copy = page.with_name("visited.html")
    text = page.read_text(encoding="utf-8")
    script = _SCRIPT.format(mark=_MARK, body=body)
    copy.write_text(text.replace("</body>", f"{script}</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    options += [
        "--window-size=400,900",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]
    options += [f"--virtual-time-budget={_WAIT}"] if clock else []
    ran = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", f"{copy.resolve().as_uri()}#{fragment}"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    copy.unlink()
    found = re.search(f'<pre id="{_MARK}">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert found, f"the script did not end: {ran.stderr[-2000:]}"
    console = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
    return Visit(json.loads(html.unescape(found[1])), console)
