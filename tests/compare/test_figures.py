"""What a comparison computes for its figures, and that any family of any images has some."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genmod import random
from genmod.arrays import Context, Rows, as_tensor
from genmod.compare import figures
from genmod.compare.figures import FIGURES, chains, figure_data, graphs, pictures
from genmod.compare.figures.figure_data import FigureData
from genmod.compare.progress import Drawing, Event
from genmod.data import Dataset, binarized
from genmod.data.images import digits
from genmod.denoisers import Denoised, Denoiser, GaussianDenoiser
from genmod.evaluation import evaluate, score
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.models.replace import find_diffusion
from genmod.priors import NestedPrior
from genmod.schedules import LinearLogSNR
from tests.oracles import bent

SHAPE, BINS = (1, 8, 8), 17


def few(labels: bool = True) -> Dataset:
    """Some digits."""
    full = digits()
    parts = full.train[:40], full.validation[:4], full.test[:20]
    assert full.labels is not None
    marks = {name: full.labels[name][: len(part)] for name, part in full.parts().items()}
    cut = zip(("train", "validation", "test"), parts, strict=True)
    kept = {name: marks[name][: len(part)] for name, part in cut}
    return Dataset("few digits", *parts, BINS, kept if labels else None)


def family(bins: int = BINS) -> dict[str, LatentModel]:
    """One of each kind, small, as new."""
    vae = VAE(SHAPE, bins, latents=3, width=8)
    inner = Diffusion((3,), steps=6, width=8)
    return {
        "autoencoder": Autoencoder(SHAPE, bins, latents=2, width=8),
        "VAE": vae,
        "HVAE": HVAE(SHAPE, bins, latents=(3, 2), width=8),
        "diffusion": Diffusion(SHAPE, bins, width=8, depth=1),
        "latent diffusion": LatentDiffusion(vae=vae, diffusion=inner),
    }


MEMBERS = ("autoencoder", "VAE", "HVAE", "diffusion", "latent diffusion")
ALWAYS = {"Samples", "Noise schedules", "Loss weights"}
PICTURED = ALWAYS | {"Reconstructions", "Blur"}
STEPPED = {"Nats per noise level", "Reverse process"}
PIXELS = {"Forward process", "Different draws of noise", "Rate and distortion"}
SUBSETS: dict[str, tuple[list[str], set[str]]] = {
    "nobody": ([], ALWAYS),
    "an autoencoder": (["autoencoder"], PICTURED | {"Latent spaces"}),
    "a hierarchy": (["HVAE"], PICTURED | {"Nats per level"}),
    "a diffusion": (["diffusion"], PICTURED | STEPPED | PIXELS),
    "diffusion of a latent": (["VAE", "latent diffusion"], set(FIGURES) - PIXELS - {"Why a prior"}),
    "all": (list(MEMBERS), set(FIGURES)),
}


@pytest.mark.parametrize("name", SUBSETS)
def test_any_part_of_a_family_has_the_figures_it_allows(name: str) -> None:
    """None of them needs a model that is not there."""
    chosen, expected = SUBSETS[name]
    data, whole = few(), family()
    models = {member: whole[member] for member in chosen}
    draws = {member: 2 if "diffusion" in member else None for member in chosen}
    reports = {m: evaluate(models[m], data, name=m, timesteps=draws[m]) for m in chosen}
    seen = FigureData(models, reports, data, steps=4, levels=6)
    made = {title for title, (_, make) in FIGURES.items() if make(seen) is not None}
    assert made == expected


def test_figures_are_written_and_every_part_keeps_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of bits without labels and without reports; a figure with nothing to show has no file."""
    some = {title: FIGURES[title] for title in ("Samples", "Latent spaces", "Nats per level")}
    monkeypatch.setattr(figures, "FIGURES", some)
    data, model = binarized(few(labels=False)), family(2)["VAE"]
    model.train()
    events: list[Event] = []
    files, left_out = figures.draw_all(
        {"VAE": model}, {}, data, tmp_path / "made", tuple(some), events.append
    )
    assert model.training
    assert not left_out
    assert events == [Drawing(title, place, 3) for place, title in enumerate(some)]
    assert [file.name for file in files.values()] == ["samples.png", "latent_spaces.png"]
    assert all(file.stat().st_size > 1000 for file in files.values())


def test_a_figure_that_cannot_be_made_is_named_and_the_others_are_drawn(tmp_path: Path) -> None:
    """Blank images have no detail to compare blur with."""
    blank = Dataset("blank", *3 * (torch.zeros(8, 1, 8, 8),), bins=BINS)
    wanted = ("Blur", "Reconstructions")
    files, left_out = figures.draw_all(
        {"VAE": family(2)["VAE"]}, {}, blank, tmp_path, wanted, lambda event: None
    )
    assert list(files) == ["Reconstructions"]
    assert len(left_out) == 1
    assert left_out[0].startswith("Blur: left out: got real images without high")


# ---------------------------------------------------------------------- chains


def test_a_shortened_model_is_the_same_with_fewer_latents() -> None:
    """Bound and noise of the chain built with that many; one that is short enough is left alone."""
    x = torch.randn(10, 2, dtype=torch.float64)
    short = figure_data.shortened(bent(None), 7)
    torch.testing.assert_close(score(short, x).value, score(bent(7), x).value, rtol=1e-12, atol=0)
    model = bent(5)
    assert figure_data.shortened(model, 7).prior is model.prior
    vae = family()["VAE"]
    assert figure_data.shortened(vae, 7) is vae


def test_a_shortened_latent_diffusion_sees_its_latents_as_before() -> None:
    """The shift and the scale of the latents go along."""
    model = family()["latent diffusion"]
    assert isinstance(model, LatentDiffusion)
    model.nested.standardize(torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, 2.0, 4.0]))
    short = figure_data.shortened(model, 3)
    prior = find_diffusion(short)
    assert prior.steps == 3
    assert isinstance(short.prior, NestedPrior)
    assert torch.equal(short.prior.shift, model.nested.shift)
    torch.testing.assert_close(short.prior.log_scale, model.nested.log_scale)


@pytest.mark.parametrize("name", ["diffusion", "latent diffusion"])
def test_the_strip_of_a_chain_ends_in_a_sample_of_the_model(name: str) -> None:
    """The very one that the model gives on the same noise, by way of its own prior."""
    model = family()[name]
    if isinstance(model, LatentDiffusion):  # else a forgotten scale would not show
        model.nested.standardize(torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, 2.0, 4.0]))
    short = figure_data.shortened(model, 20)
    times, states, beliefs, end = chains._chain(short)
    inner = short.prior.model if isinstance(short.prior, NestedPrior) else short
    with random.keyed(0), torch.no_grad():
        expected = inner.decoder(inner.prior.sample(1)).mean
        if isinstance(short.prior, NestedPrior):
            z = short.prior.shift + expected * short.prior.log_scale.exp()
            expected = short.decoder(z).mean
    torch.testing.assert_close(end, expected)
    assert float(times[0]) == 1.0
    assert float(times[-1]) == 0.0
    assert (times.diff() < 0).all()
    assert len(states) == len(beliefs) == len(times) <= chains.COLUMNS


def gaussian() -> Diffusion:
    """The optimal diffusion of a Gaussian with the moments of the digits."""
    x = digits().train.flatten(1).float() / 8 - 1
    denoiser = Shaped(GaussianDenoiser(x.mean(0), x.T.cov()))
    return Diffusion(SHAPE, BINS, denoiser=denoiser, schedule=LinearLogSNR(8.0, -6.0), steps=100)


class Shaped(Denoiser):
    """A denoiser of vectors, for images."""

    def __init__(self, flat: Denoiser) -> None:
        super().__init__()
        self.flat = flat

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """The same numbers."""
        return Denoised(self.flat(z.flatten(1), log_snr).x_hat.reshape(z.shape))


def test_draws_differ_more_the_noisier_the_state_they_start_from() -> None:
    """The distance from the original image grows with the noise as well."""
    seen = FigureData({"diffusion": gaussian()}, {}, few(), steps=100)
    found = chains.futures(seen, "diffusion")
    spread = torch.tensor([float(future.images.var(0).mean()) for future in found])
    away = torch.tensor(
        [float((future.images - seen.data.test[0]).square().mean()) for future in found]
    )
    assert (spread.diff() > 0).all(), spread
    assert (away.diff() > 0).all(), away
    assert all((future.t.diff() >= 0).all() for future in found)
    kept = [float(future.schedule.scales(future.t)[0]) for future in found]
    assert kept[:3] == pytest.approx(list(chains.KEPT), abs=0.03)
    assert found[-1].z is None


# ---------------------------------------------------------------------- latents


def test_emptiness_is_one_between_neighbors_and_more_in_a_gap() -> None:
    """On a line of points one apart, with a hole of ten."""
    cloud = torch.cat([torch.arange(20.0), torch.arange(30.0, 50.0)])[:, None]
    z = torch.tensor([[3.0], [4.0 + 0.25], [24.5], [49.0 + 6]])
    found = graphs.emptiness(z, cloud)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.25, 5.5, 6.0]).to(found))


class Plane(LatentModel):
    """A model whose code of an image is its first two pixels, less the middle gray."""

    def __init__(self) -> None:
        base = Autoencoder(SHAPE, BINS, latents=2, width=8)
        super().__init__(base.encoder, base.decoder, base.prior)

    def encode(self, x: Rows, context: Context = None, observed: Rows | None = None) -> Tensor:
        """``(B, 2)``."""
        return as_tensor(x).flatten(1)[:, :2].float() - 8


def test_the_route_crosses_the_emptiest_midpoint() -> None:
    """Between images of different labels, through their codes, in even steps."""
    images = torch.zeros(4, 1, 8, 8, dtype=torch.int64)
    images[:, 0, 0, 0] = torch.tensor([0, 0, 16, 16])
    images[:, 0, 0, 1] = torch.tensor([0, 16, 0, 16])
    labels = {part: torch.tensor([0, 1, 1, 0]) for part in ("train", "validation", "test")}
    seen = FigureData({}, {}, Dataset("corners", images, images, images, BINS, labels))
    # Ways of different labels are the four sides; three of their middles are codes of the cloud.
    cloud = torch.tensor([[-8.0, 0.0], [0.0, 8.0], [0.0, -8.0], [8.0, 5.0]])
    ends = graphs.emptiest(seen, Plane(), cloud)
    assert ends == (2, 3)
    way = graphs.between(seen, Plane(), ends)
    torch.testing.assert_close(way[:, 0], torch.full((graphs.STOPS,), 8.0))
    torch.testing.assert_close(way[:, 1], torch.linspace(-8, 8, graphs.STOPS))
    same = Dataset("same", images, images, images, BINS, {k: v * 0 for k, v in labels.items()})
    assert graphs.emptiest(FigureData({}, {}, same), Plane(), cloud) is None


# ---------------------------------------------------------------------- blur


def test_the_spectrum_keeps_the_power_and_finds_a_wave_in_its_ring() -> None:
    """Parseval; and a cosine of three periods over sixteen pixels."""
    images = torch.rand(5, 1, 16, 16)
    _, squared = pictures.spectrum(images)
    torch.testing.assert_close(
        squared.sum((1, 2)), images.double().square().sum((1, 2, 3)), rtol=1e-6, atol=0
    )
    wave = (2 * math.pi * 3 / 16 * torch.arange(16.0)).cos().expand(1, 1, 16, 16)
    frequency, rings = pictures.power(wave)
    assert float(frequency[rings[0].argmax()]) == 3 / 16
    others = torch.cat([rings[0, :2], rings[0, 3:]])
    assert float(others.max()) < 1e-9


def test_blur_lowers_the_detail_and_noise_raises_it() -> None:
    """An image has as much detail as itself; averaging neighbors takes some, in closed form."""
    images = torch.randn(400, 1, 16, 16)
    assert pictures.relative_detail(images, images)[0] == 1.0
    blurred = (images + images.roll(1, 3)) / 2
    # White noise: the mean of cos^2(pi f) over the frequencies above a quarter.
    distance, _ = pictures.spectrum(images)
    across = torch.fft.fftfreq(16).expand(16, 16)[distance > 0.25]
    expected = float((math.pi * across).cos().square().mean())
    ratio, error = pictures.relative_detail(blurred, images)
    assert abs(ratio - expected) < 4.9 * error
    assert 0 < error < 0.02
    noisy = images + 0.5 * torch.randn_like(images)
    assert pictures.relative_detail(noisy, images)[0] > 1.2


def test_bits_are_measured_against_the_grays_they_were_drawn_from() -> None:
    """Else the noise of the binarization would count as detail."""
    gray = few()
    seen = FigureData({}, {}, binarized(gray))
    torch.testing.assert_close(pictures.clean(seen), gray.train.float() / 16)
    torch.testing.assert_close(pictures.clean(FigureData({}, {}, gray)), gray.test.float() / 16)
