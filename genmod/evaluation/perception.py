"""The network of perceptual features, its weights (checked by their hash), and its training.

Three convolutions and a linear layer, trained once by :func:`retrain` to classify gray images of the ten
digits and the ten clothes. The weights are kept in the package. Distances can be compared only between
features of the same weights, so the hash of the file is checked and printed.

The training is seeded, and takes two to three minutes on one core. Two runs on one machine give the same
file, bit for bit. Another kind of processor rounds differently and gives a network that is as good and
has another hash. This is why the file itself is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from genmod.arrays import Rows, as_tensor
from genmod.checks import check_real, invalid, is_trusted
from genmod.data import Dataset
from genmod.data.images import digits, fashion_mnist, mnist

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


SEED = 20
STEPS, BATCH, RATE = 2500, 128, 5e-3
REPEATS = 8
"""Copies of the small digits in the training set: there are few of them."""


def retrain(root: str | None = None) -> str:
    """Train the network again, write its weights into the package, and return their SHA-256.

    Args:
        root: the folder of MNIST and Fashion-MNIST; see :func:`genmod.data.load`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        return write(train(*images(root)), place())
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)


def images(root: Path | str | None = None) -> tuple[Tensor, Tensor]:
    """Training images of digits, of clothes and of small digits, ``(N, 1, 28, 28)``, and their classes.

    Args:
        root: the folder of MNIST and Fashion-MNIST; see :func:`genmod.data.load`.
    """
    small = digits()
    parts = [(mnist(root, download=False), 0), (fashion_mnist(root, download=False), 10)]
    parts += [(small, 0)] * REPEATS
    seen, marks = zip(*(_training(data, first) for data, first in parts), strict=True)
    return torch.cat(seen), torch.cat(marks)


def train(x: Tensor, classes: Tensor, steps: int = STEPS, seed: int = SEED) -> Perception:
    """Train a network to classify images.

    Args:
        x: images in [0, 1], ``(N, 1, 28, 28)``.
        classes: the class of each, ``(N,)``.
        steps: the number of training steps.
        seed: the seed of the initial weights and of the order of the images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Perception()
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    order = _order(len(x), seed)
    for _ in range(steps):
        rows = next(order)
        loss = F.cross_entropy(net.head(net(x[rows])), classes[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    return net


def write(net: nn.Module, place: Path) -> str:
    """Write the weights, rounded to half precision, and return the file's SHA-256."""
    halves = {name: tensor.detach().half() for name, tensor in net.state_dict().items()}
    content = save(halves)
    place.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def place() -> Path:
    """The path of the package's file of weights."""
    return Path(__file__).parent / FILE


def _order(count: int, seed: int) -> Iterator[Tensor]:
    """Batches of row numbers, one permutation after another."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).split(BATCH)


def _training(data: Dataset, first: int) -> tuple[Tensor, Tensor]:
    """The training part in [0, 1] at the network's size, and its labels counted from ``first``."""
    assert data.bins is not None
    assert data.labels is not None
    x = resized(data.train.float() / (data.bins - 1))
    assert x.shape[1:] == (1, SIDE, SIDE)
    return x, data.labels["train"] + first
