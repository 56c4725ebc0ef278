"""The bound of every row of a data set, and its importance weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genmod.checks import require
from genmod.chunks import COPIES
from genmod.elbo import ELBO, Measure, Stamp
from genmod.evaluation.batching import Ids, RowSet, in_chunks
from genmod.model import LatentModel, Request
from genmod.models import find_diffusion, has_diffusion
from genmod.prior import AutoTimesteps, Timesteps
from genmod.random.streams import mix
from genmod.types import PerSample


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
class Scores:
    """The terms of the bound of ``N`` rows.

    Args:
        reconstruction: ``log p(x | z)``, ``(N,)`` nats.
        rates: what each latent (or group of them) costs, ``(N,)`` nats, by name.
        per_dim: the mean cost of each dimension of a latent, ``(D,)`` nats, where it is known.
        levels: of a diffusion that visits every level: ``(t, log_snr, mean nats)``, each ``(L,)``.
        stamp: what :attr:`value` may be called.
        measure: what ``p(x)`` is.
    """

    reconstruction: PerSample
    rates: Mapping[str, PerSample]
    per_dim: Mapping[str, Tensor]
    levels: tuple[Tensor, Tensor, Tensor] | None
    stamp: Stamp
    measure: Measure

    @property
    def value(self) -> PerSample:
        """The bound of each row: the reconstruction minus every rate."""
        return self.reconstruction - sum(self.rates.values(), torch.zeros_like(self.reconstruction))

    @property
    def terms(self) -> dict[str, PerSample]:
        """The reconstruction and every rate, by name."""
        return {"reconstruction": self.reconstruction, **self.rates}

    def check_finite(self) -> None:
        """Require every term of every row to be finite.

        Raises:
            ValueError: it names the terms, and how many rows.
        """
        for name, values in self.terms.items():
            broken = int((~values.isfinite()).sum())
            if broken:
                raise ValueError(
                    f"got a {name} term that is NaN or infinite in {broken} of {len(values)} rows; "
                    "expected finite nats; look at these rows and at the model's weights (a diverged "
                    "training, data far outside the training data, a law without support there)"
                )


def score(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    timesteps: Timesteps = AutoTimesteps.EVALUATION,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    progress: bool = False,
) -> Scores:
    """The bound of each row, with one draw of the latents.

    Args:
        model: any model.
        data: a :class:`~genmod.data.Dataset`, whose test part is scored, or rows ``(N, *event)``.
        context: what the model is conditioned on, one row a sample.
        timesteps: how many levels of a diffusion each row visits; see :meth:`LatentModel.elbo`.
        seed: the key of the noise. Equal seeds compare models on equal noise.
        batch_size: rows computed together; by default as many as fit. Results do not depend on it.
        ids: the id of each row, on which its noise depends; 0, 1, 2, ... by default.
        progress: whether a bar is shown.

    Returns:
        The terms of the bound, on the CPU, in float64.

    Raises:
        ValueError: data that the model cannot score; timesteps for a model without noise levels.

    >>> from genmod.models import VAE
    >>> score(VAE(2, latents=1, width=8), torch.randn(5, 2)).value.shape
    torch.Size([5])
    """
    rows = RowSet.of(model, data, context, ids=ids)

    def run(x: Tensor, given: Tensor | None) -> _Piece:
        return _Piece.of(model(x, Request(given, timesteps=timesteps))[0])

    pieces = in_chunks(
        model, rows, run, seed=seed, batch_size=batch_size, progress=_label(progress, "bound")
    )
    return _gather(pieces, rows)


def log_weights(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    importance_samples: int,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    progress: bool = False,
) -> Tensor:
    """Importance log-weights ``log p(x, z) - log q(z | x)`` of each row, ``(N, K)``, float64.

    Args:
        model: a model with finitely many latents.
        data: a data set, whose test part is scored, or rows.
        context: what the model is conditioned on, one row a sample.
        importance_samples: ``K``, how many draws of the latents each row gets.
        seed: the key of the noise.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row, on which its noise depends.
        progress: whether a bar is shown.

    Raises:
        ValueError: continuous time, no prior, or a density that is a random estimate: ``exp`` of an
            unbiased log-density is too large in the mean.
    """
    require(
        importance_samples >= 1,
        f"importance_samples={importance_samples}",
        "at least one",
        "100 to 5000 are common",
    )
    require(
        not model.prior.stochastic_density,
        "importance weights from a log-density that is a random estimate",
        "one that is computed exactly: weights of an estimate are too large in the mean",
        "use the exact trace, with_probability_flow(model, probes=None)",
    )
    rows = RowSet.of(model, data, context, ids=ids)
    latents = (find_diffusion(model).steps or 1) if has_diffusion(model) else 1
    columns = []
    for sample in range(importance_samples):
        pieces = in_chunks(
            model,
            rows,
            model.log_weight,
            seed=mix(seed, sample),
            batch_size=batch_size,
            copies=COPIES + 8 * latents,  # a path keeps every latent and both of its laws
            progress=_label(progress, f"draw {sample + 1} of {importance_samples}"),
        )
        columns.append(torch.cat(pieces).cpu().double())
    return rows.given(torch.stack(columns, 1))


def paired(a: Scores, b: Scores) -> Estimate:
    r"""The mean difference of two models' scores of the same rows, with its standard error.

    .. math:: \frac{1}{N} \sum_n (a_n - b_n), \qquad
        \mathrm{se}^2 = \frac{\mathrm{Var}(a) + \mathrm{Var}(b) - 2\,\mathrm{Cov}(a, b)}{N}

    A row that costs one model much costs the other much, too, and noise of one seed moves both alike. So
    the standard error of the difference is far smaller than that of either mean: two checkpoints
    whose means lie within each other's errors can still differ significantly.

    Args:
        a: of one model, from :func:`score` (or ``report.scores``).
        b: of another, for the same rows in the same order. With another ``seed`` or other ``timesteps``
            the difference is right but noisier.

    Raises:
        ValueError: other numbers of rows, or a mass beside a density.

    >>> from genmod.models import VAE
    >>> x = torch.randn(50, 2)
    >>> model = VAE(2, latents=1, width=8)
    >>> print(paired(score(model, x, seed=1), score(model, x, seed=1)))
    0.00 ± 0.00
    """
    require(
        len(a.value) == len(b.value),
        f"{len(a.value)} rows and {len(b.value)} rows",
        "scores of the same rows in the same order",
        "score both models on one tensor",
    )
    require(
        a.measure is b.measure,
        f"a {a.measure.value} and a {b.measure.value}",
        "values of one kind",
        "a mass of integers and a density of reals have no common zero",
    )
    return Estimate.of(a.value - b.value)


def _label(progress: bool, label: str) -> str | None:
    return label if progress else None


@dataclass(frozen=True, eq=False)
class _Piece:
    """What is kept of the bound of a chunk, on the CPU: columns of its rows, and sums over them."""

    columns: Mapping[str, Tensor]
    per_dim: Mapping[str, Tensor]
    levels: tuple[Tensor, Tensor, Tensor] | None
    stamp: Stamp
    measure: Measure

    @classmethod
    def of(cls, elbo: ELBO) -> _Piece:
        """A chunk's part of :class:`Scores`."""
        columns = {"": elbo.reconstruction, **{each.name: each.nats for each in elbo.levels()}}
        per_dim, levels = {}, None
        for name, rate in elbo.rates.items():
            for level, nats in zip(rate.names or (name,), rate.per_dim or (), strict=False):
                per_dim[level] = nats.double().sum(0).cpu()
            if rate.noise is not None and rate.claim is Stamp.BOUND:
                sums = rate.nats.double().sum(0).cpu()
                levels = rate.level[0].cpu(), rate.noise.log_snr[0].cpu(), sums
        kept = {name: values.cpu().double() for name, values in columns.items()}
        return cls(kept, per_dim, levels, elbo.stamp, elbo.measure)


def _gather(pieces: Sequence[_Piece], rows: RowSet) -> Scores:
    """The rows of every chunk together, in the user's order, and means over rows."""
    first = pieces[0]
    columns = {
        name: rows.given(torch.cat([piece.columns[name] for piece in pieces]))
        for name in first.columns
    }
    levels = None
    if first.levels is not None:
        sums = torch.stack([piece.levels[2] for piece in pieces if piece.levels is not None])
        levels = *first.levels[:2], sums.sum(0) / len(rows)
    return Scores(
        columns.pop(""),
        columns,
        {
            name: torch.stack([piece.per_dim[name] for piece in pieces]).sum(0) / len(rows)
            for name in first.per_dim
        },
        levels,
        first.stamp,
        first.measure,
    )
