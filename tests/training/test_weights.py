"""Weights by name, and the moving average of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from genmod.elbo import Measure
from genmod.nn.modules import copy_weights, load_weights, weights
from genmod.training import training_loop
from genmod.training.config import TrainingConfig
from genmod.training.state import TrainingState
from genmod.training.validation import Validation
from tests.training.cases import data, diffusion, flat, vae, whole


def config(clip: float | None = None) -> TrainingConfig:
    """Plain settings: a constant rate."""
    return TrainingConfig(100, warmup=0, decay=False, ema=0.9, clip=clip)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("ema", [0.0, 0.3, 0.9])
def test_the_average_equals_its_recursion(ema: float) -> None:
    """``m_n = d m_{n-1} + (1 - d) w_n`` with ``d = min(ema, (n - 1) / (n + 8))``."""
    model, expected = vae(), torch.zeros(())
    for n, step in enumerate(
        training_loop(model, data(), steps=15, batch_size=16, ema=ema, progress=False), start=1
    ):
        decay = min(ema, (n - 1) / (n + 8))
        expected = decay * expected + (1 - decay) * flat(model)
        torch.testing.assert_close(flat(step.averaged), expected, rtol=1e-13, atol=1e-15)
        if n == 1:
            assert torch.equal(flat(step.averaged), flat(model)), "where it began is forgotten"


@pytest.mark.usefixtures("float64")
def test_only_long_gradients_are_clipped() -> None:
    """Plain descent at rate 1 moves by the gradient itself, whose length is at most ``clip``."""
    for clip, scale in ((0.5, 100.0), (0.5, 1e-3), (None, 100.0)):
        model = vae()
        state = TrainingState(
            whole(model), torch.optim.SGD(model.parameters(), lr=1.0), config(clip)
        )
        before = flat(model)
        loss = -scale * model.elbo(data()).value.mean()
        gradient = torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
            ]
        )
        loss.backward()
        assert state.apply(loss.detach())
        length = float(gradient.norm())
        kept = min(1.0, math.inf if clip is None else clip / length)
        torch.testing.assert_close(before - flat(model), kept * gradient, rtol=2e-6, atol=1e-12)


class _Normed(nn.Module):
    """A layer with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize."""
        return self.layers(x)


def test_running_statistics_go_with_the_average() -> None:
    """They are an average already: the averaged model has the model's own, the last good ones."""
    from genmod.encoders import GaussianEncoder

    model = vae()
    model.encoder = GaussianEncoder(_Normed(), (2,))
    for step in training_loop(model, data(), steps=3, batch_size=16, progress=False):
        own, average = model.encoder.state_dict(), step.averaged.encoder.state_dict()
        mean = "network.layers.1.running_mean"
        assert own[mean].abs().max() > 0
        assert torch.equal(own[mean], average[mean])


def test_a_nan_validation_does_not_hide_a_later_one() -> None:
    """Comparisons with NaN are false: it is never the best, and never stays in the way."""
    model = vae()
    state = TrainingState(whole(model), torch.optim.SGD(model.parameters(), lr=0.1), config())
    for nats, kept in ((math.nan, False), (-3.0, True), (math.nan, False), (-4.0, False)):
        state.best = None
        state.record(Validation(1, nats, 3, Measure.DENSITY))
        assert (state.best is not None) is kept


def test_the_best_weights_are_those_of_the_highest_score() -> None:
    """An importance-weighted bound stands in place of the plain one, where there is one."""
    model = vae()
    state = TrainingState(whole(model), torch.optim.SGD(model.parameters(), lr=0.1), config())
    for nats, weighted, kept in ((-5.0, -3.0, True), (-4.0, -3.5, False), (-6.0, -2.0, True)):
        state.best = None
        state.record(Validation(1, nats, 3, Measure.DENSITY, weighted=weighted, samples=8))
        assert (state.best is not None) is kept


def test_each_tensor_has_one_name() -> None:
    """A denoiser in two parts is listed once; loading by those names restores both parts."""
    model = diffusion()
    named = weights(model)
    assert len(named) == len({id(p) for p in model.parameters()})
    saved = copy_weights(model)
    before = flat(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert not torch.equal(flat(model), before)
    load_weights(model, saved)
    assert torch.equal(flat(model), before)


def test_weights_of_another_model_are_refused_and_nothing_is_changed() -> None:
    """Other names or shapes are refused before anything is copied."""
    model = vae()
    before, saved = flat(model), copy_weights(model)
    name = next(iter(saved))
    with pytest.raises(ValueError, match="weights without"):
        load_weights(model, {n: t + 1 for n, t in saved.items() if n != name})
    with pytest.raises(ValueError, match=r"weights without .* and with .*'more'"):
        load_weights(model, saved | {"more": torch.zeros(1)})
    last = list(saved)[-1]
    with pytest.raises(ValueError, match=r"expected \(3,\)|of shape"):
        load_weights(model, {n: t + 1 for n, t in saved.items()} | {last: torch.zeros(1, 1, 1)})
    assert torch.equal(flat(model), before)
