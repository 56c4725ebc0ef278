r"""Rows of a table, computed one by one: their keys, scores and imputations.

A matrix product rounds a row differently among other rows. So each row goes through the model alone, with a
batch of its own: ``K`` draws of the latents, or the noise levels of a diffusion, stratified within the row.
The key of its noise is a hash of its bytes. Equal rows are computed once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from genmod import random
from genmod.checks import invalid, trusted
from genmod.data.cells import is_mark, numbers_of
from genmod.data.readers import is_frame
from genmod.data.values import Array as Array
from genmod.elbo import Measure, Stamp
from genmod.evaluation.batching import evaluating
from genmod.evaluation.scoring import Estimate
from genmod.model import LatentModel, Request
from genmod.models.replace import find_diffusion
from genmod.random.streams import mix

T = TypeVar("T")


def canonical(x: Array) -> Array:
    """A copy in which equal rows have equal bytes: one zero (not ``-0.0``) and one NaN.

    >>> canonical(np.array([[-0.0, 1.0]])).tolist()
    [[0.0, 1.0]]
    """
    x = np.ascontiguousarray(x, dtype=np.float64) + 0.0
    x[np.isnan(x)] = np.nan
    return x


def marks_as_nan(table: Any) -> Any:
    """A table with NaN in place of text that marks missing values, as :mod:`genmod.data.cells` lists it.

    In an array of objects or text, and in columns of text of a frame whose other cells are numbers.

    >>> marks_as_nan(np.array([["1.5", "NA"], ["?", "2"]])).tolist()
    [['1.5', nan], [nan, '2']]
    """
    if isinstance(table, np.ndarray) and table.dtype.kind in "OU" and table.ndim == 2:
        marked = np.array([is_mark(cell) for cell in table.ravel().tolist()], dtype=bool)
        if not marked.any():
            return table
        table = table.astype(object)
        table[marked.reshape(table.shape)] = np.nan
    if not is_frame(table):
        return table
    import narwhals as nw  # not at the top: only frames need it

    frame = nw.from_native(table, eager_only=True, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        return table
    read = {}
    for name, series in zip(frame.columns, frame.iter_columns(), strict=True):
        if series.dtype in (nw.String, nw.Object) and any(map(is_mark, series.to_list())):
            cells = [
                "" if cell is None or cell != cell else str(cell).strip()
                for cell in series.to_list()
            ]
            numbers = numbers_of(cells)
            if numbers is not None:
                read[name] = nw.new_series(
                    str(name), numbers, nw.Float64, backend=frame.implementation
                )
    return frame.with_columns(**read).to_native() if read else table


def distinct(x: Array) -> tuple[Array, Array]:
    """The position of each distinct row, and for every row the number of the distinct row that it equals.

    >>> distinct(canonical(np.array([[1.0], [2.0], [1.0]])))
    (array([0, 1]), array([0, 1, 0]))
    """
    numbers: dict[bytes, int] = {}
    inverse = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in x], dtype=int)
    first = np.full(len(numbers), len(x))
    np.minimum.at(first, inverse, np.arange(len(x)))
    return first, inverse


def key_of(row: Array) -> int:
    """A whole number from the bytes of a row, by a hash."""
    return int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "big") >> 1


def run_rows(
    model: LatentModel,
    x: Array,
    run: Callable[[Tensor, Tensor | None], T],
    seed: int,
    copies: Array | None = None,
) -> list[T]:
    """Call a function on each row alone, ``(1, D)``, with its mask, under noise keyed by the row's bytes.

    Args:
        model: the model, which is in evaluation mode meanwhile.
        x: canonical rows.
        run: the function.
        seed: the seed of the noise.
        copies: a further number for each row, for independent noise on equal rows.
    """
    found = []
    with evaluating(model), torch.no_grad(), trusted():
        for place, row in enumerate(x):
            # A tensor of its own memory: products may round differently at another alignment.
            alone, observed = torch.tensor(row[None]), torch.tensor(~np.isnan(row[None]))
            key = mix(seed, key_of(row), 0 if copies is None else int(copies[place]))
            with random.keyed(key):
                found.append(run(alone.nan_to_num(), None if bool(observed.all()) else observed))
    return found


def score_rows(
    model: LatentModel, x: Array, seed: int, importance_samples: int, timesteps: int
) -> tuple[Array, Stamp]:
    """The score of each canonical row, ``(N,)`` nats, and the stamp of the scores.

    Args:
        model: in float64, on the CPU.
        x: rows; NaN is a missing entry, which is left out: the score is that of the observed ones.
        seed: the seed of the noise.
        importance_samples: draws of the latents for each row.
        timesteps: noise levels of a diffusion that each row visits; all of them, if it has no more.

    Raises:
        ValueError: a score that is NaN or infinite.
    """
    first, inverse = distinct(x)
    request = _request(model, importance_samples, timesteps)

    def one(row: Tensor, observed: Tensor | None) -> tuple[float, Stamp]:
        if observed is not None and not bool(observed.any()):
            return 0.0, Stamp.EXACT
        elbo, path = model(row, Request(None, observed, *request))
        if path is None:
            return float(elbo.value), elbo.stamp
        value = torch.logsumexp(path.log_weight(), 0) - math.log(importance_samples)
        exact = elbo.stamp is Stamp.EXACT
        return float(value), Stamp.EXACT if exact else Stamp.ESTIMATE

    pairs = run_rows(model, x[first], one, seed)
    scores = np.array([value for value, _ in pairs])[inverse]
    broken = ~np.isfinite(scores)
    if broken.any():
        raise invalid(
            f"scores that are NaN or infinite for {int(broken.sum())} of {len(x)} rows, the first "
            f"at row {int(broken.argmax())}",
            "finite scores",
            "check these rows (values far outside the training data), or train with a lower "
            "learning_rate",
        )
    return scores, Stamp.weakest(stamp for _, stamp in pairs)


def _request(model: LatentModel, importance_samples: int, timesteps: int) -> tuple[Any, ...]:
    """The arguments ``timesteps, samples, needs_path`` of the request for one row."""
    plain = Request()
    if model.prior.has_timesteps:
        steps = find_diffusion(model).steps
        few = steps is not None and steps - 1 <= timesteps
        return None if few else timesteps, 1, False
    if importance_samples == 1 or model.prior.stochastic_density:
        return plain.timesteps, 1, False
    return plain.timesteps, importance_samples, True


def check_scores(model: LatentModel) -> None:
    """Require a model whose bound is one on ``log p(x)``.

    Raises:
        ValueError: an autoencoder, which bounds nothing.
    """
    if model.measure is Measure.NONE:
        raise invalid(
            f"a {type(model).__name__}, whose prior is not normalized",
            "a model with a density",
            "use model='vae', or LatentTransformer for codes alone",
        )


def estimate(x: Array, scores: Array) -> Estimate:
    r"""The mean score with its standard error, in which equal rows count once.

    Equal rows share a draw: they are one observation of weight :math:`m_u`, their number,

    .. math:: \mathrm{se}^2 = \frac{U}{U - 1} \sum_{u=1}^{U} \Big(\frac{m_u}{N}\Big)^2 (s_u - \bar s)^2

    over the :math:`U` distinct rows. Without equal rows it is the usual standard error.

    Args:
        x: canonical rows.
        scores: of each row.

    >>> estimate(np.array([[0.0], [1.0], [0.0], [1.0]]), np.array([1.0, 3.0, 1.0, 3.0]))
    Estimate(mean=2.0, error=1.0)
    """
    first, inverse = distinct(x)
    mean, count = float(scores.mean()), len(first)
    if count == 1:
        return Estimate(mean, math.nan)
    share = np.bincount(inverse) / len(x)
    square = count / (count - 1) * float((share**2 * (scores[first] - mean) ** 2).sum())
    return Estimate(mean, math.sqrt(square))


def occurrences(x: Array) -> Array:
    """How many equal rows come before each row: 0 for the first of them.

    >>> occurrences(np.array([[1.0], [2.0], [1.0]]))
    array([0, 0, 1])
    """
    seen: dict[bytes, int] = {}
    found = []
    for row in x:
        number = seen.get(row.tobytes(), 0)
        found.append(number)
        seen[row.tobytes()] = number + 1
    return np.array(found, dtype=int)


def impute_rows_alone(
    model: LatentModel, x: Array, seed: int, n: int, importance_samples: int
) -> tuple[Array, Array]:
    """``n`` completed copies of canonical rows, ``(n, N, D)``, and their conditional means, ``(N, D)``.

    Equal rows share their mean. Their draws are independent, as multiple imputation needs.
    """
    draws, means = np.repeat(x[None], n, 0), x.copy()
    holes = np.flatnonzero(np.isnan(x).any(1))

    def fill(row: Tensor, observed: Tensor | None) -> tuple[Array, Array]:
        assert observed is not None
        found = model.impute(row, observed, n, importance_samples)
        return found.draws[:, 0].numpy(), found.mean[0].numpy()

    pairs = run_rows(model, x[holes], fill, seed, occurrences(x[holes]))
    first, inverse = distinct(x[holes])
    for number, place in enumerate(holes):
        missing = np.isnan(x[place])
        draws[:, place, missing] = pairs[number][0][:, missing]
        means[place, missing] = pairs[first[inverse[number]]][1][missing]
    return draws, means
