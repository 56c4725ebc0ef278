r"""Which latents of a VAE will live: a forecast from the eigenvalues of the data, exact for a linear VAE.

Symbols: :math:`l_1 \ge l_2 \ge \dots` the eigenvalues of the covariance of the data (divided by ``N``),
``D`` entries, ``s2`` the variance of the decoder, :math:`\beta` the weight of the rate. A VAE with a linear
encoder and decoder, whose latents are N(0, I), has its optimum in the eigenvectors. Unit ``j``

* lives if :math:`l_j > \beta s_2`, and then carries :math:`\tfrac12 \log \frac{l_j}{\beta s_2}` nats,
* is the prior otherwise (posterior collapse), at zero nats. This is no failure of training.

At :math:`\beta = 1` the optimum is probabilistic PCA, and its bound is the log-likelihood. A deep network
can use latents that a linear one cannot. But where the variance of the decoder is above all eigenvalues of
the data, the latents have little to explain.

Reference: Lucas, Tucker, Grosse, Norouzi, "Don't Blame the ELBO! A Linear VAE Perspective on Posterior
Collapse" (2019), theorem 1 and corollary 1; Tipping, Bishop, "Probabilistic Principal Component Analysis"
(1999).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genmod.checks import check_positive, invalid
from genmod.data import Dataset, rows_or_dataset
from genmod.decoders import CalibratedGaussianDecoder, Decoder, GaussianDecoder, GlobalScale
from genmod.decoders.likelihoods import FixedScale
from genmod.evaluation.batching import RowSet
from genmod.model import LatentModel
from genmod.signatures import checked
from genmod.spec import DataSpec

_WIDEST = 4096
"""Entries, or rows, up to which all eigenvalues are computed: beyond it takes minutes."""
_MOST = 1 << 26
"""Numbers that are read at most: half a gigabyte in float64."""


@dataclass(frozen=True, eq=False, repr=False)
class LinearForecast:
    r"""The optimum of a linear VAE on some data, at every variance of its decoder. It prints as a table.

    Args:
        eigenvalues: of the covariance of the data, decreasing, ``(min(N, D),)``; all others are 0.
        dims: ``D``, the number of entries of a sample.
        samples: how many samples were used.
        latents: the number of latents at most.
        beta: the weight of the rate, as in :class:`~genmod.objectives.Beta`.
        name: what the data are called.
    """

    eigenvalues: Tensor
    dims: int
    samples: int
    latents: int
    beta: float = 1.0
    name: str = "data"

    def kl(self, variance: float) -> Tensor:
        r"""The nats of each unit that lives, decreasing: :math:`\tfrac12 \log \frac{l_j}{\beta s_2}`."""
        live = self.eigenvalues[: self.live(variance)]
        return 0.5 * (live / (self.beta * variance)).log()

    def live(self, variance: float) -> int:
        r"""How many units live at a variance of the decoder: those with :math:`l_j > \beta s_2`."""
        check_positive(variance, "variance")
        found = int((self.eigenvalues > self.beta * variance).sum())
        return min(found, self.latents)

    def squared_error(self, variance: float) -> float:
        r"""The mean squared error of a sample, :math:`k \beta s_2 + \sum_{j > k} l_j` for ``k`` units."""
        count = self.live(variance)
        return count * self.beta * variance + float(self.eigenvalues[count:].sum())

    def bound(self, variance: float) -> float:
        r"""The evidence lower bound, nats per sample, with the weight 1 on the rate.

        .. math:: -\tfrac{D}{2} \log 2 \pi s_2 - \frac{\text{squared error}}{2 s_2} - \sum_j \mathrm{KL}_j
        """
        constant = 0.5 * self.dims * math.log(2 * math.pi * variance)
        error = self.squared_error(variance) / (2 * variance)
        return -constant - error - float(self.kl(variance).sum())

    def gap(self, variance: float) -> float:
        r"""The nats between the log-likelihood of the optimum and its bound: 0 at :math:`\beta = 1`.

        The sum over units of :math:`\mathrm{KL}(q(z|x) \| p(z|x))`, with the decoder's own posterior.
        """
        live = self.eigenvalues[: self.live(variance)]
        total = live + (1 - self.beta) * variance  # of the model along the eigenvector: w^2 + s2
        ratio = self.beta * total / live  # of the variances of q(z|x) and of p(z|x)
        shift = (total - live).square() * (live - self.beta * variance) / (live * total * variance)
        return float(0.5 * (ratio + shift - 1 - ratio.log()).sum())

    @property
    def learned_variance(self) -> float:
        r"""The variance that a learned scale finds: :math:`\sum_{j > k} l_j / (D - \beta k)`.

        At :math:`\beta = 1` it is the one of maximum likelihood, the mean of the eigenvalues left out. It
        is 0 if the units can explain the data without an error.
        """
        for count in range(min(self.latents, len(self.eigenvalues)), 0, -1):
            rest = max(0.0, self.dims - self.beta * count)
            left = float(self.eigenvalues[count:].sum())
            found = left / rest if rest > 0 else 0.0
            if self.eigenvalues[count - 1] > self.beta * found:
                return found
        return float(self.eigenvalues.sum()) / self.dims

    def variances(self) -> list[float]:
        """Variances of the decoder for a table: from one at which no unit lives down, each a quarter."""
        largest = float(self.eigenvalues[0]) / self.beta
        learned = self.learned_variance
        least = max(learned / 4, float(self.eigenvalues[0]) * 1e-6, 1e-300)
        found = [4.0 ** math.ceil(math.log(max(largest, least), 4))]
        while found[-1] / 4 > least and len(found) < 10:
            found.append(found[-1] / 4)
        return found

    def __str__(self) -> str:
        """The units that live, their nats, the error and the bound, at each variance of the decoder."""
        beta = "" if self.beta == 1 else f", beta = {self.beta:g}"
        head = f"{self.samples} samples of {self.dims} numbers, {self.latents} latents{beta}"
        lines = [
            f"A linear VAE on {self.name}: {head}"[:80],
            f"  {'decoder std':>15} {'units':>7} {'KL, nats':>10} {'RMSE':>9} {'bound, nats':>13}",
        ]
        lines += [self._line(each) for each in self.variances()]
        if self.learned_variance > 0:
            lines.append(self._line(self.learned_variance) + "  learned std")
        return "\n".join(lines)

    __repr__ = __str__

    def _line(self, variance: float) -> str:
        rmse = math.sqrt(self.squared_error(variance) / self.dims)
        return (
            f"  {math.sqrt(variance):>15.4g} {self.live(variance):>7} "
            f"{float(self.kl(variance).sum()):>10.2f} {rmse:>9.3g} {self.bound(variance):>13.2f}"
        )


@checked
def linear_forecast(
    data: object, *, latents: int | None = None, beta: float = 1.0
) -> LinearForecast:
    r"""Forecast from the data, before training, how many latents of a VAE live, and what they cost.

    Unit ``j`` of a linear VAE lives if the ``j``-th eigenvalue of the covariance of the data is above
    :math:`\beta s_2`, and then carries :math:`\tfrac12 \log \frac{l_j}{\beta s_2}` nats. This is exact for
    a linear encoder and decoder, and a first guess for others. It takes seconds. Beside a trained model,
    :func:`collapse` prints it at the decoder's own variance.

    Args:
        data: a :class:`~genmod.data.Dataset`, of which the training part is used; its name or file; or
            rows of real numbers ``(N, *event)``. Integers are taken on [-1, 1], and the columns of a
            table standardized, as models do.
        latents: the number of latents at most; by default as many as the data have entries.
        beta: the weight of the rate.

    Returns:
        A :class:`LinearForecast`: ``.live(variance)``, ``.kl(variance)``, ``.bound(variance)``. It prints
        as a table over variances of the decoder.

    Raises:
        ValueError: data with missing entries or with columns that are no numbers; integers without the
            number of their values; settings out of range.

    Reference: Lucas, Tucker, Grosse, Norouzi, "Don't Blame the ELBO!" (2019), theorem 1.

    >>> x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    >>> forecast = linear_forecast(x * torch.tensor([2.0, 1.0, 0.1]))
    >>> [forecast.live(variance) for variance in (9.0, 2.0, 0.5, 0.001)]
    [0, 1, 2, 3]
    """
    if not 0 < beta < math.inf:
        raise invalid(f"beta={beta}", "a positive weight", "1 is the bound")
    x, name = _real_rows(data)
    count = min(x.shape) if latents is None else latents
    if count < 1:
        raise invalid(f"latents={latents}", "at least one", "leave it out for all entries")
    return LinearForecast(spectrum(x), x.shape[1], len(x), count, beta, name)


def _real_rows(data: object) -> tuple[Tensor, str]:
    """The rows as models see them, ``(N, D)`` in float64, and the name of the data."""
    found = rows_or_dataset(data)
    if isinstance(found, Dataset):
        x, seen, spec, name = found.train, found.mask("train"), found.spec, found.name
    else:
        x, seen, spec, name = found.x, found.observed, DataSpec(found.x.shape[1:]), "data"
    if seen is not None and not seen.all():
        raise invalid(
            f"{name} with missing entries",
            "complete rows, because a covariance is of whole rows",
            "leave incomplete rows out, or impute them first",
        )
    if spec.is_mixed:
        raise invalid(
            f"{name} with columns of several kinds",
            "numbers, because categories have no covariance",
            "drop these columns",
        )
    spec.check(x)
    x = _thinned(x, max(2, _MOST // spec.size))
    return spec.standardize(spec.center(x.double())).flatten(1), name


def _thinned(x: Tensor, most: int) -> Tensor:
    """Rows spread evenly over all, at most so many."""
    return x if len(x) <= most else x[torch.linspace(0, len(x) - 1, most).long()]


def spectrum(x: Tensor) -> Tensor:
    """The eigenvalues of the covariance of rows ``(N, D)``, decreasing, ``(min(N, D),)``.

    Of many rows and entries, the rows are thinned out evenly.
    """
    if min(x.shape) > _WIDEST:
        x = _thinned(x, _WIDEST)
    centered = (x - x.mean(0)).double()
    # The smaller of the two products: they have the same eigenvalues, apart from zeros.
    wide = centered if x.shape[0] < x.shape[1] else centered.T
    values = torch.linalg.eigvalsh(wide @ wide.T / len(x)).flip(0)
    # Rounding leaves about 1e-16 of the largest where the rank is smaller.
    return torch.where(values > values[0] * 1e-13, values, 0.0)


def forecast_beside(
    model: LatentModel, rows: RowSet, units: Sequence[int]
) -> tuple[LinearForecast | None, float | None, float | None]:
    """The forecast for a model's rows, the variance of its decoder, and the bound of the best linear VAE.

    Args:
        model: there is a forecast for one level of latents and one variance for all entries.
        rows: complete rows. The bound needs 4 for each entry.
        units: of each level of latents.
    """
    spec, variance = model.spec, _variance(model.decoder)
    mixed = spec.is_mixed or rows.observed is not None
    if variance is None or len(units) != 1 or mixed or len(rows) < 2:
        return None, None, None
    x = spec.standardize(spec.center(rows.x.double().cpu())).flatten(1)
    found = LinearForecast(spectrum(x), spec.size, len(x), units[0])
    decoder = model.decoder
    fixed = isinstance(decoder, GaussianDecoder) and isinstance(decoder.scale, FixedScale)
    best = variance if fixed else found.learned_variance
    if len(x) < 4 * spec.size or best <= 0:
        return found, variance, None
    return found, variance, found.bound(best) + float(spec.standardize.log_det())


def _variance(decoder: Decoder) -> float | None:
    """The variance of a Gaussian decoder that has one for all entries and samples."""
    if isinstance(decoder, CalibratedGaussianDecoder) and not decoder.per_dimension:
        return float(decoder.mean_square)
    if isinstance(decoder, GaussianDecoder) and isinstance(decoder.scale, FixedScale | GlobalScale):
        log_std = decoder.scale(torch.zeros((), dtype=torch.float64)).detach()
        return math.exp(2 * float(log_std))
    return None
