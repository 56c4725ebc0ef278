"""Export: encoder, decoder and denoiser as files for other runtimes (ONNX, torch.export)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import torch
from torch import Tensor

from genmod.arrays import Context, as_tensor
from genmod.checks import choice, instance
from genmod.export.base import Part
from genmod.export.formats import (
    COMPARED,
    largest_difference,
    onnx_file,
    require_onnx,
    torch_file,
    traced,
)
from genmod.export.parts import model_parts
from genmod.files import check_folder, remove, write_atomically, write_json
from genmod.model import LatentModel
from genmod.models.replace import find_diffusion, has_diffusion
from genmod.signatures import checked
from genmod.version import __version__

__all__ = ["export"]

FORMAT, DESCRIPTION = "genmod-export-1", "export.json"
_MOST_TIMES = 1000
"""Noise levels in the table of a schedule, at most."""


class ExportFormat(Enum):
    """The kind of files."""

    ONNX = "onnx"
    """Run by onnxruntime, in a browser too."""
    TORCH = "torch"
    """A program of torch.export (``.pt2``), run by PyTorch without genmod."""


@checked
def export(
    model: LatentModel,
    folder: Path | str,
    format: ExportFormat | str = ExportFormat.ONNX,
    *,
    context: Context = None,
    tolerance: float | None = None,
) -> Path:
    """Write encoder, decoder and denoiser as ONNX or torch.export files, for a batch of any size.

    Each file is run on random rows and compared with the model before it is written. ``export.json``
    beside the files has the name, shape and type of every input and output, and of a diffusion the
    schedule's values that a sampler needs. The parts:

    * ``encoder``: ``x`` to the mean and the log-std of the latents (of each level of a top-down hierarchy);
    * ``decoder``: latents to the mean of ``x`` and the parameters of its distribution;
    * ``denoiser`` of a diffusion: ``z_t`` (variance preserving) and ``log_snr`` to ``x_hat``;
    * ``prior`` of a hierarchy: standard normal noise to latents; of a latent diffusion, ``z_0`` to latents.

    Args:
        model: any model. Its weights stay as they are.
        folder: where the files go; files of an earlier export are replaced.
        format: ``"onnx"`` (needs the extra ``export``) or ``"torch"``.
        context: some rows of what the model is conditioned on; needed only where networks of your own
            take a context of a kind that genmod does not know.
        tolerance: the largest difference from the model, relative to the largest output; 1e-4 in
            float32 and 1e-9 in float64 by default.

    Returns:
        The folder.

    Raises:
        ValueError: a part that cannot be traced or written, or whose file gives other numbers; packages
            that are not installed; a folder that cannot be written to.

    >>> import tempfile
    >>> from genmod.models import VAE
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = export(VAE(2, latents=1, width=8, depth=1), folder, format="torch")
    ...     sorted(path.name for path in place.iterdir())
    ['decoder.pt2', 'encoder.pt2', 'export.json']
    """
    model = instance(model, LatentModel, "model")
    model.check_full_precision("export")
    kind = choice(ExportFormat, format, "format")
    if kind is ExportFormat.ONNX:
        require_onnx()
    place = check_folder(folder)
    example = None if context is None else as_tensor(context, "context")
    # A copy: on the CPU, in evaluation mode, without compiled networks.
    own = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    if tolerance is None:
        tolerance = 1e-9 if own.dtype is torch.float64 else 1e-4
    parts = model_parts(own, example)
    made = [_made(part, kind, tolerance) for part in parts]
    # A folder with a description is whole.
    remove(place / DESCRIPTION)
    for part, (content, _) in zip(parts, made, strict=True):
        with write_atomically(place / _file(part, kind)) as beside:
            beside.write_bytes(content)
    described = {
        part.name: _described(part, kind, worst)
        for part, (_, worst) in zip(parts, made, strict=True)
    }
    write_json(place / DESCRIPTION, _description(own, kind, described))
    return place


def _made(part: Part, kind: ExportFormat, tolerance: float) -> tuple[bytes, float]:
    """The content of a part's file, and how far its numbers are from the model's."""
    program = traced(part)
    if kind is ExportFormat.TORCH:
        content, run = torch_file(program)
    else:
        content, run = onnx_file(program, part, list(part(*part.draw(1))))
    return content, largest_difference(part, run, tolerance)


def _file(part: Part, kind: ExportFormat) -> str:
    return f"{part.name}.{'onnx' if kind is ExportFormat.ONNX else 'pt2'}"


def _described(part: Part, kind: ExportFormat, worst: float) -> dict[str, object]:
    """The description of a part."""
    given = part.draw(1)
    found = part(*given)
    return {
        "file": _file(part, kind),
        "inputs": [
            _tensor(port.name, port.shape, port.dtype) | {"about": port.about}
            for port in part.ports
        ],
        "outputs": [
            _tensor(name, tensor.shape[1:], tensor.dtype) for name, tensor in found.items()
        ],
        "constants": {name: _plain(tensor) for name, tensor in part.constants.items()},
        "law": part.laws(part.named(given)),
        "largest_difference": worst,
    }


def _tensor(name: str, shape: Sequence[int], dtype: torch.dtype) -> dict[str, object]:
    return {
        "name": name,
        "shape": ["batch", *shape],
        "type": str(dtype).removeprefix("torch."),
    }


def _description(
    model: LatentModel, kind: ExportFormat, parts: dict[str, dict[str, object]]
) -> dict[str, object]:
    spec = model.spec
    columns = [
        {"name": column.name, "kind": str(column.kind), "values": list(column.values or ())}
        for column in spec.columns or ()
    ]
    units = spec.standardize
    pairs = [list(pair) for pair in zip(units.mean, units.std, strict=True)]
    return {
        "format": FORMAT,
        "version": __version__,
        "kind": kind.value,
        "model": type(model).__name__,
        "formula": model.formula().split("\n"),
        "data": {
            "shape": list(spec.shape),
            "bins": spec.bins,
            "columns": columns,
            "mean_and_std": None if units.is_identity else pairs,
        },
        "parts": parts,
        "schedule": _schedule(model),
        "compared_with_rows": list(COMPARED),
    }


@torch.no_grad()
def _schedule(model: LatentModel) -> dict[str, object] | None:
    """The schedule's values from noise to clean data, in variance-preserving units."""
    if not has_diffusion(model):
        return None
    prior = find_diffusion(model)
    own = len(prior.times())
    times = prior.times(min(own, _MOST_TIMES), torch.device("cpu")).flip(0)
    log_snr = prior.schedule.log_snr(times)
    return {
        "steps": prior.steps,
        "times": times.tolist(),
        "log_snr": log_snr.tolist(),
        "alpha": log_snr.sigmoid().sqrt().tolist(),
        "sigma": (-log_snr).sigmoid().sqrt().tolist(),
    }


def _plain(tensor: Tensor) -> object:
    """Numbers as nested lists; infinite ones, which JSON does not have, as null."""

    def finite(value: object) -> object:
        if isinstance(value, list):
            return [finite(each) for each in value]
        return None if value in (float("inf"), float("-inf")) else value

    return finite(tensor.tolist())
