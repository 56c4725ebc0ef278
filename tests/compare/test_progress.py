"""Progress: which of how many, the stage, one bound, the whole time left; never long without a sign."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from genmod.compare import progress
from genmod.compare.job import run
from genmod.compare.progress import (
    Began,
    Display,
    Drawing,
    Ended,
    Event,
    Failed,
    Progress,
    Progressed,
    Scoring,
)
from tests.compare.cases import PLAN, TINY, few, job


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def after(*events: Event, done: set[str] | None = None, clock: Clock | None = None) -> Progress:
    """The progress of three candidates after some events."""
    found = Progress(TINY, done or set(), clock or Clock())
    for event in events:
        found.update(event)
    return found


def shown(*events: Event, terminal: bool = True, silent: bool = False) -> str:
    """What a display of 80 columns has printed after some events."""
    out = StringIO()
    console = Console(file=out, width=80, force_terminal=terminal, color_system=None)
    with Display(Progress(TINY, set()), not silent, console) as display:
        for event in events:
            display.on_event(event)
        if terminal:
            console.print(display.render())
    return out.getvalue()


def test_a_row_names_the_candidate_the_stage_and_one_bound() -> None:
    text = shown(
        Began("latent diffusion", 12345),
        Began("VAE", 100),
        Progressed("VAE", 30, "loss 1.2, bound 1.234 bits/dim, best " + "x" * 100),
    )
    assert "0 of 3 models done" in text
    assert "training 30/100" in text
    assert "training 0/12345" in text
    assert "bound 1.234 bits/dim" in text
    assert "loss" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_the_fraction_done_grows_from_zero_to_one() -> None:
    found = after()
    parts = [found.fraction]
    for candidate in TINY:
        for event in (
            Began(candidate.name, 10),
            Progressed(candidate.name, 5, ""),
            Progressed(candidate.name, 10, ""),
            Scoring(candidate.name),
            Ended(candidate.name),
        ):
            found.update(event)
            parts.append(found.fraction)
    for place in range(3):
        found.update(Drawing("x", place, 3))
        parts.append(found.fraction)
    assert parts[0] == 0.0
    assert parts == sorted(parts)
    assert parts[-1] == pytest.approx(1 - progress.FIGURES / 3)


@pytest.mark.parametrize("first", [1, 51])
def test_the_time_left_is_that_of_the_whole_at_the_pace_so_far(first: int) -> None:
    """A run that is continued at step 51 has done only the steps since then in this time."""
    clock = Clock()
    found = after(Began("VAE", 100), Progressed("VAE", first, ""), clock=clock)
    assert found.seconds_left is None
    clock.now += 60
    found.update(Progressed("VAE", 100, ""))
    made = (1 - progress.FIGURES) * 2 / 4 * (1 - progress.SCORING) * (101 - first) / 100
    left = 1 - (1 - progress.FIGURES) * 2 / 4 * (1 - progress.SCORING)
    assert found.seconds_left == pytest.approx(60 * left / made)
    assert "left" in found.headline()


def test_a_failure_is_reported_with_its_own_message() -> None:
    """Also of a candidate that has no row yet; brackets are not taken for markup."""
    text = shown(Failed("VAE", "got 2; expected a fraction in [red] and [0, 1)"))
    assert "VAE failed: got 2; expected a fraction in [red] and [0, 1)" in text
    assert shown(Failed("VAE", "no"), silent=True, terminal=False) == ""


def test_a_candidate_reports_its_steps_and_its_bound(tmp_path: Path) -> None:
    events: list[Event] = []
    run(job(tmp_path), "VAE", few(), events.append)
    assert events[0] == Began("VAE", PLAN.steps)
    assert events[-2:] == [Scoring("VAE"), Ended("VAE")]
    steps = [event for event in events if isinstance(event, Progressed)]
    assert steps[-1].step == PLAN.steps
    assert all("bits/dim" in event.text for event in steps)
    bad = replace(TINY[1], importance_samples=-1)
    events.clear()
    run(job(tmp_path / "bad", [bad]), "VAE", few(), events.append)
    assert isinstance(events[-1], Failed)
