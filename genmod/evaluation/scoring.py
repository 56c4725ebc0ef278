"""The bound of every sample of a data set, with noise that is the same however it is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genmod import random
from genmod.checks import require, trusted
from genmod.elbo import ELBO, Measure, Stamp
from genmod.model import LatentModel
from genmod.nn import check_context
from genmod.types import PerSample

BATCH = 256
"""Rows scored together, and drawn together: part of the key of the noise."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What a model says of ``N`` samples.

    Args:
        reconstruction: ``log p(x | z)``, ``(N,)`` nats.
        rates: what each group of latents costs, ``(N,)`` nats, by name.
        units: the mean cost of each dimension of a latent, ``(U,)`` nats, where it is known.
        levels: of a diffusion that visits every level: ``(t, log_snr, mean nats)``, each ``(L,)``.
        complete: whether every level of every latent was visited.
        measure: what ``p(x)`` is.
    """

    reconstruction: PerSample
    rates: Mapping[str, PerSample]
    units: Mapping[str, Tensor]
    levels: tuple[Tensor, Tensor, Tensor] | None
    complete: bool
    measure: Measure

    @property
    def value(self) -> PerSample:
        """The bound of each sample: the reconstruction minus every rate."""
        return self.reconstruction - sum(self.rates.values(), torch.zeros_like(self.reconstruction))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; each part's own mode is put back afterwards."""
    was = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in was:
            module.training = mode


def score(
    model: LatentModel,
    x: Tensor,
    context: Tensor | None = None,
    *,
    draws: int | None = None,
    seed: int = 0,
) -> Scores:
    """The bound of each row of ``x``, one draw of the latents each.

    Args:
        model: any model.
        x: data, ``(N, *event)``, on any device.
        context: what the model is told beside each sample.
        draws: how many levels of a diffusion each sample visits; ``None`` visits all.
        seed: the key of the noise: equal seeds compare models on equal noise.

    Returns:
        The terms of the bound, on the CPU, in float64.

    Raises:
        ValueError: data that the model cannot score.
    """
    require(len(x) >= 1, "no data", "at least one sample", "check the split")
    model.decoder.check(x)
    check_context(model, context)
    device = model.device
    pieces: list[ELBO] = []
    with evaluating(model), trusted():
        for start in range(0, len(x), BATCH):
            rows = slice(start, start + BATCH)
            told = None if context is None else context[rows].to(device)
            with random.keyed(seed, start=start, block=BATCH):
                pieces.append(
                    model.elbo(
                        x[rows].to(device), draws if model.prior.has_timesteps else None, told
                    )
                )
    return _gather(pieces, draws)


def log_weights(
    model: LatentModel, x: Tensor, context: Tensor | None = None, *, draws: int, seed: int = 0
) -> Tensor:
    """``draws`` importance log-weights of each row, ``(N, draws)``, on the CPU, in float64.

    Raises:
        ValueError: the model has no finite path of latents, or no prior.
    """
    require(draws >= 1, f"draws={draws}", "at least one", "100 to 5000 are customary")
    model.decoder.check(x)
    check_context(model, context)
    device = model.device
    columns = []
    with evaluating(model), trusted():
        for draw in range(draws):
            rows = []
            for start in range(0, len(x), BATCH):
                part = slice(start, start + BATCH)
                told = None if context is None else context[part].to(device)
                with random.keyed(random.mix(seed, draw), start=start, block=BATCH):
                    rows.append(model.log_weight(x[part].to(device), told))
            columns.append(torch.cat(rows).cpu().double())
    return torch.stack(columns, 1)


def _gather(pieces: list[ELBO], draws: int | None) -> Scores:
    """The rows of every batch together, its levels and units as means over rows."""
    total = sum(len(piece.reconstruction) for piece in pieces)
    first = pieces[0]

    def rows(values: list[Tensor]) -> Tensor:
        return torch.cat(values).cpu().double()

    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack([v.double().sum(0) for v in values]).sum(0).cpu() / total

    units: dict[str, Tensor] = {}
    levels = None
    for name, rate in first.rates.items():
        if rate.per_dim is not None:
            joined = [piece.rates[name].per_dim for piece in pieces]
            columns = zip(*(each for each in joined if each is not None), strict=True)
            names = rate.names or (name,)
            units |= {key: mean(list(each)) for key, each in zip(names, columns, strict=True)}
        if rate.noise is not None and draws is None:
            nats = mean([piece.rates[name].nats for piece in pieces])
            levels = rate.level[0].cpu(), rate.noise.log_snr[0].cpu(), nats
    return Scores(
        rows([piece.reconstruction for piece in pieces]),
        {
            level.name: rows([piece.levels()[i].nats for piece in pieces])
            for i, level in enumerate(first.levels())
        },
        units,
        levels,
        first.stamp is not Stamp.ESTIMATE,
        first.measure,
    )
