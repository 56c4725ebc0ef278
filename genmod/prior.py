r"""The prior of a model, ``p(z)``: it draws the latents and computes their rates.

A prior is two generators over named latents. The caller sends the value of each latent back:

* :meth:`Prior.infer` follows the posterior. It yields ``Latent(name, q, p)``: both laws of one latent,
  given the draws before it. Rates, importance weights and the Pyro guide run it.
* :meth:`Prior.generate` follows the generative order. It yields ``(name, p)``. Samples and the Pyro
  model run it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import check_at_least, invalid, whole_number
from genmod.config import Settings
from genmod.distributions import rate
from genmod.distributions.base import Draws, Laws, check_law
from genmod.elbo import Rate, Stamp
from genmod.encoders import Encoder, Posterior
from genmod.encoders.base import check_latent_shape, require_distribution, rows_of
from genmod.nn.modules import in_own_precision
from genmod.path import (
    AutoTimesteps,
    GenerativePath,
    InferencePath,
    Latent,
    Path,
    Timesteps,
    draw_posterior,
    means_along,
    run_path,
    sample_rows,
    state_given,
)
from genmod.tensors import LatentTensors, Shape

__all__ = ["DensityPrior", "Prior"]


class Prior(Settings, nn.Module, ABC):
    r"""The base class of priors, ``p(z)`` over one latent or many.

    .. math:: p(z) = \prod_l p(z_l | z_{<l}), \qquad
        \text{rate} = \mathbb{E}_q \sum_l \left(\log q(z_l | z_{<l}, x) - \log p(z_l | z_{<l})\right)

    A prior of your own implements :meth:`infer` and :meth:`generate`. If it is one distribution,
    derive from :class:`DensityPrior` and implement ``law`` alone.

    Args:
        shape: the event shape of the latent that the encoder's posterior is over; an int for a vector.
    """

    proper = True
    """Whether it is a distribution. A model with an improper prior bounds nothing."""
    claim = Stamp.BOUND
    """The strongest stamp of a bound whose rates come from this prior's own laws."""

    def __init__(self, shape: Shape | int) -> None:
        super().__init__()
        self.shape: Shape = (shape,) if isinstance(shape, int) else tuple(shape)

    @property
    def has_timesteps(self) -> bool:
        """Whether it has noise levels to choose from: a diffusion has, also one nested in a prior."""
        return False

    @property
    def stochastic_density(self) -> bool:
        """Whether its log-density is a random estimate. Importance weights then cannot be computed."""
        return False

    @abstractmethod
    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """One joint draw: yields each :class:`~genmod.path.Latent`, is sent its value ``(B, *event)``,
        and returns the decoder's state.
        """

    @abstractmethod
    def generate(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """The generative path of ``n`` rows: yields ``(name, p)``, is sent the value of that latent,
        and returns the decoder's state.
        """

    def formula(self) -> str:
        """The formula of the prior, as text."""
        return f"p(z) = {type(self).__name__}"

    def bind(self, encoder: Encoder) -> Prior:
        """The prior for the latents of an encoder: itself, unless settings were left for it to fill in."""
        return self

    def shares_parameters(self, encoder: Encoder) -> bool:
        """Whether ``log p(z)`` has trainable parameters of the encoder, as that of a VampPrior has.

        A gradient that holds q's parameters fixed in ``log q`` then needs the generalized form.
        """
        own = {id(each) for each in self.parameters() if each.requires_grad}
        return any(id(each) in own for each in encoder.parameters())

    def check_encoder(self, encoder: Encoder) -> None:
        """Require an encoder whose posterior this prior can draw from: latents of the same shape."""
        check_latent_shape(encoder, self.shape)

    def rates(
        self,
        posterior: Posterior | Distribution,
        timesteps: Timesteps = AutoTimesteps.EVALUATION,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Mapping[str, Rate]]:
        """Draw the latents and compute the rate of each group.

        Args:
            posterior: what the encoder returned.
            timesteps: which levels to visit, for priors that need not visit all.
            context: what the model is conditioned on, ``(B, ...)``.

        Returns:
            The state for the decoder, and the rates by name.
        """
        state, path = self.draw_path(posterior, context)
        return state, self.rates_of_path(path)

    def draw_path(
        self, posterior: Posterior | Distribution, context: Tensor | None = None, samples: int = 1
    ) -> tuple[Tensor, Path]:
        """One joint draw of every latent for each row of the posterior.

        Args:
            posterior: what the encoder returned for ``samples * B`` rows.
            context: what the model is conditioned on.
            samples: ``K``: how many of its rows belong to one row of the data.

        Raises:
            ValueError: two latents of one name; a latent without a law q or without a law p; a law that
                does not give one event a row.
        """
        rows = rows_of(posterior)
        q, p, draws = Laws(), Laws(), Draws()
        z = draws.later

        def take(latent: Latent) -> Tensor:
            name = latent.name
            if latent.q is not None:
                _check_new(name, q, "drawn")
                check_law(latent.q, rows, latent.q.event_shape, f"the posterior of {name}")
                q[name] = latent.q
                draws.add(name, draw_posterior(latent.q))
            if latent.p is not None:
                _check_new(name, p, "scored")
                if name not in z:
                    raise invalid(f"a law p of {name!r}, which was not drawn", *_EVERY_LATENT)
                check_law(latent.p, rows, z[name].shape[1:], f"the prior of {name}", shared=True)
                p[name] = latent.p
            return z[name]

        state = run_path(self.infer(posterior, context), take)
        missing = sorted(z.keys() - p.keys())
        if missing:
            raise invalid(f"latents that are drawn and never scored: {missing}", *_EVERY_LATENT)
        shaped = {name: each.reshape(samples, -1, *each.shape[1:]) for name, each in z.items()}
        return state, Path(shaped, q, p, draws=draws)

    def rates_of_path(self, path: Path) -> dict[str, Rate]:
        """The rate of each latent of a joint draw: a closed KL where there is one, else the log-ratio."""
        return {
            name: rate(path.q[name], p, path.z[name].flatten(0, 1), self.claim)
            for name, p in path.p.items()
        }

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """``n`` draws of the latents from the prior, as states for the decoder."""
        check_at_least(whole_number(n, "n"), 1, "n", "pass n=1 or more")

        def take(step: tuple[str, Distribution]) -> Tensor:
            name, p = step
            check_law(p, n, p.event_shape, f"the prior of {name}", shared=True)
            return sample_rows(p, n)

        return run_path(self.generate(n, context), take)

    def means(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> LatentTensors:
        """The mean of each latent's posterior, given the means before it: what :meth:`state_from` takes."""
        return means_along(self.infer(posterior, context))

    def state_from(self, z: LatentTensors, context: Tensor | None = None) -> Tensor:
        """The decoder's state for given latents.

        Raises:
            ValueError: more or fewer latents than the prior has, or one of another shape.
        """
        return state_given(z, partial(self.generate, context=context))


class DensityPrior(Prior):
    r"""The base class of priors that are one distribution: a subclass implements :meth:`law` alone.

    The rate is :math:`\mathrm{KL}(q(z|x) \,\|\, p(z))` where a closed form is registered for the pair of
    laws, else the log-ratio at a draw.

    Args:
        shape: the latent's event shape.
        name: the name of its rate.

    >>> import torch
    >>> class Wide(DensityPrior):
    ...     def law(self, n, context=None):
    ...         normal = torch.distributions.Normal(torch.zeros(self.shape), 10.0)
    ...         return torch.distributions.Independent(normal, len(self.shape))
    >>> Wide((3,)).sample(5).shape
    torch.Size([5, 3])
    """

    def __init__(self, shape: Shape | int, name: str = "prior") -> None:
        super().__init__(shape)
        self.name = name

    @abstractmethod
    def law(self, n: int, context: Tensor | None = None) -> Distribution:
        """``p(z)`` of ``n`` rows: batch shape ``(n,)``, or ``()`` if all rows have the same."""

    def _law(self, n: int, context: Tensor | None = None) -> Distribution:
        """The law, whose networks compute in the type of their weights."""
        with in_own_precision(self):
            return self.law(n, context)

    def rates(
        self,
        posterior: Posterior | Distribution,
        timesteps: Timesteps = AutoTimesteps.EVALUATION,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Mapping[str, Rate]]:
        """The rate of the one latent: the same draw and number as along :meth:`infer`, without a path."""
        if type(self).infer is not DensityPrior.infer:
            return super().rates(posterior, timesteps, context)
        q = require_distribution(posterior, self.shape)
        rows = q.batch_shape[0]
        p = self._law(rows, context)
        check_law(p, rows, self.shape, f"the prior of {self.name}", shared=True)
        z = draw_posterior(q)
        return z, {self.name: rate(q, p, z, self.claim)}

    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """One latent."""
        q = require_distribution(posterior, self.shape)
        z = yield Latent(self.name, q, self._law(q.batch_shape[0], context))
        return z

    def generate(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """One draw."""
        p = self._law(n, context)
        check_law(p, n, self.shape, f"the prior of {self.name}", shared=True)
        z = yield self.name, p
        return z


_EVERY_LATENT = (
    "a law q to draw each latent from and a law p to score it",
    "yield Latent(name, q, p), or Latent(name, q, None) first and Latent(name, None, p) later",
)


def _check_new(name: str, laws: Laws, what: str) -> None:
    if name in laws:
        got = f"two latents named {name!r} (the second would be {what} in place of the first)"
        raise invalid(got, "a different name for each latent", "pass another name= to one of them")
