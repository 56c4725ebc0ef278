"""Units of latents by what they carry, and the code of one row with a unit moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod import random
from genmod.distributions import Normal
from genmod.distributions.base import check_law
from genmod.elbo import ELBO
from genmod.encoders.base import require_distribution
from genmod.evaluation.batching import RowSet, in_chunks
from genmod.model import LatentModel, Request
from genmod.path import Latent, Path, run_path, sample_rows

FLAT = "code"
"""The name of the latent of an autoencoder, whose prior has no rate to name it."""
_DRAWS = 4096
"""Draws that the quantiles of a prior without a formula are taken from."""


@dataclass(frozen=True)
class Unit:
    """A unit of a level of latents.

    Args:
        level: the name of its rate.
        index: its place in the level, from 0.
        nats: what it carries, a mean over samples; NaN where the laws of its level do not factorize.
        activity: the variance of its posterior mean over the data; in a hierarchy also over draws above it.
    """

    level: str
    index: int
    nats: float
    activity: float

    def label(self, several: bool = True) -> str:
        """The unit in words, with its level where there are several."""
        name = f"{self.level} unit {self.index}" if several else f"unit {self.index}"
        known = self.nats == self.nats
        return f"{name}, {self.nats:.2f} nats" if known else f"{name}, activity {self.activity:.2g}"


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over the rows of a chunk for the units of a level, in float64, ``(D,)``."""

    nats: Tensor | None
    mean: Tensor
    square: Tensor


def units_by_use(
    model: LatentModel,
    rows: RowSet,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> list[Unit]:
    """Every unit of every level, the most used first.

    By the mean KL of the unit, or the mean log-ratio at a draw where the KL has no closed form. If a level
    has neither for its units, all are ordered by the variance of their posterior means.
    """

    def run(x: Tensor, context: Tensor | None, seen: Tensor | None = None) -> dict[str, _Sums]:
        if not model.prior.proper:
            mean = _flat(model, x, context, seen).flatten(1).double()
            return {FLAT: _Sums(None, mean.sum(0).cpu(), mean.square().sum(0).cpu())}
        elbo, path = model(x, Request(context, seen, needs_path=True))
        return _sums(elbo, path)

    label = "units" if progress else None
    pieces = in_chunks(model, rows, run, seed=seed, batch_size=batch_size, progress=label)
    found = [unit for name in pieces[0] for unit in _units(name, pieces, len(rows))]
    known = all(unit.nats == unit.nats for unit in found)
    return sorted(found, key=lambda unit: -(unit.nats if known else unit.activity))


def _flat(model: LatentModel, x: Tensor, context: Tensor | None, seen: Tensor | None) -> Tensor:
    """The codes of a model with a flat prior."""
    return require_distribution(model.posterior(x, context, seen), model.prior.shape).mean


def _sums(elbo: ELBO, path: Path) -> dict[str, _Sums]:
    per_dim: dict[str, Tensor] = {}
    for name, rate in elbo.rates.items():
        per_dim |= zip(rate.names or (name,), rate.per_dim or (), strict=False)
    found = {}
    for name, z in path.z.items():
        nats = per_dim.get(name)
        mean = mean_or_draw(path.q[name], z[0]).flatten(1).double().cpu()
        total = None if nats is None else nats.flatten(1).double().sum(0).cpu()
        found[name] = _Sums(total, mean.sum(0), mean.square().sum(0))
    return found


def mean_or_draw(q: Distribution, z: Tensor) -> Tensor:
    """The mean of a law; where it has no formula for its mean, a draw ``z`` of it."""
    try:
        return q.mean
    except NotImplementedError:
        return z


def _units(name: str, pieces: Sequence[Mapping[str, _Sums]], rows: int) -> list[Unit]:
    parts = [piece[name] for piece in pieces]
    mean = torch.stack([part.mean for part in parts]).sum(0) / rows
    square = torch.stack([part.square for part in parts]).sum(0) / rows
    activity = (square - mean.square()).clamp(min=0).tolist()
    known = [part.nats for part in parts if part.nats is not None]
    nats = (torch.stack(known).sum(0) / rows).tolist() if known else [float("nan")] * len(activity)
    return [Unit(name, index, *both) for index, both in enumerate(zip(nats, activity, strict=True))]


def posterior_draws(
    model: LatentModel,
    rows: RowSet,
    units: Sequence[Unit],
    *,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    """A draw of some units from the posterior of every row, ``(N, U)``, in float64."""

    def run(x: Tensor, context: Tensor | None, seen: Tensor | None = None) -> Tensor:
        if not model.prior.proper:
            z = {FLAT: _flat(model, x, context, seen)}
        else:
            _, path = model.prior.draw_path(model.posterior(x, context, seen), context)
            z = {name: each[0] for name, each in path.z.items()}
        return torch.stack(
            [z[unit.level].flatten(1)[:, unit.index].double().cpu() for unit in units], 1
        )

    return torch.cat(in_chunks(model, rows, run, seed=seed, batch_size=batch_size))


@dataclass(frozen=True, eq=False)
class Code:
    """The code of one row, level by level in the order of the prior.

    Args:
        model: the model.
        context: what it is conditioned on, ``(1, ...)``.
        latents: the posterior mean of each latent, ``(1, *latent)``.
        laws: the prior of each latent given the codes above it; empty for a flat prior.
    """

    model: LatentModel
    context: Tensor | None
    latents: Mapping[str, Tensor]
    laws: Mapping[str, Distribution]

    @classmethod
    def of(cls, model: LatentModel, row: RowSet) -> Code:
        """The code of a single row."""
        x, context, seen = (
            None if each is None else each.to(model.device)
            for each in (row.x, row.context, row.observed)
        )
        assert x is not None
        if not model.prior.proper:
            return cls(model, context, {FLAT: _flat(model, x, context, seen)}, {})
        latents: dict[str, Tensor] = {}
        laws: dict[str, Distribution] = {}

        def keep(latent: Latent) -> Tensor:
            if latent.q is not None:
                with random.keyed(0, ids=row.ids):
                    latents[latent.name] = mean_or_draw(latent.q, latent.q.sample())
            return latents[latent.name]

        def note(step: tuple[str, Distribution]) -> Tensor:
            laws[step[0]] = step[1]
            return latents[step[0]]

        run_path(model.prior.infer(model.posterior(x, context, seen), context), keep)
        run_path(model.prior.generate(1, context), note)
        return cls(model, context, latents, laws)

    def law(self, unit: Unit | None = None, values: Tensor | None = None) -> Distribution:
        """``p(x | z)`` at the code, or with one unit at each of some values, ``(K,)``."""
        if unit is None or values is None:
            name = [FLAT, *self.laws][-1]
            return self._law(name, self.latents[name])
        code = self.latents[unit.level]
        moved = code.expand(len(values), *code.shape[1:]).flatten(1).clone()
        moved[:, unit.index] = values.to(moved)
        return self._law(unit.level, moved.reshape(-1, *code.shape[1:]))

    def _law(self, level: str, moved: Tensor) -> Distribution:
        n, prior = len(moved), self.model.prior
        context = self._repeated(n)
        if not self.laws:
            return self.model.law(prior.state_from(moved, context), context)
        above = True

        def take(step: tuple[str, Distribution]) -> Tensor:
            nonlocal above
            name, p = step
            if name == level:
                above = False
                return moved
            code = self.latents[name].expand(n, *self.latents[name].shape[1:])
            own = self.laws[name]
            if above or not (isinstance(p, Normal) and isinstance(own, Normal)):
                return code
            return p.mean + p.stddev * (code - own.mean) / own.stddev

        return self.model.law(run_path(prior.generate(n, context), take), context)

    def _repeated(self, n: int) -> Tensor | None:
        return None if self.context is None else self.context.expand(n, *self.context.shape[1:])

    def prior_quantiles(self, units: Sequence[Unit], at: Tensor, seed: int) -> Tensor:
        """Quantiles of each unit under its prior, given the codes above, ``(U, K)``, in float64."""
        found, drawn = [], {}
        for unit in units:
            p = self.laws[unit.level]
            if isinstance(p, Normal):
                mean, std = (
                    each.flatten()[unit.index].double().cpu() for each in (p.mean, p.stddev)
                )
                found.append(mean + std * torch.special.ndtri(at))
                continue
            if unit.level not in drawn:
                drawn[unit.level] = self._prior_draws(unit.level, seed)
            found.append(torch.quantile(drawn[unit.level][:, unit.index], at))
        return torch.stack(found)

    def _prior_draws(self, level: str, seed: int) -> Tensor:
        """Draws of a level from its prior, given the codes above, ``(_DRAWS, D)``."""
        path = self.model.prior.generate(_DRAWS, self._repeated(_DRAWS))
        name, p = next(path)
        while name != level:
            name, p = path.send(self.latents[name].expand(_DRAWS, *self.latents[name].shape[1:]))
        check_law(p, _DRAWS, p.event_shape, f"the prior of {level}", shared=True)
        with random.keyed(seed):
            z = sample_rows(p, _DRAWS)
        path.close()
        return z.flatten(1).double().cpu()
