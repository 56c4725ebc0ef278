"""``load(save(m))`` is ``m``, bit for bit: over random models, priors, nestings and types."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Independent, Laplace, MultivariateNormal

from genmod import HVAE, VAE, Autoencoder, DataSpec, Diffusion, LatentDiffusion, load
from genmod.decoders import GaussianDecoder, GlobalScale, Identity
from genmod.denoisers import Learned, NoiseTarget
from genmod.diffusion import FixedLarge, LastStepDecoder, LearnedInterpolation
from genmod.model import LatentModel
from genmod.models.replace import find_diffusion
from genmod.nn import DenoisingMLP, Labels, MLPs
from genmod.priors import NestedPrior
from genmod.schedules import Cosine, LinearBeta, LinearLogSNR, MonotoneNetwork, RectifiedFlow
from tests.saving.test_folder import noisy

Draw = Callable[..., Any]
SPECS = (DataSpec((3,)), DataSpec((1, 4, 4), 17), DataSpec((2, 3), 2))
SCHEDULES = (
    Cosine,
    LinearLogSNR,
    lambda: LinearBeta(20).cut(clean=1.5),
    MonotoneNetwork,
    RectifiedFlow,
)


def diffusions(draw: Draw, spec: DataSpec, conditional: bool = False) -> LatentModel:
    schedule = draw(st.sampled_from(SCHEDULES))()
    steps = draw(st.sampled_from([None, 1, 2, 7]))
    if draw(st.booleans()) and not conditional and not spec.is_integer:
        # One denoiser in two arguments.
        denoiser = Learned(DenoisingMLP(spec.shape, width=8), NoiseTarget())
        schedule = schedule.resolve(spec)
        last = LastStepDecoder(denoiser, schedule, GaussianDecoder(Identity(), spec, GlobalScale()))
        return Diffusion(spec, denoiser=denoiser, schedule=schedule, steps=steps, decoder=last)
    variance = (
        None
        if steps is None
        else draw(st.sampled_from([None, FixedLarge(), LearnedInterpolation()]))
    )
    return Diffusion(
        spec,
        schedule=schedule,
        steps=steps,
        variance=variance,
        width=draw(st.sampled_from([4, 8])),
        fourier=draw(st.sampled_from([(), (1, 2)])),
        condition=Labels(3) if conditional else None,
    )


def priors(draw: Draw, latents: int, depth: int) -> object:
    kind = draw(
        st.sampled_from(["normal", "law", "tril", *(["vae", "diffusion"] if depth else [])])
    )
    if kind == "normal":
        return None
    if kind == "law":
        return Independent(Laplace(torch.zeros(latents), torch.ones(latents) * 0.7), 1)
    if kind == "tril":
        tril = torch.eye(latents) + 0.1 * torch.ones(latents, latents).tril()
        return MultivariateNormal(torch.zeros(latents), scale_tril=tril)
    if kind == "diffusion":
        return diffusions(draw, DataSpec((latents,)))
    inner = draw(st.integers(1, 3))
    nested = VAE(latents, latents=inner, width=8, prior=priors(draw, inner, depth - 1))  # type: ignore[arg-type]
    # Each level of a nesting has a name of its own; two of the same name are refused.
    return NestedPrior(nested, name=f"latent {depth}")


def models(draw: Draw) -> LatentModel:
    spec, latents = draw(st.sampled_from(SPECS)), draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["vae", "hvae", "diffusion", "latent diffusion", "autoencoder"]))
    conditional = draw(st.booleans()) and kind != "autoencoder"
    condition = Labels(3) if conditional else None
    common = {"width": 8, "dropout": draw(st.sampled_from([0.0, 0.2]))}
    if kind == "autoencoder":
        return Autoencoder(spec, latents=latents, **common)
    if kind == "diffusion":
        return diffusions(draw, spec, conditional)
    if kind == "latent diffusion":
        return LatentDiffusion(spec, latents=latents, condition=condition, **common)
    if kind == "hvae":
        sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        order = draw(st.sampled_from(["bottom-up", "top-down"]))
        return HVAE(spec, latents=sizes, inference=order, condition=condition, **common)
    if conditional:
        return VAE(spec, latents=latents, networks=MLPs(width=8), condition=condition)
    return VAE(spec, latents=latents, prior=priors(draw, latents, 2), **common)  # type: ignore[arg-type]


def check(
    model: LatentModel, x: torch.Tensor, context: torch.Tensor | None, default: torch.dtype
) -> None:
    """The same bound, text, types, frozen parts and modules, also for a reader of another default type."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        before = torch.random.get_rng_state()
        here = torch.get_default_dtype()
        torch.set_default_dtype(default)
        again = load(folder)
        torch.set_default_dtype(here)
        assert torch.equal(torch.random.get_rng_state(), before)
    values = []
    for each in (model, again):
        torch.manual_seed(0)
        values.append(each.elbo(x, context=context).value)
    assert torch.equal(*values)
    assert repr(again) == repr(model)
    assert again.dtype is model.dtype
    own, new = dict(model.named_parameters()), dict(again.named_parameters())
    assert {n: (p.dtype, p.requires_grad) for n, p in own.items()} == {
        n: (p.dtype, p.requires_grad) for n, p in new.items()
    }
    assert len(list(model.modules())) == len(list(again.modules()))


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_random_model_is_the_same_after_loading(data: st.DataObject) -> None:
    same_after_loading(data)


@pytest.mark.slow
@settings(max_examples=400, suppress_health_check=list(HealthCheck), derandomize=False)
@given(st.data())
def test_many_random_models_are_the_same_after_loading(data: st.DataObject) -> None:
    same_after_loading(data)


def same_after_loading(data: st.DataObject) -> None:
    """Draw a model, some rows and a type; save, load and compare."""
    torch.manual_seed(data.draw(st.integers(0, 5)))
    double = data.draw(st.sampled_from(["float32", "cast to float64", "built in float64"]))
    if double == "built in float64":
        torch.set_default_dtype(torch.float64)
    try:
        model = noisy(models(data.draw))
        model = model.double() if double == "cast to float64" else model
        if data.draw(st.booleans()):
            model.decoder.requires_grad_(False)
        shape = (4, *model.spec.shape)
        whole = torch.randint(0, model.spec.bins or 2, shape)
        x = whole if model.spec.is_integer else torch.randn(shape)
        needs = isinstance(model, nn.Module) and "Labels" in repr(model._arguments)
        context = torch.tensor([0, 1, 2, 0]) if needs else None
        check(model, x, context, data.draw(st.sampled_from([torch.float32, torch.float64])))
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_model_of_two_types_keeps_both(tmp_path: Path) -> None:
    model = VAE(3, latents=2, width=8)
    model.encoder.double()
    model.save(tmp_path)
    again = load(tmp_path)
    assert {p.dtype for p in again.encoder.parameters()} == {torch.float64}
    assert {p.dtype for p in again.decoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_denoiser_in_two_arguments_is_one_after_loading(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    """Its own decoder's last step uses the network that the chain uses."""
    denoiser, schedule = Learned(DenoisingMLP((3,), width=8)), LinearLogSNR(4.0, -5.0)
    last = LastStepDecoder(denoiser, schedule, GaussianDecoder(Identity(), (3,), GlobalScale(0.1)))
    model = noisy(Diffusion(denoiser=denoiser, schedule=schedule, steps=4, decoder=last).to(dtype))
    model.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again.decoder, LastStepDecoder)
    assert again.decoder.denoiser is find_diffusion(again).denoiser
    for name, weight in denoiser.named_parameters():
        assert torch.equal(again.decoder.denoiser.get_parameter(name), weight)
