"""Validation: a bound on held-out data, by which the best weights are chosen.

Every validation uses the same noise (keyed by one seed) and stratified timesteps, so that the difference
of two is due to training, not to the noise. All validations of a run score the same rows: the whole
validation part where it is small, else a sample of it, so that validation costs little beside training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genmod.data import GivenRows
from genmod.elbo import Measure
from genmod.evaluation.batching import RowSet
from genmod.evaluation.scoring import Estimate, scores_of, weights_of
from genmod.model import LatentModel
from genmod.objectives.importance import importance_bound
from genmod.path import AutoTimesteps
from genmod.training.config import VALIDATION_TIMESTEPS, Cycle, TrainingConfig
from genmod.training.data import TrainingData
from genmod.training.devices import Devices

SEED = 0x5EED
"""The noise that every validation shares."""


@dataclass(frozen=True)
class Validation:
    """A bound on held-out data.

    Args:
        step: after how many steps of training.
        nats: its mean over samples, to be maximized. For a model that bounds nothing, the mean
            reconstruction.
        dims: how many numbers one sample holds.
        measure: what it bounds.
        error: the standard error of ``nats``, that of other samples and other noise. Two validations of
            one run share both, so the error of their difference is often far smaller (see
            :func:`genmod.evaluation.paired`). NaN for one sample.
        rows: how many rows were scored.
        total: how many rows the validation part has.
        weighted: the mean importance-weighted bound of ``samples`` draws, where the objective raises that
            one (:class:`~genmod.objectives.IWAE`); else ``None``.
        samples: ``K``, the number of its draws.
        rate: the mean of all rates together, in nats; ``None``: the model has none.

    >>> print(Validation(100, -16.0, 4, Measure.MASS, error=0.5))
    5.771 ± 0.180 bits/dim
    >>> print(Validation(100, -16.0, 4, Measure.DENSITY, weighted=-15.5, samples=8))
    -16.00 nats (IW-8 -15.50)
    """

    step: int
    nats: float
    dims: int
    measure: Measure
    error: float = math.nan
    rows: int | None = None
    total: int | None = None
    weighted: float | None = None
    samples: int = 1
    rate: float | None = None

    @property
    def score(self) -> float:
        """The number by which validations are compared, in nats, to be maximized."""
        return self.nats if self.weighted is None else self.weighted

    @property
    def bits_per_dim(self) -> float | None:
        """Bits per dimension, for a bound on a mass."""
        if self.measure is not Measure.MASS:
            return None
        return -self.nats / (self.dims * math.log(2))

    def __str__(self) -> str:
        """Bits per dimension of a mass, else nats; with the error, where it is known."""
        bits = self.bits_per_dim
        value, digits, unit = (self.nats, 2, "nats") if bits is None else (bits, 3, "bits/dim")
        error = self.error if bits is None else self.error / (self.dims * math.log(2))
        known = "" if math.isnan(error) else f" ± {error:.{digits}f}"
        text = f"{value:.{digits}f}{known} {unit}"
        if self.weighted is None:
            return text
        scale = 1.0 if bits is None else -1 / (self.dims * math.log(2))
        return f"{text} (IW-{self.samples} {scale * self.weighted:.{digits}f})"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The rows that every validation of a run scores.

    Args:
        x: ``(N, *event)``.
        context: their context, ``(N, ...)``.
        ids: where each stands in the validation part, ``(N,)``. Its noise depends on it.
        total: how many rows the validation part has.
        observed: which entries of ``x`` count; ``None``: all.
    """

    x: Tensor
    context: Tensor | None
    ids: Tensor
    total: int
    observed: Tensor | None = None

    @classmethod
    def sample(
        cls, x: Tensor, context: Tensor | None, rows: int, observed: Tensor | None = None
    ) -> HeldOut:
        """Some rows of a validation part, always the same, in their order; all of them if it has no more.

        They are drawn, because the rows of a file may lie in an order of their own.

        >>> HeldOut.sample(torch.arange(8.0)[:, None], None, 3).ids.tolist()
        [0, 1, 7]
        """
        if rows >= len(x):
            return cls(x, context, torch.arange(len(x)), len(x), observed)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SEED))
        ids = order[:rows].sort().values

        def some(each: Tensor | None) -> Tensor | None:
            return None if each is None else each[ids.to(each.device)]

        return cls(x[ids.to(x.device)], some(context), ids, len(x), some(observed))


def held_out_rows(
    data: TrainingData, config: TrainingConfig, first: Cycle, model: LatentModel
) -> HeldOut | None:
    """The rows that the validations of a run score; ``None`` without a validation part.

    Args:
        data: what the run is trained on.
        config: its settings.
        first: its first cycle. Later cycles, and a resumed run, score the same rows.
        model: what is trained.
    """
    size = data.size(config)
    if data.held_out is None or size is None:
        return None
    levels = VALIDATION_TIMESTEPS if model.prior.has_timesteps else 1
    timesteps = config.validation_timesteps or levels
    rows = config.scored_rows(len(data.held_out), first, size, timesteps)
    return HeldOut.sample(data.held_out, data.held_out_context, rows, data.held_out_observed)


def validate(
    model: LatentModel,
    held_out: HeldOut,
    step: int,
    timesteps: int | None = None,
    devices: Devices | None = None,
    samples: int = 1,
) -> Validation:
    """The mean bound on held-out data and its standard error over rows, with shared noise.

    Args:
        model: any model.
        held_out: the rows.
        step: how many steps of training the model has had.
        timesteps: how many levels of a diffusion each row visits; 8 by default.
        devices: the processes that share the rows.
        samples: the draws of the importance-weighted bound by which this validation is to be compared; 1:
            by the plain bound.
    """
    own = slice(None) if devices is None else devices.rows(len(held_out.x))
    context, observed = held_out.context, held_out.observed
    default = VALIDATION_TIMESTEPS if model.prior.has_timesteps else AutoTimesteps.EVALUATION
    given = GivenRows(
        held_out.x[own],
        None if context is None else context[own],
        None if observed is None else observed[own],
    )
    checked = RowSet.of(model, given, ids=held_out.ids[own], masked=True)
    # Not score: a bound that is NaN belongs into the history of the run.
    scores = scores_of(model, checked, timesteps or default, SEED)
    values = [scores.value, scores.reconstruction - scores.value]
    if samples > 1:
        weights = checked.restore_order(weights_of(model, checked, samples, SEED))
        values.append(importance_bound(weights.T))
    rows = len(held_out.x)
    if devices is not None:
        values = [devices.gather(value, own, rows) for value in values]
    mean = Estimate.of(values[0])
    weighted = float(values[2].mean()) if samples > 1 else None
    rate = float(values[1].mean()) if scores.rates else None
    return Validation(
        step, mean.mean, model.spec.size, scores.measure, mean.error,
        rows=rows, total=held_out.total, weighted=weighted, samples=samples, rate=rate,
    )  # fmt: skip
