"""More than 100 hostile or broken files: each is named in one sentence, and none of them runs anything."""

from __future__ import annotations

import re
import shutil
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from genmod import VAE, load
from genmod.data import load as load_data
from genmod.training import fit
from genmod.training.metrics import read_metrics
from tests.runs.hostile import MODELS, Payload, cases, pickles

TRACE = Path(tempfile.gettempdir()) / "genmod-hostile-trace"
CASES = cases(TRACE)
SENTENCE = re.compile(r"got .*; expected .*; .*", re.S)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model."""
    return VAE(3, latents=2, width=8).save(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def trace() -> Iterator[Path]:
    """The file that no payload may leave."""
    TRACE.unlink(missing_ok=True)
    yield TRACE
    assert not TRACE.exists(), "something of the file's making was run"


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_named_in_one_sentence(
    name: str, saved: Path, tmp_path: Path, trace: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    CASES[name](folder, trace)
    with pytest.raises(ValueError, match=SENTENCE) as found:
        load(folder)
    said = str(found.value)
    assert said.count("; expected ") == 1, said
    assert len(said) < 1500, said
    assert not re.search(r"0x[0-9a-f]{8,}", said), said


def test_there_are_more_than_a_hundred() -> None:
    assert len(CASES) > 100


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("name", ["a width of 10^6", "latents of 10^12", "a shape of 2^60"])
def test_a_file_of_few_bytes_cannot_ask_for_much_memory(
    name: str, saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved, tmp_path / "model")
    text = f"format: genmod-model-2\nmodel: {MODELS[name]}\n"
    (tmp_path / "model" / "config.yaml").write_text(text)
    tracemalloc.start()
    with pytest.raises(ValueError, match=SENTENCE):
        load(tmp_path / "model")
    assert tracemalloc.get_traced_memory()[1] < 1 << 26
    tracemalloc.stop()


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("name", [name for name, _ in pickles(TRACE)])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_file_of_rows_that_is_a_pickle_is_refused(
    name: str, suffix: str, tmp_path: Path, trace: Path
) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(dict(pickles(trace))[name])
    with pytest.raises(ValueError, match=SENTENCE):
        load_data(path)


@pytest.mark.usefixtures("as_users_run")
def test_objects_inside_an_archive_of_arrays_are_refused(tmp_path: Path, trace: Path) -> None:
    objects = np.array([Payload(trace)], dtype=object)
    np.savez(tmp_path / "rows.npz", x=objects, y=np.zeros(1))
    with pytest.raises(ValueError, match=SENTENCE):
        load_data(tmp_path / "rows.npz")


@pytest.mark.parametrize("name", [name for name, _ in pickles(TRACE)])
def test_a_checkpoint_that_is_a_pickle_is_refused(name: str, tmp_path: Path, trace: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(dict(pickles(trace))[name])
    with pytest.raises(ValueError, match=SENTENCE):
        fit(
            VAE(3, latents=2, width=8), torch.randn(20, 3), steps=1, checkpoint=path, progress=False
        )


@pytest.mark.parametrize(
    "text", ["[]\n", "3\n", "not json\n", "[" * 100_000 + "\n", '{"step": 1}\n', "null\n", "\x00\n"]
)
def test_metrics_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    whole = '{"stage": 0, "step": 1, "loss": 2.0}\n'
    (tmp_path / "metrics.jsonl").write_text(whole + text + whole)
    with pytest.raises(ValueError, match=SENTENCE):
        read_metrics(tmp_path / "metrics.jsonl")
