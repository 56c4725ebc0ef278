r"""The probability flow: its density at :math:`z_0`, and the bound on ``log p(x)`` that follows from it.

The probability flow is an ODE with the marginals of the diffusion. It carries :math:`z_0` to noise, and
the change of variables gives ``log p_flow(z_0)``: a density of :math:`z_0`, the noised data, and *not* of
``x``. For the data it gives the bound of a VAE whose encoder is the diffusion's own Gaussian
:math:`q(z_0|x)`,

.. math:: \log p(x) \ge \mathbb{E}_{q(z_0|x)}[\log p(x|z_0) + \log p_\text{flow}(z_0) - \log q(z_0|x)].

It holds for real data and for integers. This bound (the literature's "dequantized" likelihood) can be
compared with the variational bound of a diffusion.

Reference: Song et al., "Score-based generative modeling through stochastic differential equations"
(2021), eq. 39; Song, Durkan, Murray, Ermon, "Maximum likelihood training of score-based diffusion
models" (2021), section 5.3, and Vahdat, Kreis, Kautz, "Score-based generative modeling in latent space"
(2021), appendix G, for the dequantized bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genmod.checks import invalid
from genmod.chunks import COPIES
from genmod.diffusion.probability_flow import ProbabilityFlowPrior
from genmod.elbo import Stamp
from genmod.evaluation.batching import Ids, RowSet, in_chunks, require_finite
from genmod.evaluation.evaluating import evaluate
from genmod.evaluation.report import Report
from genmod.evaluation.scoring import Estimate, paired, score
from genmod.model import LatentModel
from genmod.models import with_probability_flow
from genmod.models.replace import find_diffusion
from genmod.signatures import checked
from genmod.spec import DataSpec

STAGES = 4
"""Evaluations of the denoiser in one step of the solver (Runge-Kutta of fourth order)."""


@dataclass(frozen=True, eq=False)
class FlowDensity:
    """The log-density of states under the probability flow: an estimate, exact for infinitely many steps.

    Args:
        nats: ``log p_flow(z_0)`` of each row, ``(N,)``, a mean over probes.
        error: its standard error over probes, ``(N,)``; zero for the exact trace.
        drift: the difference to a solution with half as many steps and the same probes, ``(N,)``. The
            solver has order four: once it converges, its remaining error is about ``drift / 15``.
        noise: where the flow ends: the noise of each row, variance preserving, ``(N, *event)``.
        steps: the number of solver steps.
        probes: the number of probes; ``None`` for the exact trace.
        evaluations: how often the denoiser was evaluated for each row, both solutions included. Each
            evaluation has one backward pass per probe, or per dimension for the exact trace.
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
        """The mean over rows with its standard error (over rows and probes)."""
        return Estimate.of(self.nats)

    def __str__(self) -> str:
        trace = "exact trace" if self.probes is None else f"{self.probes} probes"
        worst = float(self.drift.abs().max())
        return (
            f"log p_flow(z_0) = {self.mean} nats ({Stamp.ESTIMATE.value}; {self.steps} steps, "
            f"{trace}, largest difference to {self.steps // 2} steps {worst:.1e})"
        )


@checked
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
    r"""The log-density of :math:`z_0` under the probability flow, by the instantaneous change of variables.

    Along the ODE :math:`dz/dt = f(z, t)` from :math:`z_0` to noise :math:`z_1`,

    .. math:: \log p_\text{flow}(z_0)
        = \log p(z_1) + \int_0^1 \mathrm{tr}\,\frac{\partial f}{\partial z}\, dt.

    The trace is exact, or estimated without bias from random probes (Hutchinson).

    Args:
        model: a diffusion; or a model with a diffusion as its prior, where ``z`` are noised latents.
        z: states at t = 0, ``(N, *event)``: noised data, not data.
        context: what the denoiser is conditioned on, one row per state.
        steps: the number of solver steps, even.
        probes: the number of Hutchinson probes, at least two; ``None`` computes the exact trace.
        seed: the seed of the probes.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row, on which its probes depend.
        progress: whether to show a progress bar.

    Returns:
        A :class:`~genmod.evaluation.flow.FlowDensity`: ``.nats`` of each row, ``.error`` over probes, and
        ``.drift``, the difference to a solution with half as many steps.

    Raises:
        ValueError: no diffusion; an odd number of steps, or none; one probe, which has no standard error.

    Reference: Song et al., "Score-based generative modeling through stochastic differential equations"
    (2021), eq. 39, and eq. 40 for the probes.

    >>> from genmod.models import Diffusion
    >>> found = flow_density(Diffusion(2, width=8), torch.randn(5, 2), steps=8)
    >>> found.nats.shape, found.evaluations
    (torch.Size([5]), 48)
    """
    fine, coarse = _flows(model, steps, probes)
    rows = RowSet.of(model, z, context, ids=ids, spec=DataSpec(fine.shape), name="z")

    def density(flow: ProbabilityFlowPrior) -> tuple[Tensor, Tensor]:
        def run(part: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            noise, nats = flow.log_density(part, context)
            return noise.cpu(), nats.cpu().double()

        pieces = in_chunks(
            model, rows, run, seed=seed, batch_size=batch_size, copies=4 * COPIES,
            progress=f"flow in {flow.steps} steps" if progress else None,
        )  # fmt: skip
        noise, nats = (torch.cat(each) for each in zip(*pieces, strict=True))
        require_finite({"flow": nats})
        return rows.restore_order(noise), rows.restore_order(nats)

    noise, nats = density(fine)
    drift = (nats - density(coarse)[1]).mean(1)
    error = torch.zeros_like(drift) if probes is None else nats.std(1) / math.sqrt(probes)
    evaluations = STAGES * (steps + steps // 2)
    return FlowDensity(nats.mean(1), error, drift, noise, steps, probes, evaluations)


@dataclass(frozen=True, eq=False)
class FlowBound:
    """The bound on ``log p(x)`` by the probability flow.

    Args:
        report: ``reconstruction`` and the rate of ``z0``, in nats. Its standard error includes the draws of
            ``z_0`` and of the probes, because every row has its own.
        drift: the mean difference to the bound with half as many solver steps and the same draws.
        steps: the number of solver steps.
        probes: the number of probes per row; ``None`` for the exact trace.
        evaluations: how often the denoiser was evaluated for each draw of each row, both solutions
            included.
    """

    report: Report
    drift: Estimate
    steps: int
    probes: int | None
    evaluations: int


@checked
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
    r"""The bound on ``log p(x)`` by the density of the probability flow at :math:`z_0`.

    .. math:: \mathbb{E}_{q(z_0|x)}[\log p(x|z_0) + \log p_\text{flow}(z_0) - \log q(z_0|x)]

    Its stamp is *estimate*: the mean over draws is a bound only for infinitely many solver steps. Finitely
    many err to either side, by about ``drift / 15``.

    Args:
        model: a diffusion of real or integer data; or a model with a diffusion as its prior.
        data: a data set, whose test part is scored, or rows ``(N, *event)``.
        context: what the model is conditioned on, one row per sample.
        steps: the number of solver steps, even.
        probes: the number of Hutchinson probes per row, at least two; ``None`` computes the exact trace.
        importance_samples: draws of :math:`z_0` per row for the importance-weighted bound; 0: none.
        replicates: how many times to score with fresh noise.
        seed: the seed of the noise.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row, on which its noise depends.
        name: the name in the report.
        progress: whether to show a progress bar.

    Returns:
        A :class:`~genmod.evaluation.flow.FlowBound`: ``.report``, and ``.drift``, the difference to half as
        many steps.

    Raises:
        ValueError: no diffusion, or data that the model cannot score; an odd number of steps; one probe;
            importance samples together with probes, because ``exp`` of an unbiased log-density is too large
            in the mean.

    Reference: Vahdat, Kreis, Kautz, "Score-based generative modeling in latent space" (2021), appendix G.

    >>> from genmod.models import Diffusion
    >>> found = flow_bound(Diffusion(2, width=8), torch.randn(5, 2), steps=4)
    >>> found.report.stamp.value, list(found.report.terms)
    ('estimate', ['reconstruction', 'z0'])
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
    half = score(
        coarse, data, context, seed=seed, batch_size=batch_size, ids=ids, progress=progress
    )
    assert report.scores is not None
    drift = paired(report.scores, half)
    return FlowBound(report, drift, steps, probes, STAGES * (steps + steps // 2))


def _flows(
    model: LatentModel, steps: int, probes: int | None
) -> tuple[ProbabilityFlowPrior, ProbabilityFlowPrior]:
    """The flow of a model's diffusion, and the same with half as many steps."""
    prior = find_diffusion(model)
    if steps < 2 or steps % 2 != 0:
        raise invalid(
            f"steps={steps}",
            "an even number, because half as many steps check the result",
            "64 to 256 are common",
        )
    if probes is not None and probes < 2:
        raise invalid(
            f"probes={probes}",
            "at least two, or None for the exact trace",
            "one probe has no standard error",
        )
    fine, coarse = (ProbabilityFlowPrior(prior, each, probes) for each in (steps, steps // 2))
    return fine, coarse
