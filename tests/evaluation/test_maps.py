"""Maps of data sets: principal axes, their shares, colors, and memory that does not grow with rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genmod.data import Dataset, load
from genmod.decoders import GaussianDecoder
from genmod.encoders import GaussianEncoder
from genmod.evaluation import latent_map
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.nn import NULL_LABEL
from genmod.priors import NormalPrior
from genmod.spec import Column, DataSpec
from tests.oracles_vae import affine, gaussian_head

pytestmark = pytest.mark.usefixtures("float64")


def identity(units: int) -> LatentModel:
    """The posterior mean of ``x`` is ``x``."""
    eye, zero = torch.eye(units), torch.zeros(units)
    encoder = GaussianEncoder(gaussian_head(eye, zero, torch.ones(units)), (units,))
    return LatentModel(
        encoder, GaussianDecoder(affine(eye, zero), (units,), 0.5), NormalPrior((units,))
    )


def test_the_axes_are_the_principal_components_with_their_shares() -> None:
    """Beside an eigendecomposition of the whole covariance, for codes far from zero; chunk by chunk."""
    x = torch.randn(300, 5) @ torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1])) + 100.0
    found = latent_map(identity(5), x, batch_size=7)
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    torch.testing.assert_close(found.shares, (values / values.sum()).flip(0)[:2])
    for axis in range(2):
        expected = x @ vectors[:, -1 - axis]
        sign = torch.sign((expected * found.points[:, axis]).sum())
        torch.testing.assert_close(found.points[:, axis], sign * expected)
    assert found.axes == ("PC 1", "PC 2")
    assert "variance" in found.labels[0]


def test_two_units_are_shown_as_they_are_and_one_on_a_line() -> None:
    x = torch.randn(50, 2) * torch.tensor([1.0, 2.0])
    found = latent_map(identity(2), x)
    torch.testing.assert_close(found.points, x)
    assert found.axes == ("unit 0", "unit 1")
    assert float(found.shares.sum()) == pytest.approx(1.0)
    single = latent_map(identity(1), x[:, :1])
    torch.testing.assert_close(single.points[:, 0], x[:, 0])
    assert single.shares.tolist() == pytest.approx([1.0, 0.0])
    assert single.labels == ("unit 0 (100 % of the variance)", "")


def test_a_latent_of_many_units_has_axes_of_some_rows_and_shares_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.randn(400, 6) @ torch.diag(torch.tensor([5.0, 3.0, 0.1, 0.1, 0.1, 0.1]))
    whole = latent_map(identity(6), x)
    monkeypatch.setattr("genmod.evaluation.maps._WIDEST", 5)
    some = latent_map(identity(6), x, seed=3)
    spread = (x @ some.directions).var(0, correction=0) / x.var(0, correction=0).sum()
    torch.testing.assert_close(some.shares, spread)
    assert float(some.shares.sum()) == pytest.approx(float(whole.shares.sum()), abs=0.05)


def test_rows_keep_their_order_whatever_their_ids() -> None:
    x = torch.randn(20, 4)
    ids = torch.randperm(20)
    plain, mixed = latent_map(identity(4), x), latent_map(identity(4), x, ids=ids, batch_size=3)
    torch.testing.assert_close(plain.points, mixed.points)


def test_colors_are_labels_columns_or_values() -> None:
    digits = load("digits")
    found = latent_map(VAE(digits, latents=3, width=8), digits)
    assert digits.labels is not None
    torch.testing.assert_close(found.color, digits.labels["test"].double())
    assert found.classes == tuple("0123456789")
    columns = [Column("age"), Column("color", "category", ("red", "blue")), Column("n", "count")]
    spec = DataSpec((3,), columns=columns, missing=True)
    model = VAE(spec, latents=2, width=8)
    x = torch.stack([torch.randn(30), torch.arange(30) % 2.0, torch.arange(30) % 4.0], 1)
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[3, 2] = False
    by_color = latent_map(model, x, color="color", observed=seen)
    assert (by_color.classes, by_color.color_name) == (("red", "blue"), "color")
    by_count = latent_map(model, x, color="n", observed=seen)
    assert by_count.color is not None
    assert by_count.classes is None
    assert bool(by_count.color[3].isnan())
    torch.testing.assert_close(by_count.color[4:], x[4:, 2])
    text = latent_map(model, x, color=["b", "a", "b"] * 10)
    assert text.classes == ("a", "b")
    assert text.color is not None
    assert text.color[:3].tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match=r"color='colr'.*did you mean 'color'"):
        latent_map(model, x, color="colr")
    with pytest.raises(ValueError, match="for 30 rows"):
        latent_map(model, x, color=[1, 2])
    with pytest.raises(ValueError, match="without columns"):
        latent_map(identity(2), x[:, :2], color="age")


def test_every_family_that_encodes_has_a_map() -> None:
    """The level that is drawn first, or the one that is asked for; of a latent diffusion its VAE's."""
    torch.manual_seed(0)
    x = torch.randn(12, 4)
    bottom_up = HVAE(4, latents=(3, 2), width=8)
    assert latent_map(bottom_up, x).level == "z1"
    assert latent_map(bottom_up, x, level="z2").level == "z2"
    top_down = HVAE(4, latents=(3, 2), inference="top-down", width=8)
    found = latent_map(top_down, x)
    means = top_down.encode(x)
    torch.testing.assert_close(found.points, means[0])
    below = latent_map(top_down, x, level="z1")
    torch.testing.assert_close(below.points, means[1] @ below.directions)
    latent = LatentDiffusion(
        vae=VAE(4, latents=2, width=8), diffusion=Diffusion(2, steps=3, width=8)
    )
    codes = latent.encode(x)
    assert isinstance(codes, Tensor)
    torch.testing.assert_close(latent_map(latent, x).points, codes)
    plain = Autoencoder(4, latents=2, width=8)
    torch.testing.assert_close(latent_map(plain, x).points, plain.encode(x))
    with pytest.raises(ValueError, match=r"level='z1'.*'code'"):
        latent_map(plain, x, level="z1")
    with pytest.raises(ValueError, match=r"level='z3'.*z1"):
        latent_map(top_down, x, level="z3")


def test_levels_of_noise_have_no_map() -> None:
    """Those of a prior that denoises, whatever class of model holds it, and those nested under a VAE."""
    torch.manual_seed(0)
    x = torch.randn(12, 4)
    diffusion = Diffusion(4, steps=3, width=8)
    by_hand = LatentModel(diffusion.encoder, diffusion.decoder, diffusion.prior)
    for model in (diffusion, by_hand):
        with pytest.raises(ValueError, match="codes are noise"):
            latent_map(model, x)
    for steps in (3, None):
        inner = Diffusion(2, steps=steps, width=8)
        nested = VAE(4, latents=2, width=8, prior=inner)
        assert latent_map(nested, x, level="latent").level == "latent"
        with pytest.raises(ValueError, match=r"level='z3'.*'latent'"):
            latent_map(nested, x, level="z3")


def test_real_labels_are_a_scale_and_not_classes() -> None:
    x = torch.randn(8, 2)
    labels = {part: torch.randn(8) for part in ("train", "validation", "test")}
    found = latent_map(identity(2), Dataset("targets", x, x, x, labels=labels))
    assert found.classes is None
    torch.testing.assert_close(found.color, labels["test"].double())


def test_rows_without_a_class_have_no_color() -> None:
    x, marks = torch.randn(4, 2), torch.tensor([0, NULL_LABEL, 2, 0])
    labels = {"train": marks, "validation": marks, "test": marks}
    for classes in (None, ("a", "b", "c")):
        found = latent_map(identity(2), Dataset("some", x, x, x, labels=labels, classes=classes))
        assert found.classes == (classes or ("0", "1", "2"))
        expected = torch.tensor([0.0, torch.nan, 2.0, 0.0])
        torch.testing.assert_close(found.color, expected, equal_nan=True)
    signs = dict.fromkeys(labels, torch.tensor([-1, 1, 1, -1]))
    found = latent_map(identity(2), Dataset("signs", x, x, x, labels=signs))
    assert found.classes is None
    assert found.color is not None
    assert found.color.tolist() == [-1.0, 1.0, 1.0, -1.0]
