"""Write the page: its own files, and one script file of each model beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from genmod.checks import instance, invalid
from genmod.data import load
from genmod.files import check_folder, remove, write_text
from genmod.lab.content import lab_content
from genmod.lab.program import STATIC
from genmod.model import LatentModel
from genmod.signatures import checked

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
