"""Conditional models: a label improves the bound by its mutual information with the data."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from genmod.data import Dataset, conditional
from genmod.data.rows import dataset
from genmod.decoders import GaussianDecoder, Identity
from genmod.denoisers import Denoised, Denoiser, EmpiricalDenoiser
from genmod.diffusion import LastStepDecoder as LastStep
from genmod.evaluation import evaluate, score
from genmod.evaluation.batching import evaluating
from genmod.evaluation.profile import profile
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Diffusion, Inference, LatentDiffusion
from genmod.nn import ConvNets, Ignored, Labels, MLPs, UNet, Vectors, null_context
from genmod.nn.conditioning import is_null_context
from genmod.schedules import LinearLogSNR
from genmod.training import fit, training_loop
from tests.statistics import assert_mean

F64 = torch.float64
MODES, SPREAD = torch.tensor([[-0.9], [0.0], [0.9]], dtype=F64), 0.35
"""Three Gaussians, equally likely: near enough for the label to be a guess from ``x``."""


def rows(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draws of the mixture, with the component that each came from."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    return MODES[labels] + SPREAD * torch.randn(count, 1, generator=generator, dtype=F64), labels


def information(x: Tensor, labels: Tensor) -> Tensor:
    """``log p(x | y) - log p(x)`` of each row; its mean is ``I(x; y)``."""
    logs = -0.5 * ((x - MODES.T) / SPREAD).square()
    return logs.gather(1, labels[:, None])[:, 0] - logs.logsumexp(1) + math.log(3)


class Exact(Denoiser):
    """The posterior mean under the mixture, or under the component in the context."""

    def __init__(self) -> None:
        super().__init__()
        self.any = EmpiricalDenoiser(MODES, std=SPREAD)
        self.each = nn.ModuleList(EmpiricalDenoiser(mode[None], std=SPREAD) for mode in MODES)

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        assert context is not None
        x_hat = self.any(z, log_snr).x_hat
        for label, one in enumerate(self.each):
            here = (context == label)[:, None]
            x_hat = torch.where(here, one(z, log_snr).x_hat, x_hat)
        return Denoised(x_hat)


@pytest.mark.parametrize("steps", [None, 400], ids=["continuous", "T = 400"])
def test_a_label_improves_the_bound_by_its_mutual_information(steps: int | None) -> None:
    """Exact denoisers, bound with labels minus bound without, on equal noise: I(x; y).

    Row by row the difference has the mean ``log p(x | y) - log p(x)``, up to what the ends of the
    schedule and the steps leave.
    """
    schedule = LinearLogSNR(clean=9.0, noisy=-9.0)
    # x given z_0 has almost exactly this spread, under one component or all of them.
    around = GaussianDecoder(Identity(), (1,), (SPREAD**-2 + math.exp(9.0)) ** -0.5)
    exact = Exact()
    last = LastStep(exact, schedule, around)
    model = Diffusion(denoiser=exact, schedule=schedule, steps=steps, decoder=last).double()
    x, labels = rows(4000, seed=1)
    with_labels = score(model, x, labels, timesteps=32).value
    without = score(model, x, null_context(labels), timesteps=32).value
    assert 0.3 < information(x, labels).mean() < 0.8
    assert_mean(with_labels - without - information(x, labels), 0.0, name="nats told by a label")


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_a_network_learns_both_the_conditional_and_the_unconditional_law() -> None:
    """A fifth of the labels is dropped in training: with labels better by I(x; y), to 0.1 nats."""
    x, labels = rows(4000, seed=2)
    data = conditional(dataset(x, labels=labels, validation=0.0), dropout=0.2)
    torch.manual_seed(0)
    model = Diffusion(1, width=32, depth=2, condition=Labels(3), schedule=LinearLogSNR(6.0, -6.0))
    fit(model, data, steps=250, batch_size=256, learning_rate=8e-3, ema=0.98, progress=False)
    test, told = data.test, data.context("test")
    assert told is not None
    found = score(model, test, told, timesteps=16).value
    untold = score(model, test, null_context(told), timesteps=16).value
    wrong = score(model, test, (told + 1) % 3, timesteps=16).value
    gained = float((found - untold).mean())
    assert abs(gained - float(information(test, told).mean())) < 0.1
    assert float((wrong - untold).mean()) < -1
    report = evaluate(model, data, timesteps=16, replicates=1)
    assert math.isclose(report.value.mean, float(found.mean()), abs_tol=1e-9)
    told = torch.arange(3).repeat_interleave(200)
    with evaluating(model):
        means = model.sample(600, told).reshape(3, 200).mean(1)
    assert (means - MODES[:, 0]).abs().max() < 0.15


# ---------------------------------------------------------------------- every family, one line each

TABLE, IMAGE = (1, 4, 4), (1, 16, 16)
ONE_LINERS: dict[str, Callable[[], LatentModel]] = {
    "vae": lambda: VAE(TABLE, 5, latents=2, width=8, condition=Labels(3)),
    "hvae": lambda: HVAE(TABLE, 5, latents=(3, 2), width=8, condition=Labels(3)),
    "ladder": lambda: HVAE(
        TABLE, 5, latents=(3, 2), width=8, inference=Inference.TOP_DOWN, condition=Labels(3)
    ),
    "diffusion": lambda: Diffusion(TABLE, 5, width=8, steps=4, condition=Labels(3)),
    "latent diffusion": lambda: LatentDiffusion(
        TABLE,
        5,
        latents=2,
        width=8,
        condition=Labels(3),
    ),
    "vae of images": lambda: VAE(IMAGE, 5, latents=(2, 4, 4), width=8, condition=Labels(3)),
    "diffusion of images": lambda: Diffusion(IMAGE, 5, width=8, condition=Labels(3), steps=3),
    "latent images": lambda: LatentDiffusion(
        IMAGE, 5, latents=(2, 4, 4), width=8, condition=Labels(3)
    ),
    "a prior that listens": lambda: VAE(
        TABLE,
        5,
        latents=2,
        width=8,
        condition=Ignored(),
        prior=Diffusion(2, width=8, steps=4, condition=Labels(3)),
    ),
}


def small(shape: tuple[int, ...]) -> Dataset:
    """Labels of an image's brightness."""
    torch.manual_seed(0)
    labels = torch.arange(48) % 3
    x = (2 * labels.reshape(-1, *[1] * len(shape)) - torch.randint(0, 2, (48, *shape))).clamp(0, 4)
    return conditional(dataset(x, bins=5, labels=labels, validation=0.2, test=0.3))


@pytest.mark.parametrize("name", ONE_LINERS)
def test_every_family_takes_labels_in_every_method(name: str) -> None:
    """Trained, validated, scored, sampled, coded: each with a context, each refused without one."""
    torch.manual_seed(0)
    model = ONE_LINERS[name]()
    data = small(model.decoder.shape)
    # Jointly: after so few steps of a second stage, a network that starts at zero ignores its context.
    fit(
        model,
        data,
        steps=8,
        batch_size=16,
        learning_rate=0.05,
        ema=0.0,
        stages="joint",
        progress=False,
    )
    told = data.context("test")
    assert told is not None
    timesteps = 4 if model.prior.has_timesteps else None
    found = evaluate(model, data, timesteps=timesteps, replicates=1).value.mean
    assert found == score(model, data.test, told, timesteps=timesteps).value.mean()
    other = evaluate(model, data, (told + 1) % 3, timesteps=timesteps, replicates=1)
    assert found != other.value.mean
    codes = model.encode(data.test, told)
    assert model.decode(codes, told).sample().shape == data.test.shape
    assert model.reconstruct(data.test, told).shape == data.test.shape
    torch.manual_seed(1)
    first = model.decoder(model.prior.sample(2, told[:2]), told[:2]).mean
    torch.manual_seed(1)
    second = model.decoder(model.prior.sample(2, (told[:2] + 1) % 3), (told[:2] + 1) % 3).mean
    assert (first - second).abs().max() > 1e-6
    few = 2 if model.prior.has_timesteps else None
    uses: list[Callable[[], object]] = [
        lambda: model.elbo(data.test, few),
        lambda: score(model, data.test, timesteps=few),
        lambda: model.sample(2),
        lambda: next(training_loop(model, data.train, steps=1, progress=False)),
        lambda: evaluate(model, data.test, (told * 2).clamp(max=3), timesteps=few),
    ]
    for use in uses[:4]:
        with pytest.raises(ValueError, match="got no context; expected one for Labels"):
            use()
    with pytest.raises(ValueError, match="labels from 0 to 3"):
        uses[4]()


def test_importance_weights_and_profiles_take_a_context() -> None:
    """The estimate of log p(x | y) is no lower than its bound; a profile of one label is that label's."""
    data = small(TABLE)
    told = data.context("test")
    model = ONE_LINERS["vae"]()
    report = evaluate(model, data, importance_samples=8)
    assert report.importance is not None
    assert report.importance.mean >= report.value.mean
    diffusion = ONE_LINERS["diffusion"]()
    fit(diffusion, data, steps=8, batch_size=16, learning_rate=0.05, progress=False)
    assert told is not None
    one, two = (profile(diffusion, data.test, c, timesteps=3).nats for c in (told, (told + 1) % 3))
    assert (one - two).abs().max() > 1e-6
    with pytest.raises(ValueError, match="got no context"):
        profile(diffusion, data.test, timesteps=3)


def test_the_autoencoder_below_a_conditional_diffusion_needs_no_label() -> None:
    """First stage without labels, then a prior with them; no label is the null context."""
    torch.manual_seed(0)
    data = small(TABLE)
    model = LatentDiffusion(TABLE, 5, latents=2, width=8, condition=Labels(3))
    plain = Dataset("plain", data.train, data.validation, data.test, 5)
    fit(model.first_stage(), plain, steps=3, batch_size=16, progress=False)
    before = [p.clone() for part in model.fixed() for p in part.parameters()]
    model.freeze(data.train)
    assert data.labels is not None
    pair = data.train, data.labels["train"]
    fit(model, pair, steps=6, batch_size=16, learning_rate=0.05, ema=0.0, progress=False)
    after = [p for part in model.fixed() for p in part.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    told = data.context("test")
    assert told is not None
    with_labels, without = (
        score(model, data.test, c, timesteps=2) for c in (told, null_context(told))
    )
    torch.testing.assert_close(with_labels.reconstruction, without.reconstruction)
    assert not torch.equal(with_labels.rates["steps"], without.rates["steps"])


def test_vectors_can_be_a_context() -> None:
    """A diffusion of ``x`` given ``x`` plus noise has a better bound than without it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 2, generator=generator)
    hint = x + 0.3 * torch.randn(600, 2, generator=generator)
    data = conditional(dataset(x, labels=hint, validation=0.0), dropout=0.2)
    torch.manual_seed(0)
    model = Diffusion(2, width=32, condition=Vectors(2), schedule=LinearLogSNR(5.0, -5.0))
    fit(
        model, data, steps=100, batch_size=128, learning_rate=1e-2, ema=0.95, validate_every=100,
        progress=False,
    )  # fmt: skip
    told = data.context("test")
    assert told is not None
    assert is_null_context(null_context(told)).all()
    gained = score(model, data.test, told, timesteps=8).value
    gained = gained - score(model, data.test, null_context(told), timesteps=8).value
    # Exactly: each number's variance given its hint is 0.09 / 1.09, worth 1.25 nats.
    assert gained.mean() > 1.0


def test_a_condition_that_no_network_takes_is_refused() -> None:
    """Given parts bring their own networks, which must take the condition."""
    unet = UNet(IMAGE, width=16, context=Labels(3))
    for build in (
        lambda: Diffusion(IMAGE, 5, denoiser=unet, condition=Labels(3)),
        lambda: LatentDiffusion(TABLE, diffusion=Diffusion(2), latents=2, condition=Labels(3)),
    ):
        with pytest.raises(ValueError, match="build the networks of your parts with it"):
            build()
    model = Diffusion(IMAGE, 5, denoiser=unet, steps=2)
    assert model.sample(2, torch.tensor([0, 2])).shape == (2, *IMAGE)
    chosen = VAE(TABLE, 5, latents=2, networks=MLPs(width=8), condition=Labels(3))
    with pytest.raises(ValueError, match="got no context"):
        chosen.elbo(torch.zeros(2, *TABLE, dtype=torch.long))
    plain = VAE(IMAGE, 5, latents=2, networks=ConvNets(width=16))
    with pytest.raises(ValueError, match="got a context; expected none"):
        plain.elbo(torch.zeros(2, *IMAGE, dtype=torch.long), context=torch.tensor([0, 1]))
