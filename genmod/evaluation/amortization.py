"""The amortization gap: how much tighter the bound is if each row's posterior is fitted to that row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.checks import check_at_least, check_positive, invalid, whole_number
from genmod.distributions import Normal
from genmod.distributions.flow import NormalizingFlow
from genmod.distributions.normal import FullCovarianceNormal
from genmod.elbo import ELBO
from genmod.encoders import Encoder, Posterior
from genmod.encoders.topdown import TopDownPosterior
from genmod.evaluation.batching import Ids, RowSet, in_chunks
from genmod.evaluation.scoring import Estimate
from genmod.model import LatentModel, Request
from genmod.path import repeated
from genmod.random.streams import rewound
from genmod.signatures import checked
from genmod.tensors import PerSample

_DRAWS = 64
"""Draws of the latents from which each of the two bounds is estimated."""
_DECAY = (0.9, 0.99)
"""Of Adam's averages of a gradient and of its square."""


@dataclass(frozen=True, eq=False, repr=False)
class AmortizationGap:
    r"""What is lost because one encoder gives every row its posterior, in nats per sample.

    .. math:: \underbrace{\log p(x) - L(q)}_\text{inference gap} =
        \underbrace{\log p(x) - L(q^*_x)}_\text{approximation gap} +
        \underbrace{L(q^*_x) - L(q)}_\text{amortization gap}

    with :math:`q^*_x` the best posterior of the same family for the row ``x``.

    Args:
        amortized: the bound under the encoder's posterior.
        refined: the bound under the posterior that was refined for each row.
        gap: the amortization gap, from the same noise in both.
        approximation: the approximation gap, at least: the importance-weighted bound under the refined
            posterior minus ``refined``. ``None`` without importance samples.
        per_row: the amortization gap of each row, ``(N,)``.

    Reference: Cremer, Li, Duvenaud, "Inference Suboptimality in Variational Autoencoders" (2018), eqs. 5-7.
    """

    amortized: Estimate
    refined: Estimate
    gap: Estimate
    approximation: Estimate | None
    per_row: PerSample

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the mean and the standard error of each number, nats per sample."""
        found = {"amortized": self.amortized, "refined": self.refined, "gap": self.gap}
        if self.approximation is not None:
            found["approximation"] = self.approximation
        return {name: {"mean": e.mean, "standard_error": e.error} for name, e in found.items()}

    def __repr__(self) -> str:
        lines = [
            f"Amortization gap of {len(self.per_row)} rows, nats per sample:",
            f"  bound, the encoder's posterior     {self.amortized}",
            f"  bound, refined for each row        {self.refined}",
            f"  amortization gap                   {self.gap}",
        ]
        if self.approximation is not None:
            lines += [f"  approximation gap, at least        {self.approximation}"]
        return "\n".join(lines)


@checked
def amortization_gap(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    steps: int = 100,
    learning_rate: float = 0.1,
    draws: int = 4,
    importance_samples: int = 0,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    observed: object = None,
    progress: bool = False,
) -> AmortizationGap:
    r"""Refine the posterior of each row by gradient ascent on its own bound, and report what that gains.

    The parameters of :math:`q(z | x)` start at the encoder's output. Adam then raises

    .. math:: L(\lambda) = \mathbb{E}_{q_\lambda}[\log p(x | z)] - \mathrm{KL}(q_\lambda \| p)

    for each row alone; the model stays as it is. Both bounds are then estimated from the same new draws.

    Args:
        model: a model whose encoder gives a Gaussian (diagonal or full) or a normalizing flow, or whose
            hierarchy is top-down (its features are refined). Of a bottom-up one, ``q(z1 | x)`` is.
        data: a data set, whose test part is used, or rows ``(N, *event)``; some hundreds are enough.
        context: what the model is conditioned on, one row per sample.
        steps: of gradient ascent.
        learning_rate: of the first step, in units of the posterior's std; it falls to 0.
        draws: draws of the latents for each gradient.
        importance_samples: draws for the approximation gap; 0: it is left out.
        seed: the seed of the noise.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row, on which its noise depends.
        observed: which entries are not missing, like the rows; by default what the data state.
        progress: whether to show a progress bar.

    Raises:
        ValueError: a posterior that cannot be refined (a point, or a fixed one).

    Reference: Kim, Wiseman, Miller, Sontag, Rush, "Semi-Amortized Variational Autoencoders" (2018), section
    3; Cremer, Li, Duvenaud (2018), section 5.

    >>> from genmod.models import VAE
    >>> found = amortization_gap(VAE(2, latents=1, width=8), torch.randn(8, 2), steps=5)
    >>> found.per_row.shape
    torch.Size([8])
    """
    rows = RowSet.of(model, data, context, ids=ids, observed=observed, masked=True)
    plan = PosteriorRefinement(model, steps, learning_rate, draws, importance_samples)
    amortized, refined, evidence = plan.of_rows(rows, seed, batch_size, progress)
    approximation = Estimate.of(evidence - refined) if importance_samples else None
    return AmortizationGap(
        Estimate.of(amortized),
        Estimate.of(refined),
        Estimate.of(refined - amortized),
        approximation,
        refined - amortized,
    )


@dataclass(frozen=True)
class PosteriorRefinement:
    """How the posterior of each row is refined; the settings are those of :func:`amortization_gap`."""

    model: LatentModel
    steps: int
    rate: float = 0.1
    draws: int = 4
    importance_samples: int = 0

    def __post_init__(self) -> None:
        check_at_least(whole_number(self.steps, "steps"), 1, "steps", "100 is the default")
        check_at_least(whole_number(self.draws, "draws"), 1, "draws", "4 is the default")
        check_at_least(self.importance_samples, 0, "importance_samples", "0 is none")
        check_positive(self.rate, "learning_rate")
        # In float16 a gradient of a very deep hierarchy is infinite.
        self.model.check_full_precision("refine")

    def of_rows(
        self, rows: RowSet, seed: int = 0, batch_size: int | None = None, progress: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Three bounds of each row, ``(N,)``: the encoder's, the refined one, and the weighted one."""
        pieces = in_chunks(
            self.model, rows, self._of_chunk, seed=seed, batch_size=batch_size,
            copies=200 * self.draws, progress="refinement" if progress else None,
        )  # fmt: skip
        first, refined, weighted = map(torch.cat, zip(*pieces, strict=True))
        return rows.restore_order(first), rows.restore_order(refined), rows.restore_order(weighted)

    def _of_chunk(
        self, x: Tensor, context: Tensor | None, observed: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        start = self.model.posterior(x, context, observed)
        build, leaves = _free_parameters(start)

        def elbo(values: list[Tensor], draws: int) -> Tensor:
            many, request = repeated(x, Request(context, observed, samples=draws))
            posterior = build([v.repeat(draws, *[1] * (v.ndim - 1)) for v in values])
            request = Request(request.context, request.observed)
            bound: ELBO = _under(self.model, posterior)(many, request)[0]
            return bound.value.reshape(draws, -1).mean(0)

        best = _ascend(lambda values: elbo(values, self.draws), leaves, self.steps, self.rate)
        with rewound():
            before = elbo([torch.zeros_like(leaf) for leaf in leaves], _DRAWS)
        after = elbo(best, _DRAWS)
        weighted = after
        if self.importance_samples:
            refined = _under(self.model, build(best))
            logs = [
                refined.log_weight(x, context, observed) for _ in range(self.importance_samples)
            ]
            weighted = torch.stack(logs).logsumexp(0) - math.log(self.importance_samples)
        return before.double().cpu(), after.double().cpu(), weighted.double().cpu()


def _ascend(
    value: Callable[[list[Tensor]], Tensor], leaves: list[Tensor], steps: int, rate: float
) -> list[Tensor]:
    """Adam on each entry alone, so that a row's result does not depend on its batch."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    means = [torch.zeros_like(leaf) for leaf in leaves]
    squares = [torch.zeros_like(leaf) for leaf in leaves]
    first, second = _DECAY
    for step in range(1, steps + 1):
        with torch.enable_grad():
            gradients = torch.autograd.grad(value(leaves).sum(), leaves, allow_unused=True)
        size = rate * (1 - (step - 1) / steps)
        for leaf, gradient, mean, square in zip(leaves, gradients, means, squares, strict=True):
            if gradient is None:
                continue
            mean.lerp_(gradient, 1 - first)
            square.lerp_(gradient.square(), 1 - second)
            scale = (square / (1 - second**step)).sqrt() + 1e-8
            leaf.data += size * (mean / (1 - first**step)) / scale
    return [leaf.detach() for leaf in leaves]


_Build = Callable[[list[Tensor]], "Posterior | Distribution"]


def _free_parameters(q: Posterior | Distribution) -> tuple[_Build, list[Tensor]]:
    """A posterior as a function of free numbers, all zero at first, a row of each for a row of data.

    Means move in units of the posterior's std, so that one learning rate suits all of them.
    """
    if isinstance(q, Normal):
        return _around([q.loc, q.log_std], q.log_std.exp(), Normal)
    if isinstance(q, NormalizingFlow):
        given = [q.loc, q.log_std] + ([] if q.context is None else [q.context])
        return _around(given, q.log_std.exp(), lambda *v: NormalizingFlow(q.transform, *v))
    if isinstance(q, FullCovarianceNormal):
        size = q.tril.shape[-1]
        row, column = torch.tril_indices(size, size, -1, device=q.tril.device)
        given = [q.loc, q.tril.diagonal(dim1=1, dim2=2).log(), q.tril[:, row, column]]
        return _around(given, q.variance.sqrt(), FullCovarianceNormal.of)
    if isinstance(q, TopDownPosterior):
        return _top_down(q)
    raise invalid(
        f"a posterior of type {type(q).__name__}",
        "a Gaussian, a normalizing flow, or a top-down posterior, whose parameters can be refined",
        "pass a VAE or an HVAE",
    )


def _around(
    start: list[Tensor], unit: Tensor, law: Callable[..., Distribution]
) -> tuple[_Build, list[Tensor]]:
    """A law of tensors that begin at ``start``, the first of them moving in some unit."""
    start = [each.detach().clone() for each in start]
    # Copies of a row follow each other batch by batch.
    unit = unit.detach()

    def build(moves: list[Tensor]) -> Distribution:
        copies = len(moves[0]) // len(unit)
        first, *others = (_copied(each, copies) for each in start)
        return law(
            first + _copied(unit, copies) * moves[0],
            *(a + b for a, b in zip(others, moves[1:], strict=True)),
        )

    return build, [torch.zeros_like(each) for each in start]


def _top_down(q: TopDownPosterior) -> tuple[_Build, list[Tensor]]:
    start = [each.detach() for each in q.features]

    def build(moves: list[Tensor]) -> TopDownPosterior:
        copies = len(moves[0]) // len(start[0])
        features = [_copied(a, copies) + b for a, b in zip(start, moves, strict=True)]
        context = None if q.context is None else _copied(q.context, copies)
        return replace(q, features=features, context=context)

    return build, [torch.zeros_like(each) for each in start]


def _copied(each: Tensor, copies: int) -> Tensor:
    return each.repeat(copies, *[1] * (each.ndim - 1))


class _Given(Encoder):
    """An encoder that gives one posterior, whatever the data are."""

    def __init__(self, encoder: Encoder, posterior: Posterior | Distribution) -> None:
        super().__init__(encoder.spec)
        self.latent_shape, self._posterior = encoder.latent_shape, posterior

    def forward(
        self, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
    ) -> Posterior | Distribution:
        """The posterior that was given."""
        return self._posterior


def _under(model: LatentModel, posterior: Posterior | Distribution) -> LatentModel:
    """The same decoder and prior under another posterior."""
    return LatentModel(_Given(model.encoder, posterior), model.decoder, model.prior)
