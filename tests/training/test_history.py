"""The progress bar shows the loss beside the true bound; the training curve shows the history."""

from __future__ import annotations

import math
from io import StringIO

import numpy as np
import pytest
import torch
from matplotlib.lines import Line2D
from rich.console import Console
from torch import nn

from genmod import ELBO, Measure, Stamp
from genmod.elbo import Kind, Rate
from genmod.models import VAE
from genmod.training import History, fit, metrics
from genmod.training.config import Cycle
from genmod.training.history import averages
from genmod.training.metrics import Bar
from genmod.training.validation import Validation
from tests.training.cases import data, diffusion, split, vae


def bound(nats: float, measure: Measure) -> ELBO:
    """A bound of two samples with a given mean."""
    rate = Rate.single(torch.tensor([1.0, 1.0]), Kind.ANALYTIC, Stamp.BOUND)
    return ELBO(torch.tensor([nats - 1.0, nats + 3.0]), {"prior": rate}, measure)


def shown(measure: Measure, *, silent: bool = False, steps: int = 3, width: int = 80) -> str:
    """What a bar of three steps prints, with a validation at the second."""
    out = StringIO()
    console = Console(file=out, width=width, force_terminal=False)
    bar = Bar(3, 4, "LatentDiffusion", not silent, console)
    bar.start()
    for step in range(1, steps + 1):
        seen = Validation(2, -6.5, 4, measure, error=0.25) if step == 2 else None
        bar.show(step, 12.25, bound(-8.0, measure), seen)
    bar.stop()
    return out.getvalue()


def test_the_bar_shows_loss_and_bound_in_one_unit() -> None:
    """Bits per dimension of a mass are the nats over ``D ln 2``: 8 nats in 4 dimensions are 2.885."""
    text = shown(Measure.MASS)
    unit = 4 * math.log(2)
    assert "LatentDiffusion" in text
    assert "3/3" in text
    assert f"loss {12.25 / unit:.3f}, bound {8 / unit:.3f} bits/dim" in text
    assert "best 2.344 ± 0.090 bits/dim" in shown(Measure.MASS, width=120)


def test_a_density_has_no_bits_and_an_autoencoder_no_bound() -> None:
    """Bits of a density need a bin width, which a bar does not know."""
    assert "bits" not in shown(Measure.DENSITY)
    assert "loss 12.250, bound -8.000 nats" in shown(Measure.DENSITY)
    assert "log p(x|z) -8.000 nats" in shown(Measure.NONE)
    assert "bound -" not in shown(Measure.NONE)


def test_the_best_validation_is_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the last."""
    monkeypatch.setattr(metrics, "INTERVAL", 0.0)
    lines: list[str] = []
    bar = Bar(2, 4, "Model", lambda step, line: lines.append(line))
    for step, nats in ((1, -5.0), (2, -9.0)):
        seen = Validation(step, nats, 4, Measure.DENSITY)
        bar.show(step, 1.0, bound(-8.0, Measure.DENSITY), seen)
    assert lines[-1].endswith("best -5.00 nats")


def test_progress_false_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the bar nor anything else; and with it on, the model is named."""
    assert shown(Measure.MASS, silent=True) == ""
    fit(vae(), data(), steps=2, batch_size=16, progress=False)
    assert capsys.readouterr() == ("", "")
    fit(vae(), data(), steps=2, batch_size=16)
    said = capsys.readouterr().out
    assert "VAE" in said
    assert "loss" in said


def test_latents_that_carry_nothing_are_named_in_the_table() -> None:
    """Below a tenth of a nat; not before, and not of a model without rates."""
    for rate, named in ((0.02, True), (-0.01, True), (0.2, False), (None, False)):
        seen = Validation(3, -5.0, 4, Measure.DENSITY, rate=rate)
        text = str(History("VAE", (Cycle(0, 3),), (3.0, 2.0, 1.0), [seen]))
        assert ("ignores the latents" in text) is named
        assert max(map(len, text.splitlines())) <= 80
    dead = VAE(3, latents=2, width=8)
    for parameter in dead.encoder.parameters():
        nn.init.zeros_(parameter)
        parameter.requires_grad_(False)
    assert "evaluation.collapse" in str(fit(dead, split(), steps=2, progress=False))
    assert "evaluation.collapse" not in str(fit(diffusion(), split(), steps=2, progress=False))


def points(line: Line2D) -> tuple[list[float], list[float]]:
    """The coordinates of a line."""
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


def test_the_training_curve_shows_the_losses_and_validations_of_each_stage() -> None:
    """A row of axes for each stage; the points are the history's numbers."""
    valid = [Validation(step, -3.0 - step / 10, 3, Measure.MASS, 0.1) for step in (2, 4)]
    first = History("VAE", (Cycle(0, 3),), (3.0, 2.0, 1.0))
    whole = History("LatentDiffusion", (Cycle(0, 4),), (9.0, 8.0, 7.0, 6.0), valid, (first,))
    axes = whole.plot().axes
    assert [a.get_title(loc="left") for a in axes] == ["VAE", "", "LatentDiffusion", ""]
    assert [points(line)[1] for line in axes[0].lines] == [[3.0, 2.0, 1.0]]
    assert axes[1].texts[0].get_text() == "no validation data"
    assert points(axes[2].lines[0])[0] == [1.0, 2.0, 3.0, 4.0]
    assert points(axes[3].lines[0])[1] == pytest.approx([v.bits_per_dim for v in valid])
    assert axes[3].get_ylabel() == "validation, bits/dim"


def test_a_long_curve_is_averaged() -> None:
    losses = [float(n) for n in range(1000)]
    steps, means = averages(losses)
    assert len(means) == 334
    assert steps[:2] == [3.0, 6.0]
    assert means[:2] == [1.0, 4.0]
    assert (steps[-1], means[-1]) == (1000.0, 999.0)
