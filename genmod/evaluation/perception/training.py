"""How the network of features is trained: seeded, on one core, in two to three minutes.

Two runs on one machine give the same file, bit for bit. Another kind of processor rounds otherwise
and gives a network that is as good and has another hash, which is why the file itself is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from genmod.data import Dataset, digits, fashion_mnist, mnist
from genmod.evaluation.perception.network import FILE, SIDE, Perception, resized

SEED = 20
STEPS, BATCH, RATE = 2500, 128, 5e-3
REPEATS = 8
"""How often the few small digits are seen for each time that the large ones are."""


def images(root: Path | str | None = None) -> tuple[Tensor, Tensor]:
    """Training images of digits, of clothes and of small digits, ``(N, 1, 28, 28)``, and their classes.

    Args:
        root: where MNIST and Fashion-MNIST lie; see :func:`genmod.data.mnist`.
    """
    small = digits()
    parts = [(mnist(root, download=False), 0), (fashion_mnist(root, download=False), 10)]
    parts += [(small, 0)] * REPEATS
    seen, marks = zip(*(_training(data, first) for data, first in parts), strict=True)
    return torch.cat(seen), torch.cat(marks)


def train(x: Tensor, classes: Tensor, steps: int = STEPS, seed: int = SEED) -> Perception:
    """A network that tells the classes apart.

    Args:
        x: images in [0, 1], ``(N, 1, 28, 28)``.
        classes: the class of each, ``(N,)``.
        steps: of training.
        seed: of the first weights and of the order of images.
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
    """Where the package keeps its weights."""
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
