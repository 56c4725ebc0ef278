"""The table of biases runs, and its reference is the conditional Gaussian."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.inverse.cases import Problem
from tests.oracles import F64, GaussianData

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script, imported as running it does."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("posteriors")
    for name in ("posteriors", "common"):
        sys.modules.pop(name, None)


def test_the_reference_is_the_posterior(script: ModuleType) -> None:
    """Two routes to the hidden numbers' law."""
    data = GaussianData(torch.zeros(16, dtype=F64), script.COVARIANCE)
    operator = script.Mask(script.SEEN)
    exact = Problem(data, operator, script.Y, 0.0).posterior()
    mean, covariance = script.posterior()
    hidden = ~script.SEEN
    torch.testing.assert_close(mean, exact.mean[hidden])
    torch.testing.assert_close(covariance, exact.covariance[hidden][:, hidden])


def test_the_table_is_printed(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Each method, with four numbers; RePaint needs more steps than its jump of 20."""
    script.main(steps=21, rows=30)
    lines = [line for line in capsys.readouterr().out.splitlines() if line][2:]
    assert len(lines) == len(script.methods())
    assert all(len(line.split("  ")) >= 5 for line in lines)
