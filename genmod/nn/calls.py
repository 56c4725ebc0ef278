"""Calls of networks by the parts: any module will do, and a wrong output is refused at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genmod.shapes import Shape, size


def call(network: nn.Module, *inputs: Tensor, context: Tensor | None) -> Tensor:
    """``network(*inputs)``, with the context as last argument where there is one: a tensor."""
    given = inputs if context is None else (*inputs, context)
    return tensor_in(network(*given), network)


def outputs(network: nn.Module, shape: Shape, *inputs: Tensor, context: Tensor | None) -> Tensor:
    """The network's output, as ``(B, *shape)`` in float32 or better.

    Rates are never computed in half precision, so what autocast made of a network's output ends here. A
    network of another library may return an object: see :func:`tensor_in`.

    Args:
        network: called as ``network(*inputs)``, or ``network(*inputs, context)`` where there is a context.
        shape: of the output of one row.
        inputs: batches of ``B`` rows.
        context: what the network is conditioned on, ``(B, ...)``, or ``None``.

    Raises:
        ValueError: the network does not give ``B`` rows of ``prod(shape)`` numbers, or gives no tensor.
    """
    found = call(network, *inputs, context=context)
    rows = len(found) if found.ndim else 0
    per_row = found.numel() // max(rows, 1)
    # The words are not built at every call: a sampler makes thousands.
    if per_row != size(shape):
        raise ValueError(
            f"got {per_row} outputs a row from {type(network).__name__}; expected {size(shape)} (for the "
            f"shape {tuple(shape)}); change the width of the network's last layer"
        )
    if rows != len(inputs[0]):
        raise ValueError(
            f"got {rows} rows from {type(network).__name__} for a batch of {len(inputs[0])}; expected one "
            "for each; return the batch dimension first, without a mean or a sum over it"
        )
    if found.dtype in (torch.bfloat16, torch.float16):
        found = found.float()
    return found if found.shape[1:] == shape else found.reshape(-1, *shape)


def tensor_in(returned: object, network: nn.Module) -> Tensor:
    """The tensor that a network returned, where its meaning is certain.

    That is a tensor; an object whose ``sample`` is one, as diffusers' networks return it; or a tuple, list
    or mapping of one tensor.

    Raises:
        ValueError: anything else.
    """
    if isinstance(returned, Tensor):
        return returned
    sample = getattr(returned, "sample", None)
    if isinstance(sample, Tensor):
        return sample
    parts = list(returned.values()) if isinstance(returned, Mapping) else returned
    if isinstance(parts, tuple | list) and len(parts) == 1 and isinstance(parts[0], Tensor):
        return parts[0]
    raise ValueError(
        f"got a {type(returned).__name__} from {type(network).__name__}; expected a tensor, or an object "
        "that holds one (in .sample, or alone in a tuple); wrap the network in a module that returns the "
        "tensor"
    )
