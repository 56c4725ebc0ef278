"""The lab: a page that runs a VAE and a diffusion in the browser, without a server or a network."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmod.checks import instance, invalid
from genmod.data import Dataset, load
from genmod.denoisers import Guided
from genmod.diffusion import DiffusionPrior
from genmod.export.base import Part
from genmod.files import check_folder, remove, write_text
from genmod.lab.parts import classes_of, lab_parts, scale_of
from genmod.lab.program import STATIC, Weights, program_of, written_tensor
from genmod.model import LatentModel
from genmod.samplers import DDIM, DPMSolver, Heun, Sampler, UniformTime
from genmod.signatures import checked
from genmod.tensors import is_image

__all__ = ["write_lab"]

PAGE = "index.html"
_MARK = "<!-- models -->"
"""Where the page loads the models."""
_HOME = "<!-- home -->"
"""Where the page links to what it belongs to."""


@checked
def write_lab(
    models: LatentModel | Sequence[LatentModel], data: object, folder: Path | str
) -> Path:
    """Write a page that runs models in the browser: the lab, opened from disk, without a network.

    A VAE's latents can be moved through, with the image and the terms of the bound. Of a diffusion the
    page shows the forward process at any ``t``, and the reverse process step by step, by four samplers.
    Weights are rounded to half precision. The page checks itself against numbers of PyTorch.

    Args:
        models: one or more, each a VAE or a :class:`~genmod.models.Diffusion`, conditioned on labels or
            on nothing.
        data: what the models were trained on, as :func:`genmod.data.load` takes it; rows of its test
            part are shown.
        folder: where the page goes; files of an earlier page are replaced.

    Returns:
        The page, ``folder/index.html``.

    Raises:
        ValueError: a model that the page cannot show, named with the operations that the page lacks; a
            folder that cannot be written to.

    >>> import tempfile
    >>> from genmod.models import VAE
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_lab(VAE((1, 8, 8), bins=17, latents=2, width=8, depth=1), "digits", folder)
    ...     page.name, sorted(path.name for path in page.parent.glob("model-*"))
    ('index.html', ['model-1.js'])
    """
    given = [models] if isinstance(models, LatentModel) else list(models)
    if len(given) == 0:
        raise invalid("no model", "one or more", "pass write_lab(model, data, folder)")
    rows = load(data)
    for each in given:
        instance(each, LatentModel, "models").check_full_precision("write")
    contents = [lab_content(instance(model, LatentModel, "models"), rows) for model in given]
    return write_contents(contents, folder)


def write_contents(contents: Sequence[dict[str, object]], folder: Path | str) -> Path:
    """Write the page of some models, each as :func:`lab_content` gives it.

    The page itself comes last: one that is there is whole.
    """
    place = check_folder(folder)
    for old in place.glob("model-*.js"):
        remove(old)
    for number, content in enumerate(contents, 1):
        write_text(place / f"model-{number}.js", _script(content))
    for name, text in page_files(len(contents)).items():
        write_text(place / name, text)
    return place / PAGE


def page_files(models: int, home: str = "") -> dict[str, str]:
    """The files of a page of some models, without the models, by name; its HTML last.

    Args:
        models: how many.
        home: HTML above the list of models, such as a link to a site; a page of one's own has none.
    """
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(STATIC.iterdir())}
    numbers = range(1, models + 1)
    scripts = "\n    ".join(f'<script src="model-{each}.js"></script>' for each in numbers)
    html = files.pop(PAGE).replace(_MARK, scripts).replace(_HOME, home)
    return {**files, PAGE: html}


def _script(content: dict[str, object]) -> str:
    """A model as JavaScript. Infinity and NaN, which JSON lacks, are JavaScript's own words."""
    return f"lab.models.push({json.dumps(content, separators=(',', ':'))});\n"


EXAMPLES, POINTS = 30, 300
"""Rows that can be chosen, and rows whose codes are drawn, at most."""
GRID = 2520
"""Intervals of the table of log-SNR; a multiple of 1 to 10 and of most numbers of steps in use."""
_NOISE_NUMBERS, _NOISE_ROWS = 2**16, 64
_CHECK_STEPS, _CHECK_GUIDANCE = 20, 2.0
_PATHS: dict[str, Sampler] = {"ddim": DDIM(), "heun": Heun(), "dpm": DPMSolver(order=2)}


def halved(model: LatentModel) -> LatentModel:
    """A copy on the CPU, in evaluation mode, whose weights are rounded to half precision.

    The page holds these weights: files of half the size, whose numbers the copy gives too.
    """
    own = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    for weight in own.parameters():
        half = weight.half().to(weight.dtype)
        if weight.is_floating_point() and bool(half.isfinite().all()):
            weight.copy_(half)
    return own


@torch.no_grad()
def lab_content(model: LatentModel, data: Dataset) -> dict[str, object]:
    """A model as plain data for the page.

    Args:
        model: a VAE or a diffusion.
        data: whose test rows are examples.

    Raises:
        ValueError: a model that the page cannot run, or data of another shape.
    """
    if data.spec.shape != model.spec.shape:
        raise invalid(
            f"data of shape {data.spec.shape} for a model of {model.spec.shape}",
            "the data that the model was trained on",
            "pass data of the model's shape",
        )
    own, weights = halved(model), Weights()
    parts, classes = lab_parts(own), classes_of(own)
    x, labels = _examples(data, EXAMPLES)
    noise = _noise(own)
    content: dict[str, object] = {
        "kind": "diffusion" if isinstance(own.prior, DiffusionPrior) else "vae",
        "name": f"{type(model).__name__} on {data.name}",
        "formula": own.formula().split("\n"),
        "parameters": sum(weight.numel() for weight in own.parameters()),
        "shape": list(own.spec.shape),
        "image": is_image(own.spec.shape),
        "integers": own.spec.is_integer,
        "range": _range(data),
        "classes": _classes(data, classes),
        "examples": {"x": written_tensor(x), "labels": labels},
        "noise": written_tensor(noise),
        "programs": {part.name: program_of(part, weights, _outputs(part)) for part in parts},
    }
    if isinstance(own.prior, DiffusionPrior):
        content |= _diffusion(own, own.prior, noise, classes)
    else:
        content |= _codes(own, data, parts)
    content["calls"] = [_call(part) for part in parts]
    return {**content, "weights": weights.tensors}


def _outputs(part: Part) -> list[str]:
    """The outputs that the page reads."""
    wanted = {"denoiser": ["x_hat"], "encoder": ["mean", "log_std"]}
    return wanted.get(part.name, [])


def _examples(data: Dataset, most: int) -> tuple[Tensor, list[int] | None]:
    """Rows of the test part (or another one), spread over the labels, and their labels."""
    part = next((name for name in ("test", "validation") if len(data.parts()[name])), "train")
    x = data.parts()[part]
    labels = None if data.labels is None else data.labels[part]
    if labels is None or labels.is_floating_point() or labels.ndim != 1:
        return x[:most].float(), None
    place = torch.zeros(len(labels), dtype=torch.int64)
    for label in labels.unique():
        same = labels == label
        place[same] = torch.arange(int(same.sum()))
    # The first of each label, then the second of each, and so on; shown by label.
    by_label = torch.argsort(labels, stable=True)
    chosen = by_label[torch.argsort(place[by_label], stable=True)][:most]
    chosen = chosen[torch.argsort(labels[chosen], stable=True)]
    return x[chosen].float(), labels[chosen].tolist()


def _range(data: Dataset) -> list[float]:
    """The values that are drawn black and white."""
    if data.bins is not None:
        return [0.0, data.bins - 1.0]
    return [float(data.train.min()), float(data.train.max())]


def _classes(data: Dataset, classes: int | None) -> list[str] | None:
    if classes is None:
        return None
    names = data.classes or ()
    return list(names) if len(names) == classes else [str(label) for label in range(classes)]


def _noise(model: LatentModel) -> Tensor:
    """Standard normal noise that ships with the page, exact in half precision."""
    shape = model.prior.shape
    rows = max(2, min(_NOISE_ROWS, _NOISE_NUMBERS // math.prod(shape)))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, *shape, generator=generator).half().float()


def _codes(model: LatentModel, data: Dataset, parts: Sequence[Part]) -> dict[str, object]:
    """The posterior means of some rows, drawn as points."""
    x, labels = _examples(data, POINTS)
    posterior = next(part for part in parts if part.name == "posterior")
    given: dict[str, Tensor] = {"x": x.to(model.dtype or x.dtype)}
    if classes_of(model) is not None:
        given["context"] = torch.tensor(labels or [0] * len(x))
    means = posterior.run(given)["mean"].half().float()
    return {
        "latents": list(model.prior.shape),
        "codes": {"z": written_tensor(means), "labels": labels},
    }


def _diffusion(
    model: LatentModel, prior: DiffusionPrior, noise: Tensor, classes: int | None
) -> dict[str, object]:
    """The schedule of a diffusion, and where paths of three samplers end."""
    times = torch.linspace(0, 1, GRID + 1, dtype=torch.float64)
    guidance = 1.0 if classes is None else _CHECK_GUIDANCE
    context = None if classes is None else torch.tensor([classes - 1])
    denoiser = prior.denoiser if classes is None else Guided(prior.denoiser, guidance)
    scale = scale_of(model.encoder)
    start = noise[:1].to(model.dtype or torch.float32)
    ends = []
    for name, sampler in _PATHS.items():
        bound = sampler.bind(denoiser, prior.schedule)
        grid = UniformTime().times(prior.schedule, _CHECK_STEPS)
        alpha, sigma = prior.schedule.scales(grid[:1])
        z = bound.run(start * float(torch.hypot(alpha, sigma)), grid, context) / scale
        ends.append({"method": name, "z": written_tensor(z)})
    return {
        "steps": prior.steps,
        "log_snr": written_tensor(prior.schedule.log_snr(times)),
        "target": str(getattr(prior.denoiser, "target", "")),
        "paths": {
            "steps": _CHECK_STEPS,
            "guidance": guidance,
            "label": None if classes is None else classes - 1,
            "ends": ends,
        },
    }


def _call(part: Part) -> dict[str, Any]:
    """Inputs of one call of a part, and torch's outputs."""
    given = part.named(part.draw(2))
    found = part.run(given)
    kept = _outputs(part) or list(found)
    return {
        "program": part.name,
        "inputs": {name: written_tensor(value) for name, value in given.items()},
        "outputs": {name: written_tensor(found[name]) for name in kept},
    }
