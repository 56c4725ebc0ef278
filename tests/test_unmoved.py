"""The numbers of commit f5e1b7b still come out: bounds, losses, gradients, samples, reports, short fits.

A value that moves on purpose gets a line in ``MOVED`` with the reason, and new numbers in ``moved.json``.
A value that moves without one is a fault of the package, or of the files of :mod:`tests.unmoved`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.unmoved import bounds, objectives, samples, scores, uses
from tests.unmoved.inputs import flat

FOLDER = Path(__file__).parent / "unmoved"
OLD: dict[str, object] = json.loads((FOLDER / "f5e1b7b.json").read_text())
NEW: dict[str, object] = json.loads((FOLDER / "moved.json").read_text())
STORED = OLD | NEW
VALUES = bounds.VALUES | objectives.VALUES | samples.VALUES | scores.VALUES | uses.VALUES

TOLERANCE = 1e-9
"""Relative to the stored number, and absolute below one."""
SINGLE = 1e-6
"""Of values that the package holds, or held at f5e1b7b, in float32."""
FLOAT32 = {
    "fit/learned schedule",
    "inverse/mmps: x_hat, bound, sample",
    "inverse/pigdm: x_hat, bound, sample",
    "objectives/learned schedule, its gradient to the schedule",
}
NO_RISE = "StochasticHeun adds no noise beyond the noisy end of the schedule"
BY_LEVEL = "I-MMSE draws noise by row id, one level at a time: other draws of the same mean"
BEST_ITERATE = (
    "conjugate gradients return an iterate near the smallest residual, for a network's Jacobian"
)
MOVED = {
    "inverse/mmps: x_hat, bound, sample": BEST_ITERATE,
    "samples/stochastic heun": NO_RISE,
    "samples/exploding and rectified flow by stochastic heun, last state and x_hat": NO_RISE,
    "evaluate/immse reals": BY_LEVEL,
    "evaluate/immse integers": BY_LEVEL,
    "evaluate/immse of points under their denoiser": BY_LEVEL,
}
"""Values that moved on purpose, and why; ``moved.json`` holds where to."""


def test_every_stored_value_is_computed() -> None:
    assert VALUES.keys() == OLD.keys()
    assert OLD.keys() >= NEW.keys() | FLOAT32
    assert MOVED.keys() == NEW.keys()
    assert not [name for name in NEW if flat(NEW[name]) == pytest.approx(flat(OLD[name]))]


@pytest.mark.parametrize("name", STORED)
def test_a_value_has_not_moved(name: str) -> None:
    torch.manual_seed(0)
    found, stored = flat(VALUES[name]()), flat(STORED[name])
    limit = SINGLE if name in FLOAT32 else TOLERANCE
    assert found == pytest.approx(stored, rel=limit, abs=limit)
