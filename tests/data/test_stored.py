"""Arrays in files: what a header promises is compared with what is there; large files stay on the disk."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genmod.data import load, stored, values
from genmod.data.stored import read_arrays
from genmod.models import VAE
from genmod.training import fit

REFUSED = r"^got [^\n]*; expected [^\n]*; [^\n]*$"
ROWS = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)


def npy(x: Any, **options: Any) -> bytes:
    """The bytes of a ``.npy`` file."""
    out = io.BytesIO()
    np.save(out, x, **options)
    return out.getvalue()


def promising(shape: str, kind: str = "<f4") -> bytes:
    """A file whose header promises a shape, with eight bytes after it."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + b"12345678"


def bomb() -> bytes:
    """A small archive that says it unpacks to 64 TB."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(np.zeros(1000)))
        for member in archive.infolist():
            member.file_size = 1 << 46
    return out.getvalue()


def archive(**members: bytes) -> bytes:
    """A ``.npz`` file of given members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(f"{name}.npy", content)
    return out.getvalue()


class Evil:
    """An object whose pickle would end the process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os._exit, (9,))


HOSTILE = {
    "pickle.npy": pickle.dumps(Evil()),
    "pickle.npz": pickle.dumps(Evil()),
    "objects.npy": npy(np.array([Evil()]), allow_pickle=True),
    "objects.npz": archive(x=npy(np.array([Evil()]), allow_pickle=True)),
    "huge.npy": promising("(1000000000000000,)"),
    "overflow.npy": promising("(9223372036854775807, 9223372036854775807)"),
    "negative.npy": promising("(-5, 3)"),
    "code.npy": promising("(__import__('os')._exit(9),)"),
    "huge.npz": archive(x=promising("(1000000000000000,)")),
    "bomb.npz": bomb(),
    "torn.npy": npy(ROWS)[:-4],
    "long.npy": npy(ROWS) + b"0000",
    "torn.npz": archive(x=npy(ROWS))[:-30],
    "text.npz": archive(x=b"no array"),
    "words.npy": npy(np.array([["a"]])),
    "empty.npz": archive(),
    "empty.npy": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_a_sentence_and_run_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match=REFUSED):
        load(path)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.endswith("npy")])
def test_the_same_holds_for_files_read_in_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "IN_PLACE", -1)
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match=REFUSED):
        load(path)


def test_an_archive_larger_than_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "zeros.npz", x=np.zeros((1000, 1000)))
    assert (tmp_path / "zeros.npz").stat().st_size < 20_000
    monkeypatch.setattr(values, "free_memory", lambda: 10 << 20)
    with pytest.raises(ValueError, match=r"zeros.npz, unpacked, .*half of what is free; save"):
        load(tmp_path / "zeros.npz")
    monkeypatch.setattr(values, "free_memory", lambda: 20 << 20)
    assert read_arrays(tmp_path / "zeros.npz")["x"].shape == (1000, 1000)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large."""
    monkeypatch.setattr(stored, "IN_PLACE", 1000)
    np.save(tmp_path / "large.npy", ROWS)
    return tmp_path / "large.npy"


def test_a_large_file_is_divided_and_left_as_it_was(large: Path) -> None:
    """Every row stands in one part, and the file keeps its bytes, whatever is written to the tensors."""
    before = large.read_bytes()
    data = load(large)
    assert [len(part) for part in data.parts().values()] == [360, 40, 100]
    together = torch.cat(list(data.parts().values()))
    assert torch.equal(together.sort(0).values, torch.from_numpy(ROWS).sort(0).values)
    assert {tuple(row) for row in together.tolist()} == {tuple(row) for row in ROWS.tolist()}
    data.train.zero_()
    assert large.read_bytes() == before
    assert torch.equal(load(large).test, data.test)
    assert not torch.equal(load(large, seed=1).test, data.test)
    assert data.split is not None
    assert data.split["kind"] == "random, in place"


def test_held_out_rows_are_a_random_sample(large: Path) -> None:
    """Also of a sorted file: the parts have one mean within four standard errors."""
    np.save(large, np.arange(3000, dtype=np.float32).reshape(1000, 3) / 1000 - 1.5)
    data = load(large)
    error = float(data.train.std()) / len(data.test) ** 0.5
    assert abs(float(data.test.mean() - data.train.mean())) < 4 * error


def test_labels_and_integers_of_a_large_file(large: Path) -> None:
    x = np.arange(2000, dtype=np.int64).reshape(500, 4) % 256
    np.save(large, x.astype(np.uint8))
    data = load(large, bins=256, labels=np.arange(500))
    assert data.labels is not None
    for split, part in data.parts().items():
        assert torch.equal(part.long(), torch.from_numpy(x[data.labels[split].numpy()]))


def test_few_rows_are_held_out_of_a_large_file(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_HELD_OUT_ROWS", 7)
    assert [len(part) for part in load(large).parts().values()] == [486, 7, 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": np.zeros(500)}, "groups for .*read in place"),
        ({"standardize": True}, "standardize for .*read in place"),
        ({"labels": np.zeros(3)}, "3 labels; expected 500"),
    ],
)
def test_what_cannot_be_done_in_place_is_refused(
    large: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(large, **options)


def test_another_order_of_values_is_refused_in_place(large: Path) -> None:
    for x in (np.asfortranarray(ROWS), ROWS.astype(">f4")):
        np.save(large, x)
        with pytest.raises(ValueError, match=r"write it again with numpy.save"):
            load(large)


def test_training_on_a_large_file_is_training_on_its_rows(large: Path) -> None:
    """Bit for bit, given the same parts."""
    data = load(large)
    whole = load(large)
    copy = type(data)("copy", whole.train.clone(), whole.validation, whole.test)
    found = []
    for each in (data, copy):
        torch.manual_seed(0)
        model = VAE(each, latents=2, width=8)
        fit(model, each, steps=5, batch_size=16, progress=False)
        found.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


_SCRIPT = """
import sys, threading, time
import torch
from genmod import VAE, data, fit

peak = 0
def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.005)
threading.Thread(target=watch, daemon=True).start()
d = data.load(sys.argv[1], bins=256 if sys.argv[2] == "uint8" else None, validation=0.0)
history = fit(VAE(d, latents=2, width=16), d, steps=20, batch_size=64, progress=False)
assert len(d.train) > 900_000 and len(history.losses) == 20
print(peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_four_gigabytes_train_within_one_of_memory(tmp_path: Path, kind: str) -> None:
    """A sparse file of 2^20 rows of 4,096 bytes; anonymous memory is what cannot be given back."""
    path = tmp_path / "sparse.npy"
    dtype = np.dtype(kind)
    np.lib.format.open_memmap(path, "w+", dtype, (1 << 20, 4096 // dtype.itemsize))
    assert path.stat().st_size > 4 << 30
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(path), kind],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) << 10 < 1 << 30
