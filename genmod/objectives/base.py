r"""Objectives: the scalar loss that training minimizes, computed from a model's bound.

This is the only place with a mean over the batch, or with a weight on a term of the bound. Every call
returns the loss beside the true bound, so that a run can log both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genmod.checks import require
from genmod.config import Settings
from genmod.diffusion import DiffusionPrior
from genmod.elbo import ELBO, Rate
from genmod.model import LatentModel, Request
from genmod.path import AutoTimesteps, Path, Timesteps, TimestepSampler
from genmod.shapes import PerLevel, PerSample


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of a data set, as :meth:`Objective.loss` gets it.

    Args:
        x: the data, ``(B, *event)``.
        context: what the model is conditioned on, ``(B, ...)``.
        observed: which entries of ``x`` count; ``None``: all.
        index: the number of each row in the data set, ``(B,)``; in a loader, in the order of arrival.
        rows: the number of rows of the data set, for terms that are counted once for the whole data set;
            ``None`` for a stream of unknown length.
    """

    x: Tensor
    context: Tensor | None = None
    observed: Tensor | None = None
    index: Tensor | None = None
    rows: int | None = None


class Objective(Settings, nn.Module, ABC):
    """The base class of objectives: a loss to minimize, computed from a model's bound.

    A subclass implements :meth:`loss`. Class attributes declare what it needs beside the bound:
    ``samples`` (``K`` joint draws of the latents for each row, 1 by default) and ``needs_path`` (the draws
    and their laws, as a :class:`~genmod.path.Path`). A diffusion in continuous time has neither.

    Args:
        timesteps: which levels of a diffusion each row visits: a number, a
            :class:`~genmod.path.TimestepSampler`, or ``None`` for all. Left out, one level a row where
            there is a diffusion. The choice changes the noise of the loss, never its mean.

    >>> class Robust(Objective):
    ...     def loss(self, elbo, path, batch):
    ...         return (-elbo.value).clamp(min=0).sqrt().mean()
    >>> Robust(timesteps=4)
    Robust(timesteps=4)
    """

    samples = 1
    needs_path = False

    def __init__(self, timesteps: Timesteps = AutoTimesteps.TRAINING) -> None:
        super().__init__()
        self.timesteps = timesteps
        self._initial: dict[str, Tensor] | None = None

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Tensor, ELBO]:
        """The loss, a scalar, and the bound of each sample.

        Args:
            model: a :class:`~genmod.models.LatentModel`, or a module that wraps one.
            batch: the data.
        """
        with self.around():
            request = Request(
                batch.context, batch.observed, self.timesteps, self.samples, self.needs_path
            )
            elbo, path = model(batch.x, request)
        return self.loss(elbo, path, batch), elbo

    @abstractmethod
    def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
        """The scalar to minimize: a mean over the batch.

        Args:
            elbo: the bound of each sample; the mean over its draws where ``samples`` is above 1.
            path: the draws and their laws if ``needs_path`` or ``samples > 1``, else ``None``.
            batch: the data.
        """

    @torch.no_grad()
    def begin(self) -> None:
        """Start a run: reset the buffers and parameters that an earlier run changed."""
        state = self.state_dict()
        if self._initial is None:
            self._initial = {name: value.clone() for name, value in state.items()}
        for name, value in self._initial.items():
            state[name].copy_(value)

    @contextmanager
    def around(self) -> Iterator[None]:
        """A context around the forward pass of the model."""
        yield

    def update(self, elbo: ELBO, batch: Batch) -> None:
        """Called after each training step, with an ``elbo`` without gradients.

        A timestep sampler learns from the losses of the visited levels here. A subclass with a state of
        its own (in buffers, so that a checkpoint holds it) changes it here.
        """
        if not isinstance(self.timesteps, TimestepSampler):
            return
        for rate in elbo.rates.values():
            if rate.noise is not None:
                self.timesteps.update(rate.level, rate.noise.dt, self.per_level(rate).detach())

    def per_level(self, rate: Rate) -> PerLevel:
        """The loss of each visited level of a diffusion, ``(B, L)``, without the weight of the visit.

        It may be off by a constant factor. :class:`~genmod.diffusion.LossAwareTimesteps` learns from it.
        """
        return rate.nats

    def check(self, model: LatentModel) -> None:
        """Refuse a model that this objective cannot train, or whose training would not raise the bound.

        Raises:
            ValueError: a joint path in continuous time; a weighted loss that would reach an encoder.
        """
        continuous = any(
            isinstance(part, DiffusionPrior) and part.steps is None for part in model.modules()
        )
        require(
            not (continuous and (self.needs_path or self.samples > 1)),
            f"{type(self).__name__}, which needs the draws of all latents, on a diffusion in "
            "continuous time",
            "finitely many latents",
            "build the diffusion with steps=T, or use objectives.Bound",
        )

    @property
    def warmup_steps(self) -> int:
        """Steps during which the loss itself changes, for which early stopping waits; 0 for most losses."""
        return max((part.warmup_steps for part in self._wrapped()), default=0)

    @property
    def validation_samples(self) -> int:
        """``K`` of the importance-weighted bound that chooses the best weights; 1: the plain bound."""
        return max((part.validation_samples for part in self._wrapped()), default=1)

    def _wrapped(self) -> Iterator[Objective]:
        """The objectives in a wrapper, whose needs are its own."""
        return (p for p in self.modules() if isinstance(p, Objective) and p is not self)

    def extra_repr(self) -> str:
        """The settings. A timestep sampler prints below, as a module."""
        return self._with_timesteps()

    def _with_timesteps(self, *settings: str) -> str:
        default = isinstance(self.timesteps, TimestepSampler | AutoTimesteps)
        return ", ".join((*settings, *(() if default else (f"timesteps={self.timesteps}",))))


class MeanObjective(Objective):
    """The base class of objectives that are a mean of one loss for each sample, :meth:`cost`."""

    @abstractmethod
    def cost(self, elbo: ELBO) -> PerSample:
        """The loss of each sample, ``(B,)``."""

    def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
        """The mean of :meth:`cost`."""
        return self.cost(elbo).mean()


def check_loss(loss: Tensor, objective: Objective) -> None:
    """Require a scalar with a gradient.

    Raises:
        ValueError: another shape, or a loss that depends on no parameter.
    """
    require(
        loss.ndim == 0,
        f"a loss of shape {tuple(loss.shape)} from {type(objective).__name__}",
        "a scalar",
        "return the mean over the batch",
    )
    require(
        loss.requires_grad,
        f"a loss of {type(objective).__name__} that depends on no parameter",
        "a loss with a gradient",
        "unfreeze a part, or look for a detach() in the objective",
    )


def broken_terms(elbo: ELBO) -> list[str]:
    """The names of the bound's terms that are NaN or infinite for some sample."""
    terms = {"reconstruction": elbo.reconstruction}
    terms |= {name: rate.total for name, rate in elbo.rates.items()}
    return [name for name, values in terms.items() if not bool(torch.isfinite(values).all())]


def encoders(model: LatentModel) -> list[nn.Module]:
    """Every encoder that a gradient of the bound reaches: the model's, and those of nested models."""
    return [part.encoder for part in model.modules() if isinstance(part, LatentModel)]


def encoder_learns(model: LatentModel, apart: Iterable[nn.Parameter] = ()) -> bool:
    """Whether an encoder, also of a nested model, has trainable parameters other than ``apart``."""
    known = {id(parameter) for parameter in apart}
    return any(
        parameter.requires_grad and id(parameter) not in known
        for encoder in encoders(model)
        for parameter in encoder.parameters()
    )


def weights_levels(loss: Tensor, elbo: ELBO) -> bool:
    r"""Whether a loss weights the levels of a diffusion unequally, or leaves terms of the bound out.

    It differentiates the loss by the nats of each level. Each derivative is divided by the weight of the
    visit, and by the derivative by the reconstruction. For the bound, also with a weight on a whole rate,
    this ratio is the same for all levels.

    Args:
        loss: the loss of an objective; its graph is kept.
        elbo: the bound from which it was computed.
    """
    levels = [rate for rate in elbo.rates.values() if rate.noise is not None]
    terms = [elbo.reconstruction, *(rate.nats for rate in levels)]
    if not levels or not all(term.requires_grad for term in terms):
        return False
    slopes = torch.autograd.grad(loss, terms, retain_graph=True, allow_unused=True)
    if any(slope is None for slope in slopes):
        return True
    reconstruction = -slopes[0][:, None]
    for rate, slope in zip(levels, slopes[1:], strict=True):
        each = slope / rate.weight
        # Rows without any weight in the loss give 0 / 0 here.
        used = ((each != 0) | (reconstruction != 0)).expand_as(each)
        ratio = (each / reconstruction)[used]
        if ratio.numel() and not torch.allclose(ratio, ratio.mean(), rtol=1e-3, atol=1e-6):
            return True
    return False


def require_fixed_encoder(
    model: LatentModel, name: str, apart: Iterable[nn.Parameter] = ()
) -> None:
    """Refuse a model with an encoder that has trainable parameters other than ``apart``.

    Encoders of nested models count, such as the middle one of a bottom-up hierarchy.

    Raises:
        ValueError: there is such an encoder.
    """
    require(
        not encoder_learns(model, apart),
        f"{name} on a model whose encoder learns",
        "a fixed encoder, in nested models too",
        "where the levels of a diffusion have unequal weights, an encoder learns to put information where "
        "the weight is small: train in two stages, or use Bound",
    )


def require_prior(model: LatentModel, name: str) -> None:
    """Refuse a model whose latents have no rate, because its prior does not normalize.

    Raises:
        ValueError: there is no rate.
    """
    require(
        model.prior.proper,
        f"{name} on {type(model).__name__}, whose prior is flat",
        "a rate: a prior that normalizes",
        "use VAE, or objectives.Bound",
    )


def refuse_weighted_levels(
    model: LatentModel, objective: Objective, loss: Tensor, elbo: ELBO
) -> None:
    """Refuse an objective of the user's own that would train an encoder by weighted timesteps.

    Raises:
        ValueError: it does.
    """
    priors = [part for part in model.modules() if isinstance(part, DiffusionPrior)]
    schedules = [parameter for prior in priors for parameter in prior.schedule.parameters()]
    if objective.needs_path or not encoder_learns(model, schedules):
        return
    if weights_levels(loss, elbo):
        require_fixed_encoder(model, type(objective).__name__, schedules)
