"""Every test: shapes checked at run time, a fixed seed, one thread, no window, no random examples.

``genmod`` writes its shapes as types (:mod:`genmod.tensors`); the import hook below turns them into
checks, in tests only, so it has to run before the first import of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jaxtyping
import matplotlib as mpl
import numpy as np
import pytest
import sklearn.datasets
import torch
from hypothesis import settings

from tests import typechecker

typechecker.install()

from genmod import runs  # noqa: E402
from genmod.data import sources  # noqa: E402

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
    typechecker.next_test()
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


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data sets that come with the package, with fewer rows: for pages and recipes that have to run.

    Half of the digits leave the 65 validation images that a Fréchet distance takes at least.
    """
    for name, share in (("load_digits", 2), ("load_wine", 3)):
        load = getattr(sklearn.datasets, name)
        monkeypatch.setattr(sklearn.datasets, name, partial(_thinned, load, share))
    monkeypatch.setattr(sources, "_TOY_ROWS", 200)
    no_looks(monkeypatch)


def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run folders without figures while training goes on: the one at the end is drawn alike."""
    monkeypatch.setattr(runs, "_LOOKS", 1)


def _thinned(load: Callable[..., Any], share: int, **settings: Any) -> Any:
    """Every second row, or third: scikit-learn's tables are sorted by class."""
    found = load(**settings)
    if isinstance(found, tuple):
        return tuple(part[::share] for part in found)
    rows = len(found.target)
    cut = {
        key: value[::share] if np.shape(value)[:1] == (rows,) else value
        for key, value in found.items()
    }
    return type(found)(**cut)
