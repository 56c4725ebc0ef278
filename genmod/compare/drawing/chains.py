"""The lecture's strips: noise on the way in, denoising on the way back, and one state's many futures."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from genmod import plots, random
from genmod.compare.drawing.look import Look, on
from genmod.denoisers import denoise
from genmod.encoders import Noised
from genmod.evaluation import denoising
from genmod.model import LatentModel
from genmod.plots import Row
from genmod.prior import sample_rows
from genmod.priors import Denoising, Nested
from genmod.schedules import Schedule
from genmod.shapes import against

SIDE = 1.0
"""Inches of an image."""
COLUMNS = 10
"""Times shown of a chain."""
DRAWS = 7
"""Images drawn from one state."""
KEPT = (0.9, 0.7, 0.45)
"""How much of the data's amplitude the states keep from which images are drawn, beside pure noise."""


def forward(look: Look) -> Figure | None:
    """One test image and what becomes of it."""
    if not look.pixel_diffusions:
        return None
    rows, x = [], look.ink(look.data.test[:1])
    for name, prior in look.pixel_diffusions.items():
        q = _noised(look, look.models[name], 1)
        t = _times(prior.schedule, prior.times(1001))
        z = []
        for time in t:
            with random.keyed(0):  # one eps for all times
                z.append(q.at(time.expand(1)).sample())
        images = torch.cat([x, _shade(torch.cat(z), prior.schedule, t)])
        above, under = ["x", *_time_words(t)], ["", *_noise_words(prior.schedule, t)]
        rows.append(Row(f"{name}\n$z_t$", images, above, under, look.colors[name]))
    caption = (
        r"$z_t=\alpha_t x+\sigma_t\epsilon$ with one $\epsilon$ for all t, at even steps of $\alpha_t$; "
        r"the lecture's $\bar\alpha_t$ is $\alpha_t^2$. Nothing is learned here. The gray scale widens "
        "with the noise."
    )
    return plots.strips(rows, "Forward process: gradually adding noise", caption, side=SIDE)


def reverse(look: Look) -> Figure | None:
    """One ancestral chain of each diffusion: its states, and what it believes x to be at each."""
    rows = [row for name in look.diffusions for row in _reverse_rows(look, name)]
    if not rows:
        return None
    caption = (
        f"One ancestral chain of at most {look.steps} steps, from noise (left) to data (right). Under each "
        "state stands the denoiser's mean of x given that state (a latent diffusion's mean of the "
        "latent, decoded): first the average of all that is possible, then a choice. Last: the "
        "decoder's mean."
    )
    return plots.strips(rows, "Reverse process: denoising step by step", caption, side=SIDE)


def _reverse_rows(look: Look, name: str) -> list[Row]:
    """States (where they are images) and beliefs of one diffusion."""
    times, states, beliefs, end = _chain(look.shortened(name))
    prior = denoising(look.models[name])
    assert prior is not None
    above, under = [*_time_words(times), ""], [*_noise_words(prior.schedule, times), "sample"]
    images, color = torch.cat([look.ink(beliefs), look.ink(end)]).clamp(0, 1), look.colors[name]
    if name not in look.pixel_diffusions:
        return [Row(f"{name}\n$d(\\hat z(z_t))$", images, above, under, color)]
    noisy = _shade(states, prior.schedule, times)
    return [
        Row(f"{name}\n$z_t$", noisy, above[:-1], color=color),
        Row(r"$\hat x(z_t)$", images, (), under, color),
    ]


def draws(look: Look) -> Figure | None:
    """Several images from one state: the noisier the state, the more they differ."""
    found = {**look.pixel_diffusions}
    if not found:
        return None
    name = next(iter(found))
    short = look.shortened(name)
    prior = denoising(short)
    assert prior is not None
    times, blank = prior.times(), torch.full((1, *look.data.shape), torch.nan)
    alpha = prior.schedule.scales(times)[0]
    rows = []
    for index, kept in enumerate(KEPT):
        place = int((alpha - kept).abs().argmin())
        t = times[place : place + 1]
        q = _noised(look, short, 1)
        with torch.no_grad(), random.keyed(index):
            z = q.at(t).sample()
            many = _run(short, prior, z.expand(DRAWS, *z.shape[1:]), times[: place + 1].flip(0))
        images = torch.cat(
            [look.ink(look.data.test[:1]), _shade(z, prior.schedule, t), look.ink(many)]
        )
        words = [f"t = {float(t[0]):.2f}", rf"$\bar\alpha_t$ = {float(alpha[place]) ** 2:.2f}"]
        above = ["x", "$z_t$", *[f"draw {n + 1}" for n in range(DRAWS)]] if index == 0 else []
        rows.append(Row("\n".join(words), images, above))
    with torch.no_grad(), random.keyed(len(KEPT)):
        z = _noise(prior, DRAWS)
        many = _run(short, prior, z, times.flip(0))
    images = torch.cat([blank, blank, look.ink(many)])
    rows.append(Row("pure noise,\neach its own", images))
    caption = (
        "A row starts from one state $z_t$ of the test image at its left; only the noise of the "
        f"reverse steps differs from draw to draw ({name}, at most {look.steps} steps in all). What noise "
        "has covered, the model fills in anew."
    )
    return plots.strips(rows, "Different draws of noise, different images", caption, side=SIDE)


# ---------------------------------------------------------------------- states and times


def _noised(look: Look, model: LatentModel, count: int) -> Noised:
    """The fixed posterior of the first test images."""
    with torch.no_grad():
        q = model.encoder(on(model, look.data.test[:count]))
    assert isinstance(q, Noised)
    return q


def _times(schedule: Schedule, among: Tensor) -> Tensor:
    """Times of a grid at which the signal's amplitude falls evenly from its highest to its lowest."""
    alpha = schedule.scales(among)[0]
    wanted = torch.linspace(
        float(alpha[0]), float(alpha[-1]), COLUMNS, dtype=alpha.dtype, device=alpha.device
    )
    return among[(alpha[None] - wanted[:, None]).abs().argmin(1).unique()]


def _time_words(t: Tensor) -> list[str]:
    return [f"t = {time:.2f}" for time in t.tolist()]


def _noise_words(schedule: Schedule, t: Tensor) -> list[str]:
    """The lecture's alpha-bar and the log-SNR at each time."""
    log_snr = schedule.log_snr(t)
    share = log_snr.sigmoid()
    pairs = zip(share.tolist(), log_snr.tolist(), strict=True)
    return [rf"$\bar\alpha_t$ = {kept:.2f}" + f"\nlog-SNR {level:z.1f}" for kept, level in pairs]


def _shade(z: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    """States as ink from 0 to 1: data of [-1, 1] where there is no noise, a wider range with more."""
    alpha, sigma = schedule.scales(t)
    widest = against(alpha + 1.5 * sigma, z)
    return ((z / widest + 1) / 2).clamp(0, 1).cpu().float()


def _noise(prior: Denoising, count: int) -> Tensor:
    """The first state of a chain."""
    _, law = next(prior.descent(count))
    return sample_rows(law, count)


def _run(model: LatentModel, prior: Denoising, z: Tensor, times: Tensor) -> Tensor:
    """What the decoder makes of the state that the chain ends in."""
    return model.decoder(prior.chain.run(z, times)).mean


def _chain(model: LatentModel) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Times, states, decoded beliefs about them, and the last image, of one chain."""
    prior = denoising(model)
    assert prior is not None
    times = prior.times()
    shown = _times(prior.schedule, times).flip(0)
    with torch.no_grad(), random.keyed(0):
        z = _noise(prior, 1)
        path = [z, *prior.chain.path(z, times.flip(0))]
        states = torch.cat(
            [state for state, t in zip(path, times.flip(0), strict=True) if t in shown]
        )
        x_hat = denoise(prior.denoiser, states, prior.schedule.at(shown)).x_hat
        return shown, states, _decoded(model, x_hat), _end(model, path[-1])


def _decoded(model: LatentModel, x_hat: Tensor) -> Tensor:
    """A belief about what the diffusion noises, as an image in levels of gray."""
    prior = model.prior
    if isinstance(prior, Nested):
        return model.decoder(prior.shift + x_hat * prior.log_scale.exp()).mean
    levels = model.decoder.bins
    return x_hat if levels is None else (x_hat + 1) * (levels - 1) / 2


def _end(model: LatentModel, z: Tensor) -> Tensor:
    """The decoder's image of the chain's last state."""
    prior = model.prior
    if not isinstance(prior, Nested):
        return model.decoder(z).mean
    inner = prior.model.decoder(z)
    return model.decoder(prior.shift + inner.mean * prior.log_scale.exp()).mean
