"""Depth as a knob: one network as a hierarchy of 1 to T levels, its encoder fixed or learned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genmod import Kind, random
from genmod.diffusion import DiffusionPrior, FixedLarge, LearnedInterpolation
from genmod.diffusion.depth import LearnedNoisingEncoder
from genmod.model import LatentModel
from genmod.models import VAE, Diffusion, with_depth
from genmod.nn import Labels, MLPs
from genmod.path import Request
from genmod.schedules import Cosine
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")

SMALL = MLPs(width=8)


def diffusion(**settings: Any) -> Diffusion:
    """A small diffusion of integers with no weight at zero, always with the same weights."""
    torch.manual_seed(0)
    model = Diffusion((2,), 5, width=8, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def learned(base: Diffusion, levels: int) -> LatentModel:
    return with_depth(base, levels, learned_encoder=True, networks=SMALL)


@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize(
    "settings", [{}, {"variance": FixedLarge()}, {"schedule": Cosine()}], ids=str
)
def test_an_untrained_learned_encoder_is_the_fixed_one(
    levels: int, settings: dict[str, Any]
) -> None:
    """Each joint draw has the weight that the diffusion gives it, with the same noise."""
    if "variance" in settings:
        settings = {**settings, "steps": 3}
    base, x = diffusion(**settings), torch.randint(5, (6, 2))
    weights = []
    for model in (with_depth(base, levels), learned(base, levels)):
        with random.keyed(0):
            weights.append(model.log_weight(x))
    torch.testing.assert_close(*weights, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("learn", [False, True])
def test_missing_entries_are_refused(learn: bool) -> None:
    """Either encoder would noise what stands in their place."""
    model = with_depth(diffusion(), 2, learned_encoder=learn, networks=SMALL)
    with pytest.raises(ValueError, match="got missing entries for a"):
        model.check_missing()


@pytest.mark.parametrize("levels", [1, 4])
def test_the_fixed_encoder_is_the_diffusion_of_as_many_latents(levels: int) -> None:
    fixed = with_depth(diffusion(), levels)
    assert isinstance(fixed, Diffusion)
    assert isinstance(fixed.prior, DiffusionPrior)
    assert fixed.prior.steps == levels
    x = torch.randint(5, (1, 2)).expand(3000, -1)
    with torch.no_grad():
        gap = learned(diffusion(), levels).elbo(x).value - fixed.elbo(x).value
    assert_mean(gap, 0.0, name="the bounds of both encoders")


@pytest.mark.parametrize("levels", [1, 3])
def test_a_trained_encoder_has_one_kl_a_level_in_closed_form(levels: int) -> None:
    """The closed KLs have the mean of the sampled log-ratios at random weights of the encoder."""
    model = learned(diffusion(), levels)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        x = torch.randint(5, (1, 2)).expand(4000, -1)
        bound = model.elbo(x)
        assert {level.kind for level in bound.levels()} == {Kind.ANALYTIC}
        assert [level.name for level in bound.levels()] == [f"z{i}" for i in range(levels, 0, -1)]
        assert_mean(model.log_weight(x) - bound.value, 0.0, name="two forms of one bound")


def test_one_level_is_a_vae() -> None:
    """A ``VAE`` of the same encoder and decoder gives every draw the same weight."""
    model = learned(diffusion(), 1)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))

    class First(LearnedNoisingEncoder):
        """``q(z | x)`` of the only level."""

        def forward(self, x: Tensor, context: Any = None, observed: Any = None) -> Any:
            posterior = super().forward(x, context, observed)
            return posterior.at(torch.zeros(len(x)))

    assert isinstance(model.encoder, LearnedNoisingEncoder)
    first = First(model.encoder.network, model.encoder.schedule, model.spec)
    vae = VAE(latents=2, encoder=first, decoder=model.decoder)
    x, weights = torch.randint(5, (6, 2)), []
    for each in (model, vae):
        with random.keyed(0):
            weights.append(each.log_weight(x))
    torch.testing.assert_close(*weights, rtol=1e-12, atol=1e-12)


def test_every_part_learns_and_training_one_trains_the_other() -> None:
    base = diffusion(variance=LearnedInterpolation(), steps=3)
    model = learned(base, 3)
    model.elbo(torch.randint(5, (6, 2))).value.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    own = {id(p) for p in model.parameters()}
    assert all(id(p) in own for p in base.parameters())


def test_a_conditional_network_has_a_conditional_encoder() -> None:
    model = learned(diffusion(condition=Labels(3)), 2)
    with torch.no_grad():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    x, found = torch.zeros(4, 2, dtype=torch.long), []
    for label in (0, 1):
        with random.keyed(0):
            path = model(x, Request(torch.full((4,), label), needs_path=True))[1]
        assert path is not None
        found.append(path.q["z2"].mean)
    assert not torch.equal(*found)


def test_wrong_pairs_and_depths_are_refused() -> None:
    base = diffusion()
    with pytest.raises(ValueError, match=r"got levels=0; expected at least 1"):
        learned(base, 0)
    model = learned(base, 2)
    with pytest.raises(ValueError, match=r"expected the encoder that adds noise"):
        LatentModel(model.encoder, model.decoder, with_depth(base, 2).prior)
    other = LearnedNoisingEncoder(SMALL.denoiser((4,)), Cosine(), model.spec)
    with pytest.raises(ValueError, match=r"got an encoder with another schedule than the prior's"):
        LatentModel(other, model.decoder, model.prior)
    wrong = LatentModel(with_depth(base, 2).encoder, model.decoder, model.prior)
    with pytest.raises(ValueError, match=r"got a NoisingPosterior; expected that of a learned"):
        wrong.elbo(torch.zeros(3, 2, dtype=torch.long))
