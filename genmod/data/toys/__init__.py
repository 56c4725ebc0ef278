"""Densities on the plane whose entropy is known, so that a model's gap can be read in nats.

Each is a ``torch.distributions.Distribution`` of events ``(2,)``: ``sample`` (with torch's API, or
with a generator of one's own), an exact ``log_prob``, and ``entropy`` in nats: closed form where
there is one, else deterministic quadrature. The mean of ``-log_prob`` over fresh samples is the
entropy, so no model of these data can have an expected log-density above minus that.
"""

from collections.abc import Callable, Mapping

from genmod.data.toys.curves import Moons as Moons
from genmod.data.toys.curves import Ring as Ring
from genmod.data.toys.curves import Spiral as Spiral
from genmod.data.toys.plain import Banana as Banana
from genmod.data.toys.plain import Checkerboard as Checkerboard
from genmod.data.toys.plain import Correlated as Correlated
from genmod.data.toys.plain import GaussianMixture as GaussianMixture
from genmod.data.toys.toy import Toy
from genmod.data.toys.toy import toy_dataset as toy_dataset

__all__ = [
    "Banana",
    "Checkerboard",
    "Correlated",
    "GaussianMixture",
    "Moons",
    "Ring",
    "Spiral",
    "toy_dataset",
]

BY_NAME: Mapping[str, Callable[[], Toy]] = {
    "banana": Banana,
    "checkerboard": Checkerboard,
    "correlated": Correlated,
    "gaussian-mixture": GaussianMixture.circle,
    "moons": Moons,
    "ring": Ring,
    "spiral": Spiral,
}
"""What builds the density of each name that :func:`genmod.data.load` knows."""
