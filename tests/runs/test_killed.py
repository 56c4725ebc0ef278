"""A run that is killed at any moment, again and again, ends as one that was not: bit for bit.

``GENMOD_KILLS=50`` kills that often; by default a few times.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest

from genmod.files import read_json, read_tensors
from genmod.runs import RunConfig, train
from genmod.training.metrics import read_metrics
from tests.runs.test_training import same_run

EVERY, STEPS = 5, 300
SETTINGS = {
    "data": "digits",
    "model": "VAE(latents=2, width=8)",
    "training": {
        "steps": STEPS,
        "checkpoint_every": EVERY,
        "batch_size": 16,
        "warmup": 2,
        "log_every": 1,
    },
}
KILLS = int(os.environ.get("GENMOD_KILLS", "8"))


def check_files(folder: Path) -> int:
    """Every file that is there can be read; returns the step of the checkpoint."""
    if (folder / "config.yaml").exists():
        assert RunConfig.read(folder).training["steps"] == STEPS
    for name in ("environment.json", "report.json"):
        if (folder / name).exists():
            read_json(folder / name, f"genmod-{Path(name).stem}-1", "")
    for file in folder.rglob("*.png"):
        assert file.read_bytes().endswith(b"IEND\xaeB`\x82"), file
    step = 0
    for file in folder.rglob("*.safetensors"):
        tensors, metadata = read_tensors(file, "")
        assert tensors
        step = max(step, int(metadata.get("step", 0)))
    metrics = folder / "metrics.jsonl"
    lines = read_metrics(metrics) if metrics.exists() else []
    made = lines[-1]["step"] if lines else 0
    assert made <= step + EVERY, "more steps lost than lie between two checkpoints"
    return step


def free_port() -> int:
    """A port that no process listens to."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def started(folder: Path, rank: int, count: int, port: int) -> int:
    """Go on with the run in a child, one of several that share every batch; the number of the child."""
    child = os.fork()
    if child:
        return child
    try:
        if count > 1:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in place.items()})
            os.environ["MASTER_ADDR"] = "localhost"
        train(SETTINGS, folder, resume=True, progress=False)
        os._exit(0)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(1)


def killed(folder: Path, seconds: float, count: int, draw: random.Random) -> bool:
    """Go on with the run, and kill all its processes after some time; whether it was done before."""
    port = free_port()
    children = [started(folder, rank, count, port) for rank in range(count)]
    codes: dict[int, int] = {}
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and len(codes) < count:
        for child in set(children) - codes.keys():
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                codes[child] = os.waitstatus_to_exitcode(status)
                assert codes[child] == 0
        time.sleep(0.001)
    # In any order: the main process may be the last one to die, or the first.
    for child in draw.sample(children, count):
        if child not in codes:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            time.sleep(0.05 * draw.random())
    return len(codes) == count


def kill_at_random_moments(tmp_path: Path, count: int) -> None:
    """Train one run whole, and one that is killed again and again; compare their files."""
    if count > 1:
        importlib.import_module("accelerate")  # once, before the children start
    began, draw = time.monotonic(), random.Random(0)
    assert killed(tmp_path / "whole", 600, count, draw)
    span = time.monotonic() - began
    folder, steps = tmp_path / "killed", [0]
    for _ in range(KILLS):
        # A few kills fall into the start and the end, where the other files are written.
        if killed(folder, draw.uniform(0, 2 * span / KILLS + 0.2 * count), count, draw):
            break
        if folder.exists():
            steps.append(check_files(folder))
    assert steps == sorted(steps)
    # On a busy machine many kills come before the first new checkpoint.
    assert len(set(steps)) > 1
    assert killed(folder, 600, count, draw)
    check_files(folder)
    same_run(folder, tmp_path / "whole")
    assert not list(folder.rglob("*.writing"))


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_killed_at_random_moments_it_ends_bit_for_bit_the_same(count: int, tmp_path: Path) -> None:
    """In a process of its own: autograd refuses to work in a fork of one whose threads have started."""
    if count > 1:
        pytest.importorskip("accelerate")
    module = [sys.executable, "-W", "ignore", "-m", "tests.runs.test_killed", str(tmp_path)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*module, str(count)], cwd=root, env=environment, check=True)


@pytest.mark.slow
def test_the_command_is_killed_and_goes_on(tmp_path: Path) -> None:
    """The same through the real entry point, with the kill in the middle of training."""
    words = ["train", "digits", "--model", "vae", "--latents", "2", "--width", "8", "--batch-size"]
    words += [
        "16",
        "--warmup",
        "2",
        "--log-every",
        "1",
        "--steps",
        str(STEPS),
        "--checkpoint-every",
        str(EVERY),
    ]
    words += ["--no-progress", "--no-evaluate", "--resume", "--out", str(tmp_path / "killed")]
    code = [sys.executable, "-c", "from genmod.cli import main; main()", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    train(SETTINGS, tmp_path / "whole", progress=False, scored=False)
    for lines in (20, 100):
        process = subprocess.Popen(code, env=environment, stdout=subprocess.DEVNULL)
        limit = time.monotonic() + 200
        while time.monotonic() < limit and process.poll() is None:
            path = tmp_path / "killed" / "metrics.jsonl"
            if path.exists() and path.read_bytes().count(b"\n") >= lines:
                break
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert check_files(tmp_path / "killed") > 0
    subprocess.run(code, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=300)
    same_run(tmp_path / "killed", tmp_path / "whole")


# ------------------------------------------------------------------ two processes of the command


def launched(folder: Path, count: int, *words: object) -> subprocess.Popen[str]:
    """The command in several processes, as a shell starts it."""
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={count}"]
    launcher += [f"--master_port={free_port()}", "-m", "genmod"]
    plain = ["-m", "genmod"]
    train_words = ["train", "digits", "--model", "vae", "--latents", "2", "--width", "8"]
    train_words += ["--batch-size", "16", "--warmup", "2", "--no-progress", "--out", str(folder)]
    return subprocess.Popen(
        [sys.executable, *(plain if count == 1 else launcher), *train_words, *map(str, words)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(tmp_path: Path) -> None:
    """The same weights up to rounding, in one folder, written and shown once."""
    pytest.importorskip("accelerate")
    for count in (1, 2):
        process = launched(tmp_path / str(count), count, "--steps", 12)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out.count("12 of 12 steps") == 1
        assert out.count("wrote") == 1
        sessions = read_json(tmp_path / str(count) / "environment.json", "genmod-environment-1", "")
        assert len(sessions["sessions"]) == 1
    one, two = (read_tensors(tmp_path / name / "model.safetensors", "")[0] for name in "12")
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6
    reports = [read_json(tmp_path / name / "report.json", "genmod-report-1", "") for name in "12"]
    assert reports[0]["nats"]["mean"] == pytest.approx(reports[1]["nats"]["mean"], rel=1e-5)


@pytest.mark.slow
def test_a_signal_ends_two_processes_after_the_same_step(tmp_path: Path) -> None:
    """The signal with which a scheduler ends a job; the launcher passes it on."""
    pytest.importorskip("accelerate")
    process = launched(tmp_path, 2, "--steps", 100_000, "--no-evaluate")
    metrics, limit = tmp_path / "metrics.jsonl", time.monotonic() + 200
    while time.monotonic() < limit and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=100)
    assert out.count("stopped after step") == 1, err
    (file,) = (tmp_path / "checkpoints").glob("stage-*.safetensors")
    step = int(read_tensors(file, "")[1]["step"])
    assert f"stopped after step {step} of VAE, with a checkpoint" in out


if __name__ == "__main__":
    kill_at_random_moments(Path(sys.argv[1]), int(sys.argv[2]))
