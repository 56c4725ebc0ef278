r"""A prior: it owns the draw, because paying for a posterior is what a prior does.

A prior is two paths over named latents, each a generator that takes the caller's draw back:

* :meth:`Prior.levels` walks one joint path: at each level the posterior's law ``q`` and the prior's
  ``p``, given the draws above. Rates, importance weights, the codec and the Pyro guide are built on it.
* :meth:`Prior.descent` walks the generative path alone: samples and the Pyro model are built on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import check_shape, require
from genmod.diffusion.timesteps import Timesteps
from genmod.distributions import rate
from genmod.elbo import Rate
from genmod.encoders import Posterior
from genmod.types import LatentTensors, PerSample, Shape


class Latent(NamedTuple):
    """One latent: its name, what the posterior says of it, what the prior says of it.

    ``p`` is ``None`` where the prior can only price the latent later, and ``q`` is ``None`` when it
    then does (nesting draws ``z1`` first and learns ``p(z1 | z2)`` after ``z2``).
    """

    name: str
    q: Distribution | None
    p: Distribution | None


InferencePath: TypeAlias = Generator[Latent, Tensor, Tensor]
GenerativePath: TypeAlias = Generator[tuple[str, Distribution], Tensor, Tensor]


Step = TypeVar("Step")


def walk(path: Generator[Step, Tensor, Tensor], draw: Callable[[Step], Tensor]) -> Tensor:
    """Walk a path to its end, answering each step with a draw; returns the state handed down."""
    try:
        step = next(path)
        while True:
            step = path.send(draw(step))
    except StopIteration as end:
        return end.value


class Prior(nn.Module, ABC):
    """``p(z)`` over one latent or many.

    Args:
        shape: the event shape of the latent that a posterior is paid for.
    """

    proper = True
    """Whether it is a distribution: an improper prior bounds nothing."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    anchor: Tensor
    """An empty tensor that knows the prior's type and device."""

    @abstractmethod
    def levels(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """One joint path: yields each :class:`Latent`, takes its draw, returns the state."""

    @abstractmethod
    def descent(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """The generative path of ``n`` rows: yields ``(name, p)``, takes the draw, returns the state."""

    @abstractmethod
    def formula(self) -> str:
        """The prior as it would stand on paper."""

    def rates(
        self,
        posterior: Posterior | Distribution,
        draws: Timesteps = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Mapping[str, Rate]]:
        """Draw the latents and say what each group costs.

        Args:
            posterior: what the encoder said.
            draws: how many levels to visit, for priors that can leave some out. ``None``: all.
            context: what the model is told beside the data.

        Returns:
            The state for the decoder, and the rates by name.
        """
        rates: dict[str, Rate] = {}

        def price(level: Latent) -> Tensor:
            z, q, p = draw(level)
            rates[level.name] = rate(q, p, z)
            return z

        return walk(self.levels(posterior, context), price), rates

    def log_weight(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> tuple[Tensor, PerSample]:
        """One joint draw of every level, and ``log p(z) - log q(z | x)`` of it, ``(B,)``."""
        drawn: dict[str, Tensor] = {}
        terms: list[Tensor] = []

        def weigh(level: Latent) -> Tensor:
            if level.q is not None:
                require(
                    level.name not in drawn,
                    f"two latents named {level.name!r}",
                    "a name for each latent",
                    "pass another name= to the outer prior",
                )
                drawn[level.name] = level.q.rsample()
                terms.append(-level.q.log_prob(drawn[level.name]))
            if level.p is not None:
                terms.append(level.p.log_prob(drawn[level.name]))
            return drawn[level.name]

        state = walk(self.levels(posterior, context), weigh)
        return state, torch.stack(terms).sum(0)

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """The states of ``n`` draws from the prior."""
        require(n >= 1, f"n={n}", "n >= 1", "ask for at least one sample")
        return walk(self.descent(n, context), lambda step: sample_rows(step[1], n))

    def encode(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> LatentTensors:
        """The posterior's mean, level by level: what :meth:`state` takes."""
        means: list[Tensor] = []

        def keep(level: Latent) -> Tensor:
            assert level.q is not None
            means.append(level.q.mean)
            return means[-1]

        walk(self.levels(posterior, context), keep)
        return means[0] if len(means) == 1 else tuple(means)

    def state(self, z: LatentTensors, context: Tensor | None = None) -> Tensor:
        """The state that given latents hand to the decoder.

        Raises:
            ValueError: more or fewer latents than the prior has, or one of another shape.
        """
        latents = [z] if isinstance(z, Tensor) else list(z)
        count, expected = len(latents), "one for each level, in the order in which they are drawn"
        advice = "pass what encode gives"
        require(count > 0, "no latents", expected, advice)

        def take(step: tuple[str, Distribution]) -> Tensor:
            name, p = step
            require(bool(latents), f"{count} latents, none left for {name}", expected, advice)
            check_shape(latents[0], tuple(p.event_shape), name)
            return latents.pop(0)

        state = walk(self.descent(len(latents[0]), context), take)
        require(not latents, f"{count} latents, {len(latents)} too many", expected, advice)
        return state

    def restore(self, posterior: Posterior | Distribution, context: Tensor | None = None) -> Tensor:
        """The state from which a model reconstructs its input."""
        return self.state(self.encode(posterior, context), context)


def draw(level: Latent) -> tuple[Tensor, Distribution, Distribution]:
    """A draw from an aligned level, whose ``q`` and ``p`` are both known when it is drawn."""
    assert level.q is not None
    assert level.p is not None
    return level.q.rsample(), level.q, level.p


def sample_rows(p: Distribution, n: int) -> Tensor:
    """``n`` rows of a prior whose batch is empty (the same for each row) or already ``n``."""
    return p.sample() if p.batch_shape else p.sample((n,))


def require_distribution(posterior: Posterior | Distribution, shape: Shape) -> Distribution:
    """Require a posterior to be one distribution over latents of a shape.

    Raises:
        ValueError: it is noised or goes level by level, or has another shape.
    """
    if not isinstance(posterior, Distribution):
        raise ValueError(
            f"got a {type(posterior).__name__} posterior; expected one distribution over the latent; "
            "pair encoders.TopDownEncoder with priors.TopDownPrior, and diffusion.NoisingEncoder with diffusion.DiffusionPrior"
        )
    require(
        tuple(posterior.event_shape) == tuple(shape),
        f"a posterior over latents of shape {tuple(posterior.event_shape)}",
        f"the prior's shape {tuple(shape)}",
        "build the encoder and the prior with the same latent shape",
    )
    return posterior
