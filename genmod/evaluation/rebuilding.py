"""One trained denoiser, priced as another model of the same parts; nothing is copied or trained."""

from __future__ import annotations

from collections.abc import Callable

from genmod.diffusion import DiffusionPrior, ProbabilityFlowPrior
from genmod.model import LatentModel
from genmod.prior import Prior
from genmod.priors import NestedPrior


def with_steps(model: LatentModel, steps: int | None) -> LatentModel:
    """The same denoiser, schedule, encoder and decoder with another number of latents.

    Denoisers see log-SNR and never ``t``, so a network trained in continuous time can be priced (and
    sampled) in ``T`` steps, and one trained in ``T`` steps in continuous time or in others. The bound
    of ``T`` steps is a Riemann sum of the continuous one.

    Args:
        model: a diffusion, or a model with one nested as its prior.
        steps: ``T``, or ``None`` for continuous time.

    Returns:
        A model on the same modules: training one trains the other.

    Raises:
        ValueError: a model without a diffusion; continuous time asked of a reverse variance that is
            not the posterior's.

    Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), table 2.

    >>> from genmod.models import Diffusion
    >>> model = Diffusion(2, width=8, steps=10)
    >>> with_steps(model, None).prior.steps is None, with_steps(model, 4).prior.denoiser is model.prior.denoiser
    (True, True)
    """

    def rechain(prior: DiffusionPrior) -> DiffusionPrior:
        return DiffusionPrior(
            prior.denoiser,
            prior.schedule,
            prior.shape,
            steps,
            prior.chain.variance,
            prior.resolution,
        )

    return _with_prior(model, rechain)


def with_probability_flow(
    model: LatentModel, steps: int = 128, probes: int | None = None
) -> LatentModel:
    """The same encoder, decoder and denoiser with the probability flow's density for a prior.

    Args:
        model: a diffusion, or a model with one nested as its prior.
        steps: of the solver, see :class:`genmod.diffusion.ProbabilityFlowPrior`.
        probes: Hutchinson probes a trajectory; ``None`` computes the exact trace.

    Returns:
        A model with one latent, ``z_0``, on the same modules; it is scored and sampled like any other.

    Raises:
        ValueError: a model without a diffusion.

    >>> import torch
    >>> from genmod.models import Diffusion
    >>> sorted(with_probability_flow(Diffusion(2, width=8), steps=4).elbo(torch.zeros(3, 2)).rates)
    ['z0']
    """
    return _with_prior(model, lambda prior: ProbabilityFlowPrior(prior, steps, probes))


def _with_prior(model: LatentModel, build: Callable[[DiffusionPrior], Prior]) -> LatentModel:
    """The model with its diffusion, wherever it is nested, exchanged for what is built of it."""
    prior = model.prior
    if isinstance(prior, DiffusionPrior):
        return LatentModel(model.encoder, model.decoder, build(prior))
    if not isinstance(prior, NestedPrior):
        raise ValueError(
            f"got a model without a diffusion (its prior is {type(prior).__name__}); expected one "
            "with a Denoising prior; there are no noise levels to arrange otherwise"
        )
    inner = _with_prior(prior.model, build)
    outer = NestedPrior(inner, prior.name, prior.shift, prior.log_scale.exp())
    return LatentModel(model.encoder, model.decoder, outer)
