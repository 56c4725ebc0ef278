"""Files that are broken or hostile: what is done to a saved run, by name.

Each builds on a whole run in a folder and spoils one file of it. The tests require one sentence for each,
and that nothing of a file's making runs: the payloads below would leave a file behind.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

Spoil = Callable[[Path, Path], None]
"""Spoils the run in a folder; the second path is a file that must never appear."""


class Payload:
    """Unpickled, it makes a file: what any loader that unpickles would do."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.trace), "w"))


def pickles(trace: Path) -> Iterator[tuple[str, bytes]]:
    """The payload in the forms in which models are passed around."""
    yield "pickle", pickle.dumps(Payload(trace))
    yield "pickle, protocol 0", pickle.dumps(Payload(trace), 0)
    whole, old = io.BytesIO(), io.BytesIO()
    torch.save(Payload(trace), whole)
    yield "torch.save", whole.getvalue()
    torch.save(Payload(trace), old, _use_new_zipfile_serialization=False)
    yield "torch.save, old", old.getvalue()
    array = io.BytesIO()
    np.save(array, np.array([Payload(trace)], dtype=object), allow_pickle=True)
    yield "numpy.save of objects", array.getvalue()
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data.pkl", b"\0" * (1 << 26))
    yield "zip bomb", bomb.getvalue()
    climbing = io.BytesIO()
    with zipfile.ZipFile(climbing, "w") as file:
        file.writestr(f"../../..{trace}", b"x")
    yield "zip that climbs", climbing.getvalue()


def safetensors(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    """A file in the format of safetensors, with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


WEIGHTS: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"x",
    "a length alone": struct.pack("<Q", 100),
    "a header of 2^63 bytes": safetensors({}, length=1 << 63),
    "a header of 4 GB": safetensors({}, length=1 << 32),
    "a header that is no JSON": safetensors(b"not json"),
    "a header that is a list": safetensors([1, 2]),
    "a header of many levels": safetensors(b"[" * 100_000),
    "no tensor": safetensors({}),
    "a tensor beyond the end": safetensors(
        {"x": {"dtype": "F32", "shape": [10], "data_offsets": [0, 40]}}, b"\0" * 8
    ),
    "a tensor of 2^60 numbers": safetensors(
        {"x": {"dtype": "F32", "shape": [1 << 30, 1 << 30], "data_offsets": [0, 4]}}, b"\0" * 4
    ),
    "a negative shape": safetensors(
        {"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4
    ),
    "an unknown type": safetensors(
        {"x": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4
    ),
    "tensors that overlap": safetensors(
        {
            "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            "y": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        },
        b"\0" * 4,
    ),
    "another model's tensors": safetensors(
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4
    ),
}

CONFIGS: dict[str, bytes] = {
    "empty": b"",
    "no text": b"\xff\xfe\x00\x80" * 9,
    "zero bytes": b"\0" * 100,
    "a list": b"- 1\n- 2\n",
    "a word": b"model",
    "a number": b"3",
    "JSON": b'{"format": "other"}',
    "torn": b"format: genmod-model-2\nmodel: {class: VAE, spec: {class: Data",
    "a tab": b"format:\n\t- genmod",
    "two documents": b"format: genmod-model-2\n---\nmodel: 3\n",
    "a key twice": b"format: genmod-model-2\nformat: genmod-model-2\nmodel: {class: VAE}\n",
    "a key that is a list": b"? [1, 2]\n: 3\n",
    "a key that is a number": b"1: 2\n",
    "many levels": b"[" * 50_000,
    "many levels of a mapping": b"".join(b" " * n + b"a:\n" for n in range(300)),
    "a bomb of aliases": b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "a circle": b"a: &a [*a]\n",
    "a merge": b"a: &a {b: 1}\nc: {<<: *a}\n",
    "a number of a million digits": b"format: " + b"9" * 1_000_000,
    "an older format": b"format: genmod-model-1\nmodel: {class: VAE}\n",
    "a newer format": b"format: genmod-model-99\nmodel: {class: VAE}\n",
    "another format": b"format: genmod-record-1\nmodel: {class: VAE}\n",
    "no model": b"format: genmod-model-2\n",
}

TAGS = (
    "!!python/object/apply:os.system ['touch {trace}']",
    "!!python/object/apply:builtins.open ['{trace}', w]",
    "!!python/object/new:os.system ['touch {trace}']",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object:os.PathLike {{}}",
    "!!binary aGVsbG8=",
    "!!set {{a}}",
    "!!timestamp 2026-01-01",
    "!mine {{}}",
    "!!str 3",
)

MODELS: dict[str, str] = {
    "os.system": "{class: os.system, command: touch}",
    "builtins.eval": "{class: builtins.eval, source: '1'}",
    "subprocess.Popen": "{class: subprocess.Popen, args: [touch]}",
    "a function by name": "{function: os.system}",
    "a module of ours that is not public": "{class: genmod.files.write_text, path: x}",
    "a function of ours": "{class: fit, steps: 3}",
    "a dunder": "{class: __import__, name: os}",
    "a climbing name": "{class: ../../etc/passwd}",
    "an empty name": "{class: ''}",
    "a number": "3",
    "nothing": "null",
    "a list": "[1, 2]",
    "a word": "VAE",
    "a law that is none": "{law: Distribution}",
    "a law of a module": "{law: constraints}",
    "a law with a wrong argument": "{law: Normal, loc: [x], scale: 1}",
    "a type that is none": "{dtype: Tensor}",
    "a tensor of words": "{tensor: [a, b], dtype: float32}",
    "a ragged tensor": "{tensor: [[1], [1, 2]], dtype: float32}",
    "a tensor that is not there": "{tensor: nowhere}",
    "a place that was not read": "{same as: model.encoder}",
    "an enum with a wrong value": "{enum: Inference, value: sideways}",
    "no arguments": "{class: VAE}",
    "an unknown argument": "{class: VAE, spec: 3, layers: 3}",
    "a string for a number": "{class: VAE, spec: 3, width: wide}",
    "a list for a number": "{class: VAE, spec: 3, width: [3]}",
    "a negative width": "{class: VAE, spec: 3, width: -3}",
    "a width of zero": "{class: VAE, spec: 3, width: 0}",
    "a width of 10^6": "{class: VAE, spec: 3, width: 1000000}",
    "a depth of 10^6": "{class: VAE, spec: 3, width: 64, depth: 1000000}",
    "latents of 10^12": "{class: VAE, spec: 3, latents: 1000000000000}",
    "infinity": "{class: VAE, spec: 3, dropout: .inf}",
    "not a number": "{class: VAE, spec: 3, dropout: .nan}",
    "a shape of 2^60": "{class: VAE, spec: {class: DataSpec, shape: [1048576, 1048576, 1048576]}}",
    "a part of another kind": "{class: VAE, spec: 3, encoder: {class: Cosine}}",
    "a class for a word": "{class: HVAE, spec: 3, inference: {class: VAE}}",
    "no model but a schedule": "{class: Cosine}",
    "no model but a setting": "{class: TrainingConfig, steps: 3}",
    "a batch": "{class: Batch}",
}


def cases(trace: Path) -> dict[str, Spoil]:
    """Everything that is done to a run, by name."""

    def bytes_to(name: str, content: bytes) -> Spoil:
        return lambda folder, _: void((folder / name).write_bytes(content))

    found: dict[str, Spoil] = {}
    for title, content in pickles(trace):
        for name in ("config.yaml", "model.safetensors"):
            found[f"{name}: {title}"] = bytes_to(name, content)
    found |= {
        f"model.safetensors: {t}": bytes_to("model.safetensors", c) for t, c in WEIGHTS.items()
    }
    found |= {f"config.yaml: {t}": bytes_to("config.yaml", c) for t, c in CONFIGS.items()}
    for tag in TAGS:
        text = f"format: genmod-model-2\nmodel: {tag.format(trace=trace)}\n"
        found[f"config.yaml: tag {tag.split()[0]}"] = bytes_to("config.yaml", text.encode())
    for title, model in MODELS.items():
        text = f"format: genmod-model-2\nmodel: {model}\n"
        found[f"model: {title}"] = bytes_to("config.yaml", text.encode())
    for name in ("config.yaml", "model.safetensors"):
        found |= {f"{name}: {title}": spoil for title, spoil in places(name).items()}
    return found


def places(name: str) -> dict[str, Spoil]:
    """A file that is no file, or is not there."""

    def missing(folder: Path, trace: Path) -> None:
        (folder / name).unlink()

    def is_folder(folder: Path, trace: Path) -> None:
        missing(folder, trace)
        (folder / name).mkdir()

    def is_pipe(folder: Path, trace: Path) -> None:
        missing(folder, trace)
        os.mkfifo(folder / name)

    def is_device(folder: Path, trace: Path) -> None:
        missing(folder, trace)
        (folder / name).symlink_to("/dev/zero")

    def is_circle(folder: Path, trace: Path) -> None:
        missing(folder, trace)
        (folder / name).symlink_to(folder / name)

    def cut(folder: Path, trace: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    def huge(folder: Path, trace: Path) -> None:
        os.truncate(folder / name, 1 << 40)

    return {
        "missing": missing,
        "a folder": is_folder,
        "a pipe": is_pipe,
        "a device": is_device,
        "a link to itself": is_circle,
        "the first half": cut,
        "a sparse file of a terabyte": huge,
    }


def void(_: object) -> None:
    """Nothing."""
