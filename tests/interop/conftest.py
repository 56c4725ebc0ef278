"""Float64, and Pyro's one global store empty, for every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pyro
import pytest


@pytest.fixture(autouse=True)
def _clean(float64: None) -> Iterator[None]:
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()
