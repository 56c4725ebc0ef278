"""Graphs: latent spaces, nats per level, schedules, weights, profiles, rate and distortion."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from genmod import plots
from genmod.compare.figures.figure_data import FigureData, on
from genmod.compare.figures.pictures import codes
from genmod.model import LatentModel
from genmod.models import VAE, find_diffusion, has_diffusion
from genmod.plots.distortion import grays
from genmod.plots.latents import distances, principal
from genmod.plots.schedules import step_weights
from genmod.schedules import Cosine, LinearBeta, Schedule

CODES = 3000
"""Codes of training images that are drawn, and that distances are measured to."""
CANDIDATES = 60
"""Test images among which the two ends of the way are looked for."""
STOPS = 9
"""Codes on the way, both ends included."""


def latent_spaces(inputs: FigureData) -> Figure | None:
    """Codes of training data, colored by label; of gray images, with a straight way decoded below.

    The way leads between the same two test images in each space: those of different labels whose way
    through the autoencoder's space has the emptiest middle.
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
            way = between(inputs, model, ends)
            routes[title] = _route(inputs, model, way, means, drawn)
    colors = {title: inputs.colors[name] for title, name in zip(points, chosen, strict=True)}
    return plots.latent_spaces(
        points, _labels(inputs), routes, colors=colors,
        title="Latent spaces: a straight way between two images", caption=_caption(len(chosen)),
    )  # fmt: skip


def _caption(count: int) -> str:
    return (
        "Codes z ~ q(z | x) of training images, seen along the two directions in which their means vary "
        "most; the dotted circle marks two standard deviations of N(0, I). Under each image: how far its "
        "code lies from the nearest code of a training image, 1 = the median distance between nearest "
        f"neighbors. The way is the same in {'both spaces' if count == 2 else 'the space'}: of all pairs "
        f"of the first {CANDIDATES} test images, that with the emptiest middle in the first space."
    )


def _first(models: dict[str, LatentModel]) -> dict[str, LatentModel]:
    """The first of the models, by name, if there is any."""
    return dict(list(models.items())[:1])


def _labels(inputs: FigureData) -> Tensor:
    count = min(CODES, len(inputs.data.train))
    return torch.zeros(count) if inputs.data.labels is None else inputs.data.labels["train"][:count]


def _route(
    inputs: FigureData, model: LatentModel, way: Tensor, means: Tensor, drawn: Tensor
) -> plots.Route:
    z = on(model, way.reshape(len(way), *model.prior.shape))
    images = inputs.ink(model.decode(z).mean)
    away = emptiness(way, drawn)
    under = [
        f"{'A' if i == 0 else 'B' if i == STOPS - 1 else ''}\n{d:.1f}".strip()
        for i, d in enumerate(away)
    ]
    return plots.Route(
        principal(means, way), images, under, "distance to the nearest training code"
    )


def between(inputs: FigureData, model: LatentModel, ends: tuple[int, int]) -> Tensor:
    """Codes on the straight way between the codes of two test images, ``(STOPS, d)``."""
    found = model.encode(on(model, inputs.data.test[list(ends)]))
    assert isinstance(found, Tensor)
    first, last = found.flatten(1).cpu()
    part = torch.linspace(0, 1, STOPS)[:, None]
    return torch.lerp(first, last, part)


def emptiness(z: Tensor, cloud: Tensor) -> Tensor:
    """The distance of each code to the nearest of a cloud, in median distances within the cloud."""
    inside = distances(cloud, cloud).fill_diagonal_(torch.inf).min(1).values
    return distances(z, cloud).min(1).values / inside.median()


def emptiest(inputs: FigureData, model: LatentModel, cloud: Tensor) -> tuple[int, int] | None:
    """Two of the first test images of different labels, with the emptiest half-way point between them."""
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
"""``T`` of the schedule of betas."""
WHITE_TO_BLACK = 255.0
"""Gray levels, in the figures' words, from the lowest level of the data to the highest."""


def rates(inputs: FigureData) -> Figure | None:
    """The levels of the models that have a few: a diffusion's are drawn against log-SNR."""
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
        "The KL divergence from posterior to prior of each level of latents, mean over test images "
        "with its standard error (for bottom-up inference a sampled log-ratio). z1 lies next to the "
        "data. A level near 0 is unused."
    )
    return plots.level_rates(
        found, colors=inputs.colors, title="Nats paid for each level of latents", caption=caption
    )


def standard_schedules() -> dict[str, Schedule]:
    """The linear betas of DDPM and the cosine of improved DDPM."""
    return {f"linear beta, T = {LATENTS}": LinearBeta(LATENTS), "cosine": Cosine()}


def schedules(inputs: FigureData) -> Figure:
    """The standard schedules, and those that the diffusions use."""
    own = {
        f"{name}'s own": (inputs.colors[name], find_diffusion(model).schedule)
        for name, model in inputs.diffusions.items()
        if has_diffusion(model)
    }
    shown = {**standard_schedules(), **{name: schedule for name, (_, schedule) in own.items()}}
    clean, noisy = Cosine().log_snr_range()
    caption = (
        r"$\bar\alpha_t$ is the share of the variance that is data. The SNR leaves its axis near t = 0, "
        "so its logarithm is plotted too. The networks also take the log-SNR instead of t. The "
        f"cosine schedule, infinite at both ends, is cut at log-SNR {clean:.1f} and {noisy:.1f}."
    )
    return plots.schedules(
        shown, colors={name: color for name, (color, _) in own.items()},
        title="Noise schedules", caption=caption,
    )  # fmt: skip


def weights(inputs: FigureData) -> Figure:
    """The weight of each step in the bound and in L_simple."""
    spans = []
    for name, schedule in standard_schedules().items():
        _, weight = step_weights(schedule, LATENTS)
        spans.append(
            f"{float(weight.max() / weight.min()):,.0f} times the smallest for {name.split(',')[0]}"
        )
    caption = (
        rf"$\lambda_t$ of the bound L for T = {LATENTS} latents, with the posterior's variance for "
        r"$\sigma_t^2$. Near t = 0, where $1-\bar\alpha_t$ approaches zero, a step weighs far more "
        f"than elsewhere (the largest weight is {' and '.join(spans)}): the bound cares for the "
        r"finest details. $L_\mathrm{simple}$ weighs all alike."
    )
    return plots.loss_weights(
        standard_schedules(), LATENTS, title="What each step weighs in the loss", caption=caption
    )


def step_profile(inputs: FigureData) -> Figure | None:
    """Nats per unit of log-SNR, with standard errors."""
    if not inputs.profiles:
        return None
    samples = next(iter(inputs.profiles.values())).samples
    caption = (
        r"The bound's integrand $\frac{1}{2}\Vert\epsilon-\hat\epsilon\Vert^2$, in at most "
        f"{inputs.levels} intervals; the band is two standard errors over {samples} test images. The area "
        "under a curve is what its denoising steps cost; above, the time t (0 clean, 1 noise) at which a "
        "schedule passes each log-SNR. In a latent diffusion it is latents that are "
        "noised."
    )
    return plots.step_profile(
        inputs.profiles, colors=inputs.colors, title="What each noise level costs", caption=caption
    )


def visible(bins: int) -> float:
    """The error, in gray levels of 255, below which a difference counts as imperceptible.

    One step of the data's own levels. Bits have no such steps, and are held to a gray level.

    >>> visible(256), visible(17), visible(2)
    (1.0, 15.9375, 1.0)
    """
    return WHITE_TO_BLACK / (bins - 1) if bins > 2 else 1.0


def rate_distortion(inputs: FigureData) -> Figure | None:
    """How many bits encode imperceptible details."""
    shown = {name: inputs.profiles[name] for name in inputs.pixel_diffusions}
    if not shown:
        return None
    ends, costs = {name: inputs.refinements[name] for name in shown}, []
    for name, found in shown.items():
        whole = float(found.bits_per_dim(found.rate[0] + ends[name].nats[-1]))
        chain = float(found.bits_per_dim(found.rate[:1])[0])
        costs.append(f"{name}: {whole:.2f} bits/dim in all, {chain:.2f} of them for $z_0$")
    bins = inputs.data.bins or 2
    level = grays(visible(bins))
    level = level if bins == 2 else f"one step of the data's {bins} levels ({level})"
    caption = (
        "Left, solid: a receiver that has the states down to t knows x with the error shown "
        r"(root mean square of $x-\hat x(z_t)$, white 0 to black 255). Dashed: the decoder's last step, "
        "sent from coarse cells of gray to single levels with the decoder's masses, until x is exact "
        "(it begins with a jump, because a decoder's estimate of x is not the denoiser's). "
        f"An error below {level} counts as imperceptible. " + "; ".join(costs) + "."
    )
    return plots.rate_distortion(
        shown, visible(bins), ends=ends, colors=inputs.colors,
        title="Rate and distortion: what imperceptible details cost", caption=caption,
    )  # fmt: skip
