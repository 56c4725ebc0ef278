"""A model as a folder of two files: how it was built, and its weights. Nothing is pickled or unpickled.

``config.json`` holds the arguments of the model's constructor as plain data (:mod:`genmod.config`), and
``model.safetensors`` its parameters and buffers.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TypeVar

from torch import nn

from genmod.checks import require
from genmod.config import arguments, from_plain, to_plain
from genmod.files import check_folder, read_json, read_tensors, save_tensors, write_json
from genmod.nn.modules import load_weights, weights
from genmod.version import __version__

Kind = TypeVar("Kind")
FORMAT = "genmod-model-1"
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_model(model: nn.Module, folder: Path | str) -> Path:
    """Write a model to a folder, which is made.

    Raises:
        ValueError: a part that no file can name (:func:`genmod.register` allows it), a model that was made
            of another one by :mod:`genmod.models.replace`, a folder that cannot be written to.
    """
    require(
        arguments(model) is not None,
        f"a {type(model).__name__} that its constructor's arguments do not describe",
        "a model as it was built",
        "save the model that it was made of, and apply with_steps or with_denoiser after loading it",
    )
    _check_shared(model)
    plain = to_plain(model)
    place = check_folder(folder)
    save_tensors(place / WEIGHTS, weights(model))
    write_json(place / CONFIG, {"format": FORMAT, "version": __version__, "model": plain})
    return place


def load_model(folder: Path | str) -> nn.Module:
    """The model that :func:`save_model` wrote to a folder, in evaluation mode, on the CPU.

    Raises:
        ValueError: no such folder, torn files, a part whose class was not registered.
    """
    place = Path(folder).expanduser()
    advice = "pass the folder that model.save wrote"
    found = from_plain(read_json(place / CONFIG, FORMAT, advice)["model"])
    if not isinstance(found, nn.Module):
        raise ValueError(f"got {place} without a model; expected a saved model; {advice}")
    load_weights(found, read_tensors(place / WEIGHTS, advice)[0])
    return found.eval()


class Saved:
    """Modules that can be saved to a folder and loaded from it."""

    def save(self, folder: Path | str) -> Path:
        """Write the model to a folder: how it was built, and its weights. ``genmod.load`` reads it.

        Raises:
            ValueError: a part that no file can name (see :func:`genmod.register`).
        """
        assert isinstance(self, nn.Module)
        return save_model(self, folder)

    def save_pretrained(self, folder: Path | str) -> Path:
        """The same as :meth:`save`, under the name that model hubs use."""
        return self.save(folder)

    @classmethod
    def from_pretrained(cls: type[Kind], folder: Path | str) -> Kind:
        """The model of this class that was saved to a folder.

        Raises:
            ValueError: a model of another class, or what ``genmod.load`` refuses.
        """
        found = load_model(folder)
        if not isinstance(found, cls):
            raise ValueError(
                f"got a saved {type(found).__name__}; expected a {cls.__name__}; read it with genmod.load, "
                "which takes any class"
            )
        return found


def _check_shared(model: nn.Module) -> None:
    """Refuse one module in two arguments: after loading, it would be two."""
    seen: Counter[int] = Counter()

    def count(value: object) -> None:
        for inner in (arguments(value) or {}).values():
            if isinstance(inner, nn.Module):
                seen[id(inner)] += 1
                count(inner)

    count(model)
    require(
        max(seen.values(), default=1) == 1,
        "a module that stands in two arguments of the model",
        "a module in one place",
        "build the model from one argument, denoiser=... alone for example",
    )
