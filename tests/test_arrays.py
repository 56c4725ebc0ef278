"""Rows of numbers from any container, in the type given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from genmod import VAE, fit, load
from genmod.arrays import as_device, as_tensor
from genmod.cli import app


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        ([[1, 2]], torch.int64),
        (([1.0, 2.0],), torch.float64),
        (np.array([[1, 2]], np.uint16), torch.int64),
        (np.array([[1, 2]], ">i4"), torch.int32),
        (np.array([[2, 1]], np.float16)[:, ::-1], torch.float16),
        ([np.array([1, 2], np.uint8)], torch.uint8),
        ([torch.tensor([1.0, 2.0])], torch.float32),
        (torch.tensor([[1, 2]], dtype=torch.uint32), torch.int64),
    ],
)
def test_rows_come_in_any_container_and_keep_their_type(x: Any, dtype: torch.dtype) -> None:
    rows = as_tensor(x)
    assert rows.dtype is dtype
    assert rows.tolist() == [[1, 2]]


def test_arrays_that_must_not_be_written_are_copied() -> None:
    x = np.ones((2, 2))
    x.flags.writeable = False
    assert as_tensor(x).tolist() == x.tolist()


@pytest.mark.parametrize(
    "x",
    [
        [[1], [1, 2]],
        [torch.zeros(2), torch.zeros(3)],
        [["a"]],
        np.array([[None]]),
        np.zeros((1, 1), np.complex128),
        torch.zeros(1, 1, dtype=torch.complex64),
        np.zeros((1, 1), np.longdouble),
        np.array([[2**63 + 5]], np.uint64),
        "digits",
        None,
        3.0,
        object(),
    ],
)
def test_what_holds_no_rows_of_numbers_is_refused(x: Any) -> None:
    with pytest.raises(ValueError, match=r"^got .*; expected .*; "):
        as_tensor(x)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "vulkan", "", "cpu:x"])
def test_a_device_that_is_not_here_is_refused_wherever_one_is_named(
    device: str, tmp_path: Path
) -> None:
    """In fit, in loading, and by a command in one sentence."""
    model = VAE(2, latents=1, width=4)
    model.save(tmp_path / "model")
    words = ["score", str(tmp_path / "model"), "rows.npy", f"--device={device or 'none'}"]
    for use in (
        lambda: as_device(device),
        lambda: fit(model, torch.randn(8, 2), steps=1, device=device, progress=False),
        lambda: load(tmp_path / "model", device=device),
    ):
        with pytest.raises(ValueError, match=r"^got device='.*expected cpu.*; leave it out"):
            use()
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 2
    assert found.stderr.startswith("got device=")
