"""The bar: it shows the loss beside the true bound, and nothing when it is told to be silent."""

from __future__ import annotations

import math
from io import StringIO

import pytest
import torch
from rich.console import Console

from genmod import ELBO, Measure
from genmod.elbo import Kind, Rate
from genmod.training import Validation, fit, progress, train
from genmod.training.progress import Bar
from tests.training.cases import data, vae


def bound(nats: float, measure: Measure) -> ELBO:
    """A bound of two samples with a given mean."""
    rate = Rate.single(torch.tensor([1.0, 1.0]), Kind.ANALYTIC)
    return ELBO(torch.tensor([nats - 1.0, nats + 3.0]), {"prior": rate}, measure)


def shown(measure: Measure, *, silent: bool = False, steps: int = 3) -> str:
    """What a bar of three steps prints, with a validation at the second."""
    out = StringIO()
    bar = Bar(3, 4, "Model", not silent, Console(file=out, width=200, force_terminal=False))
    with bar:
        for step in range(1, steps + 1):
            seen = Validation(2, -6.5, 4, measure, error=0.25) if step == 2 else None
            bar.show(step, torch.tensor(12.25), bound(-8.0, measure), seen)
    return out.getvalue()


def test_the_bar_shows_the_loss_the_bound_and_the_best_validation() -> None:
    """Bits per dimension of a mass are the nats over ``D ln 2``: -8 nats in 4 dimensions is 2.885."""
    text = shown(Measure.MASS)
    assert "Model" in text
    assert "3/3" in text
    assert "loss 12.25" in text
    assert f"bound {8 / (4 * math.log(2)):.3f} bits/dim" in text
    assert "best 2.344 ± 0.090 bits/dim" in text


def test_a_density_has_no_bits_and_an_autoencoder_no_bound() -> None:
    """Bits of a density need a bin width, which a bar does not know."""
    assert "bits" not in shown(Measure.DENSITY)
    assert "bound -8.00 nats · best -6.50 ± 0.25 nats" in shown(Measure.DENSITY)
    assert "log p(x|z) -8.00 nats" in shown(Measure.NONE)
    assert "bound -" not in shown(Measure.NONE)


def test_the_last_step_is_always_shown() -> None:
    """However soon after another it comes; a run that is stopped shows where it was."""
    assert "3/3" in shown(Measure.MASS)
    assert "2/3" in shown(Measure.MASS, steps=2)


def test_the_best_validation_is_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the last."""
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    out = StringIO()
    with Bar(2, 4, "Model", True, Console(file=out, width=200)) as bar:
        for step, nats in ((1, -5.0), (2, -9.0)):
            seen = Validation(step, nats, 4, Measure.DENSITY)
            bar.show(step, torch.tensor(1.0), bound(-8.0, Measure.DENSITY), seen)
    assert "best -5.00 nats" in out.getvalue()


def test_progress_false_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the bar nor anything else; and with it on, the model is named."""
    assert shown(Measure.MASS, silent=True) == ""
    train(fit(vae(), data(), steps=2, batch_size=16, progress=False))
    assert capsys.readouterr() == ("", "")
    train(fit(vae(), data(), steps=2, batch_size=16))
    said = capsys.readouterr().out
    assert "VAE" in said
    assert "loss" in said
