"""Train the network of perceptual features, whose weights are kept in the package.

The training is seeded, and takes two to three minutes on one core. Two runs on one machine give the same
file, bit for bit. Another kind of processor rounds differently and gives a network that is as good and
has another hash. This is why the file itself is kept.

Run: python benchmarks/perception.py [--root FOLDER], then write the printed hash into
genmod/evaluation/perception.py.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from genmod.data import Dataset
from genmod.data.images import digits, fashion_mnist, mnist
from genmod.evaluation import perception
from genmod.evaluation.perception import FILE, SIDE, Perception, resized

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
        return write(train(*images(root)), Path(perception.__file__).parent / FILE)
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="the folder of MNIST and Fashion-MNIST")
    print(retrain(parser.parse_args().root))
