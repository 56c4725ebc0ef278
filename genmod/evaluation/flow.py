r"""Likelihood by the probability flow: of :math:`z_0` as a density, of ``x`` as a bound through it.

``log p_flow(z_0)`` is a *density of* :math:`z_0`, not of ``x``. What it says of the data is

.. math:: \log p(x) \ge \mathbb{E}_{q(z_0|x)}[\log p(x|z_0) + \log p_\text{flow}(z_0) - \log q(z_0|x)],

the bound of a VAE with the diffusion's own Gaussian :math:`q(z_0|x)`, for real data and for integers
alike: this is the dequantized bound that may stand beside a diffusion's variational bound.

Reference: Song et al., "Score-based generative modeling through stochastic differential equations"
(2021), eq. 39; Song, Durkan, Murray, Ermon, "Maximum likelihood training of score-based diffusion
models" (2021), section 5.3, and Vahdat, Kreis, Kautz (2021), appendix G, for the dequantized bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genmod import random
from genmod.checks import check_real, check_shape, require, trusted
from genmod.data import Dataset
from genmod.diffusion import ProbabilityFlowPrior
from genmod.elbo import Stamp
from genmod.evaluation.pairing import paired
from genmod.evaluation.report import Estimate, Report, evaluate
from genmod.evaluation.scoring import BATCH, evaluating
from genmod.model import LatentModel
from genmod.models import find_diffusion, with_probability_flow

STAGES = 4
"""Evaluations of the denoiser in one step of the solver."""


@dataclass(frozen=True, eq=False)
class FlowDensity:
    """The log-density of states under the probability flow, an estimate exact in the limit of steps.

    Args:
        nats: ``log p_flow(z_0)`` of each row, ``(N,)``: the mean over probes.
        error: its standard error over probes, ``(N,)``; zero for the exact trace.
        drift: what it changed by since half as many steps with the same probes, ``(N,)``. A method of
            fourth order that has converged leaves about a fifteenth of it.
        noise: the variance-preserving noise each row is carried to, ``(N, *event)``.
        steps: of the solver.
        probes: how many; ``None`` for the exact trace.
        evaluations: of the denoiser for each row, the check by half as many steps included. Each takes
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
    z: Tensor,
    context: Tensor | None = None,
    *,
    steps: int = 128,
    probes: int | None = None,
    seed: int = 0,
) -> FlowDensity:
    """The density of :math:`z_0` under the probability flow of a model's diffusion.

    Args:
        model: a diffusion, or a model with one nested as its prior (then ``z`` are noised latents as
            the diffusion sees them).
        z: states at t = 0, ``(N, *event)``: noised data, not data.
        context: what the denoiser is told beside each row.
        steps: of the solver, even.
        probes: Hutchinson probes, at least two; ``None`` computes the exact trace.
        seed: the key of the probes.

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
    check_shape(z, fine.shape, "z")
    check_real(z, name="z")
    device = model.device
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    with evaluating(model), trusted():
        for start in range(0, len(z), BATCH):
            rows = slice(start, start + BATCH)
            told = None if context is None else context[rows].to(device)
            part = z[rows].to(device)
            with random.keyed(seed, start=start, block=BATCH):
                noise, nats = fine.log_density(part, told)
            with random.keyed(seed, start=start, block=BATCH):
                drift = nats - coarse.log_density(part, told).nats
            found.append((noise.cpu(), nats.cpu().double(), drift.mean(1).cpu().double()))
    noise, nats, drift = (torch.cat(each) for each in zip(*found, strict=True))
    error = torch.zeros_like(drift) if probes is None else nats.std(1) / math.sqrt(probes)
    evaluations = STAGES * (steps + steps // 2)
    return FlowDensity(nats.mean(1), error, drift, noise, steps, probes, evaluations)


@dataclass(frozen=True, eq=False)
class FlowBound:
    """What the probability flow says of data.

    Args:
        report: ``reconstruction`` and the rate of ``z0``, in nats; its value estimates a bound. The
            standard error holds the draws of ``z_0`` and of the probes, which are fresh for each row.
        drift: the mean change of the value since half as many steps with the same draws, and its
            standard error over rows.
        steps: of the solver.
        probes: how many a row; ``None`` for the exact trace.
        evaluations: of the denoiser for each draw of each row, the check included.
    """

    report: Report
    drift: Estimate
    steps: int
    probes: int | None
    evaluations: int


def flow_bound(
    model: LatentModel,
    x: Dataset | Tensor,
    context: Tensor | None = None,
    *,
    steps: int = 64,
    probes: int | None = None,
    importance: int = 0,
    replicates: int = 1,
    seed: int = 0,
    name: str | None = None,
) -> FlowBound:
    """The bound on ``log p(x)`` through the density of the probability flow at :math:`z_0`.

    It is stamped an estimate: the mean of the bound's own draws (of :math:`z_0` and, unbiased, of the
    probes) is a bound in the limit of steps, and a solver of finitely many errs to either side, by
    about what ``drift`` says.

    Args:
        model: a diffusion of real or integer data, or a model with one nested as its prior.
        x: a data set, whose test part is priced, or rows ``(N, *event)``.
        context: what the model is told beside each row.
        steps: of the solver, even.
        probes: Hutchinson probes a row, at least two; ``None`` computes the exact trace.
        importance: draws of :math:`z_0` for the importance-weighted estimate; 0 is none.
        replicates: how often to score with fresh noise.
        seed: the key of the noise.
        name: what the report calls it.

    Raises:
        ValueError: no diffusion, or data it cannot score; an odd number of steps; one probe;
            importance weights from probes, which are too large in the mean: ``exp`` of an unbiased
            log-density is not unbiased.
    """
    require(
        importance == 0 or probes is None,
        f"importance={importance} with probes={probes}",
        "the exact trace for importance weights",
        "pass probes=None: a noisy log-density makes weights too large in the mean",
    )
    _flows(model, steps, probes)
    report = evaluate(
        with_probability_flow(model, steps, probes),
        x,
        context,
        name=name or f"{type(model).__name__}, probability flow",
        importance=importance,
        replicates=replicates,
        seed=seed,
    )
    coarse = evaluate(with_probability_flow(model, steps // 2, probes), x, context, seed=seed)
    assert report.scores is not None
    assert coarse.scores is not None
    drift = paired(report.scores, coarse.scores)
    report = replace(report, stamp=Stamp.ESTIMATE, scores=replace(report.scores, complete=False))
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
        "64 to 256 are customary",
    )
    require(
        probes is None or probes >= 2,
        f"probes={probes}",
        "at least two, or None for the exact trace",
        "one probe has no standard error",
    )
    return ProbabilityFlowPrior(prior, steps, probes), ProbabilityFlowPrior(
        prior, steps // 2, probes
    )
