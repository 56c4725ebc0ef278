"""Functions of any module: call it, set its mode, read its type, save and load its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from genmod.checks import invalid
from genmod.tensors import HALF, Shape

Module = TypeVar("Module", bound=nn.Module)


def call(network: nn.Module, *inputs: Tensor, context: Tensor | None) -> Tensor:
    """The tensor ``network(*inputs)``, or ``network(*inputs, context)`` where there is a context."""
    given = inputs if context is None else (*inputs, context)
    return tensor_in(call_part(network, *given), network)


def call_part(part: nn.Module, *inputs: Tensor | None) -> Any:
    """``part(*inputs)``, in the type of its weights, and refused if it changes an input in place.

    The inputs are needed afterwards: data are scored, a noised state is compared with its estimate. A
    network that begins with ``ReLU(inplace=True)`` would change the number that they give.

    Raises:
        ValueError: an input was changed.
    """
    before = _versions(inputs)
    with in_own_precision(part):
        found = part(*inputs)
    if _versions(inputs) != before:
        raise invalid(
            f"a {type(part).__name__} that changed its input in place",
            "the input as it was, because it is used again",
            "leave inplace=True out of its first layer, or clone the input",
        )
    return found


def in_own_precision(part: nn.Module) -> AbstractContextManager[object]:
    """A block in which a part whose weights are in half precision computes in their type, by autocast.

    ``model.bfloat16()`` halves the memory of the weights. Distributions and rates stay in float32, because
    :func:`outputs` gives float32, and :func:`in_full` reads noised states in it.
    """
    first = first_float(part)
    if first is None or first.dtype not in HALF:
        return nullcontext()
    return torch.autocast(first.device.type, first.dtype)


def _versions(inputs: Sequence[Tensor | None]) -> list[int]:
    """How often each tensor was written to. Torch does not count it for tensors of inference mode."""
    if torch.compiler.is_compiling():
        return []
    return [each._version for each in inputs if each is not None and not each.is_inference()]


def outputs(network: nn.Module, shape: Shape, *inputs: Tensor, context: Tensor | None) -> Tensor:
    """The network's output, reshaped to ``(B, *shape)``, in float32 or better.

    Rates are never computed in half precision, so a half-precision output (under autocast) becomes
    float32 here. A network of another library may return an object: see :func:`tensor_in`.

    Args:
        network: called as ``network(*inputs)``, or ``network(*inputs, context)`` where there is a context.
        shape: the shape of the output of one row.
        inputs: batches of ``B`` rows.
        context: what the network is conditioned on, ``(B, ...)``, or ``None``.

    Raises:
        ValueError: the network does not give ``B`` rows of ``prod(shape)`` numbers, or gives no tensor.
    """
    found = call(network, *inputs, context=context)
    rows = found.shape[0] if found.ndim else 0
    per_row, wanted = found.numel() // max(rows, 1), math.prod(shape)
    if per_row != wanted:
        raise invalid(
            f"{per_row} outputs a row from {type(network).__name__}",
            f"{wanted} (for the shape {tuple(shape)})",
            "change the width of the network's last layer",
        )
    if rows != inputs[0].shape[0]:
        raise invalid(
            f"{rows} rows from {type(network).__name__} for a batch of {len(inputs[0])}",
            "one for each",
            "return the batch dimension first, without a mean or a sum over it",
        )
    if found.dtype in HALF:
        found = found.float()
    return found if found.shape[1:] == shape else found.reshape(-1, *shape)


def tensor_in(returned: object, network: nn.Module) -> Tensor:
    """The tensor in what a network returned, if there is no doubt which one it is.

    Accepted are a tensor; an object whose ``sample`` is a tensor, as diffusers' networks return it; and a
    tuple, list or mapping that holds exactly one tensor.

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
    raise invalid(
        f"a {type(returned).__name__} from {type(network).__name__}",
        "a tensor, or an object that holds one (in .sample, or alone in a tuple)",
        "wrap the network in a module that returns the tensor",
    )


def zero(layer: Module) -> Module:
    """The layer with all parameters at zero. A residual block that ends with it starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """A block in evaluation mode, without gradients. Afterwards each part has its own mode again."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in before:
            part.training = mode


def in_full(layer: nn.Module, z: Tensor) -> Tensor:
    """``layer(z)`` in float32 or better, also under autocast. The output then has autocast's type.

    Use it for the layer that reads a noised state. At a log-SNR of 13.3 the noise has a standard
    deviation of 0.0013. Data near one are rounded to multiples of 0.004 in bfloat16, so casting the
    input would remove the noise that the network has to predict. The output has many channels, so
    rounding it loses little.

    Measured on small networks, the bound in bfloat16 was 2 to 10 % off without this function, and is
    less than 1 % off with it. A ``ConvNet`` uses it too, because it can be the decoder of
    a diffusion, which reads ``z_0``. Other encoders and decoders lose 0.02 % in bfloat16 and do without.

    Args:
        layer: the first layer of a network.
        z: the noised state, ``(B, ...)``.
    """
    kind = z.device.type
    # is_autocast_enabled raises for a device without autocast, such as "meta".
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        plain: Tensor = layer(z)
        return plain
    with torch.autocast(kind, enabled=False):
        output = _in_float(layer, z.float() if z.dtype in HALF else z)
    # Like autocast itself, leave double precision as it is.
    return output.to(torch.get_autocast_dtype(kind)) if output.dtype is torch.float32 else output


def _in_float(layer: nn.Module, z: Tensor) -> Tensor:
    """``layer(z)`` in the type of ``z``, also where the weights are in half precision."""
    own = dict(layer.named_parameters())
    if not any(each.dtype in HALF for each in own.values()):
        output: Tensor = layer(z)
        return output
    wide: Tensor = functional_call(layer, {name: each.to(z) for name, each in own.items()}, (z,))
    return wide


def float_dtype(module: nn.Module, skip: tuple[type[nn.Module], ...] = ()) -> torch.dtype | None:
    """The type of a module's first floating point parameter or buffer; ``None`` if it has none."""
    found = next((t for t in tensors_of(module, skip) if t.is_floating_point()), None)
    return None if found is None else found.dtype


def tensors_of(module: nn.Module, skip: tuple[type[nn.Module], ...] = ()) -> Iterator[Tensor]:
    """All parameters, then all buffers.

    Args:
        module: the module.
        skip: classes of modules whose tensors are left out, such as schedules, which keep their own
            type when the model is cast.
    """
    # Not part.parameters(recurse=False), which takes ten times as long.
    for part in _parts(module, skip):
        yield from (own for own in part._parameters.values() if own is not None)
    for part in _parts(module, skip):
        yield from (buffer for buffer in part._buffers.values() if buffer is not None)


def first_float(module: nn.Module, skip: tuple[type[nn.Module], ...] = ()) -> nn.Parameter | None:
    """The first floating point parameter, as :func:`tensors_of` lists them: a model asks at every step."""
    for own in module._parameters.values():
        if own is not None and own.is_floating_point():
            return own
    for part in module._modules.values():
        if part is not None and not isinstance(part, skip):
            found = first_float(part, skip)
            if found is not None:
                return found
    return None


def _parts(module: nn.Module, skip: tuple[type[nn.Module], ...]) -> Iterator[nn.Module]:
    """The module and its parts, depth first."""
    waiting = [module]
    while waiting:
        part = waiting.pop()
        yield part
        children = [each for each in part._modules.values() if each is not None]
        waiting.extend(each for each in reversed(children) if not isinstance(each, skip))


def weights(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module by name. A tensor with several names is listed once, under the first."""
    named: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        named.setdefault(id(tensor), (name, tensor.detach()))
    return dict(named.values())


def copy_weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights, which later training does not change."""
    return {name: tensor.clone() for name, tensor in weights(module).items()}


@torch.no_grad()
def load_weights(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Copy saved weights into a module.

    Raises:
        ValueError: names or shapes differ from those of the module.
    """
    own = weights(module)
    missing, extra = sorted(own.keys() - saved.keys()), sorted(saved.keys() - own.keys())
    if missing or extra:
        raise invalid(
            f"weights without {missing[:3]} and with {extra[:3]}",
            f"the {len(own)} tensors of {type(module).__name__}",
            "build the model with the settings it was saved with",
        )
    for name, tensor in own.items():
        if tensor.shape != saved[name].shape:
            raise invalid(
                f"{name} of shape {tuple(saved[name].shape)}",
                f"the model's shape {tuple(tensor.shape)}",
                "build the model with the settings it was saved with",
            )
    for name, tensor in own.items():
        tensor.copy_(saved[name])
