"""The evaluation report: each term of the bound in nats, with a standard error and a stamp."""

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
"""How many terms a printed report lists at most."""


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    r"""The evaluation of a model (or a baseline) on held-out data, in nats per sample.

    ``print(report)`` shows a table; :meth:`to_dict` gives plain data for JSON.

    .. math:: \text{value} = \text{reconstruction} - \sum_{\text{rates}} \text{rate}

    Args:
        name: the name of the model.
        value: the mean log-likelihood, or a bound on it, or an estimate; see ``stamp``. For a model
            without a bound (an autoencoder) it is the reconstruction.
        stamp: what ``value`` is: exact, a bound, an estimate, or none of these.
        measure: whether ``p(x)`` is a mass or a density.
        dims: the number of entries of one sample.
        samples: how many samples were scored.
        terms: ``"reconstruction"`` and each rate, by name.
        importance: the importance-weighted bound from all draws; its stamp is always "estimate".
        importance_samples: the number of draws.
        evidence: the floor and the ceiling from the two halves of the draws; see :attr:`interval`.
        pareto_k: the shape of the tail of the importance weights; above 0.7 the ceiling is vacuous.
            ``None`` without weights, with too few of them, or with equal ones.
        refined: the bound under a posterior that was refined for each row; ``None``: not asked for.
        refine_steps: the number of steps of that refinement.
        noise: the part of the error of ``value`` that comes from the draws of latents and levels. It is
            measured between replicates, and ``None`` if there is one alone.
        parameters: the number of parameters of the model.
        seconds: the training time.
        scores: the terms of every sample, for figures and paired differences.
        entropy_floor: the entropy of the data in nats per sample, where it is known: no model can need
            fewer nats on average (see :func:`genmod.data.binarized`).
        structural: the nats above that floor, which a better model could save.
        remarks: warnings and notes, in sentences.
        change_of_units: the part of the reconstruction that standardized columns of a table contribute.
        in_nats: whether bits per dimension mean nothing, because entries are columns of several kinds.

    >>> import torch
    >>> from genmod import evaluate
    >>> from genmod.models import VAE
    >>> report = evaluate(VAE(2, latents=1, width=8), torch.randn(64, 2))
    >>> rebuilt = report.terms["reconstruction"].mean - report.terms["prior"].mean
    >>> report.stamp.value, abs(report.value.mean - rebuilt) < 1e-5, report.bits_per_dim
    ('bound', True, None)
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
    pareto_k: float | None = None
    refined: Estimate | None = None
    refine_steps: int = 0
    noise: float | None = None
    parameters: int = 0
    seconds: float | None = None
    scores: Scores | None = None
    entropy_floor: float | None = None
    structural: Estimate | None = None
    remarks: tuple[str, ...] = ()
    change_of_units: Estimate | None = None
    in_nats: bool = False

    @classmethod
    def of_baseline(
        cls, baseline: Baseline, dims: int, measure: Measure, data: Dataset | None = None
    ) -> Report:
        """The report of a baseline, which has one number per sample and no terms.

        Args:
            baseline: the log-likelihood of each row.
            dims: the number of entries of one sample.
            measure: whether it is a density or a mass.
            data: the data set whose test part was scored.
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
        r"""The evidence interval: a floor and a ceiling of the mean ``log p(x)``.

        With importance samples, the draws of each row are split into two halves. The first half gives the
        floor, its importance-weighted bound ``c``. The mean ``w`` of the weights in the second half is an
        unbiased estimate of ``p(x)`` and gives the ceiling, because for any ``c``

        .. math:: \log p(x) \le c + p(x) e^{-c} - 1 = \mathbb{E}[c + w e^{-c} - 1].

        Then the halves swap roles, and the results are averaged. On average the floor lies below
        ``log p(x)`` and the ceiling above it, for every posterior. Each gap shrinks like
        :math:`\chi^2 / 2k`, with ``k`` draws in a half and :math:`\chi^2` the divergence of ``p(z | x)``
        from ``q``. The error of each end counts rows and draws. For a mass, a mean above 0 is cut to 0.

        The interval is evidence, no certificate: from finitely many draws one cannot see that a posterior
        misses a part of the latents, and then the measured ceiling is too low. If the weights are heavy
        (:attr:`pareto_k`), the ceiling is *vacuous*: infinite, and so is its error.

        Without importance samples the floor is ``value``, and the ceiling is the trivial one: 0 for a
        mass, infinity for a density. If ``value`` is exact, it is both ends. If it
        is an estimate, so are the ends. A model that bounds nothing has ``None``.

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
        r"""The code length ``-value / (dims log 2)`` of a mass; ``None`` for a density."""
        return self._bits(self.value)

    @property
    def importance_bits_per_dim(self) -> Estimate | None:
        """The same of the importance-weighted bound."""
        return None if self.importance is None else self._bits(self.importance)

    @property
    def refined_bits_per_dim(self) -> Estimate | None:
        """The same of the bound under refined posteriors."""
        return None if self.refined is None else self._bits(self.refined)

    def _bits(self, nats: Estimate) -> Estimate | None:
        if self.measure is not Measure.MASS or self.in_nats:
            return None
        return nats.scaled(-1 / (self.dims * math.log(2)))

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON: everything except the scores of single samples."""
        ends = self.interval
        weighted = None
        if self.importance is not None:
            weighted = {
                "stamp": Stamp.ESTIMATE.value,
                "samples": self.importance_samples,
                "nats": _pair(self.importance),
                "bits_per_dim": _pair(self.importance_bits_per_dim),
                "pareto_k": self.pareto_k,
            }
        refined = None
        if self.refined is not None:
            refined = {
                "steps": self.refine_steps,
                "nats": _pair(self.refined),
                "bits_per_dim": _pair(self.refined_bits_per_dim),
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
            "refined": refined,
            "importance_weighted": weighted,
            "change_of_units": _pair(self.change_of_units),
            "in_nats": self.in_nats,
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
        if self.change_of_units is not None and lines:
            lines.insert(1, ("  of which change of units", str(self.change_of_units), ""))
        if len(named) > SHOWN:
            lines.append((f"- {len(named) - SHOWN} more", "", ""))
        what = "reconstruction" if self.stamp is Stamp.NONE else f"log p(x), {self.stamp.value}"
        lines.append((what, str(self.value), _in_bits(bits)))
        if self.noise is not None:
            lines.append(("  error from latents and levels", f"± {self.noise:.2f}", ""))
        tighter = (
            (f"refined for each row, {self.refine_steps} steps", self.refined),
            (f"importance-weighted, {self.importance_samples}", self.importance),
        )
        for name, found in tighter:
            if found is not None:
                lines.append((name, str(found), _in_bits(self._bits(found))))
        if self.evidence is not None:
            floor, ceiling = self.evidence
            vacuous = math.isinf(ceiling.mean)
            lines.append(("interval: floor", str(floor), ""))
            tail = "" if self.pareto_k is None else f"Pareto k {self.pareto_k:.2f}"
            lines.append(("interval: ceiling", "vacuous" if vacuous else str(ceiling), tail))
        if self.structural is not None:
            lines.append(("above the data's entropy", str(self.structural), ""))
        return lines

    def _remarks(self) -> list[str]:
        spent = [] if not self.parameters else [f"{self.parameters:,} parameters."]
        return [*self.remarks, *spent]


def structural(log_prob: Tensor, entropy: Tensor | None) -> Estimate | None:
    """Nats above the entropy of each row's noise; the error is that of the row-wise differences."""
    return None if entropy is None else Estimate.of(-log_prob - entropy.to(log_prob))


def _pair(estimate: Estimate | None) -> dict[str, float] | None:
    if estimate is None:
        return None
    return {"mean": estimate.mean, "standard_error": estimate.error}


def _in_bits(bits: Estimate | None) -> str:
    return "" if bits is None else f"{bits.mean:.3f} ± {bits.error:.3f} bits/dim"
