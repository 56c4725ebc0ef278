r"""Is it collapsed? Active units, the KL of each dimension, mutual information, and what to do.

A latent has collapsed where its posterior is the prior for every ``x``: its rate is zero, and the decoder
ignores it. Measured are, over ``N`` rows,

* the **activity** of unit ``d``, :math:`A_d = \mathrm{Var}_x\big(\mathbb{E}_{q(z|x)}[z_d]\big)`; a unit is
  active if it is above 0.01;
* the **KL** of each unit and level, the nats that it carries;
* the **mutual information** of data and latent, and the distance of the aggregate posterior
  :math:`q(z) = \frac1N \sum_n q(z | x_n)` from the prior: the mean rate is
  :math:`I(x; z) + \mathrm{KL}(q(z) \| p(z))`.

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
from genmod.distributions import Normal
from genmod.distributions.base import elementwise, is_factorized
from genmod.elbo import ELBO, Kind
from genmod.evaluation.batching import Ids, RowSet, in_chunks
from genmod.evaluation.latents import mean_or_draw
from genmod.evaluation.scoring import Estimate
from genmod.evaluation.spectrum import forecast_beside
from genmod.evaluation.verdict import Collapse, LatentUse
from genmod.gaussian.kernels import HALF_LOG_TAU
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

    def run(x: Tensor, context: Tensor | None, seen: Tensor | None = None) -> _Draw:
        elbo, path = model(x, Request(context, seen, needs_path=True))
        return _Draw.of(elbo, path)

    draws = []
    for step in range(_DRAWS):
        label = f"draw {step + 1} of {_DRAWS}" if progress else None
        pieces = in_chunks(
            model, rows, run, seed=seed, step=step, batch_size=batch_size, progress=label
        )
        draws.append(_Draw.joined(pieces))
    levels = tuple(_level(draws, level) for level in draws[0].nats)
    # A law may hold the parameters of a network, as a normalizing flow does.
    with torch.no_grad():
        nats, used = information(draws[0].laws, torch.stack([draw.z for draw in draws]))
    informed, names = _informed(model, levels)
    each = [torch.stack([draw.nats[name] for name in names]).sum(0) for draw in draws]
    rates = torch.stack(each).mean(0)
    mutual, rest = Estimate.of(nats), Estimate.of(rates[used] - nats)
    forecast, variance, linear_bound = forecast_beside(model, rows, [each.units for each in levels])
    return Collapse(
        name=name or type(model).__name__,
        samples=len(rows),
        value=Estimate.of(torch.stack([draw.value for draw in draws]).mean(0)),
        levels=levels,
        information=mutual,
        aggregate=Estimate(float(rates.mean()) - mutual.mean, rest.error),
        informed=informed,
        forecast=forecast,
        variance=variance,
        linear_bound=linear_bound,
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
class _Draw:
    """One joint draw for some rows, on the CPU in float64, apart from the draw itself and its laws."""

    value: Tensor  # the bound, (B,)
    nats: dict[str, Tensor]  # of each level, (B,)
    kinds: dict[str, Kind]
    per_unit: dict[str, Tensor]  # sums over rows, (D,)
    means: dict[str, Tensor]  # (B, D)
    z: Tensor  # the draw of the first latent, (B, *event)
    laws: Sequence[Distribution]  # its posteriors, of one chunk after another

    @classmethod
    def of(cls, elbo: ELBO, path: Path) -> _Draw:
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
            [path.q[first]],
        )

    @classmethod
    def joined(cls, pieces: Sequence[_Draw]) -> _Draw:
        """The chunks together."""
        first = pieces[0]
        return cls(
            torch.cat([piece.value for piece in pieces]),
            {name: torch.cat([piece.nats[name] for piece in pieces]) for name in first.nats},
            first.kinds,
            {
                name: torch.stack([piece.per_unit[name] for piece in pieces]).sum(0)
                for name in first.per_unit
            },
            {name: torch.cat([piece.means[name] for piece in pieces]) for name in first.means},
            torch.cat([piece.z for piece in pieces]),
            [law for piece in pieces for law in piece.laws],
        )


def _level(draws: Sequence[_Draw], name: str) -> LatentUse:
    """A level: its rate, and the activity of its units from the means at two joint draws."""
    one, two = (draw.means[name] - draw.means[name].mean(0) for draw in draws)
    units = [draw.per_unit[name] / len(one) for draw in draws if name in draw.per_unit]
    return LatentUse(
        name=name,
        kl=Estimate.of(torch.stack([draw.nats[name] for draw in draws]).mean(0)),
        kind=draws[0].kinds[name],
        activity=(one * two).mean(0),
        per_unit=torch.stack(units).mean(0) if units else None,
    )


def _informed(model: LatentModel, levels: Sequence[LatentUse]) -> tuple[str, list[str]]:
    """The latents that the mutual information is of, in words, and the names of their rates.

    Of nested levels the first one has all of it: the others are drawn from it, without a look at ``x``. Of
    an aligned hierarchy it is the level that is drawn first: the posteriors of all others depend on draws.
    """
    names = [level.name for level in levels]
    if len(names) > 1 and not isinstance(model.prior, NestedPrior):
        return names[0], names[:1]
    return "all latents" if len(names) > 1 else "the latent", names


_PAIRS = 1 << 27
"""Pairs of a draw and a posterior at most: about three seconds."""
_TOGETHER = 1 << 22
"""Pairs that are computed at a time: 32 MB."""


def information(laws: Sequence[Distribution], z: Tensor) -> tuple[Tensor, Tensor]:
    r"""The nats by which each draw is likelier under its own row's posterior than under the aggregate.

    .. math:: \log q(z_n | x_n) - \log \tfrac1N \textstyle\sum_m q(z_n | x_m) \le \log N

    The aggregate is that of all ``N`` rows. Where draws times rows are too many, some draws are used,
    those of rows spread evenly over all.

    Args:
        laws: the posteriors of all rows, in order, in one or more pieces.
        z: ``K`` draws of each row, ``(K, N, *event)``.

    Returns:
        The mean over the draws of each row used, ``(M,)`` nats in float64, and the rows, ``(M,)``.
    """
    laws, z = _centered(laws, z)
    draws, rows = z.shape[:2]
    used = min(rows, max(1, _PAIRS // (draws * rows)))
    chosen = torch.arange(used) * rows // used
    found = [
        _log_ratio(laws, z[:, part].flatten(0, 1), part.repeat(draws), rows).reshape(draws, -1)
        for part in chosen.split(max(1, _TOGETHER // (draws * rows)))
    ]
    return torch.cat(found, 1).mean(0), chosen


def _centered(laws: Sequence[Distribution], z: Tensor) -> tuple[list[Distribution], Tensor]:
    """Gaussians as one, on the CPU in float64; any other laws as they are.

    The mean of all posteriors is moved to zero: the pairs below are products of matrices, and squares of
    large means divided by small variances would lose the digits of their differences.
    """
    normals = [law for law in laws if type(law) is Normal]
    if len(normals) < len(laws):
        return list(laws), z
    mean = torch.cat([law.loc for law in normals]).cpu().double()
    log_std = torch.cat([law.log_std for law in normals]).cpu().double()
    return [Normal(mean - mean.mean(0), log_std)], z.cpu().double() - mean.mean(0)


def _log_ratio(laws: Sequence[Distribution], z: Tensor, own: Tensor, rows: int) -> Tensor:
    """``log q(z | x_own) - log q(z)`` of each draw, ``(M,)``."""
    pairs = torch.cat([_log_probs(law, z) for law in laws], 1).double().cpu()
    at_own = pairs[torch.arange(len(own)), own]
    return (at_own - pairs.logsumexp(1) + math.log(rows)).clamp(max=math.log(rows))


def _log_probs(law: Distribution, z: Tensor) -> Tensor:
    """``log q(z_i | x_j)`` of each draw under each row's law, ``(M, B)``."""
    if type(law) is Normal:
        mean, log_std = law.loc.flatten(1), law.log_std.flatten(1)
        precision, flat = (-2 * log_std).exp(), z.flatten(1)
        constant = -0.5 * (mean.square() * precision).sum(1) - log_std.sum(1)
        cross = flat @ (mean * precision).T - 0.5 * flat.square() @ precision.T
        return cross + constant - HALF_LOG_TAU * mean.shape[1]
    if is_factorized(law):
        wide = z[:, None].expand(len(z), law.batch_shape[0], *z.shape[1:])
        return elementwise(law, wide).flatten(2).sum(2)
    return law.log_prob(z[:, None])
