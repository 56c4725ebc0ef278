"""What is done with any module: call it, read its type, set its mode, save and load its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from genmod.checks import require
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


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; each part's own mode is put back afterwards."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in before:
            part.training = mode


def in_full(layer: nn.Module, z: Tensor) -> Tensor:
    """``layer(z)`` in float32 or better, also under autocast; the output has autocast's type.

    For the layer that reads a noised state. At log-SNR 13.3 the noise is 0.0013 beside data near one,
    which bfloat16 rounds to 0.004: casting the input would remove the noise that the network predicts.
    The output has many channels, so rounding it loses little.

    Measured on small networks: the bound in bfloat16 was 2 to 10 % off, and is less than 1 % off.
    A :class:`~genmod.nn.ConvNet` can be a diffusion's decoder, which reads ``z_0``, and does the same.
    Other encoders and decoders lose 2 parts in 10,000 to bfloat16 and keep autocast's precision.

    Args:
        layer: linear in its input, with parameters in float32 or better.
        z: its input.
    """
    kind = z.device.type
    # A device without autocast ("meta", of shapes alone) raises if it is asked whether that is on.
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        plain: Tensor = layer(z)
        return plain
    with torch.autocast(kind, enabled=False):
        output: Tensor = layer(z.float() if z.dtype in (torch.bfloat16, torch.float16) else z)
    # Autocast leaves double precision alone, and so does this.
    return output.to(torch.get_autocast_dtype(kind)) if output.dtype is torch.float32 else output


def float_dtype(module: nn.Module, skip: tuple[type[nn.Module], ...] = ()) -> torch.dtype | None:
    """The type of a module's first floating point parameter or buffer; ``None`` if it has none."""
    found = next((t for t in tensors_of(module, skip) if t.is_floating_point()), None)
    return None if found is None else found.dtype


def tensors_of(module: nn.Module, skip: tuple[type[nn.Module], ...] = ()) -> Iterator[Tensor]:
    """All parameters, then all buffers.

    Args:
        module: the module.
        skip: kinds of modules whose tensors are left out: those that keep a type of their own when the
            module is cast, as schedules do.
    """
    for part in _parts(module, skip):
        yield from part.parameters(recurse=False)
    for part in _parts(module, skip):
        yield from part.buffers(recurse=False)


def _parts(module: nn.Module, skip: tuple[type[nn.Module], ...]) -> Iterator[nn.Module]:
    yield module
    for child in module.children():
        if not isinstance(child, skip):
            yield from _parts(child, skip)


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
