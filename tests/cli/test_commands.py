"""Every command through its real entry point, in a process of its own: no terminal, 80 columns."""

from __future__ import annotations

import csv
import inspect
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from genmod.cli import app
from genmod.config.text import from_yaml
from genmod.files import read_tensors
from genmod.training.metrics import read_metrics
from tests.conftest import no_looks

COLUMNS = 80
TRAIN = [
    "train",
    "digits",
    "--model",
    "vae",
    "--width",
    "8",
    "--latents",
    "2",
    "--batch-size",
    "16",
]


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


def in_this_process(words: Sequence[object]) -> Answer:
    """The command without a new interpreter: the default suite cannot wait for torch fifty times."""
    environment = {"COLUMNS": str(COLUMNS)}
    found = CliRunner().invoke(
        app, [str(word) for word in words], env=environment, prog_name="genmod"
    )
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return Answer(found.exit_code, found.stdout, found.stderr)


def in_its_own_process(words: Sequence[object]) -> Answer:
    """The command as a shell runs it."""
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", ENTRY, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": str(COLUMNS), "OMP_NUM_THREADS": "1"},
        timeout=600,
        check=False,
    )
    return Answer(found.returncode, found.stdout, found.stderr)


ENTRY = "from genmod.cli import main; main()"
HOW = {"here": in_this_process, "process": in_its_own_process}
_how = ["here"]


@pytest.fixture(
    scope="module", params=["here", pytest.param("process", marks=pytest.mark.slow)], autouse=True
)
def how(request: pytest.FixtureRequest) -> str:
    """Each test runs in this process, and in the slow suite through the real entry point."""
    _how[0] = request.param
    return str(request.param)


def genmod(*words: object) -> Answer:
    """Run the command."""
    return HOW[_how[0]](words)


def done(*words: object) -> str:
    """What a command that works prints: nothing on the error channel, no line beyond 80 columns."""
    found = genmod(*words)
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr
    for line in found.stdout.splitlines():
        assert len(line) <= COLUMNS or line.startswith(("wrote", "*")), line
    return found.stdout


def refused(*words: object) -> str:
    """What a command that cannot be done says: one sentence, exit code 2."""
    found = genmod(*words)
    assert found.returncode == 2, found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    assert re.fullmatch(r"got [^\n]*; expected [^\n]*; [^\n]*\n", found.stderr), found.stderr
    return found.stderr


@pytest.fixture(scope="module", autouse=True)
def _no_looks() -> Iterator[None]:
    """No figures while training goes on."""
    with pytest.MonkeyPatch.context() as patched:
        no_looks(patched)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, how: str) -> Path:
    """A run that the command has made."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    printed = done(*TRAIN, "--steps", 8, "--no-progress", "--out", folder)
    assert "8 of 8 steps" in printed
    assert f"wrote {folder}" in printed.replace("\n", "")
    return folder


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory, how: str) -> Path:
    """A conditional diffusion."""
    folder = tmp_path_factory.mktemp("cli") / "diffusion"
    words = ["--schedule", "cosine", "--condition", "Labels(10)", "--set", "model.steps=4"]
    done(
        "train", "digits", "--model", "diffusion", *words, "--width", 8, "--steps", 4,
        "--no-progress", "--no-evaluate", "--out", folder,
    )  # fmt: skip
    return folder


def test_flags_become_settings_under_their_own_names(run: Path, diffusion: Path) -> None:
    found = from_yaml((run / "config.yaml").read_text(), "")
    assert found["training"] == {"steps": 8, "batch_size": 16}
    assert (found["model"]["latents"], found["model"]["width"]) == (2, 8)
    found = from_yaml((diffusion / "config.yaml").read_text(), "")
    assert found["model"]["schedule"]["class"] == "Cosine"
    assert found["model"]["steps"] == 4
    assert found["training"]["steps"] == 4


def test_every_command_on_a_trained_run(run: Path, tmp_path: Path) -> None:
    """One after the other, as a newcomer tries them."""
    assert "class: VAE" in done("info", run)
    tighter = done("evaluate", run, "--importance-samples", 2, "--refine-steps", 3)
    assert "importance-weighted, 2" in tighter
    assert "refined for each row, 3 steps" in tighter
    lines = list(csv.reader(io.StringIO(done("score", run, "--out", tmp_path / "scores.csv"))))
    assert lines[0][0].startswith("wrote")
    scores = list(csv.DictReader(io.StringIO((tmp_path / "scores.csv").read_text())))
    assert [int(row["row"]) for row in scores] == list(range(359))
    assert {row["stamp"] for row in scores} == {"bound"}
    report = from_yaml((run / "report.json").read_text(), "")
    mean = sum(float(row["nats"]) for row in scores) / len(scores)
    assert mean == pytest.approx(report["nats"]["mean"], rel=1e-6)
    done("sample", run, "-n", 5, "--out", tmp_path / "samples.npy")
    samples = np.load(tmp_path / "samples.npy", allow_pickle=False)
    assert samples.shape == (5, 1, 8, 8)
    done("sample", run, "-n", 2, "--out", tmp_path / "fewer.npy")
    assert np.array_equal(np.load(tmp_path / "fewer.npy"), samples[:2])
    done("sample", run, "-n", 30)
    done("reconstruct", run, "-n", 4)
    done("interpolate", run, "-n", 2, "--count", 5)
    done("interpolate", run, "-n", 2, "--path", "linear", "--out", tmp_path / "line.npy")
    assert np.load(tmp_path / "line.npy").shape == (2 * 9, 1, 8, 8)
    assert "unit 1" in done("traverse", run, "--row", 3)
    assert "of the variance" in done("map", run)
    assert "color: label" in done("map", run, "digits", "--out", tmp_path / "named.png")
    assert "all together" in done("check", run, "--replicates", 39)
    for name in ("sampled", "reconstructed", "interpolated", "traversal", "map", "check"):
        assert (run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_tilde_is_the_home_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shells leave it to the command in ``--out=~/run``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(run.parent))
    assert "8 of 8 steps" in done(
        "train", "--resume", "--no-progress", "--no-evaluate", "--out=~/run"
    )
    done("evaluate", "~/run", "--no-progress")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("as_users_run")
def test_the_parts_of_a_run_are_exported(run: Path, tmp_path: Path) -> None:
    found = genmod("export", run, "--out", tmp_path / "files", "--format", "torch")
    assert found.returncode == 0, found.stderr
    names = {path.name for path in (tmp_path / "files").iterdir()}
    assert names == {"encoder.pt2", "decoder.pt2", "export.json"}
    assert "did you mean" in genmod("export", run, "--format", "onx").stderr


def test_scores_go_to_the_screen_for_pipes(run: Path, tmp_path: Path) -> None:
    from genmod.data.images import digits

    np.save(tmp_path / "rows.npy", digits().test[:5].numpy())
    printed = done("score", run, tmp_path / "rows.npy")
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert len(rows) == 5


def test_images_outside_the_range_have_a_note(run: Path, tmp_path: Path) -> None:
    from genmod.data.images import digits

    rows = digits().test[:5].numpy().astype(np.int64)
    np.save(tmp_path / "rows.npy", rows)
    fine = list(csv.DictReader(io.StringIO(done("score", run, tmp_path / "rows.npy"))))
    rows[1, 0, 2, 3], rows[4, 0, 7, 7] = 17, -1
    np.save(tmp_path / "rows.npy", rows)
    found = genmod("score", run, tmp_path / "rows.npy")
    assert found.returncode == 0
    assert "2 of 5 rows have no score (row 1: 17, outside the whole numbers 0 to 16" in found.stderr
    mixed = list(csv.DictReader(io.StringIO(found.stdout)))
    assert [row["nats"] for row in mixed] == [
        "" if number in (1, 4) else row["nats"] for number, row in enumerate(fine)
    ]
    assert "raise bins" in refused("score", run, tmp_path / "rows.npy", "--strict")


def test_a_diffusion_is_sampled_with_a_sampler_and_labels(diffusion: Path, tmp_path: Path) -> None:
    words = ["--sampler", "DPMSolver(order=2)", "--steps", 3, "--guidance-scale", 1.5]
    done("sample", diffusion, "-n", 4, "--label", "3,7", *words, "--out", tmp_path / "x.npy")
    assert np.load(tmp_path / "x.npy").shape == (4, 1, 8, 8)
    assert "expected" in refused("sample", diffusion, "-n", 4)
    assert "did you mean 'DPMSolver'" in refused(
        "sample", diffusion, "--label", 3, "--sampler", "DPMSolvr"
    )


def test_a_dry_run_checks_everything_and_writes_nothing(tmp_path: Path) -> None:
    printed = done(*TRAIN, "--dry-run", "--out", tmp_path / "run")
    assert "class: vae" in printed
    assert "p(x | z)" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "vae"),
        (["--latents", 3], "vae"),
        (["--inference", "bottom-up"], "hvae"),
        (["--levels", 3, "--width", 8], "hvae"),
        (["--schedule", "cosine"], "diffusion"),
        (["--set", "model.level_std=0.3", "--inference", "bottom-up"], "hvae"),
    ],
)
def test_a_model_is_chosen_where_none_is_named(words: list[object], name: str) -> None:
    """And said, with the others; the first that has the settings passed."""
    # Not done(), for the formula of a diffusion is wider than 80 columns.
    printed = genmod("train", "digits", "--dry-run", *words).stdout
    first, second, *rest = printed.splitlines()
    assert first.startswith(f"model: {name}, by default: ")
    assert second.startswith("others: --model autoencoder, ")
    assert any(line.strip() == f"class: {name}" for line in rest)


def test_a_model_that_is_named_is_not_chosen(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: digits\nmodel: hvae\n")
    for words in (
        ["digits", "--model", "vae"],
        ["--config", tmp_path / "run.yaml"],
        ["digits", "--set", "model=hvae"],
        ["digits", "--set", "model.class=hvae"],
    ):
        assert "by default" not in done("train", *words, "--dry-run")


def test_a_file_of_settings_then_flags_then_set(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "data: digits\nmodel:\n  class: vae\n  width: 8\ntraining:\n  steps: 3\n  learning_rate: 1e-3\n"
    )
    done(
        "train", "--config", tmp_path / "run.yaml", "--steps", 2, "--set", "model.width=9", "--set",
        "ema=0.5", "--no-progress", "--no-evaluate", "--out", tmp_path / "run",
    )  # fmt: skip
    found = from_yaml((tmp_path / "run" / "config.yaml").read_text(), "")
    assert found["training"] == {"steps": 2, "learning_rate": 0.001, "ema": 0.5}
    assert found["model"]["width"] == 9
    again = genmod("train", "--config", tmp_path / "run" / "config.yaml", "--dry-run")
    assert again.returncode == 0, again.stderr


def test_data_are_shown_as_they_are_read(tmp_path: Path) -> None:
    assert "integers 0..16" in done("data", "digits")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 3)))
    assert "(3,), real numbers" in done("data", tmp_path / "x.npy", "--test", 0.5)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["train", "digit", "--model", "vae", "--out", "r"], "did you mean 'digits'"),
        (["train", "digits", "--model", "vea", "--out", "r"], "did you mean 'VAE'"),
        (
            ["train", "--model", "vae", "--out", "r"],
            "settings without data; expected a name or a file",
        ),
        (["train", "--out", "r"], "settings without data; expected a name or a file"),
        ([*TRAIN], "no --out"),
        ([*TRAIN, "--out", "r", "--set", "model.widht=3"], "did you mean 'width'"),
        ([*TRAIN, "--out", "r", "--set", "widht=3"], r"did you mean model\.width"),
        ([*TRAIN, "--out", "r", "--set", "width"], "a setting and its value"),
        ([*TRAIN, "--out", "r", "--set", "trainin.steps=3"], "did you mean 'training'"),
        ([*TRAIN, "--out", "r", "--schedule", "cosine"], "'schedule' of VAE"),
        ([*TRAIN, "--out", "r", "--config", "no.yaml"], "No such file"),
        ([*TRAIN, "--out", "r", "--steps", "0"], "steps=0"),
        (["info", "nowhere"], "pass the folder of a run"),
        (["sample", "nowhere"], "pass the folder of a run"),
        (["data", "nowhere.npy"], "does not exist"),
        (["map", "nowhere"], "pass the folder of a run"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.search(why, refused(*words))
    assert not (tmp_path / "r" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "digits", "--step", "3"], "--steps"),
        (["train", "digits", "--steps", "many"], "'--steps'"),
        (["sample"], "Missing argument"),
    ],
)
def test_unknown_words_suggest_the_nearest(words: list[str], why: str) -> None:
    found = genmod(*words)
    assert found.returncode == 2
    assert why in found.stderr
    assert "Traceback" not in found.stderr


def test_a_run_that_is_there_is_refused_and_is_whole_afterwards(run: Path) -> None:
    before = (run / "config.yaml").read_text()
    assert "--resume" in refused(*TRAIN, "--steps", 3, "--out", run)
    assert (run / "config.yaml").read_text() == before


def test_a_file_above_the_run_and_a_read_only_place_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "which is a file" in refused(*TRAIN, "--out", tmp_path / "file" / "run")
    assert "cannot be written" in refused(*TRAIN, "--steps", 2, "--out", "/proc/run")
    assert "cannot be written" in refused("sample", run, "--out", "/proc/samples.npy")
    assert "ends in" in refused("sample", run, "--out", tmp_path / "samples.txt")


@pytest.mark.slow
def test_ctrl_c_ends_after_the_step_with_a_checkpoint(tmp_path: Path) -> None:
    """The signal of a terminal; the same command with --resume then makes the rest."""
    steps = 100_000
    words = [
        *TRAIN,
        "--steps",
        str(steps),
        "--no-progress",
        "--no-evaluate",
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "metrics.jsonl"
    limit = time.monotonic() + 120
    while time.monotonic() < limit and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    (step,) = re.findall(r"stopped after step (\d+) of VAE, with a checkpoint", out)
    assert "genmod train --resume --out" in out
    steps_saved = [
        int(read_tensors(path, "")[1]["step"]) for path in (tmp_path / "checkpoints").iterdir()
    ]
    assert max(steps_saved) == int(step)
    assert read_metrics(metrics)[-1]["step"] <= int(step)


def test_help_is_made_of_the_docstrings() -> None:
    from genmod import fit
    from genmod.cli.settings import table
    from genmod.runs.config import NOT_SETTINGS

    names = {setting.name for setting in table() if setting.section == "training"}
    assert names == set(inspect.signature(fit).parameters) - set(NOT_SETTINGS)
    assert fit.__doc__ is not None
    words = " ".join(fit.__doc__.split())
    for setting in table():
        if setting.section == "training":
            assert setting.help, setting.name
            said = setting.help[1:-1]
            assert said in words.replace("``", ""), setting.name
    assert {"steps", "learning_rate", "latents", "schedule", "bins"} <= {s.name for s in table()}


def test_help_fits_eighty_columns() -> None:
    for words in ([], ["train"], ["evaluate"], ["score"], ["sample"], ["compare"]):
        printed = genmod(*words, "--help").stdout
        assert printed
        assert max(len(line) for line in printed.splitlines()) <= COLUMNS


def test_completion_names_models_and_data() -> None:
    environment = {
        "_GENMOD_COMPLETE": "complete_bash",
        "COMP_WORDS": "genmod train --model di",
        "COMP_CWORD": "3",
    }
    found = CliRunner().invoke(app, [], env=environment, prog_name="genmod")
    assert "diffusion" in found.output
