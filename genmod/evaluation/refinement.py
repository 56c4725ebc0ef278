r"""What the last step of a code pays for: ``x`` told from coarse to fine by the decoder's own masses.

Symbols: :math:`C_w(x)` the cell of ``w`` neighboring levels that holds ``x``, entry by entry. Because

.. math:: -\log p(x \mid z) = -\log P(C_w(x) \mid z) - \log P(x \mid C_w(x), z)

a receiver may be told the cells first. It then knows ``x`` with an error, that of the mean of
:math:`p(x \mid C_w(x), z)`, and has paid only the first term: points of rate and distortion between
the state, where nothing is told (one cell), and ``x`` itself (cells of one level).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod import random
from genmod.checks import require
from genmod.distributions.base import elementwise
from genmod.evaluation.scoring import evaluating
from genmod.model import LatentModel
from genmod.shapes import size
from genmod.spec import Bins

ROWS = 32
"""Samples whose levels are all weighed together: 25 MB for each 256 levels of 28 by 28 pixels."""


@dataclass(frozen=True, eq=False)
class Refinement:
    """Rate and distortion inside a decoder; means over samples.

    Args:
        width: levels in a cell, from all of them to 1, ``(C,)``.
        nats: what it costs to say which cell, ``(C,)``: from 0 to ``-log p(x | z)``.
        rmse: the root mean square error per dimension of what is then known, ``(C,)``, in the units
            of what is noised, [-1, 1].
    """

    width: Tensor
    nats: Tensor
    rmse: Tensor


def refinement(model: LatentModel, x: Tensor, seed: int = 0) -> Refinement:
    """Measure what a decoder's coarse and fine levels cost.

    Args:
        model: any model of integers whose decoder factorizes over their entries.
        x: data, ``(N, *event)``, on any device.
        seed: the key of the noise.

    Raises:
        ValueError: data without levels.

    >>> from genmod.models import Diffusion
    >>> found = refinement(Diffusion((4,), bins=17, width=8), torch.randint(0, 17, (32, 4)))
    >>> found.width.tolist(), bool((found.nats.diff() > 0).all()), float(found.rmse[-1])
    ([32, 16, 8, 4, 2, 1], True, 0.0)
    """
    model.decoder.check(x)
    count = model.decoder.bins
    require(
        count is not None,
        "a decoder of real numbers",
        "one of integers",
        "real numbers have no finest level: profile says how well each state knows them",
    )
    bins = Bins(count or 2)
    widths = [2**power for power in reversed(range((bins.count - 1).bit_length() + 1))]
    nats, square = [], []
    with evaluating(model):
        for start in range(0, len(x), ROWS):
            rows = x[start : start + ROWS].to(model.device)
            with random.keyed(seed, start=start, block=ROWS):
                state, _ = model.prior.rates(
                    model.posterior(rows), 1 if model.prior.has_timesteps else None
                )
            found = _cells(model.decoder(state), rows, bins, widths)
            nats.append(found[0])
            square.append(found[1])
    return Refinement(
        torch.tensor(widths),
        torch.cat(nats, 1).mean(1),
        (torch.cat(square, 1).mean(1) / size(model.decoder.shape)).sqrt(),
    )


def _cells(law: Distribution, x: Tensor, bins: Bins, widths: list[int]) -> tuple[Tensor, Tensor]:
    """For cells of each width: nats and squared errors of each row, ``(C, B)``, on the CPU."""
    levels = torch.arange(bins.count, device=x.device)
    masses = torch.stack([elementwise(law, torch.full_like(x, k)) for k in range(bins.count)])
    masses, real = masses.flatten(2), bins.center(x).flatten(1)
    nats, square = [], []
    for width in widths:
        inside = (levels // width)[:, None, None] == (x // width).flatten(1)
        kept = masses.masked_fill(~inside, -torch.inf)
        paid = kept.logsumexp(0)
        mean = torch.einsum("kbd,k->bd", (kept - paid).exp(), bins.center(levels).to(paid.dtype))
        nats.append(-paid.double().sum(1).cpu())
        square.append((mean - real).double().square().sum(1).cpu())
    return torch.stack(nats), torch.stack(square)
