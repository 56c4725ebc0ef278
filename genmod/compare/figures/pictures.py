"""Figures of images: samples, decoded noise, reconstructions, and blur."""

from __future__ import annotations

import math

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Distribution

from genmod import plots, random
from genmod.checks import invalid
from genmod.compare.figures.figure_data import RESTORED, SHOWN, FigureData, on
from genmod.model import LatentModel
from genmod.models import VAE

MEASURED = 1000
"""The number of real images to which blur is compared."""


def samples(inputs: FigureData) -> Figure:
    """Samples of each model beside data; a model without a prior decodes Gaussian noise."""
    pictures = {"data (test)": inputs.as_images(inputs.data.test[:SHOWN])}
    for name, model in inputs.models.items():
        if model.prior.proper:
            pictures[name] = inputs.samples[name]
        else:
            pictures[f"{name}\n(no prior: decodes noise)"] = fed_noise(inputs, model)
    caption = (
        f"Each image is the decoder's mean for latents drawn from the model's prior. Diffusions "
        f"take at most {inputs.steps} reverse steps here."
    )
    return plots.samples(
        pictures, 1.0, colors=inputs.colors, title="Samples beside data", caption=caption
    )


def fed_noise(inputs: FigureData, model: LatentModel) -> Tensor:
    """Decode codes drawn from N(0, I)."""
    device = model.device
    with random.keyed(0):
        noise = random.normal((SHOWN, *model.prior.shape), device=device)
    return inputs.as_images(model.decode(noise).mean)


def why_a_prior(inputs: FigureData) -> Figure | None:
    """Gaussian noise decoded by an autoencoder and by a VAE."""
    plain = {name: model for name, model in inputs.models.items() if not model.prior.proper}
    vaes = {name: model for name, model in inputs.models.items() if isinstance(model, VAE)}
    if not plain or not vaes:
        return None
    chosen = {**dict([next(iter(plain.items()))]), **dict([next(iter(vaes.items()))])}
    pictures = {"data (test)": inputs.as_images(inputs.data.test[:SHOWN])}
    ranges = []
    for name, model in chosen.items():
        pictures[f"{name}\nx' = d(noise)"] = fed_noise(inputs, model)
        low, high = spread(inputs, model)
        ranges.append(f"{low:.2g} to {high:.2g} ({name})")
    caption = (
        f"Both decoders get z ~ N(0, I), whose standard deviation is 1 in every latent dimension. "
        f"The codes on which they were trained have standard deviations of "
        f"{' and '.join(ranges)}. Only the VAE was trained to make its codes look like N(0, I)."
    )
    return plots.samples(
        pictures,
        1.0,
        colors=inputs.colors,
        title="Why a prior: decoding Gaussian noise",
        caption=caption,
    )


def codes(inputs: FigureData, model: LatentModel, count: int) -> tuple[Tensor, Tensor]:
    """The mean of ``q(z | x)`` and a draw from it, for the first training images, ``(N, d)`` each."""
    x = on(model, inputs.data.train[:count])
    with torch.no_grad(), random.keyed(0):
        q = model.posterior(x)
        assert isinstance(q, Distribution)
        return q.mean.flatten(1).cpu(), q.sample().flatten(1).cpu()


def spread(inputs: FigureData, model: LatentModel) -> tuple[float, float]:
    """The smallest and the largest standard deviation of a latent dimension, over drawn codes."""
    deviations = codes(inputs, model, MEASURED)[1].std(0)
    return float(deviations.min()), float(deviations.max())


def reconstructions(inputs: FigureData) -> Figure | None:
    """Test images and their reconstructions by each model."""
    if not inputs.restored:
        return None
    caption = (
        "The first row shows test images; each other row the decoder's mean given the code of the "
        "image. A diffusion noises the image up to t = 1/2 and denoises it again."
    )
    return plots.reconstructions(
        inputs.as_images(inputs.data.test[:RESTORED]),
        {name: images[:RESTORED] for name, images in inputs.restored.items()},
        1.0,
        colors=inputs.colors,
        title="Reconstructions",
        caption=caption,
    )


def sharpness(inputs: FigureData) -> Figure | None:
    """Blur: power at high spatial frequencies of samples and reconstructions, relative to data."""
    real = clean(inputs)
    frequency, reference = power(real)
    bars: dict[str, dict[str, tuple[float, float]]] = {}
    spectra: dict[str, tuple[Tensor, Tensor]] = {}
    for name, images in inputs.restored.items():
        kinds = {"reconstructions": relative_detail(images, real)}
        if name in inputs.samples:
            drawn = inputs.samples[name]
            kinds = {"samples": relative_detail(drawn, real), **kinds}
            spectra[name] = frequency, power(drawn)[1].mean(0) / reference.mean(0)
        bars[name] = kinds
    if not bars:
        return None
    caption = (
        "Left: the power of the Fourier spectrum above half the Nyquist frequency (1/4 cycle per "
        "pixel), mean over images, divided by that of real images; error bars are standard "
        "errors. Below 1 the images are blurred; above 1 they have noise or broken strokes. "
        "Right: the same for samples, by frequency. All images are decoder means."
    )
    if inputs.data.resample is not None:
        caption += " The real images are the gray ones from which the bits were drawn."
    return plots.sharpness(
        bars, spectra, colors=inputs.colors, title="Blur: power of each model's images at high frequencies",
        caption=caption,
    )  # fmt: skip


def clean(inputs: FigureData) -> Tensor:
    """Real images to which blur is compared: test images, or the gray images behind binarized ones.

    Binarized images contain noise: high frequencies that the mean of a decoder should not have.
    """
    source = inputs.data.resample
    if source is None:
        return inputs.as_images(inputs.data.test[:MEASURED])
    return source.gray[:MEASURED].cpu().float() / (source.bins - 1)


def spectrum(images: Tensor) -> tuple[Tensor, Tensor]:
    """Spatial frequencies in cycles per pixel, ``(H, W)``, and the power at each, ``(N, H, W)``."""
    high, wide = images.shape[-2:]
    vertical, horizontal = torch.fft.fftfreq(high), torch.fft.fftfreq(wide)
    distance = torch.hypot(vertical[:, None], horizontal[None, :])
    return distance, torch.fft.fft2(images[:, 0].double(), norm="ortho").abs().square()


def power(images: Tensor) -> tuple[Tensor, Tensor]:
    """The power of each image in rings of equal spatial frequency, ``(F,)`` and ``(N, F)``."""
    distance, squared = spectrum(images)
    side = min(images.shape[-2:])
    ring = (distance * side).round().long()
    rings = range(1, side // 2 + 1)
    rows = [squared[:, ring == index].mean(1) for index in rings]
    return torch.tensor([index / side for index in rings]), torch.stack(rows, 1)


def relative_detail(images: Tensor, reference: Tensor) -> tuple[float, float]:
    """Power above half the Nyquist frequency relative to a reference, and its standard error."""
    here, there = (_detail(each) for each in (images, reference))
    if not float(there.mean()) > 0:
        raise invalid(
            "real images without high frequencies, such as blank ones",
            "images that vary",
            "leave this figure out",
        )
    ratio = float(here.mean() / there.mean())
    relative = [
        float(each.std()) / math.sqrt(len(each)) / float(each.mean()) for each in (here, there)
    ]
    return ratio, ratio * math.hypot(*relative)


def _detail(images: Tensor) -> Tensor:
    distance, squared = spectrum(images)
    return squared[:, distance > 0.25].sum(1)
