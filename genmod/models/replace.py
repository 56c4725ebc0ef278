"""Model surgery: find the diffusion in a model, and build the same model with a part replaced.

Nothing is copied or trained: the result shares its parameters with the model that it is made of.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import nn

from genmod.checks import instance, invalid
from genmod.config.settings import arguments, forget_arguments, record_arguments
from genmod.denoisers import Denoiser
from genmod.diffusion import DiffusionPrior
from genmod.diffusion.probability_flow import ProbabilityFlowPrior
from genmod.model import LatentModel
from genmod.prior import Prior
from genmod.priors import NestedPrior
from genmod.signatures import checked

Model = TypeVar("Model", bound=LatentModel)


def find_diffusion(model: LatentModel) -> DiffusionPrior:
    """The diffusion in a model: its prior, or the prior of the model nested there.

    Raises:
        ValueError: a model without a diffusion.
    """
    prior = _innermost(model)
    if not isinstance(prior, DiffusionPrior):
        raise invalid(
            f"a {type(model).__name__} without a diffusion (its prior is {type(prior).__name__})",
            "one with noise levels",
            "pass a Diffusion, or a LatentDiffusion",
        )
    return prior


def has_diffusion(model: LatentModel) -> bool:
    """Whether :func:`find_diffusion` finds one."""
    return isinstance(_innermost(model), DiffusionPrior)


FIRST_STAGE = (
    "of a latent diffusion pass model.first_stage(), of another model whose prior is a diffusion "
    "LatentModel(model.encoder, model.decoder, priors.NormalPrior(model.prior.shape))"
)
"""What can be done with a model whose encoder learns and whose prior has noise levels."""


def levels_above_diffusion(model: LatentModel) -> int | None:
    """How many latents are drawn before the noise levels of a diffusion; ``None``: there is none."""
    return len(list(_nested(model))) - 1 if has_diffusion(model) else None


def _innermost(model: LatentModel) -> Prior:
    prior = model.prior
    while isinstance(prior, NestedPrior):
        prior = prior.model.prior
    return prior


@checked
def with_denoiser(model: Model, wrap: Callable[[Denoiser], Denoiser]) -> Model:
    """A diffusion with its denoiser wrapped, to be sampled; all else is shared.

    Every part that uses the denoiser (the chain, the decoder's last step) uses the wrapped one.

    The result is a model with a bound of its own. Under guidance, or given a measurement, that is a bound
    on the likelihood of the chain that the wrapped denoiser drives, and not on the trained model's.

    Args:
        model: a diffusion, or a latent diffusion.
        wrap: from the model's denoiser to the one wanted.

    Returns:
        A model of the same class.

    Raises:
        ValueError: a model without a denoiser, or with several; a schedule that the wanted one refuses.

    >>> from genmod.denoisers import Guided
    >>> from genmod.models import Diffusion
    >>> model = Diffusion((2,), width=8)
    >>> guided = with_denoiser(model, lambda denoiser: Guided(denoiser, scale=3.0))
    >>> type(guided.prior.denoiser).__name__, guided.prior.schedule is model.prior.schedule
    ('Guided', True)
    """
    priors = [part for part in model.modules() if isinstance(part, DiffusionPrior)]
    denoisers = {id(prior.denoiser): prior.denoiser for prior in priors}
    if len(denoisers) != 1:
        raise invalid(
            f"a {type(model).__name__} with {len(denoisers)} denoisers",
            "one with a diffusion in it",
            "pass a Diffusion, or a LatentDiffusion",
        )
    (denoiser,) = denoisers.values()
    wrapped = instance(wrap(denoiser), Denoiser, "wrapped denoiser")
    for prior in priors:
        wrapped.check(prior.schedule)
    return _replaced(model, denoiser, wrapped)


@checked
def with_steps(model: Model, steps: int | None) -> Model:
    """The same denoiser, schedule, encoder and decoder with another number of latents.

    Denoisers see log-SNR and never ``t``, so a network trained in continuous time can be scored (and
    sampled) in ``T`` steps, and one trained in ``T`` steps in continuous time or in others. The bound
    of ``T`` steps is a Riemann sum of the continuous one.

    Args:
        model: a diffusion, or a model with one nested as its prior.
        steps: ``T``, or ``None`` for continuous time.

    Returns:
        A model of the same class on the same modules: training one trains the other.

    Raises:
        ValueError: a model without a diffusion; continuous time asked of a reverse variance that is
            not the posterior's.

    Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), table 2.

    >>> from genmod.models import Diffusion
    >>> model = Diffusion(2, width=8, steps=10)
    >>> with_steps(model, None).prior.steps is None, with_steps(model, 4).prior.steps
    (True, 4)
    """
    old = find_diffusion(model)
    new = DiffusionPrior(old.denoiser, old.schedule, old.shape, steps, old.variance, old.resolution)
    made = _replaced(model, old, new)
    for before, after in zip(_nested(model), _nested(made), strict=True):
        _record_steps(before, after, steps)
    return made


@checked
def with_probability_flow(
    model: LatentModel, steps: int = 128, probes: int | None = None
) -> LatentModel:
    """The same encoder, decoder and denoiser with the probability flow's density for a prior.

    Args:
        model: a diffusion, or a model with one nested as its prior.
        steps: of the solver of the probability flow.
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
    flow = ProbabilityFlowPrior(find_diffusion(model), steps, probes)
    return _with_prior(model, flow)


def _with_prior(model: LatentModel, innermost: Prior) -> LatentModel:
    """The model with its innermost prior replaced."""
    prior = model.prior
    if not isinstance(prior, NestedPrior):
        return LatentModel(model.encoder, model.decoder, innermost)
    inner = _with_prior(prior.model, innermost)
    outer = NestedPrior(inner, prior.name, prior.shift, prior.log_scale.exp())
    return LatentModel(model.encoder, model.decoder, outer)


def _replaced(model: Model, old: nn.Module, new: nn.Module) -> Model:
    """A model of the same class with one module replaced, wherever it stands; all else is shared."""
    # A deep copy that shares what is in ``kept``: only the modules above the old one are copied.
    kept: dict[int, object] = {
        id(part): part
        for part in model.modules()
        if all(inner is not old for inner in part.modules())
    }
    kept |= {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    kept[id(old)] = new
    shared = set(kept)
    made = copy.deepcopy(model, kept)
    for part in model.modules():
        # The copy's arguments hold the new module in place of the old one, if they held the old one.
        if id(part) not in shared and not _holds(arguments(part), old):
            forget_arguments(kept[id(part)])
    return made


def _holds(value: object, part: nn.Module) -> bool:
    """Whether a module is among some arguments, or inside one of them."""
    if isinstance(value, nn.Module):
        return any(inner is part for inner in value.modules())
    if isinstance(value, dict):
        return any(_holds(each, part) for each in value.values())
    return isinstance(value, list | tuple) and any(_holds(each, part) for each in value)


def _nested(model: LatentModel) -> Iterator[LatentModel]:
    """A model and those that are nested in it as priors, the innermost first."""
    if isinstance(model.prior, NestedPrior):
        yield from _nested(model.prior.model)
    yield model


def _record_steps(before: LatentModel, after: LatentModel, steps: int | None) -> None:
    """Record the arguments that build a model with another number of latents, so that it can be saved."""
    # Not at the top: latent_diffusion imports this module.
    from genmod.models.latent_diffusion import LatentDiffusion

    given = arguments(before)
    if given is None or arguments(after) is not None:
        return
    if isinstance(after.prior, DiffusionPrior) and "steps" in given:
        record_arguments(after, {**given, "steps": steps})
    elif isinstance(after, LatentDiffusion):
        record_arguments(after, {"vae": after.first_stage(), "diffusion": after.nested.model})
