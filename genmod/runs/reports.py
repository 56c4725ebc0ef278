"""Reports as files: ``report.json`` for programs, ``report.md`` for people; records, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmod.elbo import Measure, Stamp
from genmod.evaluation import Estimate, Report
from genmod.evaluation.scoring import Scores
from genmod.files import write_json, write_text

UNUSED = 0.05
"""A level of latents that costs fewer nats a sample carries no information: it is unused."""

_STAMPS = tuple(Stamp)
_EXPLAINED = """\
* `nats`: log-likelihood per sample (higher is better), ± its standard error over test samples.
* `bits/dim`: the same as a code length per pixel (lower is better); only a probability mass has one.
* `stamp`: **exact**, the log-likelihood itself; **bound**, at most that in the mean, every level
  visited; **estimate**, near it; **none**, it bounds nothing (an autoencoder's reconstruction).
* `terms`: the reconstruction, minus the cost of each group of latents.
"""
_ENTROPY = """\
* `entropy, nats`: the entropy of the noise in dynamic binarization. No model of bits costs less: `nats`
  can reach minus that, and no more.
"""
_BETTER_POSTERIORS = """\
* `bound, refined for each row`: the bound after gradient steps on the posterior of each test row alone. The
  model is the same; the difference is what one encoder for all rows loses.
"""
_FLOOR, _REFINED = "entropy, nats", "bound, refined for each row"


def unused(report: Report) -> list[str]:
    """The levels of a hierarchy that are collapsed: posterior and prior agree, so they carry nothing."""
    if report.measure is Measure.NONE or "steps" in report.terms:
        return []
    costs = {name: term.mean for name, term in report.terms.items() if name != "reconstruction"}
    return [name for name, cost in costs.items() if abs(cost) < UNUSED]


def row(report: Report) -> dict[str, str]:
    """One line of the table, by column."""
    bits, collapsed = report.bits_per_dim, unused(report)
    terms = [
        f"{name} {term.mean:.2f}" + (" (unused)" if name in collapsed else "")
        for name, term in report.terms.items()
    ]
    refined = weighted = "-"
    if report.refined is not None:
        also = report.refined_bits_per_dim
        refined = str(report.refined) + ("" if also is None else f" ({also.mean:.3f} bits/dim)")
    if report.importance is not None:
        weighted = f"{report.importance} (k={report.importance_samples})"
    return {
        "model": report.name,
        "bits/dim": "-" if bits is None else f"{bits.mean:.3f} ± {bits.error:.3f}",
        "nats": str(report.value),
        _FLOOR: "-" if report.entropy_floor is None else f"{report.entropy_floor:.2f}",
        "stamp": report.stamp.value,
        _REFINED: refined,
        "log p(x), importance-weighted": weighted,
        "terms, nats": " - ".join(terms) or "-",
        "parameters": f"{report.parameters:,}" if report.parameters else "-",
        "seconds": "-" if report.seconds is None else f"{report.seconds:.0f}",
    }


def table(reports: Sequence[Report]) -> list[dict[str, str]]:
    """The lines of the table, without the columns that would be empty."""
    rows = [row(report) for report in reports]
    empty = [name for name in (_FLOOR, _REFINED) if all(each[name] == "-" for each in rows)]
    return [{name: cell for name, cell in each.items() if name not in empty} for each in rows]


def write_report(
    path: Path, reports: Sequence[Report], settings: Mapping[str, object], notes: Sequence[str]
) -> Path:
    """All numbers, for programs."""
    content = {
        "settings": dict(settings),
        "models": [report.to_dict() | {"unused": unused(report)} for report in reports],
        "notes": list(notes),
    }
    return write_json(path, content)


def write_markdown(
    path: Path,
    reports: Sequence[Report],
    settings: Mapping[str, object],
    notes: Sequence[str],
    figures: Mapping[str, Path],
    title: str = "Comparison",
) -> Path:
    """The table and the figures, for people."""
    lines = [f"# {title}", ""]
    lines += [", ".join(f"{name}: {value}" for name, value in settings.items()), ""]
    rows = table(reports)
    lines += [_line(list(rows[0])), _line(["---"] * len(rows[0]))]
    lines += [_line(list(each.values())) for each in rows]
    notes_of = {_FLOOR: _ENTROPY, _REFINED: _BETTER_POSTERIORS}
    lines += ["", _EXPLAINED + "".join(notes_of[name] for name in rows[0] if name in notes_of)]
    if notes:
        lines += ["## Notes", "", *(f"* {note}" for note in notes), ""]
    for title, file in figures.items():
        lines += [f"## {title}", "", f"![{title}]({file.relative_to(path.parent).as_posix()})", ""]
    return write_text(path, "\n".join(lines))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


# ---------------------------------------------------------------------- records, and back


def report_from(content: Mapping[str, Any], scores: Scores | None = None) -> Report:
    """The report that :meth:`~genmod.evaluation.Report.to_dict` has written.

    Args:
        content: the plain data that it returned.
        scores: the scores of every row, which plain data leave out.
    """
    # Reports of earlier versions lack some of these.
    weighted, refined = content["importance_weighted"], content.get("refined")
    change = content.get("change_of_units")
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
        pareto_k=None if weighted is None else weighted.get("pareto_k"),
        refined=None if refined is None else _estimate(refined["nats"]),
        refine_steps=0 if refined is None else refined["steps"],
        noise=content["noise"],
        parameters=content["parameters"],
        seconds=content["seconds"],
        scores=scores,
        entropy_floor=content["entropy_floor"],
        structural=None if content["structural"] is None else _estimate(content["structural"]),
        remarks=tuple(content["remarks"]),
        change_of_units=None if change is None else _estimate(change),
        in_nats=content.get("in_nats", False),
    )


def _ends(ends: Sequence[Mapping[str, float]]) -> tuple[Estimate, Estimate]:
    return _estimate(ends[0]), _estimate(ends[1])


def _estimate(pair: Mapping[str, float]) -> Estimate:
    return Estimate(pair["mean"], pair["standard_error"])


def tensors_of(scores: Scores) -> dict[str, Tensor]:
    """Scores as named tensors."""
    stamp = torch.tensor(_STAMPS.index(scores.stamp))
    named = {"reconstruction": scores.reconstruction, "stamp": stamp}
    named |= {f"rates.{name}": nats for name, nats in scores.rates.items()}
    named |= {f"per_dim.{name}": nats for name, nats in scores.per_dim.items()}
    if scores.levels is not None:
        named |= {f"levels.{place}": each for place, each in enumerate(scores.levels)}
    return named


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
        stamp=_STAMPS[int(named["stamp"])],
        measure=measure,
    )


def _under(prefix: str, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in named.items() if n.startswith(prefix)}
