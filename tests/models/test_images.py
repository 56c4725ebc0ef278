"""Models on images: convolutions by themselves, codes with places, one bound however it is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genmod import random
from genmod.denoisers import Learned
from genmod.diffusion import DiffusionPrior
from genmod.distributions import Normal
from genmod.evaluation import evaluate
from genmod.evaluation.baselines import pixel_histogram
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, Inference, LatentDiffusion
from genmod.nn import MLP, ConvNets, MLPs, UNet
from genmod.nn.networks import default_networks
from genmod.nn.residual import ConvDecoder, ConvEncoder
from genmod.training import fit

SHAPE = (1, 16, 16)
SMALL = ConvNets(width=16)

MODELS: dict[str, Callable[[], LatentModel]] = {
    "autoencoder": lambda: Autoencoder(SHAPE, 5, latents=3, networks=SMALL),
    "VAE": lambda: VAE(SHAPE, 5, latents=3, networks=SMALL),
    "VAE with places": lambda: VAE(SHAPE, 5, latents=(2, 4, 4), networks=SMALL),
    "bottom-up": lambda: HVAE(SHAPE, 5, latents=(3, 2), networks=SMALL),
    "top-down": lambda: HVAE(
        SHAPE, 5, latents=(3, 2), inference=Inference.TOP_DOWN, networks=ConvNets(width=8)
    ),
    "diffusion": lambda: Diffusion(SHAPE, 5, steps=4, networks=SMALL),
    "latent diffusion": lambda: LatentDiffusion(SHAPE, 5, latents=(2, 4, 4), networks=SMALL),
    "bits": lambda: VAE(SHAPE, 2, latents=3, networks=SMALL),
    "color": lambda: VAE((3, 17, 19), 5, latents=3, networks=SMALL),
}


def bars(count: int, bins: int = 5, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """A bright column on a dark ground, anywhere: pixels that depend on each other."""
    x = torch.zeros(count, *shape, dtype=torch.long)
    columns = torch.randint(0, shape[-1], (count,), generator=torch.Generator().manual_seed(0))
    x[torch.arange(count), ..., columns] = bins - 1
    return x


@pytest.mark.parametrize("name", MODELS)
def test_every_term_of_a_report_is_part_of_its_total(name: str) -> None:
    """The value is the reconstruction minus every rate, in the mean, for each model."""
    torch.manual_seed(0)
    model = MODELS[name]()
    bins = model.decoder.bins
    assert bins is not None
    draws = 2 if "diffusion" in name else None
    report = evaluate(model, bars(6, bins, model.decoder.shape), timesteps=draws)
    terms = {key: term.mean for key, term in report.terms.items()}
    total = terms.pop("reconstruction") - sum(terms.values())
    assert report.value.mean == pytest.approx(total, rel=1e-12)
    assert report.dims == model.decoder.shape[0] * model.decoder.shape[1] * model.decoder.shape[2]


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_learns(name: str) -> None:
    """Also those behind blocks that start closed: after one step, they are open."""
    torch.manual_seed(0)
    model = MODELS[name]()
    x = bars(8, model.decoder.bins or 2, model.decoder.shape)
    before = {key: value.clone() for key, value in model.named_parameters()}
    fit(model, x, steps=4, batch_size=8, ema=0.0, warmup=0, progress=False)
    still = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert not still


def test_images_get_convolutions_and_tables_of_pixels_perceptrons() -> None:
    image, table = VAE((1, 28, 28), 256), VAE((1, 8, 8), 17)
    assert isinstance(image.encoder.network, ConvEncoder)
    assert isinstance(image.decoder.network, ConvDecoder)
    assert isinstance(table.encoder.network, MLP)
    prior = Diffusion((1, 28, 28), 256).prior
    assert isinstance(prior, DiffusionPrior)
    assert isinstance(prior.denoiser, Learned)
    assert isinstance(prior.denoiser.network, UNet)
    assert isinstance(VAE((1, 28, 28), 256, networks=MLPs()).encoder.network, MLP)
    assert isinstance(default_networks((2, 100)), ConvNets)
    assert isinstance(default_networks((100,)), MLPs)


def test_settings_and_networks_are_not_given_twice() -> None:
    with pytest.raises(ValueError, match="one or the other"):
        VAE((1, 8, 8), 17, width=32, networks=MLPs())
    with pytest.raises(ValueError, match=r"\(8, 8\), \(4, 4\)"):
        VAE(SHAPE, 5, latents=(2, 5, 5), networks=SMALL)


@pytest.mark.slow
def test_a_convolutional_vae_learns_dependence_between_pixels() -> None:
    """Bars: 16 equally likely images cost ln 16 nats; pixels that ignore each other cost ten times that."""
    torch.manual_seed(0)
    x = bars(512, 2)
    model = VAE(SHAPE, 2, latents=2, networks=SMALL)
    fit(model, x, steps=250, batch_size=64, learning_rate=3e-3, warmup=20, progress=False)
    bound = evaluate(model, x).value.mean
    alone = float(pixel_histogram(x, x, 2).log_prob.mean())
    assert alone < -50
    assert bound > alone / 2


def test_the_joint_bound_of_a_latent_diffusion_is_the_two_stages_bound() -> None:
    """Same parameters, same noise: reconstruction, minus log q, plus the diffusion's bound on the code.

    The second stage standardizes the code by the shift and scale that :meth:`freeze` measured, and by
    hand subtracts their Jacobian; the joint model, free, has the same ones.
    """
    torch.manual_seed(0)
    staged, x = LatentDiffusion(SHAPE, 5, latents=(2, 4, 4), networks=SMALL).double(), bars(5)
    joint = copy.deepcopy(staged)
    staged.freeze(x)
    shift, scale = staged.nested.shift, staged.nested.log_scale.exp()
    assert shift.abs().min() > 1e-3
    assert scale.log().abs().min() > 1e-3
    joint.nested.standardize(shift, scale)
    values = []
    for model in (staged, joint):
        with random.keyed(1):
            values.append(model.elbo(x, timesteps=3).value)
    with random.keyed(1):
        q = joint.first_stage().encoder(x)
        assert isinstance(q, Normal)
        z = q.rsample()
        inner = staged.nested.model.elbo((z - shift) / scale, 3).value - scale.log().sum()
        by_hand = joint.decoder(z).log_prob(x) - q.log_prob(z) + inner
    torch.testing.assert_close(values[0], by_hand)
    torch.testing.assert_close(values[1], by_hand)
    values[1].sum().backward()
    values[0].sum().backward()
    heard = [
        any(part.grad is not None for part in model.encoder.parameters())
        for model in (staged, joint)
    ]
    assert heard == [False, True]


def test_latents_are_measured_the_same_in_pieces() -> None:
    """More rows than are encoded together: mean and spread are those of all of them."""
    torch.manual_seed(0)
    model = LatentDiffusion((3,), latents=2, width=8).double()
    x = torch.randn(2500, 3, dtype=torch.float64)
    model.freeze(x)
    q = model.encoder(x)
    assert isinstance(q, Normal)
    torch.testing.assert_close(model.nested.shift, q.mean.mean(0))
    spread = (q.mean.var(0, correction=0) + q.variance.mean(0)).sqrt()
    torch.testing.assert_close(model.nested.log_scale.exp(), spread)
