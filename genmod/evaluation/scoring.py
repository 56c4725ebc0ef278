"""The bound of every row, its importance weights, and the difference of two models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genmod.checks import check_at_least, invalid
from genmod.chunks import COPIES
from genmod.elbo import Measure, Stamp
from genmod.evaluation.batching import ChunkBound, Ids, RowSet, in_chunks, require_finite
from genmod.model import LatentModel, Request
from genmod.models.replace import find_diffusion, has_diffusion
from genmod.path import AutoTimesteps, Timesteps
from genmod.random.streams import mix
from genmod.signatures import checked
from genmod.tensors import PerSample


@dataclass(frozen=True)
class Estimate:
    r"""A mean over samples with its standard error.

    .. math:: \bar v = \frac{1}{N} \sum_{n=1}^{N} v_n, \qquad
        \mathrm{se} = \sqrt{\frac{1}{N (N - 1)} \sum_n (v_n - \bar v)^2}

    The interval of 95 % is about ``mean ± 1.96 error``.

    Args:
        mean: the mean.
        error: its standard error, in the same units; NaN for a single sample.

    >>> print(Estimate.of(torch.tensor([-90.0, -92.0, -91.0, -93.0])))
    -91.50 ± 0.65
    """

    mean: float
    error: float

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """The mean of ``(N,)`` numbers; the error is how it would change with other samples and noise."""
        spread = float(values.std()) if len(values) > 1 else math.nan
        return cls(float(values.mean()), spread / math.sqrt(len(values)))

    def scaled(self, factor: float) -> Estimate:
        """The same estimate in other units."""
        return Estimate(self.mean * factor, self.error * abs(factor))

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.error:.2f}"


@dataclass(frozen=True, eq=False)
class Scores:
    """The terms of the bound for each of ``N`` rows.

    Args:
        reconstruction: ``log p(x | z)``, ``(N,)`` nats.
        rates: the rate of each latent (or group of latents), ``(N,)`` nats, by name.
        per_dim: the rate of each dimension of a latent, a mean over rows, ``(D,)`` nats, where it is known.
        levels: ``(t, log_snr, mean nats)``, each ``(L,)``, for a diffusion that visits every level; else
            ``None``.
        stamp: what :attr:`value` is: exact, a bound or an estimate.
        measure: whether ``p(x)`` is a mass or a density.
        change_of_units: the part of the reconstruction that standardized columns contribute, ``(N,)`` nats.
    """

    reconstruction: PerSample
    rates: Mapping[str, PerSample]
    per_dim: Mapping[str, Tensor]
    levels: tuple[Tensor, Tensor, Tensor] | None
    stamp: Stamp
    measure: Measure
    change_of_units: PerSample | None = None

    @property
    def value(self) -> PerSample:
        """The bound of each row: the reconstruction minus every rate."""
        return self.reconstruction - sum(self.rates.values(), torch.zeros_like(self.reconstruction))

    @property
    def terms(self) -> dict[str, PerSample]:
        """The reconstruction and every rate, by name."""
        return {"reconstruction": self.reconstruction, **self.rates}


@checked
def score(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    timesteps: Timesteps = AutoTimesteps.EVALUATION,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    observed: object = None,
    progress: bool = False,
) -> Scores:
    """The evidence lower bound of each row, from one draw of the latents.

    Args:
        model: any model.
        data: a :class:`~genmod.data.Dataset`, whose test part is scored, or rows ``(N, *event)``.
        context: what the model is conditioned on, one row per sample.
        timesteps: the number of levels of a diffusion that each row visits; see :meth:`LatentModel.elbo`.
        seed: the seed of the noise. Two models scored with one seed see the same noise.
        batch_size: rows computed together; by default as many as fit. Results do not depend on it.
        ids: the id of each row, on which its noise depends; 0, 1, 2, ... by default.
        observed: which entries are not missing, like the rows; by default what the data state.
        progress: whether to show a progress bar.

    Returns:
        The terms of the bound, on the CPU, in float64.

    Raises:
        ValueError: data that the model cannot score; timesteps for a model without noise levels; terms that
            are not finite.

    >>> from genmod.models import VAE
    >>> score(VAE(2, latents=1, width=8), torch.randn(5, 2)).value.shape
    torch.Size([5])
    """
    rows = RowSet.of(model, data, context, ids=ids, observed=observed, masked=True)
    scores = scores_of(model, rows, timesteps, seed, batch_size, progress)
    require_finite(scores.terms)
    return scores


def scores_of(
    model: LatentModel,
    rows: RowSet,
    timesteps: Timesteps,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> Scores:
    """The bound of checked rows, which may be NaN; see :func:`score`."""

    def run(x: Tensor, context: Tensor | None, seen: Tensor | None = None) -> ChunkBound:
        return ChunkBound.of(model(x, Request(context, seen, timesteps))[0])

    label = "bound" if progress else None
    pieces = in_chunks(model, rows, run, seed=seed, batch_size=batch_size, progress=label)
    scores = _gather(pieces, rows)
    units = model.spec.standardize
    if units.is_identity:
        return scores
    change = torch.as_tensor(units.log_det(rows.observed), dtype=torch.float64)
    return replace(scores, change_of_units=rows.restore_order(change.cpu().expand(len(rows))))


@checked
def log_weights(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    importance_samples: int,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    observed: object = None,
    progress: bool = False,
) -> Tensor:
    r"""The importance log-weights of each row, ``(N, K)``, from ``K`` draws of the latents.

    .. math:: \log w_k = \log p(x, z_k) - \log q(z_k | x), \qquad z_k \sim q(z | x)

    The mean of the weights :math:`w_k` is an unbiased estimate of ``p(x)``. Its logarithm is the
    importance-weighted bound, which rises with ``K`` to ``log p(x)``:

    .. math:: \mathbb{E} \log \frac{1}{K} \sum_{k=1}^{K} w_k \le \log p(x).

    Args:
        model: a model with finitely many latents.
        data: a data set, whose test part is scored, or rows ``(N, *event)``.
        context: what the model is conditioned on, one row per sample.
        importance_samples: ``K``, the number of draws for each row.
        seed: the seed of the noise.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row, on which its noise depends.
        observed: which entries are not missing, like the rows; by default what the data state.
        progress: whether to show a progress bar.

    Returns:
        Log-weights in nats, float64, on the CPU.

    Raises:
        ValueError: continuous time, no prior, or a prior whose log-density is a random estimate: ``exp`` of
            an unbiased log-density is too large in the mean; a weight that is NaN or plus infinity.

    Reference: Burda, Grosse, Salakhutdinov, "Importance weighted autoencoders" (2016), eq. 8.

    >>> from genmod.models import VAE
    >>> log_w = log_weights(VAE(2, latents=1, width=8), torch.randn(5, 2), importance_samples=8)
    >>> bound = log_w.logsumexp(1) - math.log(8)  # the importance-weighted bound of each row
    >>> log_w.shape, bool((bound >= log_w.mean(1)).all())
    (torch.Size([5, 8]), True)
    """
    rows = RowSet.of(model, data, context, ids=ids, observed=observed, masked=True)
    weights = weights_of(model, rows, importance_samples, seed, batch_size, progress)
    require_finite({"log-weight": weights}, zero_weights=True)
    return rows.restore_order(weights)


def weights_of(
    model: LatentModel,
    rows: RowSet,
    importance_samples: int,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> Tensor:
    """Importance log-weights of checked rows by ascending ids, maybe NaN; see :func:`log_weights`."""
    check_at_least(importance_samples, 1, "importance_samples", "100 to 5000 are common")
    if model.prior.stochastic_density:
        raise invalid(
            "importance weights of a prior whose log-density is a random estimate",
            "an exact log-density, because weights of an estimate are too large in the mean",
            "use the exact trace, with_probability_flow(model, probes=None)",
        )
    latents = (find_diffusion(model).steps or 1) if has_diffusion(model) else 1
    columns = []
    for sample in range(importance_samples):
        label = f"draw {sample + 1} of {importance_samples}" if progress else None
        # A path keeps every latent and both of its distributions: hence more copies.
        pieces = in_chunks(
            model, rows, model.log_weight, seed=mix(seed, sample),
            batch_size=batch_size, copies=COPIES + 8 * latents, progress=label,
        )  # fmt: skip
        columns.append(torch.cat(pieces).cpu().double())
    return torch.stack(columns, 1)


@checked
def paired(a: Scores, b: Scores) -> Estimate:
    r"""The paired difference of two models: the mean of ``a - b`` over the same rows, with its error.

    .. math:: \frac{1}{N} \sum_n (a_n - b_n), \qquad
        \mathrm{se}^2 = \frac{\mathrm{Var}(a) + \mathrm{Var}(b) - 2\,\mathrm{Cov}(a, b)}{N}

    The scores of two models are correlated: a row that is unlikely under one is usually unlikely under
    the other, and noise of the same seed moves both alike. So the error of the difference is far smaller
    than that of either mean. Two checkpoints whose intervals overlap can still differ significantly.

    Args:
        a: the scores of one model, from :func:`score` (or ``report.scores``).
        b: those of another, for the same rows in the same order. With another ``seed`` or other
            ``timesteps`` the difference is still unbiased, but noisier.

    Raises:
        ValueError: different numbers of rows, or a mass and a density.

    >>> from genmod.models import VAE
    >>> x = torch.randn(50, 2)
    >>> model = VAE(2, latents=1, width=8)
    >>> print(paired(score(model, x, seed=1), score(model, x, seed=1)))
    0.00 ± 0.00
    """
    if len(a.value) != len(b.value):
        raise invalid(
            f"{len(a.value)} rows and {len(b.value)} rows",
            "scores of the same rows in the same order",
            "score both models on one tensor",
        )
    if a.measure is not b.measure:
        raise invalid(
            f"a {a.measure.value} and a {b.measure.value}",
            "two masses or two densities",
            "compare models of integers with each other, and models of reals with each other",
        )
    return Estimate.of(a.value - b.value)


def _gather(pieces: Sequence[ChunkBound], rows: RowSet) -> Scores:
    """Join the chunks: rows in the user's order, and means over rows."""
    first = pieces[0]
    columns = {
        name: rows.restore_order(torch.cat([piece.columns[name] for piece in pieces]))
        for name in first.columns
    }
    levels = None
    if first.levels is not None:
        sums = torch.stack([piece.levels[2] for piece in pieces if piece.levels is not None])
        levels = *first.levels[:2], sums.sum(0) / len(rows)
    per_dim = {
        name: torch.stack([piece.per_dim[name] for piece in pieces]).sum(0) / len(rows)
        for name in first.per_dim
    }
    return Scores(columns.pop(""), columns, per_dim, levels, first.stamp, first.measure)
