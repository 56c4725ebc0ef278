"""What every toy density is: a distribution over points of the plane."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from genmod.checks import require
from genmod.data.datasets import Dataset
from genmod.data.splits import dataset


class Toy(Distribution, ABC):
    """A density over points of the plane, event shape ``(2,)``, with a known entropy.

    Args:
        dtype: the type of samples; ``None`` is torch's default. Densities are computed in the type
            of the points they are asked for.
    """

    has_rsample = False
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__(torch.Size(), torch.Size([2]), validate_args=False)
        self.dtype = torch.get_default_dtype() if dtype is None else dtype

    @torch.no_grad()
    def sample(
        self,
        sample_shape: torch.Size | list[int] | tuple[int, ...] = (),
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Points ``(*sample_shape, 2)``; ``generator=None`` draws from torch's own generator."""
        count = torch.Size(sample_shape).numel()
        return self._draw(count, generator).reshape(*sample_shape, 2)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of points ``(..., 2)``, in nats, ``(...)``."""
        require(
            value.shape[-1:] == (2,) and value.is_floating_point(),
            f"points of shape {tuple(value.shape)} and type {value.dtype}",
            "floating point coordinates, (..., 2)",
            "put the two coordinates on the last axis",
        )
        return self._log_density(value.reshape(-1, 2)).reshape(value.shape[:-1])

    def entropy(self) -> Tensor:
        """``-E log p`` in nats, a scalar: no expected log-density exceeds its negative."""
        return torch.tensor(self._nats(), dtype=self.dtype)

    @abstractmethod
    def _draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        """``(count, 2)`` points of type ``self.dtype``."""

    @abstractmethod
    def _log_density(self, points: Tensor) -> Tensor:
        """``(N,)`` nats at points ``(N, 2)``."""

    @abstractmethod
    def _nats(self) -> float:
        """The entropy, in float64."""

    def _normal(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Standard normal noise, on the generator's device."""
        device = None if generator is None else generator.device
        return torch.randn(count, 2, generator=generator, dtype=self.dtype, device=device)

    def _uniform(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Uniform noise in [0, 1), two columns, on the generator's device."""
        device = None if generator is None else generator.device
        return torch.rand(count, 2, generator=generator, dtype=self.dtype, device=device)


def toy_dataset(toy: Toy, n: int, seed: int = 0) -> Dataset:
    """``n`` points of a toy density, drawn and split with one seed.

    Args:
        toy: the density.
        n: points in all three parts together.
        seed: of the draw and of the split.

    Raises:
        ValueError: if ``n`` is too small to be split.

    >>> from genmod.data.toys import Moons
    >>> print(toy_dataset(Moons(), 1000).summary())
    moons (720 train + 80 validation + 200 test rows of (2,), real numbers)
    """
    require(n >= 1, f"n={n}", "a positive number of points", "ask for at least a dozen")
    points = toy.sample((n,), generator=torch.Generator().manual_seed(seed))
    return dataset(points, name=type(toy).__name__.lower(), seed=seed)
