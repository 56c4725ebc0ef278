"""A model's own recipe: each stage trained in turn, recorded, resumed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from genmod.data import Dataset
from genmod.decoders import DiscretizedGaussianDecoder, GlobalScale, Identity
from genmod.denoisers import DataTarget, Learned
from genmod.diffusion import fit_scale
from genmod.diffusion.last_step import FINEST, SCALES, LastStepDecoder
from genmod.models import VAE, Diffusion, LatentDiffusion
from genmod.objectives import Beta, Bound, LearnedSchedule, Simple
from genmod.schedules import LinearLogSNR
from genmod.spec import Bins
from genmod.training import fit, training_loop
from tests.training.cases import data, flat

pytestmark = pytest.mark.usefixtures("float64")

X = data(48)
PARTS = Dataset("rows", X[:40], X[40:], X[:0])


def model(dropout: float = 0.3) -> LatentDiffusion:
    """A small latent diffusion, always with the same weights."""
    torch.manual_seed(5)
    inner = Diffusion(2, width=8, depth=1)
    return LatentDiffusion(3, latents=2, width=8, depth=1, dropout=dropout, diffusion=inner)


def test_a_latent_diffusion_is_trained_in_two_stages_by_default() -> None:
    """The same as by hand: the VAE, its latents measured, then the diffusion alone."""
    ours, theirs = model(), model()
    settings: dict[str, Any] = {"steps": 6, "batch_size": 16, "progress": False}
    history = fit(ours, PARTS, Simple(), **settings)
    first = fit(theirs.first_stage(), PARTS, **settings)
    theirs.freeze(PARTS.train)
    second = fit(theirs, PARTS, Simple(), **settings)
    assert torch.equal(flat(ours), flat(theirs))
    assert torch.equal(ours.nested.shift, theirs.nested.shift)
    assert [stage.name for stage in history.stages] == ["VAE", "LatentDiffusion"]
    assert [stage.losses for stage in history.stages] == [first.losses, second.losses]
    assert history.losses == second.losses
    assert history.best == second.best
    text = str(history)
    assert "VAE: 6 of 6 steps" in text
    assert "LatentDiffusion: 6 of 6 steps" in text
    assert not any(p.requires_grad for part in ours.fixed() for p in part.parameters())


def test_each_stage_may_have_an_objective_of_its_own(tmp_path: Path) -> None:
    ours, theirs = model(), model()
    settings: dict[str, Any] = {"steps": 6, "batch_size": 16, "progress": False}
    file = tmp_path / "run.safetensors"
    history = fit(ours, PARTS, [Beta(0.5), Simple()], checkpoint=file, **settings)
    first = fit(theirs.first_stage(), PARTS, Beta(0.5), **settings)
    theirs.freeze(PARTS.train)
    fit(theirs, PARTS, Simple(), **settings)
    assert history.stages[0].losses == first.losses
    assert torch.equal(flat(ours), flat(theirs))
    with pytest.raises(ValueError, match=r"objective of stage 0\S* \(0.5 in the file, now 0.7\)"):
        fit(model(), PARTS, [Beta(0.7), Simple()], checkpoint=file, **settings)
    for count in (1, 3):
        with pytest.raises(ValueError, match=f"got objectives for {count} stages of a run with 2"):
            fit(model(), PARTS, [Bound()] * count, **settings)


def test_latents_are_measured_in_evaluation_mode() -> None:
    """A VAE that drops out has other latents in training mode."""
    found = []
    for mode in (True, False):
        whole = model(dropout=0.5)
        with torch.no_grad():
            for parameter in whole.encoder.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        whole.train(mode).freeze(X)
        assert whole.prior.training is mode
        found.append((whole.nested.shift.clone(), whole.nested.log_scale.clone()))
        torch.manual_seed(5)
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_the_stages_of_a_loop_come_one_after_another() -> None:
    names = [
        (step.stage, step.number) for step in training_loop(model(), X, steps=2, progress=False)
    ]
    assert names == [("VAE", 1), ("VAE", 2), ("LatentDiffusion", 1), ("LatentDiffusion", 2)]


def test_a_frozen_model_has_one_stage_left() -> None:
    whole = model().freeze(X)
    history = fit(whole, X, steps=2, progress=False)
    assert [stage.name for stage in history.stages] == ["LatentDiffusion"]


def test_joint_training_is_one_stage_on_the_plain_bound() -> None:
    whole = model()
    before = flat(whole.encoder)
    history = fit(whole, X, steps=2, stages="joint", progress=False)
    assert len(history.stages) == 1
    assert not torch.equal(flat(whole.encoder), before)
    with pytest.raises(ValueError, match="Simple on a model whose encoder learns"):
        fit(whole, X, Simple(), steps=2, stages="joint", progress=False)
    with pytest.raises(ValueError, match="stages='two'; expected None"):
        fit(whole, X, steps=2, stages="two", progress=False)


def test_what_cannot_be_trained_in_the_last_stage_is_refused_on_the_call() -> None:
    """Before hours of the first stage; and nothing is frozen by the question."""
    whole = model()
    with pytest.raises(ValueError, match="schedule has no parameters"):
        training_loop(whole, X, LearnedSchedule(), steps=2, progress=False)
    assert all(p.requires_grad for p in whole.parameters())
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="trained in 2 stages"):
        training_loop(whole, X, steps=2, optimizer=optimizer, progress=False)


@pytest.mark.parametrize("stop", [3, 6, 9])
def test_a_run_in_stages_resumes_bit_for_bit(stop: int, tmp_path: Path) -> None:
    """Stopped in the first stage, between the two, and in the second."""
    settings: dict[str, Any] = {
        "steps": 6,
        "batch_size": 16,
        "checkpoint_every": 2,
        "progress": False,
    }
    whole, stopped, resumed = model(), model(), model()
    expected = fit(whole, PARTS, Simple(), checkpoint=tmp_path / "whole", **settings)
    loop = training_loop(stopped, PARTS, Simple(), checkpoint=tmp_path / "parts", **settings)
    for made, _ in enumerate(loop, start=1):
        if made == stop:
            break
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.zero_()
    found = fit(resumed, PARTS, Simple(), checkpoint=tmp_path / "parts", **settings)
    assert torch.equal(flat(resumed), flat(whole))
    assert torch.equal(resumed.nested.log_scale, whole.nested.log_scale)
    assert [stage.losses for stage in found.stages] == [stage.losses for stage in expected.stages]
    assert [stage.validations for stage in found.stages] == [
        stage.validations for stage in expected.stages
    ]


def test_a_loader_is_measured_by_one_pass() -> None:
    """Between the stages of a model that is trained on batches as they come."""
    ours, theirs = model(), model()
    fit(ours, list(X.split(16)), steps=3, progress=False)
    fit(theirs.first_stage(), list(X.split(16)), steps=3, progress=False)
    theirs.freeze(X)
    assert torch.equal(ours.nested.shift, theirs.nested.shift)


class Middle(nn.Module):
    """A network that always says zero, the middle of [-1, 1]."""

    def forward(self, z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        """As many zeros as there are entries."""
        return torch.zeros_like(z)


def test_around_a_fixed_mean_it_is_the_spread_of_the_data() -> None:
    """The likeliest scale of a normal law is the standard deviation, to half a step of the grid."""
    levels, schedule = Bins(256), LinearLogSNR(13.3)
    denoiser = Learned(Middle(), DataTarget())
    decoder = DiscretizedGaussianDecoder(Identity(), (4,), 256, GlobalScale())
    model = Diffusion(
        bins=256,
        denoiser=denoiser,
        schedule=schedule,
        decoder=LastStepDecoder(denoiser, schedule, decoder),
    )
    real = 0.11 * torch.randn(4000, 4, generator=torch.Generator().manual_seed(0))
    x = ((real + 1) / levels.width).round().long().clamp(0, 255)
    spread = float(levels.center(x).square().mean().sqrt())
    step = -math.log(levels.width / FINEST) / (SCALES - 1)
    found = fit_scale(model, x)
    assert abs(math.log(found / spread)) <= 0.5 * step + 0.01
    assert isinstance(decoder.scale, GlobalScale)
    assert float(decoder.scale(x).detach()) == pytest.approx(math.log(found))


def test_a_denoiser_that_gives_nan_is_refused() -> None:
    """Not the narrowest scale, silently."""
    model = Diffusion((1, 8, 8), bins=17, width=8, steps=5)
    with torch.no_grad():
        for parameter in model.prior.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(ValueError, match="log-masses that are NaN"):
        fit_scale(model, torch.randint(0, 17, (64, 1, 8, 8)))


def test_it_leaves_the_denoiser_and_its_mode_alone() -> None:
    """The bound's other terms do not know the scale."""
    model = Diffusion((1, 8, 8), bins=17, width=8, steps=5).train()
    x = torch.randint(0, 17, (64, 1, 8, 8))
    before = {name: tensor.clone() for name, tensor in model.prior.state_dict().items()}
    assert fit_scale(model, x) == fit_scale(model, x)
    assert model.training
    for name, tensor in model.prior.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_decoder_that_is_no_last_step_is_refused() -> None:
    """Other decoders are trained with the bound, and real data have no bins to start from."""
    with pytest.raises(ValueError, match="LastStepDecoder"):
        fit_scale(VAE((4,), 17, latents=2, width=8), torch.zeros(8, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="integers"):
        fit_scale(Diffusion(2, width=8), torch.zeros(8, 2))
