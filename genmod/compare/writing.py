"""A comparison as files: ``report.json`` for programs, ``report.md`` for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from genmod.compare.files import write_json, write_text
from genmod.evaluation import Report

_EXPLAINED = """\
* `nats`: log-likelihood per sample (higher is better), ± its standard error over test samples.
* `bits/dim`: the same as a code length per pixel (lower is better); a probability mass has one.
* `stamp`: **exact**, the log-likelihood itself; **bound**, at most that in the mean, every level
  visited; **estimate**, near it; **none**, it bounds nothing (an autoencoder's reconstruction).
* `terms`: the reconstruction, minus what each group of latents costs.
"""
_IRREDUCIBLE = """\
* `irreducible nats`: what the coin flips of dynamic binarization cost by themselves, which no model
  of bits can save: `nats` can reach minus that, and no more.
"""
_OPTIONAL = "irreducible nats"


def row(report: Report) -> dict[str, str]:
    """One line of the table, by column."""
    bits = report.bits_per_dim
    terms = [f"{name} {term.mean:.2f}" for name, term in report.terms.items()]
    weighted = "-"
    if report.importance is not None:
        weighted = f"{report.importance} (k={report.importance_samples})"
    return {
        "model": report.name,
        "bits/dim": "-" if bits is None else f"{bits.mean:.3f} ± {bits.error:.3f}",
        "nats": str(report.value),
        _OPTIONAL: "-" if report.entropy_floor is None else f"{report.entropy_floor:.2f}",
        "stamp": report.stamp.value,
        "log p(x), importance-weighted": weighted,
        "terms, nats": " - ".join(terms) or "-",
        "parameters": f"{report.parameters:,}" if report.parameters else "-",
        "seconds": "-" if report.seconds is None else f"{report.seconds:.0f}",
    }


def table(reports: Sequence[Report]) -> list[dict[str, str]]:
    """The lines of the table, without the column that only some data have."""
    rows = [row(report) for report in reports]
    if all(report.entropy_floor is None for report in reports):
        for each in rows:
            del each[_OPTIONAL]
    return rows


def write_report(reports: Sequence[Report], settings: Mapping[str, object], path: Path) -> Path:
    """All numbers, for programs."""
    content = {"settings": dict(settings), "models": [report.to_dict() for report in reports]}
    return write_json(path, content)


def write_markdown(
    reports: Sequence[Report],
    settings: Mapping[str, object],
    figures: Mapping[str, Path],
    path: Path,
) -> Path:
    """The table and the figures, for people."""
    lines = ["# Comparison", ""]
    lines += [", ".join(f"{name}: {value}" for name, value in settings.items()), ""]
    rows = table(reports)
    lines += [_line(list(rows[0])), _line(["---"] * len(rows[0]))]
    lines += [_line(list(each.values())) for each in rows]
    lines += ["", _EXPLAINED + (_IRREDUCIBLE if _OPTIONAL in rows[0] else "")]
    for title, file in figures.items():
        lines += [f"## {title}", "", f"![{title}]({file.relative_to(path.parent).as_posix()})", ""]
    return write_text(path, "\n".join(lines))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
