"""Graphs: latent spaces, nats per level, schedules, weights, profiles, rate and distortion."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from genmod import plots
from genmod.compare.figures.figure_data import FigureData, on
from genmod.compare.figures.pictures import codes
from genmod.model import LatentModel
from genmod.models import VAE
from genmod.models.replace import find_diffusion, has_diffusion
from genmod.plots.latents import distances, principal
from genmod.plots.schedules import step_weights
from genmod.plots.style import grays
from genmod.schedules import Cosine, LinearBeta, Schedule

CODES = 3000
"""The number of training images whose codes are drawn, and to which distances are measured."""
CANDIDATES = 60
"""The number of test images among which the two ends of the path are chosen."""
STOPS = 9
"""The number of codes on the path, both ends included."""


def latent_spaces(inputs: FigureData) -> Figure | None:
    """The latent spaces of an autoencoder and a VAE; for gray images also a straight path, decoded.

    The path joins the codes of the same two test images in each space. They have different labels, and are
    chosen so that the middle of the path in the first space is as far as possible from all codes.
    """
    plain = {n: m for n, m in inputs.models.items() if not m.prior.proper}
    chosen = {
        **_first(plain),
        **_first({n: m for n, m in inputs.models.items() if isinstance(m, VAE)}),
    }
    if not chosen:
        return None
    clouds = {name: codes(inputs, model, CODES) for name, model in chosen.items()}
    first, cloud = next(iter(chosen.values())), next(iter(clouds.values()))[1]
    ends = emptiest(inputs, first, cloud) if inputs.gray else None
    points, routes = {}, {}
    for name, model in chosen.items():
        means, drawn = clouds[name]
        title = f"{name}, {means.shape[1]} latent dimensions"
        points[title] = principal(means, drawn)
        if ends is not None:
            path = between(inputs, model, ends)
            routes[title] = _route(inputs, model, path, means, drawn)
    colors = {title: inputs.colors[name] for title, name in zip(points, chosen, strict=True)}
    return plots.latent_spaces(
        points, _labels(inputs), routes, colors=colors,
        axis_names=("first principal direction", "second principal direction"),
        title="Latent spaces: a straight path between two images", caption=_caption(len(chosen)),
    )  # fmt: skip


def _caption(count: int) -> str:
    return (
        f"Codes z ~ q(z | x) of training images, projected on the two principal directions of "
        f"their means; the dotted circle marks two standard deviations of the standard normal. "
        f"Under each image: the distance of its code to the nearest code of a training image, in "
        f"units of the median distance between nearest neighbors. A and B are the same images "
        f"{'in both spaces' if count == 2 else 'everywhere'}: of all pairs among the first "
        f"{CANDIDATES} test images with different labels, the pair whose midpoint in the first "
        f"space is farthest from all codes."
    )


def _first(models: dict[str, LatentModel]) -> dict[str, LatentModel]:
    """The first of the models, if there is any."""
    return dict(list(models.items())[:1])


def _labels(inputs: FigureData) -> Tensor:
    count = min(CODES, len(inputs.data.train))
    return torch.zeros(count) if inputs.data.labels is None else inputs.data.labels["train"][:count]


def _route(
    inputs: FigureData, model: LatentModel, path: Tensor, means: Tensor, drawn: Tensor
) -> plots.Route:
    z = on(model, path.reshape(len(path), *model.prior.shape))
    images = inputs.as_images(model.decode(z).mean)
    away = emptiness(path, drawn)
    under = [
        f"{'A' if i == 0 else 'B' if i == STOPS - 1 else ''}\n{d:.1f}".strip()
        for i, d in enumerate(away)
    ]
    return plots.Route(
        principal(means, path), images, under, "distance to the nearest code of a training image"
    )


def between(inputs: FigureData, model: LatentModel, ends: tuple[int, int]) -> Tensor:
    """Codes on the straight path between the codes of two test images, ``(STOPS, d)``."""
    found = model.encode(on(model, inputs.data.test[list(ends)]))
    assert isinstance(found, Tensor)
    first, last = found.flatten(1).cpu()
    part = torch.linspace(0, 1, STOPS)[:, None]
    return torch.lerp(first, last, part)


def emptiness(z: Tensor, cloud: Tensor) -> Tensor:
    """The distance of each code to the nearest code of a cloud, relative to the median in the cloud."""
    inside = distances(cloud, cloud).fill_diagonal_(torch.inf).min(1).values
    return distances(z, cloud).min(1).values / inside.median()


def emptiest(inputs: FigureData, model: LatentModel, cloud: Tensor) -> tuple[int, int] | None:
    """The pair of test images with different labels whose midpoint is farthest from all codes."""
    if inputs.data.labels is None:
        return None
    labels = inputs.data.labels["test"][:CANDIDATES]
    found = model.encode(on(model, inputs.data.test[:CANDIDATES]))
    assert isinstance(found, Tensor)
    z = found.flatten(1).cpu()
    first, last = torch.triu_indices(len(z), len(z), offset=1)
    differ = labels[first] != labels[last]
    first, last = first[differ], last[differ]
    if not len(first):
        return None
    worst = int(distances((z[first] + z[last]) / 2, cloud).min(1).values.argmax())
    return int(first[worst]), int(last[worst])


LATENTS = 1000
"""``T``, the number of latents of the standard schedules."""
WHITE_TO_BLACK = 255.0
"""Gray levels between the smallest and the largest value of the data."""


def rates(inputs: FigureData) -> Figure | None:
    """The rate of each level of latents, for models without a diffusion."""
    found = {
        name: {
            level: (term.mean, term.error)
            for level, term in inputs.reports[name].terms.items()
            if level != "reconstruction"
        }
        for name in inputs.models
        if name in inputs.reports and "steps" not in inputs.reports[name].terms
    }
    found = {name: levels for name, levels in found.items() if levels}
    if not found:
        return None
    caption = (
        "The KL divergence of the posterior from the prior for each level of latents, mean over "
        "test images with its standard error (for bottom-up inference a sampled log-ratio). z1 is "
        "next to the data. A level near 0 is unused."
    )
    return plots.level_rates(
        found, colors=inputs.colors, title="The rate of each level of latents", caption=caption
    )


def standard_schedules() -> dict[str, Schedule]:
    """The linear schedule of DDPM and the cosine schedule of improved DDPM."""
    return {f"linear beta, T = {LATENTS}": LinearBeta(LATENTS), "cosine": Cosine()}


def schedules(inputs: FigureData) -> Figure:
    """The standard noise schedules, and those of the models."""
    own = {
        f"{name} (this model)": (inputs.colors[name], find_diffusion(model).schedule)
        for name, model in inputs.diffusions.items()
        if has_diffusion(model)
    }
    shown = {**standard_schedules(), **{name: schedule for name, (_, schedule) in own.items()}}
    clean, noisy = Cosine().log_snr_range()
    caption = (
        r"$\bar\alpha_t$ is the share of the data in the variance. The SNR leaves its axis near t "
        r"= 0, so the log-SNR is shown too; the networks receive it instead of t. The cosine "
        r"schedule would be infinite "
        f"at both ends, and is cut at log-SNR {clean:.1f} and {noisy:.1f}."
    )
    return plots.schedules(
        shown, colors={name: color for name, (color, _) in own.items()},
        title="Noise schedules", caption=caption,
    )  # fmt: skip


def weights(inputs: FigureData) -> Figure:
    """The weight of each step in the bound, and in L_simple."""
    spans = []
    for name, schedule in standard_schedules().items():
        _, weight = step_weights(schedule, LATENTS)
        spans.append(f"{float(weight.max() / weight.min()):,.0f} ({name.split(',')[0]})")
    caption = (
        rf"$\lambda_t$ in the bound L for T = {LATENTS} latents; $\sigma_t^2$ is the posterior's "
        rf"variance. "
        r"Near t = 0, where $1-\bar\alpha_t$ goes to zero, the weight is largest: the bound "
        r"counts the finest "
        f"details most. Ratio of the largest weight to the smallest: {', '.join(spans)}. "
        r"$L_\mathrm{simple}$ gives every step the weight 1."
    )
    return plots.loss_weights(
        standard_schedules(), LATENTS, title="The weight of each step in the loss", caption=caption
    )


def step_profile(inputs: FigureData) -> Figure | None:
    """The bound of each diffusion by noise level, with standard errors."""
    if not inputs.profiles:
        return None
    samples = next(iter(inputs.profiles.values())).samples
    caption = (
        r"The integrand of the bound, $\frac{1}{2}\Vert\epsilon-\hat\epsilon\Vert^2$, in at most "
        f"{inputs.levels} intervals; the band is two standard errors over {samples} test images. "
        f"The area under a curve is the nats of all denoising steps. Above, for one or two "
        f"schedules: the time t (0 clean, 1 noise) that has a log-SNR. A latent diffusion noises "
        f"latents instead of images."
    )
    return plots.step_profile(
        inputs.profiles, colors=inputs.colors, title="The bound by noise level", caption=caption
    )


def visible(bins: int) -> float:
    """The error in gray levels, 0 to 255, below which a difference counts as imperceptible.

    It is the distance between two neighboring values of the data; for bits it is one gray level.

    >>> visible(256), visible(17), visible(2)
    (1.0, 15.9375, 1.0)
    """
    return WHITE_TO_BLACK / (bins - 1) if bins > 2 else 1.0


def rate_distortion(inputs: FigureData) -> Figure | None:
    """The rate-distortion curve of each diffusion of images."""
    shown = {name: inputs.profiles[name] for name in inputs.pixel_diffusions}
    if not shown:
        return None
    ends, costs = {name: inputs.refinements[name] for name in shown}, []
    for name, found in shown.items():
        whole = float(found.bits_per_dim(found.rate[0] + ends[name].nats[-1]))
        chain = float(found.bits_per_dim(found.rate[:1])[0])
        costs.append(f"{name}: {whole:.2f} bits/dim in total, {chain:.2f} of them for $z_0$")
    bins = inputs.data.bins or 2
    level = grays(visible(bins))
    level = level if bins == 2 else f"the distance of neighboring values ({level})"
    caption = (
        r"Solid: after the states from noise down to $z_t$ are sent (rate), $\hat x(z_t)$ has the "
        r"root mean square error shown (distortion; white is 0, black 255). Dashed: then the "
        r"decoder's values are sent, from coarse cells to single values, until x is exact. The "
        r"curve jumps there, because the decoder's "
        f"mean is not the denoiser's. An error below {level} counts as imperceptible. "
        + "; ".join(costs)
        + "."
    )
    return plots.rate_distortion(
        shown, visible(bins), ends=ends, colors=inputs.colors,
        title="Rate and distortion: the bits of imperceptible details", caption=caption,
    )  # fmt: skip
