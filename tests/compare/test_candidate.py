"""Suites: which models belong to one, and which of them are trained."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch

from genmod.compare import DIGITS, IMAGES, QUICK, BuildInputs, Candidate, suite_for
from genmod.compare.candidate import check_suite, select
from genmod.data import Dataset, dataset, digits
from genmod.diffusion import NoisingEncoder
from genmod.models import Diffusion, LatentDiffusion
from tests.compare.cases import PLAN, TINY, vae


def images(side: int, bins: int) -> Dataset:
    """Images of noise."""
    return dataset(torch.randint(0, bins, (16, 1, side, side)), bins=bins)


def names(candidates: tuple[Candidate, ...] | list[Candidate]) -> list[str]:
    return [candidate.name for candidate in candidates]


def test_the_suite_suits_the_data() -> None:
    """Convolutions need some pixels a side; vectors have none."""
    assert suite_for(digits()) is DIGITS
    assert suite_for(images(28, 4)) is IMAGES
    assert suite_for(images(15, 4)) is DIGITS
    assert suite_for(dataset(torch.randint(0, 3, (20, 40)), bins=3)) is DIGITS
    assert names(list(DIGITS)) == names(list(IMAGES))
    assert suite_for(digits(), quick=True) is QUICK
    with pytest.raises(ValueError, match=r"got quick=True for images of shape \(1, 28, 28\)"):
        suite_for(images(28, 4), quick=True)
    assert names(QUICK) == ["VAE", "HVAE, top-down", "diffusion"]


@pytest.mark.parametrize("candidates", [DIGITS, IMAGES, QUICK], ids=["digits", "images", "quick"])
def test_a_suite_can_go_to_another_process(candidates: tuple[Candidate, ...]) -> None:
    check_suite(candidates)
    assert pickle.loads(pickle.dumps(candidates)) == candidates


@pytest.mark.parametrize("bins", [2, 256])
def test_every_candidate_is_built_for_gray_images_and_for_bits(bins: int) -> None:
    data = images(28, bins)
    inputs = BuildInputs(data, 0.01, {})
    for candidate in IMAGES:
        trained = {
            name: m.build(inputs) for m in IMAGES for name in candidate.after if m.name == name
        }
        model = candidate.build(BuildInputs(data, 0.01, trained))
        assert model.decoder.shape == (1, 28, 28)
        assert model.decoder.bins == bins


def test_texture_has_logistics_around_z_0_and_strokes_have_patches() -> None:
    """By the name of the data, and by their values."""
    gray, candidate = images(28, 256), next(each for each in IMAGES if each.name == "diffusion")
    for data, clean in ((gray, 6.0), (replace(gray, name="mnist"), 2.5), (images(28, 2), 2.5)):
        model = candidate.build(BuildInputs(data, 0.01, {}))
        assert isinstance(model, Diffusion)
        assert isinstance(model.encoder, NoisingEncoder)
        assert model.encoder.schedule.log_snr_range()[0] == pytest.approx(clean)
        assert ("z_0 / alpha_0 + d_c(z_0)" in str(model)) == (clean == 6.0)


def test_the_latent_diffusion_keeps_the_vae_it_was_given() -> None:
    inputs = BuildInputs(digits(), 0.01, {})
    trained = DIGITS[1].build(inputs)
    model = DIGITS[-1].build(BuildInputs(digits(), 0.01, {"VAE": trained}))
    assert isinstance(model, LatentDiffusion)
    assert model.encoder is trained.encoder


def test_a_diffusion_has_fewer_latents_at_a_fraction_of_the_effort() -> None:
    data = digits()
    latents = [BuildInputs(data, effort, {}).latents for effort in (2.0, 1.0, 0.5, 0.001)]
    assert latents == [1000, 1000, 500, 10]


def test_a_choice_includes_those_it_comes_after_and_keeps_the_order() -> None:
    assert names(select(TINY, None)) == names(TINY)
    assert names(select(TINY, ["latent diffusion"])) == ["VAE", "latent diffusion"]
    assert names(select(TINY, ["vae", "Autoencoder"])) == ["autoencoder", "VAE"]
    assert names(select(DIGITS, ["hvae-bottom-up"])) == ["HVAE, bottom-up"]
    with pytest.raises(
        ValueError, match=r"got model='gan'; expected one of 'autoencoder', 'vae', "
    ):
        select(TINY, ["VAE", "GAN"])
    with pytest.raises(ValueError, match=r"did you mean 'hvae-top-down'\?"):
        select(DIGITS, ["HVAE-topdown"])


def test_suites_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="'big vae' beside 'Big VAE'"):
        check_suite([Candidate("Big VAE", vae, PLAN), Candidate("big vae", vae, PLAN)])
    with pytest.raises(
        ValueError, match="'latent diffusion' after 'VAE'; expected a candidate before it: none"
    ):
        check_suite(TINY[::-1][:1])
    with pytest.raises(ValueError, match="without candidates"):
        check_suite([])
