r"""Likelihood by the probability flow: of :math:`z_0` as a density, of ``x`` as a bound through it.

``log p_flow(z_0)`` is a *density of* :math:`z_0`, not of ``x``. For the data it gives

.. math:: \log p(x) \ge \mathbb{E}_{q(z_0|x)}[\log p(x|z_0) + \log p_\text{flow}(z_0) - \log q(z_0|x)],

the bound of a VAE with the diffusion's own Gaussian :math:`q(z_0|x)`. It holds for real data and for
integers: this dequantized bound can be compared with a diffusion's variational bound.

Reference: Song et al., "Score-based generative modeling through stochastic differential equations"
(2021), eq. 39; Song, Durkan, Murray, Ermon, "Maximum likelihood training of score-based diffusion
models" (2021), section 5.3, and Vahdat, Kreis, Kautz (2021), appendix G, for the dequantized bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genmod.checks import require
from genmod.chunks import COPIES
from genmod.diffusion.probability_flow import ProbabilityFlowPrior
from genmod.elbo import Stamp
from genmod.evaluation.batching import Ids, RowSet, in_chunks
from genmod.evaluation.evaluating import evaluate
from genmod.evaluation.report import Report
from genmod.evaluation.scoring import Estimate, paired, score
from genmod.model import LatentModel
from genmod.models import find_diffusion, with_probability_flow
from genmod.spec import DataSpec

STAGES = 4
"""Evaluations of the denoiser in one step of the solver."""


@dataclass(frozen=True, eq=False)
class FlowDensity:
    """The log-density of states under the probability flow: an estimate, exact in the limit of steps.

    Args:
        nats: ``log p_flow(z_0)`` of each row, ``(N,)``: the mean over probes.
        error: its standard error over probes, ``(N,)``; zero for the exact trace.
        drift: its change since half as many steps with the same probes, ``(N,)``. A method of
            fourth order that has converged leaves about a fifteenth of it.
        noise: the variance-preserving noise that the flow carries each row to, ``(N, *event)``.
        steps: of the solver.
        probes: how many; ``None`` for the exact trace.
        evaluations: of the denoiser for each row, with the check by half as many steps. Each takes
            one backward pass a probe, or a dimension for the exact trace.
    """

    nats: Tensor
    error: Tensor
    drift: Tensor
    noise: Tensor
    steps: int
    probes: int | None
    evaluations: int

    @property
    def mean(self) -> Estimate:
        """The mean over rows; its error is that of drawing other rows and probes."""
        return Estimate.of(self.nats)

    def __str__(self) -> str:
        trace = "exact trace" if self.probes is None else f"{self.probes} probes"
        worst = float(self.drift.abs().max())
        return (
            f"log p_flow(z_0) = {self.mean} nats ({Stamp.ESTIMATE.value}; {self.steps} steps, "
            f"{trace}, largest change since {self.steps // 2} steps {worst:.1e})"
        )


def flow_density(
    model: LatentModel,
    z: object,
    context: object = None,
    *,
    steps: int = 128,
    probes: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    progress: bool = False,
) -> FlowDensity:
    """The density of :math:`z_0` under the probability flow of a model's diffusion.

    Args:
        model: a diffusion, or a model with one nested as its prior (then ``z`` are noised latents as
            the diffusion gets them).
        z: states at t = 0, ``(N, *event)``: noised data, not data.
        context: what the denoiser is conditioned on, one row a state.
        steps: of the solver, even.
        probes: Hutchinson probes, at least two; ``None`` computes the exact trace.
        seed: the key of the probes.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row, on which its probes depend.
        progress: whether a bar is shown.

    Returns:
        Nats of each row, their standard errors over probes, and how far the solver has converged.

    Raises:
        ValueError: no diffusion; an odd number of steps, or none; one probe, which has no error.

    >>> from genmod.models import Diffusion
    >>> found = flow_density(Diffusion(2, width=8), torch.randn(5, 2), steps=8)
    >>> found.nats.shape, found.evaluations
    (torch.Size([5]), 48)
    """
    fine, coarse = _flows(model, steps, probes)
    rows = RowSet.of(model, z, context, ids=ids, spec=DataSpec(fine.shape), name="z")

    def density(flow: ProbabilityFlowPrior) -> tuple[Tensor, Tensor]:
        def run(part: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor]:
            noise, nats = flow.log_density(part, given)
            return noise.cpu(), nats.cpu().double()

        pieces = in_chunks(
            model, rows, run, seed=seed, batch_size=batch_size, copies=4 * COPIES,
            progress=f"flow in {flow.steps} steps" if progress else None,
        )  # fmt: skip
        noise, nats = (torch.cat(each) for each in zip(*pieces, strict=True))
        return rows.given(noise), rows.given(nats)

    noise, nats = density(fine)
    drift = (nats - density(coarse)[1]).mean(1)
    error = torch.zeros_like(drift) if probes is None else nats.std(1) / math.sqrt(probes)
    evaluations = STAGES * (steps + steps // 2)
    return FlowDensity(nats.mean(1), error, drift, noise, steps, probes, evaluations)


@dataclass(frozen=True, eq=False)
class FlowBound:
    """The probability flow's bound on the likelihood of data.

    Args:
        report: ``reconstruction`` and the rate of ``z0``, in nats; its value estimates a bound. The
            standard error includes the draws of ``z_0`` and of the probes, which differ for each row.
        drift: the mean change of the value since half as many steps with the same draws, and its
            standard error over rows.
        steps: of the solver.
        probes: how many a row; ``None`` for the exact trace.
        evaluations: of the denoiser for each draw of each row, with the check.
    """

    report: Report
    drift: Estimate
    steps: int
    probes: int | None
    evaluations: int


def flow_bound(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    steps: int = 64,
    probes: int | None = None,
    importance_samples: int = 0,
    replicates: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    name: str | None = None,
    progress: bool = False,
) -> FlowBound:
    """The bound on ``log p(x)`` through the density of the probability flow at :math:`z_0`.

    It is stamped an estimate. The mean of its draws (of :math:`z_0` and of the probes) is a bound in the
    limit of steps; a solver of finitely many steps errs to either side, by about ``drift``.

    Args:
        model: a diffusion of real or integer data, or a model with one nested as its prior.
        data: a data set, whose test part is scored, or rows ``(N, *event)``.
        context: what the model is conditioned on, one row a sample.
        steps: of the solver, even.
        probes: Hutchinson probes a row, at least two; ``None`` computes the exact trace.
        importance_samples: draws of :math:`z_0` for the importance-weighted estimate; 0 is none.
        replicates: how often to score with fresh noise.
        seed: the key of the noise.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row, on which its noise depends.
        name: what the report calls it.
        progress: whether a bar is shown.

    Raises:
        ValueError: no diffusion, or data it cannot score; an odd number of steps; one probe;
            importance weights from probes, which are too large in the mean: ``exp`` of an unbiased
            log-density is not unbiased.
    """
    _flows(model, steps, probes)
    report = evaluate(
        with_probability_flow(model, steps, probes),
        data,
        context,
        name=name or f"{type(model).__name__}, probability flow",
        importance_samples=importance_samples,
        replicates=replicates,
        seed=seed,
        batch_size=batch_size,
        ids=ids,
        progress=progress,
    )
    coarse = with_probability_flow(model, steps // 2, probes)
    less = score(
        coarse, data, context, seed=seed, batch_size=batch_size, ids=ids, progress=progress
    )
    assert report.scores is not None
    drift = paired(report.scores, less)
    return FlowBound(report, drift, steps, probes, STAGES * (steps + steps // 2))


def _flows(
    model: LatentModel, steps: int, probes: int | None
) -> tuple[ProbabilityFlowPrior, ProbabilityFlowPrior]:
    """The flow of a model's diffusion, and the same with half as many steps."""
    prior = find_diffusion(model)
    require(
        steps >= 2 and steps % 2 == 0,
        f"steps={steps}",
        "an even number, so that half of them can check it",
        "64 to 256 are common",
    )
    require(
        probes is None or probes >= 2,
        f"probes={probes}",
        "at least two, or None for the exact trace",
        "one probe has no standard error",
    )
    fine, coarse = (ProbabilityFlowPrior(prior, each, probes) for each in (steps, steps // 2))
    return fine, coarse
