"""The network of perceptual features, and its weights, which are checked by their hash.

Three convolutions and a linear layer, trained once by ``benchmarks/perception.py`` to classify gray images
of the ten digits and the ten clothes. The weights are kept in the package. Distances can be compared only
between features of the same weights, so the hash of the file is checked and printed.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from genmod.arrays import Rows, as_tensor
from genmod.checks import check_real, invalid, is_trusted

SIDE = 28
"""Pixels a side of the network's input."""
CLASSES = 20
"""Digits 0 to 9, then the ten clothes of Fashion-MNIST."""
DIMS = 64
"""How many features an image has."""
FILE = "perception.safetensors"
SHA256 = "3e985d1074e15a6ad254a4b9ec3de866a871410f94586b085e3ef09ac4355e14"
"""The hash of the file of weights."""

_BLOCK = 500
"""Images per forward pass. It is fixed, because the last bits of a result depend on it."""


class Perception(nn.Module):
    """Maps gray images of 28 x 28 pixels to 64 features; ``head`` maps these to logits of 20 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 24, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(48, 96, 3, padding=1),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(96 * 3 * 3, DIMS),
            nn.SiLU(),
        )
        self.head = nn.Linear(DIMS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """The features of images in [0, 1], ``(N, 64)``."""
        found: Tensor = self.layers(2 * images - 1)
        return found


@cache
def network() -> Perception:
    """The network with the package's weights.

    Raises:
        ValueError: a file of weights with a different hash.
    """
    saved = resources.files(__package__).joinpath(FILE).read_bytes()
    found = hashlib.sha256(saved).hexdigest()
    if found != SHA256:
        raise invalid(
            f"weights with SHA-256 {found[:12]}...",
            f"those of {SHA256[:12]}...",
            "reinstall the package: distances of different weights cannot be compared",
        )
    net = Perception()
    net.load_state_dict({name: tensor.float() for name, tensor in load(saved).items()})
    return net.eval().requires_grad_(False)


@torch.no_grad()
def features(images: Rows) -> Tensor:
    r"""The perceptual features of images, 64 numbers each.

    Images of other sizes are resized to 28 x 28 (bilinear).

    Args:
        images: gray, ``(N, 1, H, W)``, floating point in [0, 1].

    Returns:
        ``(N, 64)``, float64, on the CPU.

    Raises:
        ValueError: other shapes, or values outside [0, 1].

    >>> features(torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 64])
    """
    images = as_tensor(images, "images")
    _check(images)
    net = network()
    return torch.cat([net(resized(part)) for part in images.split(_BLOCK)]).double()


@torch.no_grad()
def class_log_probs(found: Tensor) -> Tensor:
    """The log-probability of each class, from features: ``(N, 64)`` to ``(N, 20)``, float64."""
    logits: Tensor = network().head(found.float())
    return logits.double().log_softmax(-1)


def resized(images: Tensor) -> Tensor:
    """Images as the network takes them: 28 x 28, float32, on the CPU."""
    images = images.detach().to("cpu", torch.float32)
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    return F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 1 or len(images) == 0:
        raise invalid(
            f"images of shape {tuple(images.shape)}",
            "gray images, (N, 1, H, W)",
            "use it for gray images: the network was trained on digits and clothes only",
        )
    if not images.is_floating_point():
        raise invalid(
            f"images of type {images.dtype}",
            "floating point images in [0, 1]",
            "divide integers by the largest value, x / (bins - 1)",
        )
    check_real(images, name="images")
    if not is_trusted():
        low, high = float(images.min()), float(images.max())
        if not low >= 0 or not high <= 1:
            raise invalid(
                f"images from {low:g} to {high:g}",
                "gray values in [0, 1]",
                "divide integers by the largest value, x / (bins - 1); clamp samples of a "
                "real-valued model",
            )
