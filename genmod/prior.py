r"""The prior of a model, ``p(z)``: it draws the latents and computes what a posterior costs.

A prior is two generators over named latents. Both let the caller decide each draw:

* :meth:`Prior.infer` follows the posterior. It yields ``Latent(name, q, p)``: both laws of one latent,
  given the draws before it. Rates, importance weights and the Pyro guide walk it.
* :meth:`Prior.generate` follows the generative order. It yields ``(name, p)``. Samples and the Pyro
  model walk it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import check_law, check_shape, require
from genmod.config import Settings
from genmod.distributions import rate
from genmod.distributions.base import Laws
from genmod.elbo import Rate, Stamp
from genmod.encoders import Encoder, Posterior, require_distribution, rows_of
from genmod.path import AutoTimesteps as AutoTimesteps
from genmod.path import GenerativePath as GenerativePath
from genmod.path import InferencePath as InferencePath
from genmod.path import Latent as Latent
from genmod.path import Path as Path
from genmod.path import Request as Request
from genmod.path import Timesteps as Timesteps
from genmod.path import TimestepSampler as TimestepSampler
from genmod.path import draw_posterior as draw_posterior
from genmod.path import sample_rows as sample_rows
from genmod.path import walk as walk
from genmod.shapes import LatentTensors, Shape

__all__ = [
    "DensityPrior",
    "Prior",
]


class Prior(Settings, nn.Module, ABC):
    """``p(z)`` over one latent or many.

    A prior of your own implements :meth:`infer` and :meth:`generate`. If it is one distribution,
    derive from :class:`DensityPrior` and implement ``law`` alone.

    Args:
        shape: the event shape of the latent whose posterior is scored.
    """

    proper = True
    """Whether it is a distribution: an improper prior bounds nothing."""
    claim = Stamp.BOUND
    """The stamp of a bound whose rates come from this prior's own laws."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = tuple(shape)

    @property
    def has_timesteps(self) -> bool:
        """Whether it has noise levels to choose from: a diffusion has, also one nested in a prior."""
        return False

    @property
    def stochastic_density(self) -> bool:
        """Whether its log-density is a random estimate, of which no importance weight can be made."""
        return False

    @abstractmethod
    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """One joint path: yields each :class:`Latent`, takes its draw, returns the decoder's state."""

    @abstractmethod
    def generate(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """The generative path of ``n`` rows: yields ``(name, p)``, takes the draw, returns the state."""

    def formula(self) -> str:
        """The prior as it stands on paper."""
        return f"p(z) = {type(self).__name__}"

    def check_encoder(self, encoder: Encoder) -> None:
        """Require an encoder whose posterior this prior can draw from.

        Raises:
            ValueError: its latents have another shape.
        """
        require(
            encoder.latent_shape is None or encoder.latent_shape == self.shape,
            f"an encoder whose latents have shape {encoder.latent_shape}",
            f"the prior's shape {self.shape}",
            "build the encoder and the prior with the same latent shape",
        )

    def check_request(self, request: Request, rows: int, model: str) -> None:
        """Require what a model of this prior can be asked for, of a batch of ``rows`` rows.

        Args:
            request: what is asked.
            rows: how many rows of data it is asked of.
            model: what errors call the model.

        Raises:
            ValueError: a context of other rows, weights of a random density, timesteps for no levels.
        """
        context, timesteps = request.context, request.timesteps
        if context is not None and len(context) != rows:
            raise ValueError(
                f"got {len(context)} rows of context for {rows} samples; expected one row a sample; "
                "repeat the context, or pass fewer samples"
            )
        if request.needs_path and self.stochastic_density:
            raise ValueError(
                f"got a request for importance weights of a {model} whose prior density is a random "
                "estimate; expected a density without noise; use the exact trace (probes=None)"
            )
        if isinstance(timesteps, int) and (request.needs_path or request.samples > 1):
            raise ValueError(
                f"got timesteps={timesteps} beside whole paths of latents; expected one or the other; "
                "leave timesteps out: a path visits every level"
            )
        stated = timesteps is not None and not isinstance(timesteps, AutoTimesteps)
        if stated and not self.has_timesteps:
            raise ValueError(
                f"got timesteps={timesteps} for a {model} without noise levels; expected none; "
                "leave timesteps out: every latent is visited"
            )

    def rates(
        self,
        posterior: Posterior | Distribution,
        timesteps: Timesteps = AutoTimesteps.EVALUATION,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Mapping[str, Rate]]:
        """Draw the latents and compute what each group costs.

        Args:
            posterior: what the encoder returned.
            timesteps: which levels to visit, for priors that can leave some out.
            context: what the model is conditioned on, ``(B, ...)``.

        Returns:
            The state for the decoder, and the rates by name.
        """
        state, path = self.walk(posterior, context)
        return state, self.price(path)

    def walk(
        self, posterior: Posterior | Distribution, context: Tensor | None = None, samples: int = 1
    ) -> tuple[Tensor, Path]:
        """One joint draw of every latent for each row of the posterior.

        Args:
            posterior: what the encoder returned for ``samples * B`` rows.
            context: what the model is conditioned on.
            samples: ``K``: how many of its rows belong to one row of the data.

        Raises:
            ValueError: two latents of one name, a latent without a prior law or never drawn, or a law
                without one event a row.
        """
        rows = rows_of(posterior)
        z: dict[str, Tensor] = {}
        q, p = Laws(), Laws()

        def take(latent: Latent) -> Tensor:
            name = latent.name
            if latent.q is not None:
                _check_new(name, q, "drawn")
                check_law(latent.q, rows, latent.q.event_shape, f"the posterior of {name}")
                q[name], z[name] = latent.q, draw_posterior(latent.q)
            if latent.p is not None:
                _check_new(name, p, "scored")
                require(name in z, f"a law p of {name!r}, which was not drawn", *_EVERY_LATENT)
                check_law(latent.p, rows, z[name].shape[1:], f"the prior of {name}", shared=True)
                p[name] = latent.p
            return z[name]

        state = walk(self.infer(posterior, context), take)
        missing = sorted(z.keys() - p.keys())
        require(not missing, f"latents that are drawn and never scored: {missing}", *_EVERY_LATENT)
        shaped = {name: each.reshape(samples, -1, *each.shape[1:]) for name, each in z.items()}
        return state, Path(shaped, q, p)

    def price(self, path: Path) -> dict[str, Rate]:
        """What each latent of a walk costs: a closed KL where there is one, else the log-ratio."""
        return {
            name: rate(path.q[name], p, path.z[name].flatten(0, 1), self.claim)
            for name, p in path.p.items()
        }

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """The decoder's states of ``n`` draws from the prior."""
        require(n >= 1, f"n={n}", "n >= 1", "ask for at least one sample")

        def take(step: tuple[str, Distribution]) -> Tensor:
            name, p = step
            check_law(p, n, p.event_shape, f"the prior of {name}", shared=True)
            return sample_rows(p, n)

        return walk(self.generate(n, context), take)

    def means(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> LatentTensors:
        """The posterior's mean, level by level: what :meth:`state_from` takes."""
        means: dict[str, Tensor] = {}

        def keep(latent: Latent) -> Tensor:
            if latent.q is not None:
                means[latent.name] = latent.q.mean
            return means[latent.name]

        walk(self.infer(posterior, context), keep)
        first, *others = means.values()
        return (first, *others) if others else first

    def state_from(self, z: LatentTensors, context: Tensor | None = None) -> Tensor:
        """The state that given latents hand to the decoder.

        Raises:
            ValueError: more or fewer latents than the prior has, or one of another shape.
        """
        latents = [z] if isinstance(z, Tensor) else list(z)
        count, advice = len(latents), "pass what encode returns"
        expected = "one for each level, in the order in which they are drawn"
        require(count > 0, "no latents", expected, advice)

        def take(step: tuple[str, Distribution]) -> Tensor:
            name, p = step
            require(bool(latents), f"{count} latents, none left for {name}", expected, advice)
            check_shape(latents[0], tuple(p.event_shape), name)
            return latents.pop(0)

        state = walk(self.generate(len(latents[0]), context), take)
        require(not latents, f"{count} latents, {len(latents)} too many", expected, advice)
        return state


class DensityPrior(Prior):
    """A prior of one latent that is one distribution: a subclass implements :meth:`law` alone.

    Args:
        shape: the latent's event shape.
        name: the name of its rate.
    """

    def __init__(self, shape: Shape, name: str = "prior") -> None:
        super().__init__(shape)
        self.name = name

    @abstractmethod
    def law(self, n: int, context: Tensor | None = None) -> Distribution:
        """``p(z)`` of ``n`` rows: batch shape ``(n,)``, or ``()`` if it is the same for each."""

    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """One latent."""
        q = require_distribution(posterior, self.shape)
        z = yield Latent(self.name, q, self.law(q.batch_shape[0], context))
        return z

    def generate(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """One draw."""
        p = self.law(n, context)
        check_law(p, n, self.shape, f"the prior of {self.name}", shared=True)
        z = yield self.name, p
        return z


_EVERY_LATENT = (
    "a law q to draw each latent from and a law p to score it",
    "yield Latent(name, q, p), or Latent(name, q, None) first and Latent(name, None, p) later",
)


def _check_new(name: str, laws: Laws, what: str) -> None:
    if name in laws:
        raise ValueError(
            f"got two latents named {name!r} (the second would be {what} in place of the first); "
            "expected a name for each latent; pass another name= to one of the priors"
        )
