"""A model's weights by name, each tensor once (a denoiser in two parts is one module, saved once)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genmod.checks import require


def weights(module: nn.Module) -> dict[str, Tensor]:
    """The module's own tensors, each under the first of its names."""
    named: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        named.setdefault(id(tensor), (name, tensor.detach()))
    return dict(named.values())


def copy_weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights that training will not touch."""
    return {name: tensor.clone() for name, tensor in weights(module).items()}


@torch.no_grad()
def load_weights(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Put saved weights back.

    Raises:
        ValueError: names or shapes are not the module's own.
    """
    own = weights(module)
    missing, extra = sorted(own.keys() - saved.keys()), sorted(saved.keys() - own.keys())
    require(
        not missing and not extra,
        f"weights without {missing[:3]} and with {extra[:3]}",
        f"the {len(own)} tensors of {type(module).__name__}",
        "build the model with the settings it was saved with",
    )
    for name, tensor in own.items():
        require(
            tensor.shape == saved[name].shape,
            f"{name} of shape {tuple(saved[name].shape)}",
            f"{tuple(tensor.shape)}",
            "build the model with the settings it was saved with",
        )
    for name, tensor in own.items():
        tensor.copy_(saved[name])
