r"""The parts of a model as functions from tensors to tensors: what a file for another runtime can hold.

Every part takes and gives rows. States of a diffusion are variance preserving here
(:math:`z_t = \alpha x + \sigma \varepsilon` with :math:`\alpha^2 = \mathrm{sigmoid}(\lambda)`,
:math:`\sigma^2 = \mathrm{sigmoid}(-\lambda)`), whatever schedule the model has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F

from genmod.checks import invalid
from genmod.denoisers import Denoiser
from genmod.diffusion import DiffusionPrior, NoisingEncoder
from genmod.diffusion.depth import NoisingHierarchyPrior
from genmod.diffusion.noising import NoisingPosterior
from genmod.distributions import Normal
from genmod.encoders import Posterior
from genmod.export.base import (
    Part,
    Port,
    context_port,
    data_port,
    dtype_of,
    law_names,
    law_outputs,
    log_snr_port,
    mask_port,
    noise_port,
)
from genmod.model import LatentModel
from genmod.path import Latent, run_path
from genmod.priors import NestedPrior, NormalPrior, TopDownPrior
from genmod.schedules import Schedule
from genmod.tensors import expand_like

_ALIGNED = (TopDownPrior, NoisingHierarchyPrior)
"""Priors of several levels, each inferred given the levels above."""


class EncoderPart(Part):
    """``q(z | x)``: from data to the mean and the log-std of the latents.

    Of a top-down hierarchy each level's law is given the means of the levels above. Of a diffusion it is
    ``q(z_t | x)`` at any log-SNR.
    """

    def __init__(self, model: LatentModel, example: Tensor | None) -> None:
        kind, encoder = dtype_of(model), model.encoder
        inside: list[nn.Module] = [encoder]
        if isinstance(model.prior, _ALIGNED):
            inside.append(model.prior)
        ports = [data_port(model.spec, kind), context_port(inside, example, kind)]
        if model.spec.missing:
            ports.append(mask_port(model.spec.shape))
        if isinstance(encoder, NoisingEncoder):
            ports[1] = None
            ports.append(log_snr_port(encoder.schedule.log_snr_range(), kind))
        super().__init__("encoder", ports)
        self.model = model

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        context = given.get("context")
        posterior = self.model.posterior(given["x"], context, given.get("observed"))
        if isinstance(posterior, Distribution):
            return law_outputs(posterior)
        if isinstance(posterior, NoisingPosterior):
            log_snr = expand_like(given["log_snr"], posterior.x)
            mean = (0.5 * F.logsigmoid(log_snr)).exp() * posterior.x
            return {"mean": mean, "log_std": (0.5 * F.logsigmoid(-log_snr)).expand_as(mean)}
        return self._levels(posterior, context)

    def _levels(self, posterior: Posterior, context: Tensor | None) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def keep(latent: Latent) -> Tensor:
            assert latent.q is not None
            for name, tensor in law_outputs(latent.q).items():
                found[f"{latent.name}_{name}"] = tensor
            return latent.q.mean

        run_path(self.model.prior.infer(posterior, context), keep)
        return found


class DecoderPart(Part):
    """``p(x | z)``: from the latents to the mean of ``x`` and the parameters of its distribution."""

    def __init__(self, model: LatentModel, example: Tensor | None) -> None:
        kind, prior = dtype_of(model), model.prior
        inside: list[nn.Module] = [model.decoder]
        diffused = isinstance(model.encoder, NoisingEncoder)
        if isinstance(prior, _ALIGNED):
            inside.append(prior)
            latents = _level_shapes(model, context_port(inside, example, kind))
        else:
            latents = {"z_0" if diffused else "z": prior.shape}
        ports: list[Port | None] = [
            noise_port(name, shape, kind, "latent") for name, shape in latents.items()
        ]
        super().__init__("decoder", [*ports, context_port(inside, example, kind)])
        self.model, self.latents = model, tuple(latents)
        schedule = model.encoder.schedule if isinstance(model.encoder, NoisingEncoder) else None
        self.scale = _size_at_zero(schedule)

    def law(self, given: Mapping[str, Tensor]) -> Distribution:
        """The distribution of ``x``."""
        context = given.get("context")
        z = [given[name] for name in self.latents]
        if isinstance(self.model.encoder, NoisingEncoder):
            return self.model.law(z[0] * self.scale, context)
        latents = z[0] if len(z) == 1 else tuple(z)
        return self.model.law(self.model.prior.state_from(latents, context), context)

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return law_outputs(self.law(given))

    @torch.no_grad()
    def laws(self, given: Mapping[str, Tensor]) -> dict[str, object]:
        return law_names(self.law(given))


class DenoiserPart(Part):
    """The denoiser of a diffusion: from ``z_t`` and its log-SNR to the mean of the clean ``x``."""

    def __init__(self, model: LatentModel, prior: DiffusionPrior, example: Tensor | None) -> None:
        kind = dtype_of(model)
        ports = [
            noise_port("z_t", prior.shape, kind, "states, variance preserving"),
            log_snr_port(prior.schedule.log_snr_range(), kind),
            context_port([prior.denoiser], example, kind),
        ]
        super().__init__("denoiser", ports)
        self.denoiser: Denoiser = prior.denoiser

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        denoised = self.denoiser(given["z_t"], given["log_snr"], given.get("context"))
        found = denoised._asdict()
        return {name: tensor for name, tensor in found.items() if tensor is not None}


class PriorPart(Part):
    """``p(z)`` of a hierarchy: from standard normal noise for each level to the decoder's latents.

    Of a latent diffusion: from the ``z_0`` that its sampler ends with.
    """

    def __init__(self, model: LatentModel, example: Tensor | None) -> None:
        kind, prior = dtype_of(model), model.prior
        context = context_port([prior], example, kind)
        super().__init__("prior", [*_prior_ports(model, context, kind), context])
        self.model = model
        innermost = _nesting(model)[-1]
        self.scale = _size_at_zero(
            innermost.schedule if isinstance(innermost, DiffusionPrior) else None
        )

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        context = given.get("context")
        if isinstance(self.model.prior, _ALIGNED):
            found: dict[str, Tensor] = {}

            def take(step: tuple[str, Distribution]) -> Tensor:
                name, law = step
                found[name] = _moved(law, given[f"noise_{name}"])
                return found[name]

            rows = next(iter(given.values())).shape[0]
            run_path(self.model.prior.generate(rows, context), take)
            return found
        *outer, innermost = _nesting(self.model)
        if isinstance(innermost, DiffusionPrior):
            state = given["z_0"] * self.scale
        else:
            assert isinstance(innermost, NormalPrior)
            state = given[f"noise_{innermost.name}"]
        for prior in reversed(outer):
            assert isinstance(prior, NestedPrior)
            state = _moved(prior.law(state, context), given[f"noise_{prior.name}"])
        return {"z": state}


def model_parts(model: LatentModel, example: Tensor | None = None) -> list[Part]:
    """The parts that a file can hold.

    Args:
        model: in evaluation mode, on the CPU.
        example: rows of a context, for networks whose kind of context is not known.
    """
    parts: list[Part] = [EncoderPart(model, example), DecoderPart(model, example)]
    innermost = _nesting(model)[-1]
    if isinstance(innermost, DiffusionPrior):
        parts.append(DenoiserPart(model, innermost, example))
    nested = isinstance(model.prior, NestedPrior)
    known = isinstance(innermost, DiffusionPrior | NormalPrior)
    if isinstance(model.prior, _ALIGNED) or (nested and known):
        parts.append(PriorPart(model, example))
    for part in parts:
        part.separate()
    return parts


def _prior_ports(model: LatentModel, context: Port | None, kind: torch.dtype) -> list[Port]:
    about = "standard normal noise"
    if isinstance(model.prior, _ALIGNED):
        levels = _level_shapes(model, context).items()
        return [noise_port(f"noise_{name}", shape, kind, about) for name, shape in levels]
    *outer, innermost = _nesting(model)
    assert isinstance(innermost, DiffusionPrior | NormalPrior)
    if isinstance(innermost, DiffusionPrior):
        first = noise_port("z_0", innermost.shape, kind, "the last state of the sampler")
    else:
        first = noise_port(f"noise_{innermost.name}", innermost.shape, kind, about)
    ports = [first]
    for prior in reversed(outer):
        assert isinstance(prior, NestedPrior)
        ports.append(noise_port(f"noise_{prior.name}", prior.shape, kind, about))
    return ports


def _moved(law: Distribution, noise: Tensor) -> Tensor:
    """A draw of a Gaussian by given noise."""
    if not isinstance(law, Normal):
        raise invalid(
            f"a hierarchy with a {type(law).__name__} level",
            "Gaussian levels",
            "use decoders.GaussianDecoder for the levels, which is what an exported prior draws "
            "from",
        )
    return law.mean + law.stddev * noise


def _nesting(model: LatentModel) -> list[nn.Module]:
    """The priors of a model and of the models nested in it, from the outermost on."""
    found: list[nn.Module] = [model.prior]
    while isinstance(found[-1], NestedPrior):
        found.append(found[-1].model.prior)
    return found


def _level_shapes(model: LatentModel, context: Port | None) -> dict[str, tuple[int, ...]]:
    """The shape of each level of a top-down hierarchy, in the order in which they are drawn."""
    found: dict[str, tuple[int, ...]] = {}
    given = None if context is None else context.draw(1, torch.Generator())

    def keep(step: tuple[str, Distribution]) -> Tensor:
        name, law = step
        found[name] = tuple(law.event_shape)
        return law.mean

    with torch.no_grad():
        run_path(model.prior.generate(1, given), keep)
    return found


def _size_at_zero(schedule: Schedule | None) -> float:
    """The factor from variance-preserving states at t = 0 to the schedule's own."""
    return 1.0 if schedule is None else math.hypot(*schedule.scales_at_zero())
