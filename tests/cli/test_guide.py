"""Every command of the guide and the README runs as it stands, with a few steps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genmod.cli import app
from tests.cli.test_tables import table

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("as_users_run", "few_rows")
def test_the_commands_of_the_guide_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one folder, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "mine.csv")
    text = (ROOT / "docs" / "guides" / "commands.md").read_text(encoding="utf-8")
    commands = [
        line for block in BLOCK.findall(text) for line in block.replace("\\\n", "").splitlines()
    ]
    assert len(commands) > 12
    for command in commands:
        words = shlex.split(re.sub(r"--steps 2000", "--steps 4", command))
        assert words[0] == "genmod"
        extra = ["--no-progress"] if words[1] in ("train", "evaluate") else []
        found = CliRunner().invoke(app, [*words[1:], *extra], prog_name="genmod")
        assert found.exit_code == 0, f"{command}: {found.output}{found.stderr}{found.exception}"


def test_the_guide_names_every_command() -> None:
    text = (ROOT / "docs" / "guides" / "commands.md").read_text(encoding="utf-8")
    named = set(re.findall(r"genmod ([a-z]+)", text))
    assert {
        str(each.name or each.callback.__name__)
        for each in app.registered_commands
        if each.callback
    } <= named
