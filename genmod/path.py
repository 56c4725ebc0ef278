"""Joint draws of a model's latents: the request for them, the generators of a prior, and the result.

:class:`Request` holds the arguments of a model beside the data: context, timesteps, number of draws.
:class:`Path` holds joint draws of every latent, with the posterior's and the prior's law of each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod import random
from genmod.arrays import for_autograd
from genmod.checks import check_at_least, check_shape, invalid, whole_number
from genmod.config import Settings
from genmod.distributions.base import Draws, Laws, mean_of
from genmod.tensors import LatentTensors, Mask, PerLevel, copies

__all__ = [
    "AutoTimesteps",
    "GenerativePath",
    "InferencePath",
    "Latent",
    "Path",
    "Request",
    "TimestepSampler",
    "Timesteps",
    "run_path",
]


class TimestepSampler(Settings, nn.Module, ABC):
    """The base class of timestep samplers: which noise levels of a diffusion each row visits.

    A sampler gives each row places ``u`` in [0, 1) and weights, so that ``(weight * f(u)).sum(-1)`` is
    unbiased for the integral of ``f`` over [0, 1].

    Args:
        n: how many levels a row visits.
    """

    def __init__(self, n: int = 1) -> None:
        super().__init__()
        self.n = whole_number(n, "n")
        check_at_least(n, 1, "n", "timesteps=None visits every level")

    @abstractmethod
    def forward(
        self, rows: int, dtype: torch.dtype, device: torch.device | str | None = None
    ) -> tuple[PerLevel, PerLevel]:
        """Places ``u`` in [0, 1) and their weights, ``(rows, n)`` each."""

    def update(self, level: PerLevel, dt: PerLevel, cost: PerLevel) -> None:
        """Adapt to the losses of the visited levels. Most samplers ignore them.

        Args:
            level: the time ``t`` of each visited level.
            dt: the length of the time step that ends at ``t``; one in continuous time.
            cost: the loss of each visited level, without its weight.
        """

    def extra_repr(self) -> str:
        """The settings."""
        return f"n={self.n}"


class AutoTimesteps(Enum):
    """How many levels to visit where ``timesteps`` is left out."""

    EVALUATION = "evaluation"
    """All levels up to T = 1000; beyond, and in continuous time, 16 a row."""
    TRAINING = "training"
    """One level a row."""


Timesteps: TypeAlias = int | TimestepSampler | AutoTimesteps | None
"""Which levels of a diffusion to visit: ``n`` stratified ones, those of a sampler, or ``None``: all."""


@dataclass(frozen=True, eq=False)
class Request:
    """The arguments of a model's forward pass beside the data: ``elbo, path = model(x, request)``.

    Args:
        context: what the model is conditioned on, ``(B, ...)``.
        observed: a mask like the data: which entries count; ``None``: all.
        timesteps: which levels of a diffusion to visit.
        samples: ``K``, the number of joint draws of the latents for each row, at least 1. The bound is
            their mean.
        needs_path: whether the draws and their laws are returned, too, as a :class:`Path`.

    >>> from genmod.models import VAE
    >>> request = Request(samples=3, needs_path=True)
    >>> elbo, path = VAE(2, latents=1, width=8)(torch.zeros(5, 2), request)
    >>> elbo.value.shape, path.log_weight().shape
    (torch.Size([5]), torch.Size([3, 5]))
    """

    context: Tensor | None = None
    observed: Mask | None = None
    timesteps: Timesteps = AutoTimesteps.EVALUATION
    samples: int = 1
    needs_path: bool = False

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise invalid(
                f"samples={self.samples}",
                "at least one draw for each row",
                "one draw for each row is the bound as usual",
            )
        if self.observed is not None:
            object.__setattr__(self, "observed", for_autograd(self.observed))


def repeated(x: Tensor, request: Request) -> tuple[Tensor, Request]:
    """``K`` copies of the batch, one after another, and of the context and the mask of its rows."""
    context, observed = (
        None if rows is None else copies(rows, request.samples)
        for rows in (request.context, request.observed)
    )
    return copies(x, request.samples), replace(request, context=context, observed=observed)


class Latent(NamedTuple):
    """One latent of a joint path: its name, the posterior's law ``q``, the prior's law ``p``.

    ``p`` is ``None`` where the prior's law is not known yet. A later ``Latent`` of the same name then
    gives ``p``, with ``q`` as ``None``. (Nesting draws ``z1`` first, and ``p(z1 | z2)`` needs ``z2``.)
    """

    name: str
    q: Distribution | None
    p: Distribution | None


InferencePath: TypeAlias = Generator[Latent, Tensor, Tensor]
GenerativePath: TypeAlias = Generator[tuple[str, Distribution], Tensor, Tensor]
Step = TypeVar("Step")


def run_path(path: Generator[Step, Tensor, Tensor], draw: Callable[[Step], Tensor]) -> Tensor:
    """Run a generator of a prior to its end: send a draw for each step, return the decoder's state.

    Args:
        path: ``prior.infer(...)`` or ``prior.generate(...)``.
        draw: from what the generator yields to the value of that latent, ``(B, *event)``.
    """
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

    The laws have ``K B`` rows: the k-th draw of row ``b`` is row ``k B + b``.

    Args:
        z: the draws, by name, ``(K, B, *event)``.
        q: the posterior's law of each latent, given the draws before it.
        p: the prior's law of each latent.
        log_likelihood: ``log p(x | z)``, ``(K, B)``; ``None`` until the decoder has scored the draws.
        draws: the draws again, for estimators that change gradients; ``None`` in a part of a path.
    """

    z: Mapping[str, Tensor]
    q: Laws
    p: Laws
    log_likelihood: Tensor | None = None
    draws: Draws | None = None

    def log_ratio(self, detached: bool = False) -> Tensor:
        """``log p(z) - log q(z | x)`` of each joint draw, ``(K, B)``.

        Args:
            detached: whether the parameters of q are constants in ``log q``. Gradients then reach them
                through the draws alone. (Roeder, Wu, Duvenaud, "Sticking the landing", 2017, eq. 6.)
        """
        q = self.q.detached() if detached else self.q
        terms = [self._of(name, p) - self._of(name, q[name]) for name, p in self.p.items()]
        return torch.stack(terms).sum(0)

    def log_weight(self, detached: bool = False) -> Tensor:
        """``log p(x, z) - log q(z | x)`` of each joint draw, ``(K, B)``: the importance weights.

        Raises:
            ValueError: a path that no decoder has scored.
        """
        return self._likelihood() + self.log_ratio(detached)

    def log_joint(self) -> Tensor:
        """``log p(x, z)`` of each joint draw, ``(K, B)``.

        Raises:
            ValueError: a path that no decoder has scored.
        """
        terms = [self._of(name, p) for name, p in self.p.items()]
        return self._likelihood() + torch.stack(terms).sum(0)

    def log_posterior(self, detached: bool = False) -> Tensor:
        """``log q(z | x)`` of each joint draw, ``(K, B)``; ``detached``: see :meth:`log_ratio`."""
        q = self.q.detached() if detached else self.q
        return torch.stack([self._of(name, law) for name, law in q.items()]).sum(0)

    def _likelihood(self) -> Tensor:
        if self.log_likelihood is None:
            raise invalid(
                "a path without log p(x | z)",
                "one that a model has decoded",
                "take the path that model(x, Request(needs_path=True)) returns",
            )
        return self.log_likelihood

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
        raise invalid(
            f"a posterior law {type(q).__name__} without reparameterized draws (rsample)",
            "one with them, because the encoder learns through its draws",
            "score the model without gradients, or relax the law (RelaxedOneHotCategorical, for "
            "example)",
        )
    return random.draw(q)


def sample_rows(p: Distribution, n: int) -> Tensor:
    """``n`` rows of a prior whose batch is empty (the same for each row) or already ``n``."""
    # Not p.expand((n,)): a law of one's own need not have it, and torch's mixtures then draw other numbers.
    return random.draw(p, gradients=False) if p.batch_shape else p.sample((n,))


def means_along(path: InferencePath) -> LatentTensors:
    """The mean of each latent's posterior, given the means before it, along ``prior.infer(...)``."""
    means: dict[str, Tensor] = {}

    def keep(latent: Latent) -> Tensor:
        if latent.q is not None:
            means[latent.name] = mean_of(latent.q, f"the posterior of {latent.name}")
        return means[latent.name]

    run_path(path, keep)
    first, *others = means.values()
    return (first, *others) if others else first


def state_given(z: LatentTensors, generate: Callable[[int], GenerativePath]) -> Tensor:
    """The decoder's state for given latents, in the order of ``generate(rows)``."""
    latents = [z] if isinstance(z, Tensor) else list(z)
    count, advice = len(latents), "pass what encode returns"
    expected = "one for each level, in the order in which they are drawn"
    if count == 0:
        raise invalid("no latents", expected, advice)

    def take(step: tuple[str, Distribution]) -> Tensor:
        name, p = step
        if not latents:
            raise invalid(f"{count} latents, none left for {name}", expected, advice)
        check_shape(latents[0], tuple(p.event_shape), name)
        return latents.pop(0)

    state = run_path(generate(len(latents[0])), take)
    if latents:
        raise invalid(f"{count} latents, {len(latents)} too many", expected, advice)
    return state
