"""``evaluate``: the bound of a model, its importance weights, and a baseline beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from genmod.checks import check_at_least, invalid
from genmod.chunks import chunks
from genmod.data import Dataset, rows_or_dataset
from genmod.elbo import Measure, Stamp
from genmod.evaluation.amortization import PosteriorRefinement
from genmod.evaluation.baselines import pixel_histogram
from genmod.evaluation.batching import Ids, RowSet, require_finite
from genmod.evaluation.evidence import HEAVY, Evidence
from genmod.evaluation.report import Report, structural
from genmod.evaluation.scoring import Estimate, Scores, score, weights_of
from genmod.model import LatentModel
from genmod.path import AutoTimesteps, Timesteps
from genmod.signatures import checked


@checked
def evaluate(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    timesteps: Timesteps = AutoTimesteps.EVALUATION,
    importance_samples: int = 0,
    refine_steps: int = 0,
    replicates: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    observed: object = None,
    name: str | None = None,
    seconds: float | None = None,
    progress: bool = False,
) -> Report:
    r"""Evaluate a model on held-out data: its evidence lower bound (ELBO), term by term, in nats per
    sample.

    .. math:: \log p(x) \ge \mathbb{E}_{q(z|x)}\Big[\log p(x|z) - \log \frac{q(z|x)}{p(z)}\Big]
        = \text{reconstruction} - \sum \text{rates}

    The report holds the mean over samples with its standard error. Its stamp is *bound* if every term is
    computed in full, and *estimate* if a diffusion visits only some of its noise levels. Two tighter bounds
    stand beside it on request: with importance samples that of :func:`log_weights`, and with refinement
    steps that of a posterior fitted to each row (a *semi-amortized* one).

    Args:
        model: any model.
        data: a :class:`~genmod.data.Dataset`, of which the test part is scored (the training part gives a
            baseline that the model should beat); or rows ``(N, *event)``.
        context: what the model is conditioned on, one row per sample; by default the labels, if the data
            are :func:`~genmod.data.conditional`.
        timesteps: the number of noise levels of a diffusion that each row visits. By default all up to
            ``T = 1000`` (a bound); for larger ``T`` and in continuous time 16 (an estimate). ``None``: all.
        importance_samples: ``K``, an even number of draws per row, for an importance-weighted bound and an
            evidence interval (:attr:`Report.interval`); 0: neither.
        refine_steps: steps of gradient ascent on the posterior of each row alone, which starts at the
            encoder's; 50 to 100 are enough, 0: none. The model does not change, and new draws give the
            bound, so that it stays a bound. See :func:`amortization_gap`.
        replicates: how many times to score with fresh noise. By default 2 if noise levels are drawn at
            random, else 1. The levels are stratified over the rows, which are therefore not independent:
            only replicates show how noisy the mean is.
        seed: the seed of the noise.
        batch_size: rows computed together; by default as many as fit. Results do not depend on it.
        ids: the id of each row, on which its noise depends; 0, 1, 2, ... by default.
        observed: which entries are not missing, like the rows; by default what the data state. The bound is
            then that of the observed entries.
        name: the name of the model in the report; by default its class.
        seconds: the training time, for the report.
        progress: whether to show a progress bar.

    Returns:
        A :class:`Report`: ``.value`` and ``.terms`` in nats, ``.bits_per_dim`` for integer data,
        ``.stamp``, ``.importance``, ``.interval``, ``.refined``. It prints as a table.

    Raises:
        ValueError: data that the model cannot score; an odd number of importance samples; ``timesteps`` for
            a model without noise levels; a term that is not finite; a posterior that cannot be refined.

    Reference: Kingma, Welling, "Auto-encoding variational Bayes" (2014), eq. 3; Burda, Grosse,
    Salakhutdinov, "Importance weighted autoencoders" (2016), eq. 8; Kim, Wiseman, Miller, Sontag, Rush,
    "Semi-Amortized Variational Autoencoders" (2018), section 3.

    >>> from genmod.models import VAE
    >>> x = torch.randint(0, 17, (32, 1, 8, 8))
    >>> report = evaluate(VAE((1, 8, 8), 17, latents=2, width=16), x, importance_samples=4)
    >>> report.stamp, list(report.terms), report.importance.mean >= report.value.mean
    (<Stamp.BOUND: 'bound'>, ['reconstruction', 'prior'], True)
    """
    _check_counts(replicates, importance_samples, refine_steps)
    data = rows_or_dataset(data, model.spec)

    def run(replicate: int) -> Scores:
        return score(
            model, data, context, timesteps=timesteps, seed=seed + replicate,
            batch_size=batch_size, ids=ids, observed=observed, progress=progress,
        )  # fmt: skip

    runs = [run(0)]
    if replicates is None:
        estimated = runs[0].stamp is Stamp.ESTIMATE and model.prior.has_timesteps
        replicates = 2 if estimated else 1
    runs += [run(replicate) for replicate in range(1, replicates)]
    report = _summary(runs, data if isinstance(data, Dataset) else None)
    rows = RowSet.of(model, data, context, ids=ids, observed=observed, masked=True)
    if importance_samples:
        evidence = _evidence(model, rows, importance_samples, seed, batch_size, progress)
        report = _weighted(report, evidence)
    if refine_steps:
        plan = PosteriorRefinement(model, refine_steps)
        refined = plan.of_rows(rows, seed, batch_size, progress)[1]
        require_finite({"refined bound": refined})
        report = replace(report, refined=Estimate.of(refined), refine_steps=refine_steps)
    return replace(
        report,
        name=name or type(model).__name__,
        dims=model.spec.size,
        in_nats=model.spec.columns is not None,
        parameters=sum(p.numel() for p in model.parameters()),
        seconds=seconds,
    )


def _check_counts(replicates: int | None, importance_samples: int, refine_steps: int) -> None:
    check_at_least(refine_steps, 0, "refine_steps", "0: none")
    if replicates is not None:
        advice = "pass 2 or more to measure the noise of the draws"
        check_at_least(replicates, 1, "replicates", advice)
    if importance_samples < 0 or importance_samples % 2 != 0:
        raise invalid(
            f"importance_samples={importance_samples}",
            "an even number, because one half gives the floor and the other the ceiling",
            f"pass importance_samples={importance_samples + 1}",
        )


def _summary(runs: Sequence[Scores], source: Dataset | None) -> Report:
    """The means of the terms over rows and replicates."""
    scores, count = runs[0], len(runs)
    terms = {
        key: Estimate.of(torch.stack([each.terms[key] for each in runs]).mean(0))
        for key in scores.terms
    }
    values = torch.stack([each.value for each in runs])
    entropy, change = None if source is None else source.entropy, scores.change_of_units
    proper = scores.stamp is not Stamp.NONE
    return Report(
        name="",
        value=Estimate.of(values.mean(0)),
        stamp=scores.stamp,
        measure=scores.measure,
        dims=0,
        samples=len(scores.value),
        terms=terms,
        noise=float(values.mean(1).std()) / math.sqrt(count) if count > 1 else None,
        scores=scores,
        change_of_units=None if change is None else Estimate.of(change),
        entropy_floor=None if entropy is None else float(entropy.mean()),
        structural=structural(values.mean(0), entropy) if proper else None,
        remarks=() if source is None else _beside_a_baseline(values.mean(0), scores, source),
    )


def _evidence(
    model: LatentModel,
    rows: RowSet,
    importance_samples: int,
    seed: int,
    batch_size: int | None,
    progress: bool,
) -> Evidence:
    """What importance weights show, computed in groups of rows, so that memory does not grow."""
    evidence = Evidence(len(rows), importance_samples)
    for part in chunks(len(rows), Evidence.rows_at_a_time(importance_samples)):
        weights = weights_of(model, rows.part(part), importance_samples, seed, batch_size, progress)
        require_finite({"log-weight": weights}, zero_weights=True)
        evidence.add(weights)
    return evidence


def _weighted(report: Report, evidence: Evidence) -> Report:
    """The report, with the bound and the interval from importance weights."""
    k, remarks = evidence.pareto_k, report.remarks
    if evidence.heavy:
        tail = "one draw outweighs all others" if k is None or k <= HEAVY else f"Pareto k {k:.2f}"
        remarks += (
            f"The importance weights are heavy ({tail}): their mean cannot be estimated, and the "
            "ceiling is vacuous. Take more importance samples, or train a wider or richer posterior.",
        )
    return replace(
        report,
        importance=evidence.importance,
        importance_samples=evidence.samples,
        evidence=evidence.interval(report.measure),
        pareto_k=k,
        remarks=remarks,
    )


def _beside_a_baseline(values: Tensor, scores: Scores, data: Dataset) -> tuple[str, ...]:
    """A remark, if the per-pixel histogram has a higher log-likelihood than the model."""
    if data.bins is None or scores.measure is not Measure.MASS:
        return ()
    baseline = pixel_histogram(data.train, data.test, data.bins)
    behind = Estimate.of(baseline.log_prob - values)
    if behind.mean <= 0:
        return ()
    return (
        f"Worse than the {baseline.name} by {behind} nats per sample: independent histograms of the "
        "entries predict these data better. Train longer, or change the settings.",
    )
