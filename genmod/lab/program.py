"""Programs of torch.export as flat lists of operations, for the interpreter of the page."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from genmod.checks import invalid
from genmod.export.base import Part
from genmod.export.formats import traced

STATIC = Path(__file__).parent / "static"
"""The files of the page."""

_SAME_ORDER = re.compile(
    "|default|Tensor|Scalar|int|dtype|using_ints|vec|dims?|self|Tensor_(mode|Scalar|Tensor)"
    "|Scalar(Self|Other)"
)
"""Overloads whose arguments stand in the same order as the plain operation's."""


@cache
def operations() -> frozenset[str]:
    """The names of the operations that the page has, read from its JavaScript.

    >>> {"linear", "conv2d", "group_norm", "silu", "softmax"} <= operations()
    True
    """
    text = (STATIC / "ops.js").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^  ops\.(\w+) = ", text, re.MULTILINE))


class Weights:
    """The tensors that the programs of one model share; equal ones are kept once."""

    def __init__(self) -> None:
        self._places: dict[tuple[object, ...], int] = {}
        self.tensors: list[dict[str, object]] = []

    def add(self, tensor: Tensor) -> int:
        """The place of a tensor in the list."""
        written = written_tensor(tensor)
        key = (written["data"], tuple(tensor.shape), str(tensor.dtype))
        if key not in self._places:
            self._places[key] = len(self.tensors)
            self.tensors.append(written)
        return self._places[key]


def written_tensor(tensor: Tensor) -> dict[str, object]:
    """A tensor as plain data: its shape, its type, and its numbers as base64, in half precision if exact.

    >>> written_tensor(torch.tensor([1.0, 0.5]))
    {'shape': [2], 'type': 'float32', 'stored': 'float16', 'data': 'ADwAOA=='}
    """
    tensor = tensor.detach().cpu()
    kind, stored = str(tensor.dtype).removeprefix("torch."), tensor
    if tensor.is_floating_point():
        half = tensor.half()
        if bool((half.to(tensor.dtype) == tensor).all()):
            stored = half
    elif tensor.dtype is not torch.uint8:
        stored = tensor.to(torch.int32)
    data = base64.b64encode(stored.contiguous().numpy().tobytes()).decode()
    name = str(stored.dtype).removeprefix("torch.")
    return {"shape": list(tensor.shape), "type": kind, "stored": name, "data": data}


def program_of(part: Part, weights: Weights, outputs: Sequence[str] = ()) -> dict[str, object]:
    """A part as plain data: inputs, weights, operations in their order, outputs.

    Args:
        part: the part of a model.
        weights: where its weights are added.
        outputs: the names of the outputs to keep; all by default.

    Raises:
        ValueError: a part that cannot be traced, or with an operation that the page lacks.
    """
    names = outputs or list(part(*part.draw(1)))
    program = traced(part)
    if any(_mutates(node) for node in program.graph.nodes):
        program = program.run_decompositions({})
    graph = _Graph(program, part)
    results = [str(spec) for spec in program.graph_signature.user_outputs]
    by_name = dict(zip(part(*part.draw(1)), results, strict=True))
    kept = {name: by_name[name] for name in names}
    return graph.plain(weights, kept)


def _mutates(node: fx.Node) -> bool:
    """Whether an operation writes into its input, which a list of values cannot express."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


class _Graph:
    """The graph of a traced part."""

    def __init__(self, program: ExportedProgram, part: Part) -> None:
        self.part, self.nodes = part, {node.name: node for node in program.graph.nodes}
        signature = program.graph_signature
        held: dict[str, Any] = {**program.state_dict, **program.constants}
        inside = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.held = {name: held[target] for name, target in inside.items()}
        self.inputs = [str(name) for name in signature.user_inputs]

    def plain(self, weights: Weights, outputs: Mapping[str, str]) -> dict[str, object]:
        used = self._used(outputs.values())
        self.places = {name: place for place, name in enumerate(self.nodes)}
        self._refuse(used)
        steps = [self._step(node) for name, node in self.nodes.items() if name in used]
        ports = [port.name for port in self.part.ports]
        return {
            "inputs": [
                [self.places[node], port] for node, port in zip(self.inputs, ports, strict=True)
            ],
            "weights": [
                [self.places[name], weights.add(tensor)]
                for name, tensor in self.held.items()
                if name in used
            ],
            "nodes": [step for step in steps if step is not None],
            "outputs": [[name, self.places[node]] for name, node in outputs.items()],
        }

    def _used(self, results: Any) -> set[str]:
        """The nodes that the results depend on."""
        found: set[str] = set()
        waiting = list(results)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += [node.name for node in self.nodes[name].all_input_nodes]
        return found

    def _refuse(self, used: set[str]) -> None:
        """Require operations that the page has."""
        lacking = {
            str(node.target): _layer(node)
            for name, node in self.nodes.items()
            if name in used and node.op == "call_function" and _operation(node) not in operations()
        }
        listed = ", ".join(f"{name} (in {layer})" for name, layer in sorted(lacking.items()))
        if lacking:
            raise invalid(
                f"a model whose {self.part.name} uses operations that the page lacks: {listed}",
                "networks of linear layers, convolutions, norms, attention and elementwise "
                "functions",
                "build the networks from genmod.nn, or write the model for onnxruntime: genmod "
                "export RUN",
            )

    def _step(self, node: fx.Node) -> list[object] | None:
        if node.op != "call_function":
            return None
        value = node.meta.get("val")
        value = value[0] if isinstance(value, list | tuple) else value
        kind = str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else "number"
        arguments = [self._argument(each) for each in _arguments(node)]
        return [self.places[node.name], _operation(node), arguments, kind]

    def _argument(self, value: object) -> object:
        if isinstance(value, fx.Node):
            return {"id": self.places[value.name]}
        if isinstance(value, list | tuple):
            return [self._argument(each) for each in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        # Devices, types and layouts: the page has one device, and types stand beside the operation.
        return None


def _operation(node: fx.Node) -> str:
    """The name of a node's operation in the page."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        name = getattr(target, "__name__", str(target))
        return name if name == "getitem" else f"int_{name}"
    space, _, name = target._schema.name.partition("::")
    overload = target._overloadname
    whole = f"{name}_{overload}" if space == "aten" else f"{space}_{name}"
    plain = space == "aten" and _SAME_ORDER.fullmatch(overload) and whole not in operations()
    return name if plain else whole


def _layer(node: fx.Node) -> str:
    """The class of the module that a node comes from."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    kinds = [kind if isinstance(kind, str) else kind.__qualname__ for _, kind in stack.values()]
    return kinds[-1].rpartition(".")[2] if kinds else "the model"


def _arguments(node: fx.Node) -> list[object]:
    """The arguments in the order of the schema, those left out by their defaults."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return list(node.args)
    found: list[object] = []
    for place, argument in enumerate(node.target._schema.arguments):
        if place < len(node.args):
            found.append(node.args[place])
        elif argument.name in node.kwargs:
            found.append(node.kwargs[argument.name])
        else:
            found.append(argument.default_value)
    return found
