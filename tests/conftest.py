"""Every test: shapes checked at run time, a fixed seed, one thread, no window, no random examples.

``genmod`` writes its shapes as types (:mod:`genmod.shapes`); the import hook below turns them into
checks, in tests only, so it has to run before the first import of the package.
"""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import settings

from tests import typechecker as typechecker

jaxtyping.install_import_hook("genmod", "tests.typechecker.check")

torch.set_num_threads(1)
mpl.use("Agg")
settings.register_profile("genmod", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("genmod")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--slow-cases N``: of each slow test at most ``N`` of its cases, spread over all of them."""
    parser.addoption("--slow-cases", type=int, default=None, help="cases of each slow test to run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the cases that ``--slow-cases`` asks for."""
    most = config.getoption("--slow-cases")
    if most is None:
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("slow"):
            cases.setdefault(item.nodeid.split("[")[0], []).append(item)
    kept: set[str] = set()
    for found in cases.values():
        count = min(most, len(found))
        kept |= {found[i * len(found) // count].nodeid for i in range(count)}
    items[:] = [i for i in items if not i.get_closest_marker("slow") or i.nodeid in kept]


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Each test draws the same numbers, alone or in the suite."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def float64() -> Iterator[None]:
    """New tensors and modules in double precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def as_users_run() -> Iterator[None]:
    """Without the hook's checks of shapes: a user's mistake meets the package's own error."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
