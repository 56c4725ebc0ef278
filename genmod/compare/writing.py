"""A comparison as files: ``report.json`` for programs, ``report.md`` for people."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from genmod.evaluation import Report

_EXPLAINED = """\
* `nats`: log-likelihood per sample (higher is better), ± its standard error over test samples.
* `bits/dim`: the same as a code length per pixel (lower is better); a probability mass has one.
* `stamp`: **exact**, the log-likelihood itself; **bound**, at most that in the mean, every level
  visited; **estimate**, near it; **none**, it bounds nothing (an autoencoder's reconstruction).
* `terms`: the reconstruction, minus what each group of latents costs.
"""


def row(report: Report) -> dict[str, str]:
    """One line of the table, by column."""
    bits = report.bits_per_dim
    terms = [f"{name} {term.mean:.2f}" for name, term in report.terms.items()]
    weighted = "-"
    if report.importance is not None:
        weighted = f"{report.importance} (k={report.importance_draws})"
    return {
        "model": report.name,
        "bits/dim": "-" if bits is None else f"{bits.mean:.3f} ± {bits.error:.3f}",
        "nats": str(report.value),
        "stamp": report.stamp.value,
        "log p(x), importance-weighted": weighted,
        "terms, nats": " - ".join(terms) or "-",
        "parameters": f"{report.parameters:,}" if report.parameters else "-",
        "seconds": "-" if report.seconds is None else f"{report.seconds:.0f}",
    }


def write_json(reports: Sequence[Report], settings: Mapping[str, object], path: Path) -> Path:
    """All numbers, for programs."""
    content = {"settings": dict(settings), "models": [report.to_dict() for report in reports]}
    return _write(path, json.dumps(content, indent=2) + "\n")


def write_markdown(
    reports: Sequence[Report],
    settings: Mapping[str, object],
    figures: Mapping[str, Path],
    path: Path,
) -> Path:
    """The table and the figures, for people."""
    lines = ["# Comparison", ""]
    lines += [", ".join(f"{name}: {value}" for name, value in settings.items()), ""]
    rows = [row(report) for report in reports]
    lines += [_line(list(rows[0])), _line(["---"] * len(rows[0]))]
    lines += [_line(list(each.values())) for each in rows]
    lines += ["", _EXPLAINED]
    for title, file in figures.items():
        lines += [f"## {title}", "", f"![{title}]({file.relative_to(path.parent).as_posix()})", ""]
    return _write(path, "\n".join(lines))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _write(path: Path, text: str) -> Path:
    """Beside its place first, then moved: nobody reads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".writing")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
    return path
