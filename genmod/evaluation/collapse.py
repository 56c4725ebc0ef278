r"""Is it collapsed? Active units, the KL of each dimension, mutual information, and what to do.

A latent has collapsed where its posterior is the prior for every ``x``: its rate is zero, and the decoder
ignores it. Measured are, over ``N`` rows,

* the **activity** of unit ``d``, :math:`A_d = \mathrm{Var}_x\big(\mathbb{E}_{q(z|x)}[z_d]\big)`; a unit is
  active if it is above 0.01;
* the **KL** of each unit and level, the nats that it carries;
* the **mutual information** of data and latent, and the distance of the aggregate posterior from the prior.

Where the law of a level depends on the draws above it, the variance is the covariance of its means under
two independent joint draws: these are independent given ``x``, so its mean is :math:`A_d`.

Reference: Burda, Grosse, Salakhutdinov, "Importance weighted autoencoders" (2016), section 5.2, for active
units; Hoffman, Johnson, "ELBO surgery" (2016).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.checks import invalid
from genmod.decoders import (
    CalibratedGaussianDecoder,
    Decoder,
    GaussianDecoder,
    GlobalScale,
)
from genmod.decoders.likelihoods import FixedScale
from genmod.elbo import ELBO, Kind
from genmod.evaluation.aggregate import information
from genmod.evaluation.batching import Ids, RowSet, in_chunks
from genmod.evaluation.latents import mean_or_draw
from genmod.evaluation.scoring import Estimate
from genmod.evaluation.spectrum import LinearForecast, spectrum
from genmod.evaluation.verdict import Collapse, LatentUse
from genmod.model import LatentModel, Request
from genmod.models.replace import FIRST_STAGE, has_diffusion
from genmod.path import Path
from genmod.prior import DensityPrior
from genmod.priors import NestedPrior
from genmod.signatures import checked

_DRAWS = 2
"""Joint draws of each row: the covariance of two means is free of the noise of the draws above."""


@checked
def collapse(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    observed: object = None,
    name: str | None = None,
    progress: bool = False,
) -> Collapse:
    r"""Measure posterior collapse: active units, the KL of each unit and level, mutual information.

    Args:
        model: a model whose encoder learns: a VAE or a hierarchical VAE, with any prior that is not a
            diffusion.
        data: a :class:`~genmod.data.Dataset`, of which the test part is used; or rows ``(N, *event)``. The
            mutual information is at most ``log N``, so a small test part hides how much there is.
        context: what the model is conditioned on, one row per sample.
        seed: the seed of the draws.
        batch_size: rows computed together; by default as many as fit. Results do not depend on it.
        ids: the id of each row, on which its draws depend; 0, 1, 2, ... by default.
        observed: which entries are not missing, like the rows; by default what the data state.
        name: the name of the model in the table; by default its class.
        progress: whether to show a progress bar.

    Returns:
        A :class:`Collapse`: ``.levels`` with ``.kl``, ``.per_unit`` and ``.active``; ``.information``,
        ``.aggregate``; ``.verdict`` in words. It prints as a table, and
        :func:`genmod.plots.latent_use` draws it.

    Raises:
        ValueError: an autoencoder, which has no rate; a diffusion, whose posterior is fixed.

    Reference: Burda, Grosse, Salakhutdinov, "Importance weighted autoencoders" (2016), section 5.2;
    Hoffman, Johnson, "ELBO surgery" (2016).

    >>> from genmod.models import VAE
    >>> found = collapse(VAE(2, latents=3, width=8), torch.randn(50, 2))
    >>> found.levels[0].units, bool(found.information.mean <= math.log(50))
    (3, True)
    """
    _check(model)
    rows = RowSet.of(model, data, context, ids=ids, observed=observed, masked=True)

    def run(x: Tensor, context: Tensor | None, seen: Tensor | None = None) -> _Piece:
        elbo, path = model(x, Request(context, seen, needs_path=True))
        return _Piece.of(elbo, path)

    draws = []
    for step in range(_DRAWS):
        label = f"draw {step + 1} of {_DRAWS}" if progress else None
        pieces = in_chunks(
            model, rows, run, seed=seed, step=step, batch_size=batch_size, progress=label
        )
        draws.append(_Draw.of(pieces, len(rows)))
    levels = tuple(_level(draws, level) for level in draws[0].nats)
    # A law may hold the parameters of a network, as a normalizing flow does.
    with torch.no_grad():
        nats, used = information(draws[0].laws, torch.stack([draw.z for draw in draws]))
    rates = _rate(model, levels, draws)
    mutual, rest = Estimate.of(nats), Estimate.of(rates[used] - nats)
    forecast, variance = _linear(model, rows, levels)
    value = Estimate.of(torch.stack([draw.value for draw in draws]).mean(0))
    return Collapse(
        name=name or type(model).__name__,
        samples=len(rows),
        value=value,
        levels=levels,
        information=mutual,
        aggregate=Estimate(float(rates.mean()) - mutual.mean, rest.error),
        informed=_informed(model, levels),
        forecast=forecast,
        variance=variance,
        linear_bound=_linear_bound(model, forecast, variance),
        shared=any(
            part.prior.shares_parameters(part.encoder)
            for part in model.modules()
            if isinstance(part, LatentModel) and isinstance(part.prior, DensityPrior)
        ),
    )


def _check(model: LatentModel) -> None:
    kind = type(model).__name__
    if not model.prior.proper:
        raise invalid(
            f"a {kind} with a flat prior, whose latents have no rate",
            "a prior that normalizes",
            "use VAE; nothing pulls the latents of an autoencoder to a prior",
        )
    if has_diffusion(model):
        raise invalid(
            f"a {kind} with a diffusion, whose posterior is fixed",
            "latents of an encoder that learns",
            f"use evaluation.profile for the nats of each noise level; {FIRST_STAGE}",
        )


@dataclass(frozen=True, eq=False)
class _Piece:
    """What one chunk of rows gives, on the CPU in float64, apart from the law and the draw."""

    value: Tensor  # the bound, (B,)
    nats: dict[str, Tensor]  # of each level, (B,)
    kinds: dict[str, Kind]
    per_unit: dict[str, Tensor]  # sums over rows, (D,)
    means: dict[str, Tensor]  # (B, D)
    z: Tensor  # the draw of the first latent, (B, *event)
    law: Distribution  # its posterior

    @classmethod
    def of(cls, elbo: ELBO, path: Path) -> _Piece:
        """The numbers of a bound and of its path."""
        per_unit = {}
        for name, rate in elbo.rates.items():
            for level, nats in zip(rate.names or (name,), rate.per_dim or (), strict=False):
                per_unit[level] = nats.double().sum(0).cpu()
        levels = elbo.levels()
        first = next(iter(path.z))
        return cls(
            elbo.value.double().cpu(),
            {level.name: level.nats.double().cpu() for level in levels},
            {level.name: level.kind for level in levels},
            per_unit,
            {
                latent: mean_or_draw(path.q[latent], z[0]).flatten(1).double().cpu()
                for latent, z in path.z.items()
            },
            path.z[first][0],
            path.q[first],
        )


@dataclass(frozen=True, eq=False)
class _Draw:
    """One joint draw for every row."""

    value: Tensor
    nats: dict[str, Tensor]
    kinds: dict[str, Kind]
    per_unit: dict[str, Tensor]
    means: dict[str, Tensor]
    z: Tensor
    laws: Sequence[Distribution]

    @classmethod
    def of(cls, pieces: Sequence[_Piece], rows: int) -> _Draw:
        """The chunks together."""
        first = pieces[0]
        return cls(
            torch.cat([piece.value for piece in pieces]),
            {name: torch.cat([piece.nats[name] for piece in pieces]) for name in first.nats},
            first.kinds,
            {
                name: torch.stack([piece.per_unit[name] for piece in pieces]).sum(0) / rows
                for name in first.per_unit
            },
            {name: torch.cat([piece.means[name] for piece in pieces]) for name in first.means},
            torch.cat([piece.z for piece in pieces]),
            [piece.law for piece in pieces],
        )


def _level(draws: Sequence[_Draw], name: str) -> LatentUse:
    """A level: its rate, and the activity of its units from the means at two joint draws."""
    one, two = (draw.means[name] - draw.means[name].mean(0) for draw in draws)
    units = [draw.per_unit[name] for draw in draws if name in draw.per_unit]
    return LatentUse(
        name=name,
        kl=Estimate.of(torch.stack([draw.nats[name] for draw in draws]).mean(0)),
        kind=draws[0].kinds[name],
        activity=(one * two).mean(0),
        per_unit=torch.stack(units).mean(0) if units else None,
    )


def _informed(model: LatentModel, levels: Sequence[LatentUse]) -> str:
    """The latents that the mutual information is of.

    Of nested levels the first one has all of it: the others are drawn from it, without a look at ``x``. Of
    an aligned hierarchy it is the level that is drawn first: the posteriors of all others depend on draws.
    """
    if len(levels) > 1 and not isinstance(model.prior, NestedPrior):
        return levels[0].name
    return "all latents" if len(levels) > 1 else "the latent"


def _rate(model: LatentModel, levels: Sequence[LatentUse], draws: Sequence[_Draw]) -> Tensor:
    """The rate of these latents for each row, ``(N,)``."""
    nested = isinstance(model.prior, NestedPrior)
    names = [level.name for level in levels] if nested else [levels[0].name]
    each = [torch.stack([draw.nats[name] for name in names]).sum(0) for draw in draws]
    return torch.stack(each).mean(0)


def _linear(
    model: LatentModel, rows: RowSet, levels: Sequence[LatentUse]
) -> tuple[LinearForecast | None, float | None]:
    """The forecast for the same rows, and the decoder's variance, where it has one for all entries."""
    spec, variance = model.spec, _variance(model.decoder)
    if variance is None or len(levels) != 1 or spec.is_mixed or len(rows) < 2:
        return None, None
    if rows.observed is not None:
        return None, None
    x = spec.standardize(spec.center(rows.x.double().cpu())).flatten(1)
    return LinearForecast(spectrum(x), spec.size, len(x), levels[0].units), variance


def _linear_bound(
    model: LatentModel, forecast: LinearForecast | None, variance: float | None
) -> float | None:
    """The bound of the best linear VAE on these rows, where they are enough to fit one."""
    if forecast is None or variance is None or forecast.samples < 4 * forecast.dims:
        return None
    decoder = model.decoder
    fixed = isinstance(decoder, GaussianDecoder) and isinstance(decoder.scale, FixedScale)
    best = variance if fixed else forecast.learned_variance
    return forecast.bound(best) + float(model.spec.standardize.log_det()) if best > 0 else None


def _variance(decoder: Decoder) -> float | None:
    """The variance of a Gaussian decoder that has one for all entries and samples."""
    if isinstance(decoder, CalibratedGaussianDecoder) and not decoder.per_dimension:
        return float(decoder.mean_square)
    if isinstance(decoder, GaussianDecoder) and isinstance(decoder.scale, FixedScale | GlobalScale):
        log_std = decoder.scale(torch.zeros((), dtype=torch.float64)).detach()
        return math.exp(2 * float(log_std))
    return None
