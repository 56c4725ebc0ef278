"""What is reported of a model: each term of its bound, stamped, with a standard error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from genmod.checks import require
from genmod.data import Dataset
from genmod.elbo import Measure, Stamp
from genmod.evaluation.baselines import Baseline
from genmod.evaluation.scoring import Scores, log_weights, score
from genmod.model import LatentModel
from genmod.shapes import size


@dataclass(frozen=True)
class Estimate:
    """A mean over samples and its standard error.

    >>> print(Estimate(-91.234, 0.56))
    -91.23 ± 0.56
    """

    mean: float
    error: float

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """The mean of one number a sample; its error is that of drawing other samples (and noise)."""
        spread = float(values.std()) if len(values) > 1 else math.nan
        return cls(float(values.mean()), spread / math.sqrt(len(values)))

    def times(self, factor: float) -> Estimate:
        """The same in other units."""
        return Estimate(self.mean * factor, self.error * abs(factor))

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.error:.2f}"


@dataclass(frozen=True, eq=False)
class Report:
    """A model (or a baseline) on held-out data, in nats per sample.

    Args:
        name: what it is called.
        value: the log-likelihood, a bound on it or an estimate, as ``stamp`` says; for a model that
            bounds nothing, the reconstruction.
        stamp: what ``value`` is.
        measure: what ``p(x)`` is.
        dims: how many numbers one sample holds.
        samples: how many samples were scored.
        terms: ``"reconstruction"`` and each rate (a cost, positive). ``value`` is the first minus the
            others.
        importance: the importance-weighted estimate of ``log p(x)``, stamped ESTIMATE.
        importance_draws: its number of draws.
        noise: the part of the value's standard error that comes from drawn latents and levels,
            from independent replicates; ``None`` for one.
        parameters: how many numbers the model learned.
        seconds: how long it trained.
        scores: the numbers of every sample, for figures.
        irreducible: nats a sample that no model can save, where the data are drawn from something
            known (see :func:`genmod.data.binarized`).
    """

    name: str
    value: Estimate
    stamp: Stamp
    measure: Measure
    dims: int
    samples: int
    terms: Mapping[str, Estimate]
    importance: Estimate | None = None
    importance_draws: int = 0
    noise: float | None = None
    parameters: int = 0
    seconds: float | None = None
    scores: Scores | None = None
    irreducible: float | None = None

    @classmethod
    def of_baseline(
        cls, baseline: Baseline, dims: int, measure: Measure, irreducible: float | None = None
    ) -> Report:
        """The report of a baseline: one number a sample, no terms."""
        value = Estimate.of(baseline.log_prob)
        count = len(baseline.log_prob)
        return cls(
            baseline.name,
            value,
            baseline.stamp,
            measure,
            dims,
            count,
            terms={},
            irreducible=irreducible,
        )

    @property
    def structural(self) -> Estimate | None:
        """What the value costs above the irreducible nats: the part that models compete over.

        ``- value - irreducible``, at least 0 in the mean. ``None`` where nothing is known to be
        irreducible, and for a model that bounds nothing.
        """
        if self.irreducible is None or self.measure is Measure.NONE:
            return None
        return Estimate(-self.value.mean - self.irreducible, self.value.error)

    @property
    def bits_per_dim(self) -> Estimate | None:
        """The value as a code length, for a mass."""
        return self._bits(self.value)

    @property
    def importance_bits_per_dim(self) -> Estimate | None:
        """The importance-weighted estimate as a code length, for a mass."""
        return None if self.importance is None else self._bits(self.importance)

    def _bits(self, nats: Estimate) -> Estimate | None:
        if self.measure is not Measure.MASS:
            return None
        return nats.times(-1 / (self.dims * math.log(2)))

    def to_dict(self) -> dict[str, object]:
        """Everything but the single samples, as JSON has it."""

        def pair(estimate: Estimate | None) -> dict[str, float] | None:
            if estimate is None:
                return None
            return {"mean": estimate.mean, "standard_error": estimate.error}

        return {
            "name": self.name,
            "stamp": self.stamp.value,
            "measure": self.measure.value,
            "nats": pair(self.value),
            "bits_per_dim": pair(self.bits_per_dim),
            "irreducible": self.irreducible,
            "structural": pair(self.structural),
            "terms": {name: pair(term) for name, term in self.terms.items()},
            "importance_weighted": {
                "stamp": Stamp.ESTIMATE.value,
                "draws": self.importance_draws,
                "nats": pair(self.importance),
                "bits_per_dim": pair(self.importance_bits_per_dim),
            }
            if self.importance is not None
            else None,
            "noise": self.noise,
            "dims": self.dims,
            "samples": self.samples,
            "parameters": self.parameters,
            "seconds": self.seconds,
        }


def evaluate(
    model: LatentModel,
    x: Dataset | Tensor,
    context: Tensor | None = None,
    *,
    name: str | None = None,
    draws: int | None = None,
    importance: int = 0,
    replicates: int = 1,
    seed: int = 0,
    seconds: float | None = None,
) -> Report:
    """Score a model on held-out data.

    Args:
        model: any model.
        x: a :class:`~genmod.data.Dataset`, whose test part is scored and whose irreducible nats go
            into the report; or a tensor ``(N, *event)``, which knows of none.
        context: what the model is told beside each sample; by default the labels of data that are
            :func:`~genmod.data.conditional`.
        name: what the report calls it; its class by default.
        draws: how many levels of a diffusion each sample visits; ``None`` visits all (a bound), a
            number estimates the bound.
        importance: how many importance draws a sample for an estimate of ``log p(x)``; 0 is none.
        replicates: how often to score with fresh noise. Levels visited in strata are not
            independent, so how noisy their mean is can only be told from independent repetitions.
        seed: the key of the noise.
        seconds: how long the model trained, to be told along.

    Returns:
        Each term in nats, with a standard error over samples.

    Raises:
        ValueError: data that the model cannot score; all levels asked for in continuous time;
            importance weights of a model that has none.

    Reference: the importance-weighted estimate: Burda, Grosse, Salakhutdinov, "Importance Weighted
    Autoencoders" (2016), eq. 8.

    >>> import torch
    >>> from genmod.models import VAE
    >>> x = torch.randint(0, 17, (32, 1, 8, 8))
    >>> report = evaluate(VAE((1, 8, 8), 17, latents=2, width=16), x, importance=4)
    >>> report.stamp, list(report.terms), report.importance.mean >= report.value.mean
    (<Stamp.BOUND: 'bound'>, ['reconstruction', 'prior'], True)
    """
    require(replicates >= 1, f"replicates={replicates}", "at least one", "2 or more give a noise")
    irreducible = None
    if isinstance(x, Dataset):
        context = x.context("test") if context is None else context
        irreducible = x.entropy_floor
        x = x.test
    runs = [score(model, x, context, draws=draws, seed=seed + r) for r in range(replicates)]
    scores = runs[0]
    estimate = None
    if importance:
        weights = log_weights(model, x, context, draws=importance, seed=seed)
        estimate = Estimate.of(weights.logsumexp(1) - math.log(importance))
    terms = [{"reconstruction": run.reconstruction, **run.rates} for run in runs]
    mean = {key: torch.stack([each[key] for each in terms]).mean(0) for key in terms[0]}
    values = torch.stack([run.value for run in runs])
    means = values.mean(1)
    return Report(
        name=name or type(model).__name__,
        value=Estimate.of(values.mean(0)),
        stamp=_stamp(scores),
        measure=scores.measure,
        dims=size(model.decoder.shape),
        samples=len(x),
        terms={key: Estimate.of(each) for key, each in mean.items()},
        noise=float(means.std()) / math.sqrt(replicates) if replicates > 1 else None,
        importance=estimate,
        importance_draws=importance,
        parameters=sum(p.numel() for p in model.parameters()),
        seconds=seconds,
        scores=scores,
        irreducible=irreducible,
    )


def _stamp(scores: Scores) -> Stamp:
    if scores.measure is Measure.NONE:
        return Stamp.NONE
    return Stamp.BOUND if scores.complete else Stamp.ESTIMATE
