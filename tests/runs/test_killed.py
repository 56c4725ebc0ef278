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
from collections.abc import Callable
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


def killed(folder: Path, due: Callable[[], bool], count: int, draw: random.Random) -> bool:
    """Go on with the run, and kill all its processes once it is due; whether it was done before."""
    port = free_port()
    children = [started(folder, rank, count, port) for rank in range(count)]
    codes: dict[int, int] = {}
    limit = time.monotonic() + 1000
    while time.monotonic() < limit and len(codes) < count and not due():
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


def made(folder: Path) -> int:
    """The number of lines of metrics."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def moment(folder: Path, step: int, seconds: float) -> Callable[[], bool]:
    """Whether some seconds have passed since a step, or since now if it was made before."""
    since: list[float] = []

    def due() -> bool:
        if not since and made(folder) >= step:
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= seconds

    return due


def kill_at_random_moments(tmp_path: Path, count: int) -> None:
    """Train one run whole, and one that is killed again and again; compare their files.

    Half of the kills come at any time of a start, the others after some steps: so the run goes on, also on
    a busy machine.
    """
    if count > 1:
        importlib.import_module("accelerate")  # once, before the children start
    draw, whole, folder, times = random.Random(0), tmp_path / "whole", tmp_path / "killed", [0.0]

    def first_step() -> bool:
        if len(times) == 1 and made(whole):
            times.append(time.monotonic())
        return False

    times[0] = time.monotonic()
    assert killed(whole, first_step, count, draw)
    start, training = times[1] - times[0], time.monotonic() - times[1]
    steps, kills = [0], 0
    for number in range(KILLS):
        step, seconds = 0, draw.uniform(0, start)
        if number % 2:
            step = steps[-1] + draw.randint(1, max(2, 2 * STEPS // KILLS))
            seconds = draw.uniform(0, 5 * training / STEPS)
        if killed(folder, moment(folder, step, seconds), count, draw):
            break
        kills += 1
        if folder.exists():
            steps.append(check_files(folder))
    print(f"{kills} kills, checkpoints at {sorted(set(steps))}")
    assert steps == sorted(steps)
    assert len(set(steps)) > 1
    assert killed(folder, lambda: False, count, draw)
    check_files(folder)
    same_run(folder, whole)
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
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    launcher += ["-m", "genmod"]
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
