"""Densities on the plane whose entropy is known, so that a model's gap can be read in nats.

``data.load("moons")`` draws 10,000 points of one; :func:`density` gives the density itself. It is a
``torch.distributions.Distribution`` of events ``(2,)``: ``sample`` (with torch's API, or with a generator
of one's own), an exact ``log_prob``, and ``entropy`` in nats: closed form where there is one, else
deterministic quadrature. The mean of ``-log_prob`` over fresh samples is the entropy, so no model of these
data can have an expected log-density above minus that.
"""

from collections.abc import Callable, Mapping

from genmod.checks import one_of
from genmod.data.toys.curves import Moons, Ring, Spiral
from genmod.data.toys.plain import Banana, Checkerboard, Correlated, GaussianMixture
from genmod.data.toys.toy import Toy

__all__ = ["density"]

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


def density(name: str) -> Toy:
    """The density of a name, as :func:`genmod.data.load` draws its points.

    Args:
        name: ``"banana"``, ``"checkerboard"``, ``"correlated"``, ``"gaussian-mixture"``, ``"moons"``,
            ``"ring"`` or ``"spiral"``.

    Raises:
        ValueError: another name.

    >>> density("checkerboard").entropy()  # 8 dark squares of area 1: log 8
    tensor(2.0794)
    """
    return BY_NAME[one_of(BY_NAME, name, "name")]()
