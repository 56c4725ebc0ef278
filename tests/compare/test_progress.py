"""The display: a row for each member at work, with the loss and the bound, and what went wrong."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from genmod.compare.display import Display
from rich.console import Console

from genmod.compare.job import do
from genmod.compare.progress import Began, Ended, Event, Failed, Progressed, Scoring
from tests.compare.cases import few, work


def shown(*events: Event, silent: bool = False) -> str:
    """What is on the display after some events."""
    out = StringIO()
    with Display(not silent, Console(file=out, width=160, force_terminal=False)) as display:
        for event in events:
            display.tell(event)
    return out.getvalue()


def test_a_row_for_each_member_at_work() -> None:
    text = shown(
        Began("VAE", 100), Began("diffusion", 200), Progressed("VAE", 30, "loss 1 · bound 2")
    )
    first, second = text.splitlines()[:2]
    assert "VAE" in first
    assert "30/100" in first
    assert "loss 1 · bound 2" in first
    assert "diffusion" in second
    assert "0/200" in second


def test_a_row_goes_when_its_member_is_done() -> None:
    text = shown(Began("VAE", 100), Scoring("VAE"))
    assert "scoring" in text
    assert "100/100" in text
    assert "VAE" not in shown(Began("VAE", 100), Ended("VAE"))


def test_a_failure_is_said_in_its_own_words() -> None:
    """Also one of a member that has no row yet; brackets are not taken for markup."""
    text = shown(Failed("VAE", "got 2; expected a fraction in [red] and [0, 1)"))
    assert "VAE failed: got 2; expected a fraction in [red] and [0, 1)" in text
    assert shown(Failed("VAE", "no"), silent=True) == ""


def test_a_member_at_work_tells_its_loss_and_its_bound(tmp_path: Path) -> None:
    heard: list[Event] = []
    do(work(tmp_path), "VAE", few(), heard.append)
    assert heard[0] == Began("VAE", 40)
    assert heard[-2:] == [Scoring("VAE"), Ended("VAE")]
    moves = [event for event in heard if isinstance(event, Progressed)]
    assert moves[-1].step == 40
    assert all("loss" in move.said and "bits/dim" in move.said for move in moves)
    assert "best" in moves[-1].said
