"""The Start page and the guides that show output: what they print is what their code prints."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from genmod.cli import app

ROOT = Path(__file__).parents[2]
START = ROOT / "docs" / "start.md"
QUESTIONS = ROOT / "docs" / "faq.md"


@pytest.fixture(scope="module")
def outputs() -> ModuleType:
    """The script, which is in no package."""
    path = ROOT / "docs" / "_build" / "outputs.py"
    spec = importlib.util.spec_from_file_location("outputs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_output_is_stale(outputs: ModuleType) -> None:
    """Mend a page that is named here with ``python docs/_build/outputs.py``."""
    assert not outputs.stale()


def test_output_is_that_of_the_code(
    outputs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Printed text below its block, and a figure by its variable; changed code is noticed."""
    monkeypatch.setattr(outputs, "DOCS", tmp_path)
    monkeypatch.setattr(outputs, "KEPT", tmp_path)
    monkeypatch.setattr(outputs, "DIGESTS", tmp_path / "digests.json")
    page = tmp_path / "a.md"
    page.write_text(
        "# A\n```python\nfrom matplotlib.figure import Figure\nline = Figure((2, 1))\nprint(1 + 1)\n```\n\n"
        "``` { .text .output }\n```\n\n![A line](assets/guides/a-line.png)\n"
    )
    made = outputs.executed(page)
    assert "output }\n2\n```" in made
    assert re.search(r"a-line.png\)\{ width=\d+ loading=lazy \}\n$", made)
    assert (tmp_path / "a-line.png").read_bytes().startswith(b"\x89PNG")
    page.write_text(made)
    assert outputs.executed(page) == made
    typed = tmp_path / "b.md"  # as a reader types it: without this file's future imports
    typed.write_text(
        "```python\nx: int = 1\nprint(__annotations__)\n```\n\n``` { .text .output }\n```\n"
    )
    assert "{'x': <class 'int'>}" in outputs.executed(typed)
    typed.unlink()
    assert outputs.stale() == ["a.md"]
    (tmp_path / "digests.json").write_text(f'{{"a.md": "{outputs.digest(page)}"}}')
    assert not outputs.stale()
    page.write_text(made.replace("1 + 1", "1 + 2"))
    assert outputs.stale() == ["a.md"]


def test_the_commands_of_the_start_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the table that the page writes; the first block is the installation."""
    monkeypatch.chdir(tmp_path)
    text = START.read_text(encoding="utf-8")
    table = re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert table is not None
    exec(compile(table[1], str(START), "exec", dont_inherit=True), {})
    install, commands = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert install.splitlines()[-1] == "pip install ."
    for command in commands.splitlines():
        words = shlex.split(command.replace("--steps 2000", "--steps 4"))
        assert words[0] == "genmod"
        found = CliRunner().invoke(app, words[1:], prog_name="genmod")
        assert found.exit_code == 0, f"{command}: {found.output}{found.exception}"
    assert (tmp_path / "new.csv").read_text().startswith("alcohol,")


@pytest.mark.parametrize(
    "words",
    [
        "posterior collapse",
        "bits per dimension",
        "latent scale factor",
        "DataLoader",
        "CSV",
        "multi-GPU",
        "mixed precision",
        "FID",
        "classifier-free guidance",
        "missing values",
        "NaN",
        "epsilon",
    ],
)
def test_the_questions_have_the_words_of_a_search(words: str) -> None:
    assert words.lower() in QUESTIONS.read_text(encoding="utf-8").lower()
