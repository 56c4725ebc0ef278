"""Where the real MNIST and Fashion-MNIST lie, for the tests marked as needing them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from genmod.data.downloads import FASHION_MNIST, MNIST, ROOT

BESIDE = Path(__file__).parents[2].parent / "shared" / "data"
"""Beside the repository: where its developers keep them."""


@pytest.fixture(scope="session")
def canonical() -> Path:
    """The folder that holds the original files; without it, the test is skipped."""
    root = Path(os.environ.get(ROOT) or BESIDE)
    for collection in (MNIST, FASHION_MNIST):
        place = root / collection.folder / "raw"
        if not all(file.find(place) for file in collection.files):
            pytest.skip(f"needs the files of {collection.folder}: name their root in {ROOT}")
    return root
