"""The settings of a run: which data, which model, how it is trained."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from genmod.checks import invalid
from genmod.config import named
from genmod.config.plain import from_plain, read_arguments, to_plain
from genmod.config.text import from_yaml, read_call
from genmod.data import Dataset, binarized, conditional, load
from genmod.files import as_path, read_text
from genmod.model import LatentModel
from genmod.saving import CONFIG
from genmod.training import fit

SECTIONS = ("data", "model", "training")
_RECORDED = ("format", "version", "device", "dtype", "trained_on")
"""What a run's own ``config.yaml`` holds beside its settings."""
_NAME_DATA = (
    "a name or a file of data",
    "name them: genmod train digits, or data: digits in a file",
)
_NAME_MODEL = (
    "one of autoencoder, vae, hvae, diffusion, latent-diffusion",
    "name it: --model vae, or model: vae in a file",
)
NOT_SETTINGS = ("model", "data", "optimizer", "checkpoint", "metrics", "progress", "accelerator")
"""Arguments of :func:`~genmod.training.fit` that are no settings of a run."""


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run, as plain data: what ``config.yaml`` holds.

    Args:
        data: the arguments of :func:`genmod.data.load` by name, ``x`` being the name or file; and
            ``binarize``, ``context_dropout`` for :func:`~genmod.data.binarized` and
            :func:`~genmod.data.conditional`.
        model: the ``class``, and the arguments of its constructor by name.
        training: the arguments of :func:`genmod.fit` by name.

    >>> config = RunConfig.of({"data": "digits", "model": "vae", "training": {"steps": 10}})
    >>> config.build(config.load_data()).spec
    DataSpec(shape=(1, 8, 8), bins=17)
    """

    data: Mapping[str, Any]
    model: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> RunConfig:
        """The settings in three sections; ``data`` and ``model`` may also be one word.

        Raises:
            ValueError: another section, or one that is missing.
        """
        for name in settings:
            near = difflib.get_close_matches(name, SECTIONS, 1)
            if name not in SECTIONS and name not in _RECORDED:
                raise invalid(
                    f"the section {name!r}",
                    f"one of {', '.join(SECTIONS)}",
                    f"did you mean {near[0]!r}?" if near else "leave it out",
                )
        data, model = settings.get("data"), settings.get("model")
        training = settings.get("training") or {}
        data = {"x": data} if isinstance(data, str) else data
        model = _one_word(model) if isinstance(model, str) else model
        for name, section, advice in (("data", data, _NAME_DATA), ("model", model, _NAME_MODEL)):
            if section is None:
                raise invalid(f"settings without {name}", *advice)
        for name, section in (("data", data), ("model", model), ("training", training)):
            if not isinstance(section, Mapping):
                raise invalid(
                    f"{name}: {section}",
                    "settings by name" + ("" if name == "training" else ", or one word"),
                    "name the data and the model: genmod train digits --model vae",
                )
        assert isinstance(data, Mapping)
        assert isinstance(model, Mapping)
        if "x" not in data:
            raise invalid("data without x", "a name or a file", "add x: digits, for example")
        if "class" not in model:
            raise invalid("a model without its class", "a class", "add class: vae, for example")
        rest = {name: value for name, value in model.items() if name != "class"}
        return cls(dict(data), {**_one_word(str(model["class"])), **rest}, dict(training))

    @classmethod
    def read(cls, path: Path | str) -> RunConfig:
        """The settings in a YAML file, or of the run in a folder.

        Raises:
            ValueError: no such file, no YAML, or other settings than a run has.
        """
        return cls.of(read_settings(path))

    def sections(self) -> dict[str, object]:
        """The three sections as plain data."""
        return {"data": dict(self.data), "model": dict(self.model), "training": dict(self.training)}

    def load_data(self, source: object = None) -> Dataset:
        """The data set.

        Args:
            source: what to read by these settings in place of what they name.

        Raises:
            ValueError: a setting that :func:`genmod.data.load` does not have, or refuses.
        """
        settings = dict(self.data)
        bits = settings.pop("binarize", False)
        dropout = settings.pop("context_dropout", None)
        given: dict[str, Any] = read_arguments(load, settings)
        data = load(**given if source is None else {**given, "x": source})
        if bits:
            data = binarized(data)
        if dropout is not None:
            return conditional(data, dropout)
        # A conditional model needs a context, and these data have one to give.
        wanted = self.model.get("condition") is not None and data.labels is not None
        return conditional(data) if wanted else data

    def build(self, data: Dataset) -> LatentModel:
        """The untrained model; its first weights depend on the seed of the training alone.

        Raises:
            ValueError: a setting that the model does not have, or refuses; a model of other data.
        """
        settings = dict(self.model)
        kind = named(str(settings["class"]), (LatentModel,))
        assert callable(kind)
        if "spec" in inspect.signature(kind).parameters:
            settings.setdefault("spec", to_plain(data.spec))
        seed = self.training.get("seed") or 0
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed))
            model = from_plain(settings, wanted=LatentModel)
        assert isinstance(model, LatentModel)
        if model.spec != data.spec:
            raise invalid(
                f"a model of {model.spec} for data of {data.spec}",
                "one description of the data",
                "leave spec out of the model's settings: the data have it",
            )
        return model

    def arguments(self) -> dict[str, Any]:
        """The arguments of :func:`genmod.fit`.

        Raises:
            ValueError: a setting that it does not have.
        """
        return read_arguments(fit, self.training, NOT_SETTINGS)


def read_settings(path: Path | str) -> dict[str, Any]:
    """The settings in a YAML file, or of the run in a folder, as they stand there."""
    place = as_path(path)
    place = place / CONFIG if place.is_dir() else place
    return from_yaml(
        read_text(place, "pass a file of settings, or the folder of a run"), str(place)
    )


def _one_word(text: str) -> dict[str, Any]:
    """A model by its name, or with arguments as in code."""
    name, values, settings = read_call(text)
    if values:
        raise invalid(f"model: {text}", "its arguments by name", "as in 'VAE(latents=16)'")
    return {"class": name, **settings}


def plain_identity(data: Dataset) -> dict[str, Any]:
    """What identifies a data set, as a file gives it back: with lists in place of tuples."""
    found: dict[str, Any] = json.loads(json.dumps(data.identity()))
    return found
