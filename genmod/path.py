"""Joint draws of every latent of a model, with the posterior's and the prior's law of each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod import random
from genmod.distributions.base import Laws


class Latent(NamedTuple):
    """One latent of a joint path: its name, the posterior's law, the prior's law.

    ``p`` is ``None`` where the prior's law is not known yet. A later ``Latent`` of the same name then
    gives ``p``, with ``q`` as ``None``. (Nesting draws ``z1`` first, and ``p(z1 | z2)`` needs ``z2``.)
    """

    name: str
    q: Distribution | None
    p: Distribution | None


InferencePath: TypeAlias = Generator[Latent, Tensor, Tensor]
GenerativePath: TypeAlias = Generator[tuple[str, Distribution], Tensor, Tensor]
Step = TypeVar("Step")


def walk(path: Generator[Step, Tensor, Tensor], draw: Callable[[Step], Tensor]) -> Tensor:
    """Walk a generator to its end, sending a draw for each step; returns its state for the decoder."""
    try:
        step = next(path)
        while True:
            step = path.send(draw(step))
    except StopIteration as end:
        state: Tensor = end.value
        return state


@dataclass(frozen=True, eq=False)
class Path:
    """``K`` joint draws of every latent for each of ``B`` rows, with both laws of each.

    Draws of one row lie ``B`` apart: the laws have ``K B`` rows, the k-th draw of row ``b`` is row
    ``k B + b``.

    Args:
        z: the draws, by name, ``(K, B, *event)``.
        q: the posterior's law of each latent, given the draws before it.
        p: the prior's law of each latent.
        log_likelihood: ``log p(x | z)``, ``(K, B)``; ``None`` until the decoder has scored the draws.
    """

    z: Mapping[str, Tensor]
    q: Laws
    p: Laws
    log_likelihood: Tensor | None = None

    def log_ratio(self, detached: bool = False) -> Tensor:
        """``log p(z) - log q(z | x)`` of each joint draw, ``(K, B)``.

        Args:
            detached: whether gradients leave the parameters of q out. They then reach q through the
                draws alone. (Roeder, Wu, Duvenaud, "Sticking the landing", 2017, eq. 6.)
        """
        q = self.q.detached() if detached else self.q
        terms = [self._of(name, p) - self._of(name, q[name]) for name, p in self.p.items()]
        return torch.stack(terms).sum(0)

    def log_weight(self, detached: bool = False) -> Tensor:
        """``log p(x, z) - log q(z | x)`` of each joint draw, ``(K, B)``: the importance weights.

        Raises:
            ValueError: a path that no decoder has scored.
        """
        if self.log_likelihood is None:
            raise ValueError(
                "got a path without log p(x | z); expected one that a model has decoded; take the path "
                "that model(x, Request(needs_path=True)) returns"
            )
        return self.log_likelihood + self.log_ratio(detached)

    def _of(self, name: str, law: Distribution) -> Tensor:
        z = self.z[name]
        return law.log_prob(z.flatten(0, 1)).reshape(z.shape[:2])


def draw_posterior(q: Distribution) -> Tensor:
    """A draw from a posterior, by reparameterization.

    Raises:
        ValueError: in training, a law without reparameterized draws: the gradient of its parameters would
            not be that of the bound.
    """
    if torch.is_grad_enabled() and not q.has_rsample:
        raise ValueError(
            f"got a posterior law {type(q).__name__} without reparameterized draws (rsample); expected one "
            "with them, because the encoder learns through its draws; score the model without gradients, "
            "or relax the law (RelaxedOneHotCategorical, for example)"
        )
    return random.draw(q)


def sample_rows(p: Distribution, n: int) -> Tensor:
    """``n`` rows of a prior whose batch is empty (the same for each row) or already ``n``."""
    # Not p.expand((n,)): a law of one's own need not have it, and torch's mixtures then draw other numbers.
    return random.draw(p, gradients=False) if p.batch_shape else p.sample((n,))
