"""Reports and scores as files have them, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genmod.elbo import Measure, Stamp
from genmod.evaluation import Estimate, Report, Scores

_CLAIMS = tuple(Stamp)


def report_from(content: Mapping[str, Any], scores: Scores | None = None) -> Report:
    """The report that :meth:`~genmod.evaluation.Report.to_dict` has written down.

    Args:
        content: what it wrote.
        scores: the numbers of every sample, which it leaves out.
    """
    weighted = content["importance_weighted"]
    return Report(
        name=content["name"],
        value=_estimate(content["nats"]),
        stamp=Stamp(content["stamp"]),
        measure=Measure(content["measure"]),
        dims=content["dims"],
        samples=content["samples"],
        terms={name: _estimate(term) for name, term in content["terms"].items()},
        importance=None if weighted is None else _estimate(weighted["nats"]),
        importance_samples=0 if weighted is None else weighted["samples"],
        evidence=None if weighted is None else _ends(content["interval"]),
        noise=content["noise"],
        parameters=content["parameters"],
        seconds=content["seconds"],
        scores=scores,
        entropy_floor=content["entropy_floor"],
        structural=None if content["structural"] is None else _estimate(content["structural"]),
        remarks=tuple(content["remarks"]),
    )


def _ends(ends: Sequence[Mapping[str, float]]) -> tuple[Estimate, Estimate]:
    return _estimate(ends[0]), _estimate(ends[1])


def _estimate(pair: Mapping[str, float]) -> Estimate:
    return Estimate(pair["mean"], pair["standard_error"])


def tensors_of(scores: Scores) -> dict[str, Tensor]:
    """Scores as named tensors."""
    named = {
        "reconstruction": scores.reconstruction,
        "stamp": torch.tensor(_CLAIMS.index(scores.stamp)),
    }
    named |= {f"rates.{name}": nats for name, nats in scores.rates.items()}
    named |= {f"per_dim.{name}": nats for name, nats in scores.per_dim.items()}
    if scores.levels is not None:
        named |= {f"levels.{place}": each for place, each in enumerate(scores.levels)}
    return {name: tensor.contiguous() for name, tensor in named.items()}


def scores_from(named: Mapping[str, Tensor], measure: Measure) -> Scores:
    """The scores that :func:`tensors_of` has named."""
    levels = None
    if "levels.0" in named:
        levels = named["levels.0"], named["levels.1"], named["levels.2"]
    return Scores(
        reconstruction=named["reconstruction"],
        rates=_under("rates.", named),
        per_dim=_under("per_dim.", named),
        levels=levels,
        stamp=_CLAIMS[int(named["stamp"])],
        measure=measure,
    )


def _under(prefix: str, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in named.items() if n.startswith(prefix)}
