"""``torch.compile`` for the networks of a model in training, with its traps handled.

* Only networks are compiled, in place. The parts around them (laws, rates, checks) stay plain Python, so
  that there is one graph a network and no graph break. Names in checkpoints do not change, as they do
  under ``torch.compile(model)``.
* Validation runs without it, because it has batches of other sizes, each of which would compile again.
* After the run the model is plain again: it is copied, saved and called with any batch as before.
* Without a working compiler the run is refused in its first step, before any weight has changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from genmod.checks import invalid
from genmod.decoders import Decoder
from genmod.denoisers import Denoiser
from genmod.encoders import Encoder
from genmod.model import LatentModel
from genmod.prior import Prior
from genmod.schedules import Schedule

_PARTS = (LatentModel, Encoder, Decoder, Prior, Denoiser, Schedule)


def networks(module: nn.Module) -> list[nn.Module]:
    """The outermost modules that are networks: no part of a model, and with parameters.

    >>> from genmod.models import VAE
    >>> [type(network).__name__ for network in networks(VAE(2, latents=1, width=8))]
    ['MLP', 'MLP']
    """
    # A denoiser in two parts is one module, found twice.
    return list({id(network): network for network in _networks(module)}.values())


def _networks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        home = type(child).__module__
        ours = home.split(".")[0] == "genmod" and not home.startswith("genmod.nn")
        if isinstance(child, _PARTS) or ours or isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _networks(child)
        elif any(parameter.requires_grad for parameter in child.parameters()):
            yield child


def compile_networks(model: nn.Module, backend: str | Callable[..., object] = "inductor") -> None:
    """Compile each network of a model in place, at its next call."""
    for network in networks(model):
        network.compile(backend=backend)


def plain_networks(model: nn.Module) -> None:
    """Undo :func:`compile_networks`."""
    for network in networks(model):
        network._compiled_call_impl = None


@contextmanager
def uncompiled() -> Iterator[None]:
    """A block in which compiled networks run as plain ones."""
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error of the compiler into one sentence, and hide a warning that means nothing to the user.

    Raises:
        ValueError: with the remedy.
    """
    try:
        with warnings.catch_warnings():
            # The compiler looks at the gradients of its inputs, latents among them.
            warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor")
            yield
    except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise invalid(
            f"compile=True, and torch.compile failed ({reason})",
            "networks that it can compile, and a C++ compiler",
            "leave compile out, which trains the same model more slowly",
        ) from error
