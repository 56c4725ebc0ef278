"""A saved model is the same model: its numbers, its text, its samples. What no file can name is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from genmod import (
    HVAE,
    VAE,
    Autoencoder,
    DataSpec,
    Diffusion,
    LatentDiffusion,
    __version__,
    files,
    load,
    random,
)
from genmod.decoders import GaussianDecoder, Identity
from genmod.denoisers import Guided, Learned
from genmod.diffusion import DiffusionPrior, FixedLarge, LearnedInterpolation, NoisingEncoder
from genmod.encoders import FlowEncoder, FullCovarianceEncoder
from genmod.model import LatentModel
from genmod.models import with_denoiser, with_depth, with_steps
from genmod.models.replace import find_diffusion
from genmod.nn import ConvNets, DenoisingMLP, Labels, MLPs
from genmod.priors import FlowPrior, MixturePrior, VampPrior
from genmod.schedules import Cosine, LinearBeta, LinearLogSNR, ZeroTerminalSNR

DIGITS = DataSpec((1, 4, 4), 17)


def mixture() -> MixtureSameFamily:
    """A prior of torch's with tensors inside tensors."""
    parts = MultivariateNormal(torch.tensor([[-2.0, 0.0], [2.0, 1.0]]), torch.eye(2))
    return MixtureSameFamily(Categorical(torch.tensor([0.3, 0.7])), parts)


MODELS: dict[str, Callable[[], LatentModel]] = {
    "autoencoder": lambda: Autoencoder(3, latents=2, width=8),
    "vae": lambda: VAE(DIGITS, latents=4, width=8),
    "vae, mixture prior": lambda: VAE(3, latents=2, width=8, prior=mixture()),
    "vae, vampprior": lambda: VAE(DIGITS, latents=2, width=8, prior=VampPrior(3)),
    "vae, flows": lambda: VAE(
        3, latents=2, width=8, encoder=FlowEncoder(width=8), prior=FlowPrior(width=8)
    ),
    "vae, full covariance": lambda: VAE(
        3, latents=2, width=8, encoder=FullCovarianceEncoder(), prior=MixturePrior(3)
    ),
    "hvae, vampprior": lambda: HVAE(3, latents=(4, 2), width=8, prior=VampPrior(3)),
    "vae, nested": lambda: VAE(3, latents=2, width=8, prior=Diffusion(2, width=8, steps=3)),
    "hvae, bottom-up": lambda: HVAE(3, latents=(4, 2), width=8),
    "hvae, ladder": lambda: HVAE(3, latents=(4, 2), inference="ladder", width=8),
    "hvae, very deep": lambda: HVAE(3, levels=5, latents=2, width=8),
    "hvae, very deep, images": lambda: HVAE(
        DIGITS, levels=4, latents=2, networks=ConvNets(width=8), checkpoint_activations=True
    ),
    "diffusion, learned encoder": lambda: with_depth(
        Diffusion(DIGITS, width=8), 3, learned_encoder=True, networks=MLPs(width=8)
    ),
    "hvae, top-down": lambda: HVAE(DIGITS, latents=(4, 2), inference="top-down", width=8),
    "diffusion": lambda: Diffusion(DIGITS, width=8, schedule=Cosine(), steps=10),
    "diffusion, table": lambda: Diffusion(
        3, width=8, steps=5, schedule=ZeroTerminalSNR(LinearBeta(50)), variance=FixedLarge()
    ),
    "diffusion, learned variance": lambda: Diffusion(
        3, width=8, steps=5, variance=LearnedInterpolation()
    ),
    "diffusion, conditional": lambda: Diffusion(DIGITS, width=8, steps=5, condition=Labels(3)),
    "diffusion, network": lambda: Diffusion(3, denoiser=DenoisingMLP((3,), width=8), steps=5),
    "latent diffusion": lambda: LatentDiffusion(3, latents=2, width=8),
}


def noisy(model: LatentModel) -> LatentModel:
    """The model with parameters that no constructor gives."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_is_the_saved_one(name: str, tmp_path: Path) -> None:
    model = noisy(MODELS[name]())
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert type(again) is type(model)
    assert repr(again) == repr(model)
    assert again.spec == model.spec
    x = torch.randn(4, *model.spec.shape)
    if model.spec.is_integer:
        x = torch.randint(0, 17, (4, *model.spec.shape))
    context = torch.tensor([0, 1, 2, 0]) if "conditional" in name else None
    values = []
    for each in (model, again):
        torch.manual_seed(0)
        values.append(each.elbo(x, context=context).value)
    assert torch.equal(*values)
    if name != "autoencoder":
        samples = [
            each.sample(2, None if context is None else context[:2], seeds=[3, 5])
            for each in (model, again)
        ]
        assert torch.equal(*samples)


def test_a_data_set_in_the_arguments_is_kept_as_its_description(tmp_path: Path) -> None:
    class Data:
        spec = DataSpec.of(3)
        x = torch.zeros(100, 3)

    model = VAE(Data(), latents=2, width=8)
    model.save(tmp_path)
    assert "shape" in (tmp_path / "config.yaml").read_text()
    assert load(tmp_path).spec == DataSpec.of(3)


def test_what_no_file_can_name_is_refused(tmp_path: Path) -> None:
    """A module of the user's own trains, and is refused by save with the way out."""
    model = VAE(3, latents=2, width=8, decoder=GaussianDecoder(nn.Linear(2, 3), (3,)))
    with pytest.raises(ValueError, match=r"genmod\.register"):
        model.save(tmp_path)


def parts_of_my_own() -> LatentModel:
    """A diffusion put together by hand."""
    denoiser, schedule = Learned(DenoisingMLP((3,), width=8)), LinearLogSNR(4.0, -6.0)
    prior = DiffusionPrior(denoiser, schedule, (3,), 10)
    return LatentModel(NoisingEncoder(schedule, 3), GaussianDecoder(Identity(), (3,)), prior)


WITH_DIFFUSION: dict[str, Callable[[], LatentModel]] = {
    "diffusion": lambda: Diffusion(3, width=8, steps=10),
    "latent diffusion": lambda: LatentDiffusion(3, latents=2, width=8),
    "conditional": lambda: LatentDiffusion(3, latents=2, width=8, condition=Labels(4)),
    "of two parts": lambda: LatentDiffusion(
        vae=VAE(3, latents=2, width=8), diffusion=Diffusion(2, width=8, steps=10)
    ),
    "nested in a VAE": MODELS["vae, nested"],
    "put together by hand": parts_of_my_own,
}


@pytest.mark.parametrize("steps", [4, None])
@pytest.mark.parametrize("name", WITH_DIFFUSION)
def test_a_model_with_other_steps_is_saved(name: str, steps: int | None, tmp_path: Path) -> None:
    """What is read back has the new number of latents, and the same bound bit for bit."""
    model = with_steps(WITH_DIFFUSION[name](), steps)
    model.save(tmp_path)
    again = load(tmp_path)
    assert type(again) is type(model)
    assert find_diffusion(again).steps == steps
    x, context = torch.randn(5, 3), torch.arange(5) % 4 if name == "conditional" else None
    values = []
    for each in (model, again):
        with random.keyed(0):
            values.append(each.eval().elbo(x, timesteps=2, context=context).value)
    assert torch.equal(*values)


def test_a_model_with_a_wrapped_denoiser_is_refused(tmp_path: Path) -> None:
    """Its constructor's arguments no longer describe it: loading them would give another model."""
    model = with_denoiser(Diffusion(3, width=8), lambda denoiser: Guided(denoiser, 2.0))
    with pytest.raises(ValueError, match="apply with_denoiser after loading it"):
        model.save(tmp_path)


def test_files_that_are_missing_or_torn_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path / "nothing")
    VAE(3, latents=2, width=8).save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        load(tmp_path)


def test_a_law_of_torch_is_one_event_a_row_again(tmp_path: Path) -> None:
    law = Independent(Normal(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])), 1)
    VAE(3, latents=2, width=8, prior=law).save(tmp_path)
    z = torch.randn(5, 2)
    assert torch.equal(load(tmp_path).prior.law(5).log_prob(z), law.log_prob(z))  # type: ignore[operator]


def test_a_class_reads_its_own_models(tmp_path: Path) -> None:
    """Under the names that model hubs use."""
    VAE(3, latents=2, width=8).save_pretrained(tmp_path)
    assert isinstance(VAE.from_pretrained(tmp_path), VAE)
    with pytest.raises(ValueError, match="got a saved VAE; expected a Diffusion"):
        Diffusion.from_pretrained(tmp_path)


# ------------------------------------------------------------------ what loading says


def edited(folder: Path, old: str, new: str) -> Path:
    """A saved model whose ``config.yaml`` was changed."""
    path = folder / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return folder


def test_loading_is_silent_where_nothing_differs_and_says_what_does(tmp_path: Path) -> None:
    VAE(3, latents=2, width=8, dropout=0.1).save(tmp_path)
    load(tmp_path)
    edited(tmp_path, f"version: {__version__}", "version: 0.0.9")
    with pytest.warns(UserWarning, match=f"version 0.0.9 of genmod, and this is {__version__}$"):
        load(tmp_path)
    edited(tmp_path, "version: 0.0.9", f"version: {__version__}")
    edited(tmp_path, "dropout: 0.1", "dropout: 0.2")
    with pytest.warns(UserWarning, match="changed after its weights were written"):
        load(tmp_path)
    edited(tmp_path, "dropout: 0.2", "dropout: 0.1")
    edited(tmp_path, "device: cpu", "device: cuda")
    with pytest.warns(UserWarning, match="saved on cuda, and is on cpu now"):
        load(tmp_path)
    with pytest.warns(UserWarning, match="saved on cuda, and is on meta now"):
        load(tmp_path, device="meta")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("genmod-model-2", "genmod-model-3", "a newer version of genmod wrote it: upgrade genmod"),
        ("genmod-model-2", "genmod-model-1", "of format genmod-model-1; expected genmod-model-2"),
        ("width: 8", "width: 9", "expected"),
        ("latents: 2", "latent: 2", "the setting 'latent' of VAE.*did you mean 'latents'"),
        ("class: VAE", "class: HVEA", "did you mean 'HVAE'"),
        ("class: VAE", "class: VAE\n  widths: 3", "did you mean 'width'"),
        ("width: 8", "width: 20000", "a model with more than"),
        ("width: 8", "width: [8]", "expected a whole number"),
    ],
)
def test_what_cannot_be_right_is_refused(old: str, new: str, why: str, tmp_path: Path) -> None:
    VAE(3, latents=2, width=8).save(tmp_path)
    with pytest.raises(ValueError, match=why) as found:
        load(edited(tmp_path, old, new))
    assert "\n" not in str(found.value)


def test_whole_numbers_in_place_of_weights_are_refused(tmp_path: Path) -> None:
    VAE(3, latents=2, width=8).save(tmp_path)
    tensors, metadata = files.read_tensors(tmp_path / "model.safetensors", "")
    wrong = {name: tensor.long() for name, tensor in tensors.items()}
    files.save_tensors(tmp_path / "model.safetensors", wrong, metadata)
    with pytest.raises(ValueError, match=r"int64.*belong to another model"):
        load(tmp_path)


def test_what_was_frozen_stays_frozen(tmp_path: Path) -> None:
    """A latent diffusion whose first stage is done would train it again otherwise."""
    model = LatentDiffusion(3, latents=2, width=8).freeze(torch.randn(50, 3))
    model.save(tmp_path)
    again = load(tmp_path)
    assert not any(p.requires_grad for p in again.encoder.parameters())
    assert all(p.requires_grad for p in again.prior.parameters())
    assert torch.equal(again.prior.shift, model.prior.shift)  # type: ignore[arg-type]
