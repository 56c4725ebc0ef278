"""Families: who belongs to one, who is trained, and what they are trained on."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch

from genmod.compare import DIGITS, IMAGES, Member, Setting, family
from genmod.compare.member import check_family, select
from genmod.data import Dataset, dataset, digits
from genmod.diffusion import NoisingEncoder
from genmod.models import Diffusion, LatentDiffusion
from tests.compare.cases import PLAN, TINY, vae


def images(side: int, bins: int) -> Dataset:
    """Images of noise."""
    return dataset(torch.randint(0, bins, (16, 1, side, side)), bins=bins)


def names(members: tuple[Member, ...] | list[Member]) -> list[str]:
    return [member.name for member in members]


def test_the_family_suits_the_data() -> None:
    """Convolutions need some pixels a side; vectors have none."""
    assert family(digits()) is DIGITS
    assert family(images(28, 4)) is IMAGES
    assert family(images(15, 4)) is DIGITS
    assert family(dataset(torch.randint(0, 3, (20, 40)), bins=3)) is DIGITS
    assert names(list(DIGITS)) == names(list(IMAGES))


@pytest.mark.parametrize("members", [DIGITS, IMAGES], ids=["digits", "images"])
def test_a_family_can_go_to_another_process(members: tuple[Member, ...]) -> None:
    check_family(members)
    assert pickle.loads(pickle.dumps(members)) == members


@pytest.mark.parametrize("bins", [2, 256])
def test_every_member_is_built_for_gray_images_and_for_bits(bins: int) -> None:
    data = images(28, bins)
    setting = Setting(data, 0.01, {})
    for member in IMAGES:
        trained = {
            name: m.build(setting) for m in IMAGES for name in member.after if m.name == name
        }
        model = member.build(Setting(data, 0.01, trained))
        assert model.decoder.shape == (1, 28, 28)
        assert model.decoder.bins == bins


def test_texture_is_told_around_what_is_given_and_strokes_on_patches() -> None:
    """By the name of the data, and by their levels."""
    gray, member = images(28, 256), next(each for each in IMAGES if each.name == "diffusion")
    for data, clean in ((gray, 6.0), (replace(gray, name="mnist"), 2.5), (images(28, 2), 2.5)):
        model = member.build(Setting(data, 0.01, {}))
        assert isinstance(model, Diffusion)
        assert isinstance(model.encoder, NoisingEncoder)
        assert model.encoder.schedule.log_snr_range()[0] == pytest.approx(clean)
        assert ("z_0 / alpha_0 + d_c(z_0)" in str(model)) == (clean == 6.0)


def test_the_latent_diffusion_keeps_the_vae_it_was_given() -> None:
    setting = Setting(digits(), 0.01, {})
    trained = DIGITS[1].build(setting)
    model = DIGITS[-1].build(Setting(digits(), 0.01, {"VAE": trained}))
    assert isinstance(model, LatentDiffusion)
    assert model.encoder is trained.encoder


def test_a_diffusion_has_its_customary_latents_and_fewer_at_a_look() -> None:
    data = digits()
    latents = [Setting(data, effort, {}).latents for effort in (2.0, 1.0, 0.5, 0.001)]
    assert latents == [1000, 1000, 500, 10]


def test_a_choice_brings_those_it_comes_after_and_keeps_the_order() -> None:
    assert names(select(TINY, None)) == names(TINY)
    assert names(select(TINY, ["latent diffusion"])) == ["VAE", "latent diffusion"]
    assert names(select(TINY, ["vae", "Autoencoder"])) == ["autoencoder", "VAE"]
    assert names(select(DIGITS, ["hvae-bottom-up"])) == ["HVAE, bottom-up"]
    with pytest.raises(
        ValueError, match="no model named 'GAN'; expected some of: autoencoder, VAE"
    ):
        select(TINY, ["VAE", "GAN"])


def test_families_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="'big vae' beside 'Big VAE'"):
        check_family([Member("Big VAE", vae, PLAN), Member("big vae", vae, PLAN)])
    with pytest.raises(ValueError, match="'latent diffusion' after 'VAE'; expected one of"):
        check_family(TINY[::-1][:1])
    with pytest.raises(ValueError, match="without members"):
        check_family([])
