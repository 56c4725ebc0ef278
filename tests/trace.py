"""Print which files of the package run in one training step, in the order in which they are entered.

Run it as ``python tests/trace.py``. It makes three training steps of a VAE, and of a diffusion that
visits one level a row, and prints the trip of the third one: each file, and the functions of it that
ran. Open the files in this order to read one number from the batch to the loss. Nothing enforces the
number of files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from genmod import training_loop  # noqa: E402
from genmod.data.rows import dataset  # noqa: E402
from genmod.model import LatentModel  # noqa: E402
from genmod.models import VAE, Diffusion  # noqa: E402

STEP = 3
SKIPPED = {"<module>", "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>", "<lambda>"}

Trip = dict[str, dict[str, int]]
"""For each file, in the order of the first call, the functions that ran and how often."""


@contextmanager
def recorded() -> Iterator[Trip]:
    """Record the calls of functions whose source lies in ``genmod/``."""
    package = str(ROOT / "genmod") + "/"
    trip: Trip = {}

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(package):
            return
        name = code.co_qualname if sys.version_info >= (3, 11) else code.co_name
        if code.co_name not in SKIPPED:
            calls = trip.setdefault(code.co_filename.removeprefix(str(ROOT) + "/"), {})
            calls[name] = calls.get(name, 0) + 1

    sys.setprofile(note)
    try:
        yield trip
    finally:
        sys.setprofile(None)


def third_step(model: LatentModel) -> Trip:
    """The trip of the third training step at the defaults of ``fit``."""
    data = dataset(torch.randint(0, 17, (64, 1, 8, 8)), bins=17, name="noise")
    with training_loop(model, data, steps=2000, batch_size=16, progress=False) as steps:
        for _ in range(STEP - 1):
            next(steps)
        with recorded() as trip:
            next(steps)
    return trip


def show(title: str, trip: Trip, names: bool) -> None:
    """Print a trip, a line a file."""
    print(f"{title}: {len(trip)} files")
    for number, (file, calls) in enumerate(trip.items(), 1):
        listed = "  " + ", ".join(calls) if names else ""
        print(f"{number:>4}  {file:<34}{sum(calls.values()):>5} calls{listed}")


def main() -> None:
    """Both models."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--names", action="store_true", help="also print the functions of each file"
    )
    names = parser.parse_args().names
    shape = (1, 8, 8)
    show("VAE", third_step(VAE(shape, bins=17, latents=8)), names)
    show("Diffusion", third_step(Diffusion(shape, bins=17, steps=100)), names)


if __name__ == "__main__":
    main()
