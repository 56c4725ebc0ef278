"""The report of a model: each term of its bound, with a stamp and a standard error."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from genmod.data import Dataset
from genmod.elbo import Measure, Stamp
from genmod.evaluation.baselines import Baseline
from genmod.evaluation.scoring import Estimate, Scores

SHOWN = 12
"""Terms that a printed report lists; the others are counted."""


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    r"""A model (or a baseline) on held-out data, in nats per sample.

    It prints as a table; :meth:`to_dict` gives plain data.

    Args:
        name: what it is called.
        value: the log-likelihood, a bound on it or an estimate: see ``stamp``. For a model
            without a bound, the reconstruction.
        stamp: exact, a bound, an estimate, or none of them.
        measure: what ``p(x)`` is.
        dims: how many numbers one sample holds.
        samples: how many samples were scored.
        terms: ``"reconstruction"`` and each rate (a cost). ``value`` is the first minus the others.
        importance: the importance-weighted bound of all draws, stamped ESTIMATE.
        importance_samples: its number of draws.
        evidence: floor and ceiling from the two halves of these draws, see :attr:`interval`.
        noise: the part of the value's standard error that comes from drawn latents and levels, from
            independent replicates; ``None`` for one.
        parameters: how many numbers the model learned.
        seconds: how long it trained.
        scores: the numbers of every sample, for figures.
        entropy_floor: the entropy of the data in nats a sample, where it is known: no model can cost less
            (see :func:`genmod.data.binarized`).
        structural: the cost above that floor, row by row: the part that a better model can reduce.
        remarks: what else a reader should know, in sentences.
    """

    name: str
    value: Estimate
    stamp: Stamp
    measure: Measure
    dims: int
    samples: int
    terms: Mapping[str, Estimate]
    importance: Estimate | None = None
    importance_samples: int = 0
    evidence: tuple[Estimate, Estimate] | None = None
    noise: float | None = None
    parameters: int = 0
    seconds: float | None = None
    scores: Scores | None = None
    entropy_floor: float | None = None
    structural: Estimate | None = None
    remarks: tuple[str, ...] = ()

    @classmethod
    def of_baseline(
        cls, baseline: Baseline, dims: int, measure: Measure, data: Dataset | None = None
    ) -> Report:
        """The report of a baseline: one number a sample, no terms.

        Args:
            baseline: what it costs each row.
            dims: how many numbers one sample holds.
            measure: whether it is a density or a mass.
            data: the data set whose test part it was measured on.
        """
        entropy = None if data is None else data.entropy
        return cls(
            baseline.name,
            Estimate.of(baseline.log_prob),
            baseline.stamp,
            measure,
            dims,
            len(baseline.log_prob),
            terms={},
            entropy_floor=None if entropy is None else float(entropy.mean()),
            structural=structural(baseline.log_prob, entropy),
        )

    @property
    def interval(self) -> tuple[Estimate, Estimate] | None:
        r"""The evidence interval: a floor and a ceiling of the mean ``log p(x)``; ``None``: no claim.

        With importance samples, the draws of each row are cut into halves. The floor of one is its
        importance-weighted bound ``c``; the other half's unbiased average ``w`` of ``p(x)`` gives
        the ceiling, since for any ``c``

        .. math:: \log p(x) \le c + p(x) e^{-c} - 1 = \mathbb{E}[c + w e^{-c} - 1].

        The halves swap roles and both are averaged. In the mean the floor lies below and the ceiling
        above, whatever the posterior; a posterior that misses a part of the latents is not noticed.
        Without importance samples the floor is the value, and the ceiling is what is always true:
        0 for a mass, infinity for a density. An exact value is both. Where the value is an estimate,
        so are the ends.

        Reference: Struski et al., "Bounding evidence and estimating log-likelihood in VAE" (2022).
        """
        if self.stamp is Stamp.NONE:
            return None
        if self.evidence is not None:
            return self.evidence
        if self.stamp is Stamp.EXACT:
            return self.value, self.value
        mass = self.measure is Measure.MASS
        return self.value, Estimate(0.0, 0.0) if mass else Estimate(math.inf, math.inf)

    @property
    def bits_per_dim(self) -> Estimate | None:
        """The value as a code length, for a mass; ``None`` otherwise."""
        return self._bits(self.value)

    @property
    def importance_bits_per_dim(self) -> Estimate | None:
        """The importance-weighted bound as a code length, for a mass."""
        return None if self.importance is None else self._bits(self.importance)

    def _bits(self, nats: Estimate) -> Estimate | None:
        if self.measure is not Measure.MASS:
            return None
        return nats.times(-1 / (self.dims * math.log(2)))

    def to_dict(self) -> dict[str, object]:
        """Everything but the single samples, as plain data for JSON."""
        ends = self.interval
        weighted = None
        if self.importance is not None:
            weighted = {
                "stamp": Stamp.ESTIMATE.value,
                "samples": self.importance_samples,
                "nats": _pair(self.importance),
                "bits_per_dim": _pair(self.importance_bits_per_dim),
            }
        return {
            "name": self.name,
            "stamp": self.stamp.value,
            "measure": self.measure.value,
            "nats": _pair(self.value),
            "bits_per_dim": _pair(self.bits_per_dim),
            "interval": None if ends is None else [_pair(end) for end in ends],
            "entropy_floor": self.entropy_floor,
            "structural": _pair(self.structural),
            "terms": {name: _pair(term) for name, term in self.terms.items()},
            "importance_weighted": weighted,
            "noise": self.noise,
            "dims": self.dims,
            "samples": self.samples,
            "parameters": self.parameters,
            "seconds": self.seconds,
            "remarks": list(self.remarks),
        }

    # ------------------------------------------------------------------ display

    def __repr__(self) -> str:
        bits = self.bits_per_dim
        also = "" if bits is None else f", {bits.mean:.3f} bits/dim"
        return f"<Report of {self.name}: {self.stamp.value} {self.value} nats{also}>"

    def __str__(self) -> str:
        lines = [f"{self.name}: {self._of()}"[:80]]
        for name, nats, bits in self._lines():
            lines.append(f"  {name[:30]:<30} {nats:>22}  {bits:>22}".rstrip())
        for remark in self._remarks():
            lines += textwrap.wrap(remark, 78, initial_indent="  ", subsequent_indent="  ")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
            for line in self._lines()
        )
        notes = "".join(f"<p>{html.escape(remark)}</p>" for remark in self._remarks())
        caption = html.escape(f"{self.name}: {self._of()}")
        return f"<table><caption>{caption}</caption>{cells}</table>{notes}"

    def _of(self) -> str:
        return f"{self.samples} samples of {self.dims} numbers, nats a sample"

    def _lines(self) -> list[tuple[str, str, str]]:
        """Name, nats and bits/dim of each line of the table."""
        bits = self.bits_per_dim
        named = list(self.terms.items()) if len(self.terms) > 1 else []
        lines = [
            (name if place == 0 else f"- {name}", str(term), "")
            for place, (name, term) in enumerate(named[:SHOWN])
        ]
        if len(named) > SHOWN:
            lines.append((f"- {len(named) - SHOWN} more", "", ""))
        what = "reconstruction" if self.stamp is Stamp.NONE else f"log p(x), {self.stamp.value}"
        lines.append((what, str(self.value), "" if bits is None else _in_bits(bits)))
        if self.noise is not None:
            lines.append(("  its noise of draws alone", f"± {self.noise:.2f}", ""))
        if self.importance is not None:
            weighted = self.importance_bits_per_dim
            lines.append((
                f"importance-weighted, {self.importance_samples}",
                str(self.importance),
                "" if weighted is None else _in_bits(weighted),
            ))  # fmt: skip
        if self.evidence is not None:
            floor, ceiling = self.evidence
            vacuous = ceiling.mean == 0 or math.isinf(ceiling.mean)
            lines.append(("interval: floor", str(floor), ""))
            lines.append(("interval: ceiling", "vacuous" if vacuous else str(ceiling), ""))
        if self.structural is not None:
            lines.append(("above the data's entropy", str(self.structural), ""))
        return lines

    def _remarks(self) -> list[str]:
        spent = [] if not self.parameters else [f"{self.parameters:,} parameters."]
        return [*self.remarks, *spent]


def structural(log_prob: Tensor, entropy: Tensor | None) -> Estimate | None:
    """What values cost above the entropy of each row's noise; the error is that of the differences."""
    return None if entropy is None else Estimate.of(-log_prob - entropy.to(log_prob))


def _pair(estimate: Estimate | None) -> dict[str, float] | None:
    if estimate is None:
        return None
    return {"mean": estimate.mean, "standard_error": estimate.error}


def _in_bits(bits: Estimate) -> str:
    return f"{bits.mean:.3f} ± {bits.error:.3f} bits/dim"
