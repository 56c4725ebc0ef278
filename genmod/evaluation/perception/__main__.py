"""Train the network of features again: ``python -m genmod.evaluation.perception [folder of MNIST]``."""

from __future__ import annotations

import sys

import torch

from genmod.evaluation.perception.training import images, place, train, write


def main(root: str | None = None) -> None:
    """Train, write the weights where the package keeps them, and print their hash."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print(f"{place()}: SHA256 = {write(train(*images(root)), place())!r}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
