"""A part traced, written as ONNX or as a program of torch.export, and compared with its file."""

from __future__ import annotations

import builtins
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from genmod.checks import invalid
from genmod.export.base import ROWS, Part

Run: TypeAlias = Callable[[Sequence[Tensor]], Mapping[str, Tensor]]
"""An exported part, run on its inputs in the order of its ports."""

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_TOO_LARGE = 2**31 - 2**20
"""Bytes of weights that one ONNX file cannot hold."""
_TROUBLES = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError)
"""What torch raises for a part that it cannot trace or write."""
COMPARED = (1, 3, 7)
"""Numbers of rows with which a file is compared with the model."""


def require_onnx() -> None:
    """Require the optional packages that write and run ONNX files.

    Raises:
        ValueError: one of them is not installed.
    """
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            raise invalid(
                f"format='onnx' without the package {name}",
                "the optional packages of the extra 'export'",
                "install them with: pip install 'genmod-torch[export]', or pass format='torch'",
            ) from None


@torch.no_grad()
def traced(part: Part) -> ExportedProgram:
    """The part as a program of torch.export, for a batch of any size.

    Raises:
        ValueError: a network that cannot be traced.
    """
    batch = Dim("batch", min=1)
    shapes = {port.name: {0: batch} for port in part.ports}
    try:
        with _quiet(), _symbolic_len():
            return torch.export.export(part, part.draw(ROWS), dynamic_shapes=shapes)
    except _TROUBLES as error:
        reason = str(error).strip().split("\n")[0]
        raise invalid(
            f"the {part.name}, which torch.export cannot trace ({type(error).__name__}: {reason})",
            "networks made of tensor operations, the same for every batch",
            "take branches on values and Python numbers of tensors (.item(), float()) out of the "
            "networks",
        ) from error


def torch_file(program: ExportedProgram) -> tuple[bytes, Run]:
    """A program as the bytes of a ``.pt2`` file, and how to run it."""
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer)
    module = program.module()

    @torch.no_grad()
    def run(given: Sequence[Tensor]) -> Mapping[str, Tensor]:
        found: dict[str, Tensor] = module(*given)
        return found

    return buffer.getvalue(), run


def onnx_file(program: ExportedProgram, part: Part, names: list[str]) -> tuple[bytes, Run]:
    """A program as the bytes of an ``.onnx`` file, and how onnxruntime runs these bytes.

    Raises:
        ValueError: an operation that ONNX does not have; weights too large for one file.
    """
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size >= _TOO_LARGE:
        raise invalid(
            f"the {part.name} with {size / 2**30:.1f} GB of weights",
            "less than 2 GB, the limit of one ONNX file",
            "pass format='torch', or export a smaller model",
        )
    onnxruntime: Any = importlib.import_module("onnxruntime")
    state = onnxruntime.capi.onnxruntime_pybind11_state
    try:
        with _quiet():
            made = torch.onnx.export(
                _without_hypot(program), dynamo=True, verbose=False, output_names=names
            )
            assert made is not None
            model: Any = made.model_proto
            _name_batch(model)
            content: bytes = model.SerializeToString()
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            return content, _session_run(session)
    except (*_TROUBLES, state.Fail, state.NotImplemented, state.InvalidGraph) as error:
        reason = str(error).strip().split("\n")[0]
        raise invalid(
            f"the {part.name}, which cannot be written as ONNX ({type(error).__name__}: {reason})",
            "networks of operations that ONNX has",
            "pass format='torch', or replace the operation",
        ) from error


def _without_hypot(program: ExportedProgram) -> ExportedProgram:
    """The program with square roots of sums in place of ``torch.hypot``, which ONNX does not have.

    Under schedules that do not preserve the variance, states are divided by ``hypot(alpha, sigma)``, whose
    squares neither overflow nor underflow.
    """
    hypot = torch.ops.aten.hypot.default
    if not any(node.target is hypot for node in program.graph.nodes):
        return program
    found: ExportedProgram = program.run_decompositions(
        {hypot: lambda a, b: (a * a + b * b).sqrt()}
    )
    return found


def _session_run(session: Any) -> Run:
    inputs = [port.name for port in session.get_inputs()]
    names = [output.name for output in session.get_outputs()]

    def run(given: Sequence[Tensor]) -> Mapping[str, Tensor]:
        arrays = session.run(
            names, {name: each.numpy() for name, each in zip(inputs, given, strict=True)}
        )
        return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}

    return run


def _name_batch(model: Any) -> None:
    """Call the symbolic first axis "batch" in place of torch's own name for it."""
    graph = model.graph
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == symbol:
                dim.dim_param = "batch"


@torch.no_grad()
def largest_difference(part: Part, run: Run, tolerance: float) -> float:
    """The largest difference between a file and its part on random rows, relative to the largest output.

    Raises:
        ValueError: a part that gives values that are not finite (but the logit of a value that a column
            does not have is minus infinity); a difference above the tolerance.
    """
    worst = 0.0
    for seed, rows in enumerate(COMPARED):
        given = part.draw(rows, seed + 1)
        expected, found = part(*given), run(given)
        for name, right in expected.items():
            none = right.isneginf().all(0) & torch.tensor(name.endswith("logits"))
            one_shape = found[name].shape == right.shape
            right = right.masked_fill(none, 0.0)
            if not right.isfinite().all():
                raise invalid(
                    f"the {part.name}, whose output {name!r} is not finite",
                    "finite numbers",
                    "train the model again at a lower learning rate, or load earlier weights",
                )
            same = one_shape and bool(found[name].isneginf().logical_or(~none).all())
            left = found[name].masked_fill(none, 0.0) if same else right
            apart = float((left - right).abs().max()) if same else float("inf")
            share = apart / max(1.0, float(right.abs().max()))
            if not share <= tolerance:
                raise invalid(
                    f"a file of the {part.name} whose output {name!r} for {rows} rows differs "
                    f"from the model's by {share:.2g} of its size",
                    f"at most {tolerance:g}",
                    "a network that depends on the batch, on random numbers or on values as "
                    "Python numbers cannot be exported as it is",
                )
            worst = max(worst, share)
    return worst


@contextmanager
def _symbolic_len() -> Iterator[None]:
    """While torch.export traces, ``len(tensor)`` is its symbolic number of rows.

    Python's own ``len`` turns that number into a constant, so the file would take batches of one size
    only. Torch replaces ``max``, ``min`` and ``pow`` in the same way while it traces.
    """
    plain = builtins.len

    def symbolic(value: Any) -> Any:
        return value.shape[0] if isinstance(value, Tensor) else plain(value)

    vars(builtins)["len"] = symbolic
    try:
        yield
    finally:
        vars(builtins)["len"] = plain


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of the exporters about their own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
