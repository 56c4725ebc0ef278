"""A model as a folder of two files: how it was built, and its weights.

``config.yaml`` holds the arguments of the model's constructor as plain data (:mod:`genmod.config`), and
``model.safetensors`` its parameters and buffers, and the larger tensors among its settings. The folder of
a run has the same two files, with the settings of data and training beside those of the model.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

from genmod.arrays import as_device
from genmod.checks import invalid
from genmod.config.plain import from_plain, to_plain
from genmod.config.settings import arguments
from genmod.config.text import from_yaml, to_yaml
from genmod.files import (
    as_path,
    check_folder,
    check_format,
    read_tensors,
    read_text,
    save_tensors,
    write_text,
)
from genmod.nn.modules import load_weights, weights
from genmod.version import __version__

FORMAT = "genmod-model-2"
CONFIG, WEIGHTS = "config.yaml", "model.safetensors"
_SETTING, _FIXED = "setting:", "fixed:"
"""Prefixes of tensors that are settings, and of buffers that a state dict leaves out."""
_ADVICE = "pass the folder of a run, or one that model.save wrote"
_SPARE = 100_000
"""Numbers that a constructor may allocate beyond four times what the file holds."""


def save_model(
    model: nn.Module, folder: Path | str, beside: Mapping[str, object] | None = None
) -> Path:
    """Write a model to a folder, which is made.

    Args:
        model: any model.
        folder: the folder.
        beside: other sections of ``config.yaml``, as plain data; a section ``model`` must describe it.

    Raises:
        ValueError: a part that no file can name (:func:`genmod.register` allows it), a model that was made
            of another one by :mod:`genmod.models.replace`, a folder that cannot be written to.
    """
    if arguments(model) is None:
        raise invalid(
            f"a {type(model).__name__} that its constructor's arguments do not describe",
            "a model as it was built",
            "save the model that it was made of, and apply with_denoiser after loading it",
        )
    beside, settings = dict(beside or {}), dict[str, Tensor]()
    # The folder of a run describes its model without a second file, because it is written before training.
    plain = beside["model"] if "model" in beside else to_plain(model, settings)
    tensors = weights(model)
    tensors |= {f"{_FIXED}{name}": buffer for name, buffer in _left_out(model).items()}
    tensors |= {f"{_SETTING}{name}": tensor for name, tensor in settings.items()}
    frozen = [name for name, each in model.named_parameters() if not each.requires_grad]
    place = check_folder(folder)
    metadata = {"format": FORMAT, "frozen": json.dumps(frozen), "settings": _digest(plain)}
    save_tensors(place / WEIGHTS, tensors, metadata)
    device = next((each.device.type for each in tensors.values()), "cpu")
    stated = {"device": device, "dtype": str(_main_type(tensors)).removeprefix("torch.")}
    write_config(place, {**stated, **beside, "model": plain})
    return place


def write_config(folder: Path, sections: Mapping[str, object]) -> None:
    """Write ``config.yaml``: the format, the version, and sections of plain data."""
    head = {"format": FORMAT, "version": __version__}
    write_text(folder / CONFIG, to_yaml({**head, **sections}))


def read_config(folder: Path | str) -> dict[str, Any]:
    """The settings of a saved model, or of a run, as plain data.

    Raises:
        ValueError: no such file, no YAML, another format.
    """
    path = as_path(folder) / CONFIG
    found = from_yaml(read_text(path, _ADVICE), str(path))
    check_format(path, found.get("format"), FORMAT, _ADVICE)
    if "model" not in found:
        raise invalid(f"{path} without a model", "a section model", _ADVICE)
    return found


def load_model(folder: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """The model that :func:`save_model` wrote to a folder, in evaluation mode.

    A warning names each difference that can matter: another version of the package, another kind of device
    than it was saved on, settings that were changed by hand.

    Args:
        folder: the folder of the model, or of a run.
        device: the device to put it on.

    Raises:
        ValueError: no such folder, torn files, a part whose class was not registered, weights of another
            model.
    """
    place = as_path(folder)
    config = read_config(place)
    on = as_device(device)
    tensors, metadata = read_tensors(place / WEIGHTS, _ADVICE)
    settings = _under(_SETTING, tensors)
    fixed = _under(_FIXED, tensors)
    named = (_SETTING, _FIXED)
    saved = {name: each for name, each in tensors.items() if not name.startswith(named)}
    # Construction draws the first weights: the caller's own random numbers go on as if it had not.
    with (
        torch.random.fork_rng(devices=[]),
        _at_most(sum(each.numel() for each in tensors.values())),
    ):
        found = from_plain(config["model"], settings)
    if not isinstance(found, nn.Module):
        raise invalid(f"{place} without a model", "a saved model", _ADVICE)
    _take_types(found, {**saved, **fixed})
    load_weights(found, saved)
    with torch.no_grad():
        for name, buffer in _left_out(found).items():
            if name in fixed and fixed[name].shape == buffer.shape:
                buffer.copy_(fixed[name])
    frozen = set(_names(metadata.get("frozen", "[]")))
    for name, parameter in found.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in frozen)
    _warn_of_differences(place, config, metadata, on)
    return found.to(on).eval()


def _left_out(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that a state dict leaves out: what the constructor computed, in its own precision."""
    kept = model.state_dict(keep_vars=True)
    return {name: each for name, each in model.named_buffers() if name not in kept}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _main_type(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The floating point type that most numbers have."""
    counts: dict[torch.dtype, int] = {}
    for name, each in tensors.items():
        if each.is_floating_point() and not name.startswith(_SETTING):
            counts[each.dtype] = counts.get(each.dtype, 0) + each.numel()
    return max(counts, key=lambda kind: counts[kind], default=torch.get_default_dtype())


def _take_types(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Give every tensor of a model the type that it was saved in."""
    for path, module in model.named_modules():
        own = {
            **dict(module.named_parameters(recurse=False)),
            **dict(module.named_buffers(recurse=False)),
        }
        given = {
            n: saved[f"{path}.{n}" if path else n]
            for n in own
            if (f"{path}.{n}" if path else n) in saved
        }
        for name, tensor in given.items():
            if tensor.is_floating_point() != own[name].is_floating_point():
                raise invalid(
                    f"{path}.{name} of type {tensor.dtype}",
                    f"numbers like {own[name].dtype}",
                    "these weights belong to another model",
                )
        others = {name: each.dtype for name, each in given.items() if each.dtype != own[name].dtype}
        if len(set(others.values())) == 1:
            # The module itself, because some hold tensors that are neither parameters nor buffers.
            module._apply(partial(_cast, kind=next(iter(others.values()))), recurse=False)
        for name, kind in others.items():
            own[name].data = own[name].data.to(kind)


def _cast(tensor: Tensor, kind: torch.dtype) -> Tensor:
    return tensor.to(kind) if tensor.is_floating_point() else tensor


@contextmanager
def _at_most(numbers: int) -> Iterator[None]:
    """Refuse a configuration that builds far more numbers than its file of weights holds.

    A constructor reserves memory, registers it, and then fills it: the refusal comes before the last.
    """
    seen = 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal seen
        seen += 0 if tensor is None else tensor.numel()
        if seen > 4 * numbers + _SPARE:
            raise invalid(
                f"settings of a model with more than {seen:,} numbers beside weights of "
                f"{numbers:,}",
                "the settings that the weights were trained with",
                _ADVICE,
            )

    hooks = [
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _digest(plain: object) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _names(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise invalid(f"{WEIGHTS} whose metadata name no parameters", "a list of names", _ADVICE)
    return found


def _warn_of_differences(
    place: Path, config: Mapping[str, Any], metadata: Mapping[str, str], device: torch.device
) -> None:
    found = []
    if config.get("version") != __version__:
        found.append(
            f"it was saved by version {config.get('version')} of genmod, and this is {__version__}"
        )
    if config.get("device") != device.type:
        found.append(
            f"it was saved on {config.get('device')}, and is on {device.type} now (device=... moves it)"
        )
    if metadata.get("settings") != _digest(config["model"]):
        found.append(f"the model in {CONFIG} was changed after its weights were written")
    if found:
        warnings.warn(f"{place}: {'; '.join(found)}", stacklevel=4)
