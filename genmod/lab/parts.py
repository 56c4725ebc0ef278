"""The parts of a model that the page runs, and why a model cannot be shown."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from genmod.checks import invalid
from genmod.diffusion import DiffusionPrior, NoisingEncoder
from genmod.distributions import Normal
from genmod.distributions.divergence import rate
from genmod.elbo import Measure
from genmod.encoders import Encoder
from genmod.export.base import Part, Port, context_port, data_port, dtype_of, noise_port
from genmod.export.parts import DenoiserPart, EncoderPart
from genmod.model import LatentModel
from genmod.nn import Labels
from genmod.nn.mlp import ContextEmbedding
from genmod.prior import DensityPrior


class PosteriorPart(Part):
    """``q(z | x)`` of a VAE: from ``x`` to its mean and log-std."""

    def __init__(self, model: LatentModel) -> None:
        kind = dtype_of(model)
        super().__init__("posterior", [data_port(model.spec, kind), _context(model, kind)])
        self.model = model

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        q = self.model.posterior(given["x"], given.get("context"))
        if not isinstance(q, Normal):
            raise _refusal(f"a VAE whose posterior is a {type(q).__name__}", "a Normal")
        return {"mean": q.mean, "log_std": q.log_std}


class BoundPart(Part):
    """The terms of the bound of a VAE, in nats: from ``x``, its posterior, and a latent ``z``.

    The KL is ``log q(z|x) - log p(z)`` at ``z`` where the two laws have no closed form.
    """

    def __init__(self, model: LatentModel) -> None:
        kind, shape = dtype_of(model), model.prior.shape
        laws = [noise_port(name, shape, kind, "of q(z|x)") for name in ("mean", "log_std")]
        ports = [data_port(model.spec, kind), _latent(model, kind), *laws, _context(model, kind)]
        super().__init__("bound", ports)
        self.model, self.law = model, _law(model)

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x, z, context = given["x"], given["z"], given.get("context")
        q, p = Normal(given["mean"], given["log_std"]), self.law.law(x.shape[0], context)
        likelihood = self.model.law(self.law.state_from(z, context), context)
        return {
            "log_likelihood": likelihood.log_prob(x),
            "kl": rate(q, p, z).total,
            "log_q": q.log_prob(z),
            "log_p": p.log_prob(z),
        }


class ImagePart(Part):
    """From a latent (of a diffusion: from ``z_0``) to the mean of ``p(x | z)``, in the data's units."""

    def __init__(self, model: LatentModel) -> None:
        kind = dtype_of(model)
        super().__init__("decoder", [_latent(model, kind), _context(model, kind)])
        self.model = model
        encoder = model.encoder
        diffused = isinstance(encoder, NoisingEncoder)
        self.scale = scale_of(encoder) if diffused else 1.0

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        z, context = given["z"], given.get("context")
        state = z * self.scale
        if not isinstance(self.model.encoder, NoisingEncoder):
            state = self.model.prior.state_from(state, context)
        return {"mean": self.model.law(state, context).mean}


def lab_parts(model: LatentModel) -> list[Part]:
    """The parts of a VAE or a diffusion that the page runs.

    Raises:
        ValueError: a model of another kind, data that are no numbers, a context that is no label.
    """
    if model.spec.is_mixed or model.spec.missing:
        raise invalid(
            f"a model of data of {model.spec}",
            "images or vectors of numbers, all observed",
            "the page draws images and bars; a table is read better from a report: genmod "
            "evaluate RUN",
        )
    prior = model.prior
    if isinstance(prior, DiffusionPrior) and isinstance(model.encoder, NoisingEncoder):
        return [
            ImagePart(model),
            EncoderPart(model, None),
            DenoiserPart(model, prior, None),
        ]
    if isinstance(prior, DensityPrior) and model.measure is not Measure.NONE:
        return [ImagePart(model), PosteriorPart(model), BoundPart(model)]
    found = f"the model {type(model).__name__} with the prior {type(prior).__name__}"
    raise _refusal(found, "a VAE or a Diffusion")


def classes_of(model: LatentModel) -> int | None:
    """The number of labels that a conditional model takes; ``None`` if it takes no context.

    Raises:
        ValueError: a context of another kind.
    """
    kinds = {
        part.condition
        for part in model.modules()
        if isinstance(part, ContextEmbedding) and part.linear is not None
    }
    if not kinds:
        return None
    kind = kinds.pop()
    if kinds or not isinstance(kind, Labels):
        raise _refusal(f"a model conditioned on {kind}", "Labels, or no condition")
    return kind.classes


def scale_of(encoder: Encoder) -> float:
    """The factor from variance-preserving states at t = 0 to the schedule's own."""
    assert isinstance(encoder, NoisingEncoder)
    alpha, sigma = encoder.schedule.scales_at_zero()
    return float((alpha**2 + sigma**2) ** 0.5)


def _latent(model: LatentModel, kind: torch.dtype) -> Port:
    return noise_port("z", model.prior.shape, kind, "latent")


def _context(model: LatentModel, kind: torch.dtype) -> Port | None:
    classes_of(model)
    return context_port([model], None, kind)


def _law(model: LatentModel) -> DensityPrior:
    assert isinstance(model.prior, DensityPrior)
    return model.prior


def _refusal(got: str, expected: str) -> ValueError:
    return invalid(
        got,
        expected,
        "the page shows one group of Gaussian latents, or the levels of a diffusion: use genmod "
        "sample and genmod reconstruct for this model",
    )
