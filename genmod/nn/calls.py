"""How the parts call networks: any module will do, and a wrong output size is said at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genmod.shapes import size
from genmod.types import Shape


def call(network: nn.Module, *inputs: Tensor, context: Tensor | None) -> Tensor:
    """``network(*inputs)``, with the context as last argument where there is one."""
    return network(*inputs) if context is None else network(*inputs, context)


def outputs(network: nn.Module, shape: Shape, *inputs: Tensor, context: Tensor | None) -> Tensor:
    """What a network says, as ``(B, *shape)`` in float32 or better.

    Rates are never computed in half precision, so what autocast made of a network's output ends here.

    Raises:
        ValueError: the network does not give ``prod(shape)`` numbers a row.
    """
    said = call(network, *inputs, context=context)
    found = said.numel() // max(len(said), 1)
    if found != size(shape):  # the words are not built at every call: a sampler makes thousands
        raise ValueError(
            f"got {found} outputs a row from {type(network).__name__}; expected {size(shape)} (for the "
            f"shape {tuple(shape)}); change the width of the network's last layer"
        )
    if said.dtype in (torch.bfloat16, torch.float16):
        said = said.float()
    return said if said.shape[1:] == shape else said.reshape(-1, *shape)
