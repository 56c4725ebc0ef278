"""Validation: a bound on held-out data, by which the best weights are chosen.

Every validation uses the same noise (keyed by one seed) and stratified timesteps, so that the difference
of two is due to training, not to the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from genmod.elbo import Measure
from genmod.evaluation.scoring import Estimate, score
from genmod.model import LatentModel
from genmod.path import AutoTimesteps
from genmod.training.config import VALIDATION_TIMESTEPS

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

    >>> print(Validation(100, -16.0, 4, Measure.MASS, error=0.5))
    5.771 ± 0.180 bits/dim
    """

    step: int
    nats: float
    dims: int
    measure: Measure
    error: float = math.nan

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
        return f"{value:.{digits}f}{known} {unit}"


def validate(
    model: LatentModel,
    x: Tensor,
    context: Tensor | None,
    step: int,
    timesteps: int | None = None,
) -> Validation:
    """The mean bound on held-out data and its standard error over rows, with shared noise.

    Args:
        model: any model.
        x: the held-out rows.
        context: their context.
        step: how many steps of training the model has had.
        timesteps: how many levels of a diffusion each row visits; 8 by default.
    """
    default = VALIDATION_TIMESTEPS if model.prior.has_timesteps else AutoTimesteps.EVALUATION
    scores = score(model, x, context, timesteps=timesteps or default, seed=SEED)
    mean = Estimate.of(scores.value)
    return Validation(step, mean.mean, model.spec.size, scores.measure, mean.error)
