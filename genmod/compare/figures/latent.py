"""The latent spaces of the autoencoder and the VAE, and a straight way through each of them."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from genmod import plots
from genmod.compare.figures.figure_data import FigureData, on
from genmod.compare.figures.pictures import codes
from genmod.model import LatentModel
from genmod.models import VAE
from genmod.plots.latents import distances, principal

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
