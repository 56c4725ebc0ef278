"""Two processes give what one gives with the same batches; files are the main process's alone."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

from genmod.files import read_tensors
from genmod.models import VAE
from genmod.objectives import Batch
from genmod.training import fit
from genmod.training.devices import Devices
from genmod.training.metrics import read_metrics
from tests.training.processes import RUNS, STEPS

ROOT = Path(__file__).parents[2]
EQUAL = 1e-6
STAGES = 1e-4
"""A second stage starts from measured latents: their rounding grows in training."""


class _Accelerator:
    """What accelerate would say in one of several processes."""

    mixed_precision, device = "no", "cpu"

    def __init__(self, index: int, count: int, kind: str = "MULTI_CPU") -> None:
        self.process_index, self.num_processes = index, count
        self.is_main_process = index == 0
        self.distributed_type = type("Kind", (), {"value": kind})


# ------------------------------------------------------------------ rows of each process


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_row_belongs_to_one_process(count: int) -> None:
    parts = [Batch(torch.arange(5.0)[:, None]), Batch(torch.arange(5.0, 9.0)[:, None])]
    found: list[Tensor] = []
    for index in range(count):
        mine, places = Devices.of(_Accelerator(index, count), None).share(parts)
        for part, place in zip(mine, places, strict=True):
            first, rows, total = place
            assert total == 9
            assert part.x.flatten().tolist() == list(range(first, first + rows))
            found.append(part.x)
    assert torch.cat(found).flatten().sort().values.tolist() == list(range(9))


def test_fewer_rows_than_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="batch of 1 rows for 2 processes"):
        Devices.of(_Accelerator(0, 2), None).share([Batch(torch.zeros(1, 1))])


def test_sharded_models_and_other_devices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"accelerator of kind FSDP.*shard=True"):
        Devices.of(_Accelerator(0, 2, "FSDP"), None)
    with pytest.raises(ValueError, match="device=meta; expected cpu"):
        Devices.of(_Accelerator(0, 2), "meta")


def test_a_launcher_without_accelerate_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ValueError, match=r"genmod-torch\[accelerate\]"):
        fit(VAE(2, latents=1, width=4), torch.randn(8, 2), steps=1, progress=False)


@pytest.mark.parametrize("made", [False, True], ids=["own", "the user's"])
def test_a_process_group_is_left_by_whoever_made_it(
    made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for all runs of a process: the second one finds the group of the first."""
    registered: list[object] = []
    monkeypatch.setattr(atexit, "register", registered.append)
    monkeypatch.setattr(distributed, "is_initialized", lambda: made)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    fake = types.ModuleType("accelerate")
    vars(fake)["Accelerator"] = lambda **_: _Accelerator(0, 2)
    vars(fake)["DistributedDataParallelKwargs"] = dict
    monkeypatch.setitem(sys.modules, "accelerate", fake)
    assert Devices.of(None, "cpu").count == 2
    assert len(registered) == (0 if made else 1)


# ------------------------------------------------------------------ two processes beside one


def launched(folder: Path, count: int) -> None:
    module = ["-m", "tests.training.processes", str(folder)]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    done = subprocess.run(
        [sys.executable, *(launcher if count > 1 else []), *module],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What one process wrote, and what two wrote."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    launched(one, 1)
    launched(two, 2)
    return one, two


def apart(first: Path, second: Path) -> float:
    """The largest difference of two files of weights."""
    left, right = (read_tensors(path, "")[0] for path in (first, second))
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def _initial_scale() -> Tensor:
    model = RUNS["sharded diffusion in parts"][0]()
    (scale,) = (p for n, p in model.named_parameters() if n.endswith("log_scale"))
    return scale.detach()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_give_what_one_gives(name: str, folders: tuple[Path, Path]) -> None:
    one, two = (folder / name.replace(" ", "-") for folder in folders)
    assert apart(two / "weights-0.safetensors", two / "weights-1.safetensors") == 0
    tolerance = STAGES if name.endswith("latent diffusion") else EQUAL
    assert apart(one / "weights-0.safetensors", two / "weights-0.safetensors") < tolerance
    single, first, second = (
        json.loads((folder / f"history-{rank}.json").read_text())
        for folder, rank in ((one, 0), (two, 0), (two, 1))
    )
    assert first == second
    assert len(first["losses"]) == STEPS
    for key in ("losses", "validations"):
        assert first[key] == pytest.approx(single[key], abs=1e-3, rel=1e-5)
    # One process writes, so that each step is listed once.
    steps = [(row["stage"], row["step"]) for row in read_metrics(two / "metrics.jsonl")]
    assert len(steps) == len(set(steps)) > 0
    assert (two / "run.safetensors").exists()


@pytest.mark.slow
def test_a_resumed_run_of_two_processes_equals_an_uninterrupted_one(
    folders: tuple[Path, Path],
) -> None:
    for name in ("vae", "sharded-vae"):
        whole, resumed = (
            folders[1] / each / "weights-1.safetensors" for each in (name, f"{name}-resumed")
        )
        assert apart(whole, resumed) == 0


@pytest.mark.slow
def test_a_learned_scale_trains_in_shards(folders: tuple[Path, Path]) -> None:
    """``fully_shard`` takes no parameter that is one number: it is whole in every process."""
    for folder in folders:
        path = folder / "sharded-diffusion-in-parts" / "weights-0.safetensors"
        (scale,) = (v for n, v in read_tensors(path, "")[0].items() if n.endswith("log_scale"))
        assert scale.ndim == 0
        assert abs(float(scale) - float(_initial_scale())) > 0.001


@pytest.mark.slow
def test_all_processes_stop_at_a_loss_that_is_not_finite(folders: tuple[Path, Path]) -> None:
    for rank in (0, 1):
        assert "at step 1" in (folders[1] / f"diverged-{rank}.txt").read_text()
