"""Figures of diffusion chains: the forward process, the reverse process, several samples from one state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from genmod import plots, random
from genmod.compare.figures.figure_data import FigureData, on
from genmod.denoisers.base import denoise
from genmod.diffusion import DiffusionPrior, NoisingEncoder
from genmod.diffusion.noising import NoisingPosterior
from genmod.model import LatentModel
from genmod.models.replace import find_diffusion
from genmod.path import sample_rows
from genmod.plots import Row
from genmod.plots.style import INK
from genmod.priors import NestedPrior
from genmod.samplers import Ancestral
from genmod.schedules import Cosine, Schedule
from genmod.tensors import expand_like

SIDE = 1.0
"""The width of an image in inches."""
COLUMNS = 10
"""The number of times at which a chain is shown."""
DRAWS = 7
"""The number of images sampled from one state."""
KEPT = (0.9, 0.7, 0.45)
"""``alpha_t`` of the states from which images are sampled, beside pure noise."""


def forward(inputs: FigureData) -> Figure | None:
    """A test image noised by a cosine schedule, and by the schedule of each model."""
    if not inputs.pixel_diffusions:
        return None
    rows = [noising(inputs, "cosine", Cosine())]
    for name, prior in inputs.pixel_diffusions.items():
        rows.append(noising(inputs, name, prior.schedule, inputs.colors[name]))
    caption = (
        r"$z_t=\alpha_t x+\sigma_t\epsilon$ with the same $\epsilon$ for all t. The times are "
        r"evenly spaced in the angle $\arctan(\sigma_t/\alpha_t)$; DDPM's $\bar\alpha_t$ is "
        r"$\alpha_t^2$. Nothing is learned here. The cosine schedule starts from clean data. A "
        r"schedule that starts from noisier data leaves the finest details to the decoder. The "
        r"gray scale widens with the noise."
    )
    return plots.strips(rows, "Forward process: adding noise step by step", caption, side=SIDE)


def noising(inputs: FigureData, name: str, schedule: Schedule, color: str = INK) -> Row:
    """The first test image, and its noised states at several times of a schedule."""
    x = inputs.data.test[:1]
    q = NoisingEncoder(schedule, inputs.data)(x)
    t = _times(schedule, torch.linspace(0, 1, 1001, dtype=torch.float64))
    z = []
    for time in t:
        with torch.no_grad(), random.keyed(0):  # one eps for all times
            z.append(q.at(time.expand(1)).sample())
    images = torch.cat([inputs.as_images(x), _shade(torch.cat(z), schedule, t)])
    above, under = ["x", *_time_words(t)], ["", *_noise_words(schedule, t)]
    return Row(f"{name}\n$z_t$", images, above, under, color)


def reverse(inputs: FigureData) -> Figure | None:
    """One ancestral chain of each diffusion: its states, and x_hat at each."""
    rows = [row for name in inputs.diffusions for row in _reverse_rows(inputs, name)]
    if not rows:
        return None
    caption = (
        f"One ancestral chain of at most {inputs.steps} steps, from noise (left) to data (right). "
        f"Under each "
        r"state: the denoiser's estimate $\hat x$ of the data (for a latent diffusion: of the "
        r"latent, decoded). It begins as the average of all images, and becomes one of them. "
        r"Last: the decoder's mean."
    )
    return plots.strips(rows, "Reverse process: denoising step by step", caption, side=SIDE)


def _reverse_rows(inputs: FigureData, name: str) -> list[Row]:
    """The states of one diffusion (if they are images), and its decoded ``x_hat``."""
    times, states, estimates, end = _chain(inputs.shortened(name))
    prior = find_diffusion(inputs.models[name])
    above, under = [*_time_words(times), ""], [*_noise_words(prior.schedule, times), "sample"]
    images = torch.cat([inputs.as_images(estimates), inputs.as_images(end)]).clamp(0, 1)
    color = inputs.colors[name]
    if name not in inputs.pixel_diffusions:
        return [Row(f"{name}\n$d(\\hat z(z_t))$", images, above, under, color)]
    noisy = _shade(states, prior.schedule, times)
    return [
        Row(f"{name}\n$z_t$", noisy, above[:-1], color=color),
        Row(r"$\hat x(z_t)$", images, (), under, color),
    ]


def draws(inputs: FigureData) -> Figure | None:
    """Several samples from one state: the noisier the state, the more they differ."""
    if not inputs.pixel_diffusions:
        return None
    name = next(iter(inputs.pixel_diffusions))
    rows: list[Row] = []
    blank = torch.full((2, *inputs.data.shape), torch.nan)
    for future in futures(inputs, name):
        words, before = ["pure noise,", "one per sample"], blank
        if future.z is not None:
            kept = float(future.schedule.scales(future.t)[0][0]) ** 2
            words = [f"t = {float(future.t[0]):.2f}", rf"$\bar\alpha_t$ = {kept:.2f}"]
            state = _shade(future.z, future.schedule, future.t)
            before = torch.cat([inputs.as_images(inputs.data.test[:1]), state])
        above = [] if rows else ["x", "$z_t$", *[f"sample {n + 1}" for n in range(DRAWS)]]
        rows.append(
            Row("\n".join(words), torch.cat([before, inputs.as_images(future.images)]), above)
        )
    caption = (
        f"Each row starts from one state $z_t$ of the test image at the left; only the noise of "
        f"the reverse steps differs from sample to sample ({name}, at most {inputs.steps} steps). "
        f"The model samples anew the details that the noise has hidden."
    )
    return plots.strips(rows, "Different noise, different images", caption, side=SIDE)


@dataclass(frozen=True, eq=False)
class Future:
    """The images of several reverse chains from one state; with ``z=None`` each from its own noise."""

    t: Tensor
    z: Tensor | None
    schedule: Schedule
    images: Tensor


def futures(inputs: FigureData, name: str) -> list[Future]:
    """Samples from states of the first test image, the cleanest first, and from noise."""
    short = inputs.shortened(name)
    prior = find_diffusion(short)
    times, found = prior.times(), []
    alpha = prior.schedule.scales(times)[0]
    for index, kept in enumerate(KEPT):
        place = int((alpha - kept).abs().argmin())
        t = times[place : place + 1]
        q = _noised(inputs, short, 1)
        with torch.no_grad(), random.keyed(index):
            z = q.at(t).sample()
            many = _run(short, prior, z.expand(DRAWS, *z.shape[1:]), times[: place + 1].flip(0))
        found.append(Future(t, z, prior.schedule, many))
    with torch.no_grad(), random.keyed(len(KEPT)):
        many = _run(short, prior, _noise(prior, DRAWS), times.flip(0))
    return [*found, Future(times[-1:], None, prior.schedule, many)]


# ---------------------------------------------------------------------- states and times


def _noised(inputs: FigureData, model: LatentModel, count: int) -> NoisingPosterior:
    """The noising posterior of the first test images."""
    with torch.no_grad():
        q = model.posterior(on(model, inputs.data.test[:count]))
    assert isinstance(q, NoisingPosterior)
    return q


def _times(schedule: Schedule, among: Tensor) -> Tensor:
    """Times of a grid, evenly spaced in the angle arctan(sigma / alpha), from clean to noisy.

    Even steps of alpha would skip the clean end: at alpha = 0.99, sigma is already 0.14.
    """
    angle = (-schedule.log_snr(among) / 2).exp().atan()
    wanted = torch.linspace(
        float(angle[0]), float(angle[-1]), COLUMNS, dtype=angle.dtype, device=angle.device
    )
    return among[(angle[None] - wanted[:, None]).abs().argmin(1).unique()]


def _time_words(t: Tensor) -> list[str]:
    return [f"t = {time:.2f}" for time in t.tolist()]


def _noise_words(schedule: Schedule, t: Tensor) -> list[str]:
    """Labels with alpha-bar (alpha squared) and the log-SNR at each time."""
    log_snr = schedule.log_snr(t)
    share = log_snr.sigmoid()
    pairs = zip(share.tolist(), log_snr.tolist(), strict=True)
    return [rf"$\bar\alpha_t$ = {kept:.2f}" + f"\nlog-SNR {level:z.1f}" for kept, level in pairs]


def _shade(z: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    """States on a gray scale from 0 to 1, which covers [-1, 1] without noise and more with noise."""
    alpha, sigma = schedule.scales(t)
    widest = expand_like(alpha + 1.5 * sigma, z)
    return ((z / widest + 1) / 2).clamp(0, 1).cpu().float()


def _noise(prior: DiffusionPrior, count: int) -> Tensor:
    """The first state of a chain."""
    _, law = next(prior.generate(count))
    return sample_rows(law, count)


def _run(model: LatentModel, prior: DiffusionPrior, z: Tensor, times: Tensor) -> Tensor:
    """Run a chain, and decode its last state."""
    return model.decoder(
        Ancestral(prior.denoiser, prior.schedule, prior.variance).run(z, times)
    ).mean


def _chain(model: LatentModel) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Times, states, decoded ``x_hat``, and the decoded last state of one chain."""
    prior = find_diffusion(model)
    times = prior.times()
    shown = _times(prior.schedule, times).flip(0)
    with torch.no_grad(), random.keyed(0):
        z = _noise(prior, 1)
        path = [
            z,
            *Ancestral(prior.denoiser, prior.schedule, prior.variance).path(z, times.flip(0)),
        ]
        states = torch.cat(
            [state for state, t in zip(path, times.flip(0), strict=True) if t in shown]
        )
        x_hat = denoise(prior.denoiser, states, prior.schedule.at(shown)).x_hat
        return shown, states, _decoded(model, x_hat), _end(model, path[-1])


def _decoded(model: LatentModel, x_hat: Tensor) -> Tensor:
    """An ``x_hat`` of the diffusion, decoded to an image of integers."""
    prior = model.prior
    if isinstance(prior, NestedPrior):
        return model.decoder(prior.outside(x_hat)).mean
    levels = model.decoder.bins
    return x_hat if levels is None else (x_hat + 1) * (levels - 1) / 2


def _end(model: LatentModel, z: Tensor) -> Tensor:
    """The decoder's mean for the last state of a chain."""
    prior = model.prior
    if not isinstance(prior, NestedPrior):
        return model.decoder(z).mean
    inner = prior.model.decoder(z)
    return model.decoder(prior.outside(inner.mean)).mean
