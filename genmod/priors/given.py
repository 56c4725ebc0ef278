"""The argument ``prior=`` of a model: what it takes, and a module with a density as a prior."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from genmod.checks import invalid
from genmod.decoders import Decoder
from genmod.encoders import Encoder
from genmod.model import LatentModel
from genmod.nn.modules import in_own_precision
from genmod.prior import DensityPrior, Prior
from genmod.priors.learned import OpenPrior
from genmod.priors.nested import NestedPrior
from genmod.priors.simple import DistributionPrior, NormalPrior
from genmod.tensors import Shape, Sizes


@runtime_checkable
class Density(Protocol):
    """A law with a normalized density, such as a normalizing flow of another library."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of each row, nats, ``(B,)``."""
        ...

    def sample(self, n: int) -> Tensor:
        """``n`` draws, ``(n, *event)``."""
        ...


class ModulePrior(OpenPrior):
    """Any module with ``log_prob`` and ``sample`` as a prior, such as a flow of another library.

    Args:
        module: ``module.log_prob(z)`` gives the normalized log density of each row, ``(B,)`` nats, and
            ``module.sample(n)`` gives ``n`` draws. A method with an argument ``sample_shape``, as torch's,
            gets ``(n,)``.
        shape: the latent's event shape; left out, that of the model's encoder.
        name: the name of its rate.

    Raises:
        ValueError: draws of another shape or of integers; a ``log_prob`` that is not one number a row.
    """

    def __init__(self, module: nn.Module, shape: Shape | None = None, name: str = "prior") -> None:
        super().__init__(shape, name)
        self.module = module
        if shape is not None:
            self._check()

    def density(self, n: int, context: Tensor | None = None) -> Distribution:
        """The module's law, one for all rows."""
        return ModuleLaw(self.module, self.shape)

    def formula(self) -> str:
        """The prior as it stands on paper."""
        return f"p(z) = {type(self.module).__name__}"

    @torch.no_grad()
    def _check(self) -> None:
        name = type(self.module).__name__
        with torch.random.fork_rng(devices=[]):
            z = _draw(self.module, 2)
        if not z.is_floating_point():
            raise invalid(
                f"draws of type {z.dtype} from {name}: it has a mass",
                "real draws, because latents are real and their prior has a density",
                "use a continuous law",
            )
        if tuple(z.shape) != (2, *self.shape):
            raise invalid(
                f"draws of shape {tuple(z.shape)} from {name}.sample(2)",
                f"{(2, *self.shape)}: two latents",
                f"build {name} for latents of shape {self.shape}, or pass latents= of its size",
            )
        nats = cast(Density, self.module).log_prob(z)
        if tuple(nats.shape) != (2,):
            raise invalid(
                f"a log_prob of shape {tuple(nats.shape)} from {name} for two latents",
                "(2,): one number a row",
                "sum the log density over the entries of a latent",
            )


class ModuleLaw(Distribution):
    """The law of a module with ``log_prob`` and ``sample``, one for all rows.

    Args:
        module: the module.
        shape: the event shape.
    """

    has_rsample = False
    support = constraints.real
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, module: nn.Module, shape: Shape) -> None:
        self.module = module
        super().__init__(torch.Size(()), torch.Size(shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of each row, ``(B,)``."""
        with in_own_precision(self.module):
            return cast(Density, self.module).log_prob(value)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Draws of the module, without gradients."""
        shape = tuple(sample_shape)
        with torch.no_grad():
            drawn = _draw(self.module, torch.Size(shape).numel())
        return drawn.reshape(*shape, *self.event_shape)


def _draw(module: nn.Module, n: int) -> Tensor:
    sample: Callable[[object], object] = cast(Any, module).sample
    with in_own_precision(module):
        drawn = sample((n,) if "sample_shape" in inspect.signature(sample).parameters else n)
    if not isinstance(drawn, Tensor):
        raise invalid(
            f"a {type(drawn).__name__} from {type(module).__name__}.sample({n})",
            "a tensor of draws",
            "wrap the module, so that sample(n) returns the draws alone",
        )
    return drawn


class PriorLaw(Decoder):
    """A prior as the law of the top level of a hierarchy, whatever the state is.

    Args:
        prior: a prior that is one law.

    Raises:
        ValueError: a model, or another prior of several latents.
    """

    def __init__(self, prior: Prior) -> None:
        if not isinstance(prior, DensityPrior):
            raise invalid(
                f"a {type(prior).__name__} for the top of a top-down hierarchy",
                "a prior that is one law, such as priors.MixturePrior(10)",
                'pass inference="bottom-up" for a model',
            )
        super().__init__(prior.shape)
        self.prior = prior

    def forward(self, state: Tensor, context: Tensor | None = None) -> Distribution:
        """The law of the prior, for as many rows as the state has."""
        return self.prior.law(len(state), context)

    def formula(self) -> str:
        """The formula of the prior, as text."""
        return self.prior.formula()


def as_prior(given: object, encoder: Encoder, shape: Shape, name: str | None = None) -> Prior:
    """What was given as ``prior=``, as a prior over an encoder's latents.

    Args:
        given: ``None`` for N(0, I); a prior; a model with a bound on a density; a torch distribution; a
            module with ``log_prob`` and ``sample``.
        encoder: the encoder of the latents.
        shape: the shape of the latents, where the encoder does not state it.
        name: the name of the rate, for a prior that has no name of its own.

    Raises:
        ValueError: something else; a prior of another shape, or one of integers.
    """
    found: Prior
    if isinstance(given, Prior):
        found = given.named(name) if name and isinstance(given, OpenPrior) else given
    elif isinstance(given, LatentModel):
        found = NestedPrior(given, name=name or "latent")
    elif isinstance(given, Distribution):
        found = DistributionPrior(given, name=name or "prior")
    elif isinstance(given, nn.Module) and isinstance(given, Density):
        found = ModulePrior(given, name=name or "prior")
    elif given is None:
        found = NormalPrior(shape, name=name or "prior")
    else:
        what = given.__name__ + ", a class" if isinstance(given, type) else type(given).__name__
        raise invalid(
            f"prior={what}",
            "a prior, a model, a torch distribution, or a module with log_prob(z) and sample(n)",
            "pass an instance, such as priors.MixturePrior(10)",
        )
    if isinstance(found, OpenPrior) and encoder.latent_shape is None:
        found = found.with_shape(shape)
    found, shape = found.bind(encoder), encoder.latent_shape or shape
    if found.shape != shape:
        raise invalid(
            f"a prior over latents of shape {found.shape}",
            f"{shape}, the shape of the model's latents",
            f"build the prior for the shape {shape}, or pass latents={_latents(found.shape)} to "
            "the model",
        )
    return found


def _latents(shape: Shape) -> int | Shape:
    return shape[0] if len(shape) == 1 else shape
