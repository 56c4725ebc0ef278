"""Milliseconds of a sampler's step in the lab, the page that runs a diffusion in a browser.

The page in docs/lab is opened in Chromium, without a window, and its denoiser runs 20 steps of DDIM with
guidance, which is two rows a call, some times over. The aim is below 100 ms a step.

Run: python benchmarks/lab.py
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from common import write

PAGE = Path(__file__).parents[1] / "docs" / "lab"
SCRIPT = """
<script>
  const { model } = lab.sections.find((each) => each.model.kind === "diffusion");
  const times = Array.from({ length: ROUNDS }, () => lab.check(model).milliseconds);
  const shown = document.createElement("pre");
  shown.id = "times";
  shown.textContent = JSON.stringify(times);
  document.body.append(shown);
</script>
"""


def milliseconds(page: Path, rounds: int) -> list[float]:
    """Milliseconds of one step, in each round."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise SystemExit("needs Chromium")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(page, Path(folder) / "lab")) / "index.html"
        script = SCRIPT.replace("ROUNDS", str(rounds))
        copy.write_text(copy.read_text().replace("</body>", f"{script}</body>"))
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        ran = subprocess.run(
            [*command, copy.as_uri()], capture_output=True, text=True, check=True, timeout=600
        )
    found = re.search(r'<pre id="times">(.*?)</pre>', ran.stdout)
    if found is None:
        raise SystemExit(f"the page did not finish: {ran.stderr[-1000:]}")
    times: list[float] = json.loads(found[1])
    return times


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE, help="the folder of a page")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    given = parser.parse_args()
    times = sorted(milliseconds(given.page, given.rounds))
    middle = times[len(times) // 2]
    print(f"a step of DDIM with guidance: median {middle:.2f} ms, slowest {times[-1]:.2f} ms")
    write(given.out, {"milliseconds": times})


if __name__ == "__main__":
    main()
