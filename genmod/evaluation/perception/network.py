"""The network of perceptual features, with its weights checked by their hash.

Three convolutions and a linear layer, trained once to tell the ten digits and the ten clothes of gray
images apart (see :mod:`genmod.evaluation.perception.training`), and kept in the package. Distances
between features can be compared on one set of weights only, so the hash of the file is checked and
printed.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from genmod.checks import check_real, is_trusted, require

SIDE = 28
"""Pixels a side of the network's input."""
CLASSES = 20
"""Digits 0 to 9, then the ten clothes of Fashion-MNIST."""
DIMS = 64
"""How many features an image has."""
FILE = "weights.safetensors"
SHA256 = "3e985d1074e15a6ad254a4b9ec3de866a871410f94586b085e3ef09ac4355e14"
"""Of the file of weights."""

_BLOCK = 500
"""Images that go through the network together: part of what makes its numbers the same everywhere."""


class Perception(nn.Module):
    """Gray images of 28 x 28 pixels to 64 features, and features to the logits of 20 classes."""

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
        """The features of images in [0, 1]."""
        found: Tensor = self.layers(2 * images - 1)
        return found


@cache
def network() -> Perception:
    """The network with the package's own weights, their hash checked.

    Raises:
        ValueError: the file of weights is another one.
    """
    saved = resources.files(__package__).joinpath(FILE).read_bytes()
    found = hashlib.sha256(saved).hexdigest()
    require(
        found == SHA256,
        f"weights with SHA-256 {found[:12]}...",
        f"those of {SHA256[:12]}...",
        "reinstall the package: distances on other weights cannot be compared",
    )
    net = Perception()
    net.load_state_dict({name: tensor.float() for name, tensor in load(saved).items()})
    return net.eval().requires_grad_(False)


@torch.no_grad()
def features(images: Tensor) -> Tensor:
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
    require(
        images.ndim == 4 and images.shape[1] == 1 and len(images) >= 1,
        f"images of shape {tuple(images.shape)}",
        "gray images, (N, 1, H, W)",
        "the network was trained on gray digits and clothes only; use it for images like these",
    )
    require(
        images.is_floating_point(),
        f"images of type {images.dtype}",
        "floating point images in [0, 1]",
        "divide integers by the largest level, x / (bins - 1)",
    )
    check_real(images, name="images")
    if not is_trusted():
        low, high = float(images.min()), float(images.max())
        require(
            low >= 0 and high <= 1,
            f"images from {low:g} to {high:g}",
            "gray levels in [0, 1]",
            "divide integers by the largest level, x / (bins - 1); clamp real-valued samples yourself",
        )
