r"""Objectives: the scalar loss that training minimizes, computed from a model's bound.

This is the only place with a mean over the batch, or with a weight on a term of the bound. Every call
returns the loss beside the true bound, so that a run can log both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genmod.checks import invalid
from genmod.config import Settings
from genmod.diffusion import DiffusionPrior
from genmod.elbo import ELBO, Rate
from genmod.model import LatentModel, Request
from genmod.path import AutoTimesteps, Path, Timesteps, TimestepSampler
from genmod.tensors import PerLevel, PerSample


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
        return one_pass(self, model, batch)

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
        """Start a run: reset the buffers and parameters that an earlier run changed.

        Wrapped objectives begin first, because they may have been trained by themselves before.
        """
        for part in self._wrapped():
            part.begin()
        state = self.state_dict()
        if self._initial is None:
            self._initial = {name: value.clone() for name, value in state.items()}
        for name, value in self._initial.items():
            state[name].copy_(value)

    def around(self) -> AbstractContextManager[object]:
        """A context around the forward pass of the model. Most objectives need none."""
        return nullcontext()

    def update(self, elbo: ELBO, batch: Batch) -> None:
        """Called after each training step, with an ``elbo`` without gradients.

        A timestep sampler learns from the losses of the visited levels here. A subclass with a state of
        its own (in buffers, so that a checkpoint holds it) calls ``super().update`` and changes it here.
        """
        learn_timesteps(self, elbo)

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
        check_path(self, model)

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


def one_pass(objective: Objective, model: nn.Module, batch: Batch) -> tuple[Tensor, ELBO]:
    """The loss of one forward pass of a model, and the bound of each sample."""
    timesteps, samples = objective.timesteps, objective.samples
    request = Request(batch.context, batch.observed, timesteps, samples, objective.needs_path)
    with objective.around():
        elbo, path = model(batch.x, request)
    return objective.loss(elbo, path, batch), elbo


def learn_timesteps(objective: Objective, elbo: ELBO) -> None:
    """Let the timestep sampler of an objective learn from the losses of the visited levels."""
    if not isinstance(objective.timesteps, TimestepSampler):
        return
    for rate in elbo.rates.values():
        if rate.noise is not None:
            cost = objective.per_level(rate).detach()
            objective.timesteps.update(rate.level, rate.noise.dt, cost)


def check_path(objective: Objective, model: LatentModel) -> None:
    """Refuse an objective that needs the draws of all latents, on a diffusion in continuous time."""
    continuous = any(
        isinstance(part, DiffusionPrior) and part.steps is None for part in model.modules()
    )
    if continuous and (objective.needs_path or objective.samples > 1):
        raise invalid(
            f"{type(objective).__name__}, which needs the draws of all latents, on a diffusion in "
            "continuous time",
            "finitely many latents",
            "build the diffusion with steps=T, or use objectives.Bound",
        )


class MeanObjective(Objective):
    """The base class of objectives that are a mean of one loss for each sample, :meth:`cost`."""

    @abstractmethod
    def cost(self, elbo: ELBO) -> PerSample:
        """The loss of each sample, ``(B,)``."""

    def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
        """The mean of :meth:`cost`."""
        return self.cost(elbo).mean()


class Bound(MeanObjective):
    r"""Minus the evidence lower bound, in nats: the objective of maximum likelihood. The default.

    .. math:: L = -\frac{1}{B} \sum_b \Big(\log p(x_b | z_b) - \sum_\text{rates} \text{rate}_b\Big)

    Args:
        timesteps: which levels of a diffusion each row visits; one by default. Its loss is then an
            unbiased estimate of minus the bound.

    Reference: Kingma, Welling, "Auto-Encoding Variational Bayes" (2014), eq. 3; for a diffusion Kingma,
    Salimans, Poole, Ho, "Variational Diffusion Models" (2021), eq. 11.

    >>> import torch
    >>> from genmod.models import VAE
    >>> from genmod.objectives import Batch
    >>> loss, elbo = Bound()(VAE(2, latents=1, width=8), Batch(torch.zeros(4, 2)))
    >>> bool(loss == -elbo.value.mean())
    True
    """

    def cost(self, elbo: ELBO) -> PerSample:
        return -elbo.value


def check_loss(loss: Tensor, objective: Objective) -> None:
    """Require a scalar with a gradient.

    Raises:
        ValueError: another shape, or a loss that depends on no parameter.
    """
    name = type(objective).__name__
    if not isinstance(loss, Tensor) or loss.ndim != 0 or loss.is_complex():
        is_tensor = isinstance(loss, Tensor)
        got = f"shape {tuple(loss.shape)}" if is_tensor else f"type {type(loss).__name__}"
        raise invalid(
            f"a loss of {got} from {name}",
            "a scalar",
            "return the mean over the batch, a real tensor with its gradient",
        )
    if not loss.requires_grad:
        raise invalid(
            f"a loss of {name} that depends on no parameter",
            "a loss with a gradient",
            "unfreeze a part, or look for a detach() in the objective",
        )


def broken_terms(elbo: ELBO) -> list[str]:
    """The names of the bound's terms that are NaN or infinite for some sample."""
    terms = {"reconstruction": elbo.reconstruction}
    terms |= {name: rate.total for name, rate in elbo.rates.items()}
    return [name for name, values in terms.items() if not bool(torch.isfinite(values).all())]
