"""Strips of images: the forward process, the reverse process, and several samples from one state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from genmod import plots, random
from genmod.compare.figures.figure_data import FigureData, on
from genmod.denoisers.base import denoise
from genmod.diffusion import DiffusionPrior, NoisingEncoder, NoisingPosterior
from genmod.model import LatentModel
from genmod.models import find_diffusion
from genmod.plots import Row
from genmod.plots.style import INK
from genmod.prior import sample_rows
from genmod.priors import NestedPrior
from genmod.samplers import Ancestral
from genmod.schedules import Cosine, Schedule
from genmod.shapes import expand_like

SIDE = 1.0
"""Inches of an image."""
COLUMNS = 10
"""Times shown of a chain."""
DRAWS = 7
"""Images drawn from one state."""
KEPT = (0.9, 0.7, 0.45)
"""How much of the data's amplitude the states keep from which images are drawn, beside pure noise."""


def forward(inputs: FigureData) -> Figure | None:
    """One test image and what becomes of it: all the way from clean, and as the models have it."""
    if not inputs.pixel_diffusions:
        return None
    rows = [noising(inputs, "cosine", Cosine())]
    for name, prior in inputs.pixel_diffusions.items():
        rows.append(noising(inputs, name, prior.schedule, inputs.colors[name]))
    caption = (
        r"$z_t=\alpha_t x+\sigma_t\epsilon$ with one $\epsilon$ for all t, at even steps of the angle "
        r"whose cosine is $\alpha_t$ and whose sine is $\sigma_t$; the usual $\bar\alpha_t$ is "
        r"$\alpha_t^2$. Nothing is learned here. The cosine starts from clean data; a"
        " model whose own schedule starts later leaves the finest details to its decoder. "
        "The gray scale widens with the noise."
    )
    return plots.strips(rows, "Forward process: gradually adding noise", caption, side=SIDE)


def noising(inputs: FigureData, name: str, schedule: Schedule, color: str = INK) -> Row:
    """The first test image, and its states at times of a schedule."""
    x = inputs.data.test[:1]
    q = NoisingEncoder(schedule, inputs.data)(x)
    t = _times(schedule, torch.linspace(0, 1, 1001, dtype=torch.float64))
    z = []
    for time in t:
        with torch.no_grad(), random.keyed(0):  # one eps for all times
            z.append(q.at(time.expand(1)).sample())
    images = torch.cat([inputs.ink(x), _shade(torch.cat(z), schedule, t)])
    above, under = ["x", *_time_words(t)], ["", *_noise_words(schedule, t)]
    return Row(f"{name}\n$z_t$", images, above, under, color)


def reverse(inputs: FigureData) -> Figure | None:
    """One ancestral chain of each diffusion: its states, and x_hat at each."""
    rows = [row for name in inputs.diffusions for row in _reverse_rows(inputs, name)]
    if not rows:
        return None
    caption = (
        f"One ancestral chain of at most {inputs.steps} steps, from noise (left) to data (right). Under "
        "each state stands the denoiser's mean of x given that state (a latent diffusion's mean of the "
        "latent, decoded): first the average of all that is possible, then a choice. Last: the "
        "decoder's mean."
    )
    return plots.strips(rows, "Reverse process: denoising step by step", caption, side=SIDE)


def _reverse_rows(inputs: FigureData, name: str) -> list[Row]:
    """States (where they are images) and decoded ``x_hat`` of one diffusion."""
    times, states, beliefs, end = _chain(inputs.shortened(name))
    prior = find_diffusion(inputs.models[name])
    assert prior is not None
    above, under = [*_time_words(times), ""], [*_noise_words(prior.schedule, times), "sample"]
    images, color = (
        torch.cat([inputs.ink(beliefs), inputs.ink(end)]).clamp(0, 1),
        inputs.colors[name],
    )
    if name not in inputs.pixel_diffusions:
        return [Row(f"{name}\n$d(\\hat z(z_t))$", images, above, under, color)]
    noisy = _shade(states, prior.schedule, times)
    return [
        Row(f"{name}\n$z_t$", noisy, above[:-1], color=color),
        Row(r"$\hat x(z_t)$", images, (), under, color),
    ]


def draws(inputs: FigureData) -> Figure | None:
    """Several images from one state: the noisier the state, the more they differ."""
    if not inputs.pixel_diffusions:
        return None
    name = next(iter(inputs.pixel_diffusions))
    rows: list[Row] = []
    blank = torch.full((2, *inputs.data.shape), torch.nan)
    for future in futures(inputs, name):
        words, before = ["pure noise,", "each its own"], blank
        if future.z is not None:
            kept = float(future.schedule.scales(future.t)[0][0]) ** 2
            words = [f"t = {float(future.t[0]):.2f}", rf"$\bar\alpha_t$ = {kept:.2f}"]
            state = _shade(future.z, future.schedule, future.t)
            before = torch.cat([inputs.ink(inputs.data.test[:1]), state])
        above = [] if rows else ["x", "$z_t$", *[f"draw {n + 1}" for n in range(DRAWS)]]
        rows.append(Row("\n".join(words), torch.cat([before, inputs.ink(future.images)]), above))
    caption = (
        "A row starts from one state $z_t$ of the test image at its left; only the noise of the "
        f"reverse steps differs from draw to draw ({name}, at most {inputs.steps} steps in all). What "
        "noise has covered, the model samples again."
    )
    return plots.strips(rows, "Different draws of noise, different images", caption, side=SIDE)


@dataclass(frozen=True, eq=False)
class Future:
    """What several reverse chains make of one state at a time, or (``z`` is none) of noise each."""

    t: Tensor
    z: Tensor | None
    schedule: Schedule
    images: Tensor


def futures(inputs: FigureData, name: str) -> list[Future]:
    """Draws from states of the first test image, the clean ones first, and from noise."""
    short = inputs.shortened(name)
    prior = find_diffusion(short)
    assert prior is not None
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
    """The fixed posterior of the first test images."""
    with torch.no_grad():
        q = model.posterior(on(model, inputs.data.test[:count]))
    assert isinstance(q, NoisingPosterior)
    return q


def _times(schedule: Schedule, among: Tensor) -> Tensor:
    """Times of a grid at which the data turn into noise evenly, from the clean end to the noisy one.

    Evenly in the angle whose tangent is sigma / alpha. Even steps of alpha would leap over the clean
    end: where alpha has fallen by a hundredth, there already is noise of a seventh.
    """
    angle = (-schedule.log_snr(among) / 2).exp().atan()
    wanted = torch.linspace(
        float(angle[0]), float(angle[-1]), COLUMNS, dtype=angle.dtype, device=angle.device
    )
    return among[(angle[None] - wanted[:, None]).abs().argmin(1).unique()]


def _time_words(t: Tensor) -> list[str]:
    return [f"t = {time:.2f}" for time in t.tolist()]


def _noise_words(schedule: Schedule, t: Tensor) -> list[str]:
    """Alpha-bar (alpha squared) and the log-SNR at each time."""
    log_snr = schedule.log_snr(t)
    share = log_snr.sigmoid()
    pairs = zip(share.tolist(), log_snr.tolist(), strict=True)
    return [rf"$\bar\alpha_t$ = {kept:.2f}" + f"\nlog-SNR {level:z.1f}" for kept, level in pairs]


def _shade(z: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    """States as ink from 0 to 1: data of [-1, 1] where there is no noise, a wider range with more."""
    alpha, sigma = schedule.scales(t)
    widest = expand_like(alpha + 1.5 * sigma, z)
    return ((z / widest + 1) / 2).clamp(0, 1).cpu().float()


def _noise(prior: DiffusionPrior, count: int) -> Tensor:
    """The first state of a chain."""
    _, law = next(prior.generate(count))
    return sample_rows(law, count)


def _run(model: LatentModel, prior: DiffusionPrior, z: Tensor, times: Tensor) -> Tensor:
    """What the decoder makes of the state that the chain ends in."""
    return model.decoder(
        Ancestral(prior.denoiser, prior.schedule, prior.variance).run(z, times)
    ).mean


def _chain(model: LatentModel) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Times, states, decoded ``x_hat``, and the last image, of one chain."""
    prior = find_diffusion(model)
    assert prior is not None
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
    """An ``x_hat`` of the diffusion, decoded to an image in levels of gray."""
    prior = model.prior
    if isinstance(prior, NestedPrior):
        return model.decoder(prior.outside(x_hat)).mean
    levels = model.decoder.bins
    return x_hat if levels is None else (x_hat + 1) * (levels - 1) / 2


def _end(model: LatentModel, z: Tensor) -> Tensor:
    """The decoder's image of the chain's last state."""
    prior = model.prior
    if not isinstance(prior, NestedPrior):
        return model.decoder(z).mean
    inner = prior.model.decoder(z)
    return model.decoder(prior.outside(inner.mean)).mean
