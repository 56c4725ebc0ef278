"""The number that says which weights are best: a bound on held-out data, low in variance.

Every measurement uses the same noise (keyed by one seed) and stratified levels, so that two
checkpoints differ by what they learned and not by what they drew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from genmod.elbo import Measure
from genmod.evaluation.scoring import score
from genmod.model import LatentModel
from genmod.shapes import size

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
    """

    step: int
    nats: float
    dims: int
    measure: Measure

    @property
    def bits_per_dim(self) -> float | None:
        """Bits per dimension, for a bound on a mass."""
        if self.measure is not Measure.MASS:
            return None
        return -self.nats / (self.dims * math.log(2))


def validate(
    model: LatentModel, x: Tensor, context: Tensor | None, step: int, draws: int
) -> Validation:
    """The mean bound on held-out data, with shared noise."""
    scores = score(model, x, context, draws=draws, seed=SEED)
    dims = size(model.decoder.shape)
    return Validation(step, float(scores.value.mean()), dims, scores.measure)
