r"""A prior that is itself a model with a bound.

.. math:: \text{rate} = \log q(z|x) - \mathrm{ELBO}_{\text{inner}}(z)

A hierarchical VAE with bottom-up inference, :math:`q(z_1|x)\,q(z_2|z_1)\,q(z_3|z_2)`, is nesting twice.
A latent diffusion is a diffusion nested in a VAE. The rate is estimated by a log-ratio: its KL has no
closed form when the inference runs bottom-up.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.checks import invalid
from genmod.distributions import Normal
from genmod.distributions.base import Laws
from genmod.distributions.divergence import log_ratio
from genmod.elbo import Kind, Measure, Rate, Stamp
from genmod.encoders import Posterior
from genmod.encoders.base import require_distribution
from genmod.model import LatentModel, Request
from genmod.path import (
    AutoTimesteps,
    GenerativePath,
    InferencePath,
    Latent,
    Path,
    Timesteps,
    draw_posterior,
)
from genmod.prior import DensityPrior, Prior
from genmod.tensors import LatentTensors, event_sum, size

Step = TypeVar("Step")
T = TypeVar("T")


class NestedPrior(Prior):
    r"""A prior that is a model: ``p(z)`` is scored by the bound of another model, the inner one.

    .. math:: \text{rate} = \log q(z|x) - \mathrm{ELBO}_\text{inner}(z)

    Args:
        model: a model with a bound on the *density* of ``z``; its decoder's shape is the latent's.
        name: what ``z`` and its rate are called. Latents of the inner model keep their names, with two
            exceptions, which begin with ``name`` and a dot: one whose name is taken, and the levels of a
            hierarchy or a diffusion, such as ``latent.z3``.
        shift, scale: the inner model gets ``(z - shift) / scale``, and the Jacobian
            :math:`-\sum \log \text{scale}` is added. Both broadcast to the latent's shape. A diffusion
            needs them where the standard deviation of the latents is not near one.

    Raises:
        ValueError: the model gives a probability mass, or bounds nothing; a scale is not positive.
    """

    shift: Tensor
    log_scale: Tensor

    def __init__(
        self,
        model: LatentModel,
        name: str = "latent",
        shift: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> None:
        super().__init__(model.decoder.shape)
        if model.measure is not Measure.DENSITY:
            raise invalid(
                f"a model whose value is a {model.measure.value} as a prior over real latents",
                "one that bounds a density",
                "give the inner model a Gaussian decoder (bins=None) and a proper prior",
            )
        self.model, self.name = model, name
        given = shift if scale is None else scale
        zero = torch.zeros(self.shape) if given is None else given.new_zeros(self.shape)
        self.register_buffer("shift", zero if shift is None else shift.expand(self.shape).clone())
        self.register_buffer("log_scale", zero.clone())
        if scale is not None:
            self.standardize(self.shift, scale)

    @torch.no_grad()
    def standardize(self, shift: Tensor, scale: Tensor) -> None:
        """Set the shift and the scale of the latents before they enter the inner model."""
        if not ((scale > 0).all() & scale.isfinite().all()):
            raise invalid(
                f"scales from {float(scale.min()):g} to {float(scale.max()):g}",
                "positive finite scales",
                "a latent that never varies has collapsed: drop it or retrain",
            )
        self.shift.copy_(shift.expand(self.shape))
        self.log_scale.copy_(scale.expand(self.shape).log())

    @property
    def has_timesteps(self) -> bool:
        """Whether the inner model has noise levels to choose from."""
        return self.model.prior.has_timesteps

    @property
    def stochastic_density(self) -> bool:
        """Whether the inner prior's log-density is a random estimate."""
        return self.model.prior.stochastic_density

    def rates(
        self,
        posterior: Posterior | Distribution,
        timesteps: Timesteps = AutoTimesteps.EVALUATION,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Mapping[str, Rate]]:
        """A draw of ``z`` and the inner model's bound on it."""
        q = require_distribution(posterior, self.shape)
        z = draw_posterior(q)
        inner = self.model(self.inside(z), Request(context, timesteps=timesteps))[0]
        log_density = inner.reconstruction - event_sum(self.log_scale[None])
        rates = {self.name: Rate.single(q.log_prob(z) - log_density, Kind.MONTE_CARLO, Stamp.BOUND)}
        return z, rates | self._renamed_rates(inner.rates)

    def rates_of_path(self, path: Path) -> dict[str, Rate]:
        """The log-ratio of ``z`` itself, and the rates of the inner model's prior."""

        def deeper(found: Mapping[str, T]) -> dict[str, T]:
            return {self._inner(name): x for name, x in found.items() if name != self.name}

        z, q, p = path.z[self.name].flatten(0, 1), path.q[self.name], path.p[self.name]
        inner = Path(deeper(path.z), Laws(deeper(path.q)), Laws(deeper(path.p)))
        deep = self.model.prior.rates_of_path(inner)
        return {self.name: log_ratio(q, p, z)} | self._renamed_rates(deep)

    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """``z`` first, then the inner levels, then the inner decoder's law of ``z``."""
        q = require_distribution(posterior, self.shape)
        z = yield Latent(self.name, q, None)
        model = self.model
        path = model.prior.infer(model.posterior(self.inside(z), context), context)
        state = yield from _renamed(path, lambda each: each._replace(name=self._outer(each.name)))
        yield Latent(self.name, None, self.law(state, context))
        return z

    def generate(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """The inner latents, then ``z``."""
        path = self.model.prior.generate(n, context)
        state = yield from _renamed(path, lambda each: (self._outer(each[0]), each[1]))
        z = yield self.name, self.law(state, context)
        return z

    def _outer(self, name: str) -> str:
        """The name of a latent of the inner model among all latents; no two names become one."""
        named = isinstance(self.model.prior, NestedPrior | DensityPrior)
        return self._apart(name) if named else f"{self.name}.{name}"

    def _inner(self, name: str) -> str:
        """The inverse of :meth:`_outer`."""
        return name.removeprefix(f"{self.name}.")

    def _apart(self, name: str) -> str:
        """An inner name, changed where it is ``z``'s own or could be a changed one."""
        taken = name == self.name or name.startswith(f"{self.name}.")
        return f"{self.name}.{name}" if taken else name

    def _renamed_rates(self, rates: Mapping[str, Rate]) -> dict[str, Rate]:
        """The rates of the inner model, and the levels in them, by their names among all latents."""
        return {
            self._apart(key): rate
            if rate.names is None
            else replace(rate, names=tuple(map(self._outer, rate.names)))
            for key, rate in rates.items()
        }

    def law(self, state: Tensor, context: Tensor | None = None) -> Normal:
        """``p(z | state)``, by the inner decoder, in the units of ``z``."""
        return self._outside(self.model.decoder(state, context))

    def means(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> LatentTensors:
        """The posterior's mean of ``z``; the inner model gives the deeper codes."""
        return require_distribution(posterior, self.shape).mean

    def state_from(self, z: LatentTensors, context: Tensor | None = None) -> Tensor:
        """``z`` itself."""
        if not isinstance(z, Tensor) or tuple(z.shape[1:]) != self.shape:
            raise invalid(
                "latents that are not one batch of the outer latent",
                f"(B, {', '.join(map(str, self.shape))})",
                "pass z1 alone: the decoder takes no deeper latents",
            )
        return z

    def outside(self, inner: Tensor) -> Tensor:
        """From the units of the inner model to those of ``z``: ``shift + scale * inner``."""
        return self.shift + self.log_scale.exp() * inner

    def inside(self, z: Tensor) -> Tensor:
        """From the units of ``z`` to those of the inner model: ``(z - shift) / scale``."""
        return (z - self.shift) * (-self.log_scale).exp()

    def _outside(self, law: torch.distributions.Distribution) -> Normal:
        """The inner decoder's Gaussian in the units of ``z``: the scale carries the Jacobian."""
        if not isinstance(law, Normal):
            raise invalid(
                f"an inner decoder that gives {type(law).__name__}",
                "a Gaussian",
                "use decoders.GaussianDecoder for a model of latents",
            )
        return Normal(self.outside(law.loc), law.log_std + self.log_scale)

    def formula(self) -> str:
        """The formula of the prior, as text."""
        inner = self.model.formula().replace("\n", "\n  ")
        return f"p({self.name}) >= a bound, {size(self.shape)} dimensions:\n  {inner}"


def _renamed(
    path: Generator[Step, Tensor, Tensor], rename: Callable[[Step], Step]
) -> Generator[Step, Tensor, Tensor]:
    """The same path with another name for each latent."""
    try:
        step = next(path)
        while True:
            step = path.send((yield rename(step)))
    except StopIteration as end:
        state: Tensor = end.value
        return state
