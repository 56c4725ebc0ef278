"""Small models of every kind, and two ways to score one path of their latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal
from torch.distributions import Normal as TorchNormal

from genmod import decoders, encoders
from genmod.denoisers import Learned
from genmod.diffusion import FixedLarge
from genmod.distributions import rate
from genmod.interop.pyro import PyroPair
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Diffusion, Inference
from genmod.nn import MLP, DenoisingMLP
from genmod.path import Latent, run_path
from genmod.priors import NestedPrior
from genmod.priors.simple import DistributionPrior
from genmod.schedules import LinearLogSNR, Schedule

ROWS = 6


class Case(NamedTuple):
    """A model, data for it, and its context."""

    model: LatentModel
    x: Tensor
    context: Tensor | None = None


def stirred(model: LatentModel, spread: float = 0.3) -> LatentModel:
    """Parameters away from their starting values, where many terms are zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model


def schedule() -> Schedule:
    """Mild ends, so that no term of the bound dwarfs the others."""
    return LinearLogSNR(clean=3.0, noisy=-3.0)


def real() -> Tensor:
    """Real data of three dimensions."""
    return torch.randn(ROWS, 3)


def whole(bins: int) -> Tensor:
    """Integer data, two by two."""
    return torch.randint(0, bins, (ROWS, 1, 2, 2))


def vae(bins: int | None = None) -> Case:
    """A VAE with the default decoder for its kind of data."""
    if bins is None:
        return Case(VAE(3, latents=2, width=8, depth=1), real())
    return Case(VAE((1, 2, 2), bins, latents=2, width=8, depth=1), whole(bins))


def categorical() -> Case:
    """A VAE with unordered levels."""
    decoder = decoders.CategoricalDecoder(MLP(2, 4 * 3, width=8, depth=1), (1, 2, 2), 3)
    return Case(VAE((1, 2, 2), 3, latents=2, width=8, depth=1, decoder=decoder), whole(3))


def given(kind: str) -> Case:
    """A VAE whose prior is one of torch's distributions, with an empty batch."""
    laws = {
        "mixture": MixtureSameFamily(
            Categorical(torch.ones(2)),
            Independent(TorchNormal(torch.tensor([[-1.0, 0.5], [2.0, 1.0]]), torch.ones(2, 2)), 1),
        ),
        "full": MultivariateNormal(
            torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 0.4], [0.4, 0.5]])
        ),
        "diagonal": Independent(
            TorchNormal(torch.tensor([0.5, -1.0]), torch.tensor([0.7, 2.0])), 1
        ),
    }
    return Case(VAE(3, latents=2, width=8, depth=1, prior=DistributionPrior(laws[kind])), real())


def hierarchy(inference: Inference) -> Case:
    """Three levels."""
    return Case(HVAE(3, latents=(3, 2, 2), inference=inference, width=8, depth=1), real())


def diffusion(steps: int = 4) -> Case:
    """A short diffusion of integers; ``steps`` latents."""
    model = Diffusion((1, 2, 2), 5, steps=steps, schedule=schedule(), width=8, depth=1)
    return Case(model, whole(5))


def large() -> Case:
    """A short diffusion of real data whose reverse variance is not the posterior's."""
    return Case(
        Diffusion(3, steps=4, schedule=schedule(), variance=FixedLarge(), width=8, depth=1), real()
    )


def latent_diffusion() -> Case:
    """A VAE whose prior is a diffusion that sees standardized latents."""
    inner = Diffusion(2, steps=4, schedule=schedule(), width=8, depth=1)
    prior = NestedPrior(inner, shift=torch.tensor([0.3, -0.2]), scale=torch.tensor([0.5, 1.7]))
    return Case(VAE(3, latents=2, width=8, depth=1, prior=prior), real())


def told() -> Case:
    """A diffusion nested in a hierarchy, each part with a context of two numbers."""

    def mlp(inputs: int, outputs: int) -> MLP:
        return MLP(inputs, outputs, width=8, depth=1, context=2)

    denoiser = Learned(DenoisingMLP((2,), width=8, depth=1, context=2))
    diffusion = Diffusion(2, steps=3, schedule=schedule(), denoiser=denoiser)
    inner = LatentModel(
        encoders.GaussianEncoder(mlp(2, 4), (2,)),
        decoders.GaussianDecoder(mlp(2, 2), (2,)),
        NestedPrior(diffusion, name="code"),
    )
    model = VAE(
        encoder=encoders.GaussianEncoder(mlp(3, 4), (2,)),
        decoder=decoders.GaussianDecoder(mlp(2, 3), (3,)),
        prior=inner,
    )
    return Case(model, real(), torch.randn(ROWS, 2))


CASES: Mapping[str, Callable[[], Case]] = {
    "vae-real": vae,
    "vae-bits": lambda: vae(2),
    "vae-bins": lambda: vae(5),
    "vae-categorical": categorical,
    "vae-mixture": lambda: given("mixture"),
    "vae-full": lambda: given("full"),
    "vae-diagonal": lambda: given("diagonal"),
    "hvae-bottom-up": lambda: hierarchy(Inference.BOTTOM_UP),
    "hvae-top-down": lambda: hierarchy(Inference.TOP_DOWN),
    "diffusion": diffusion,
    "diffusion-one-latent": lambda: diffusion(1),
    "diffusion-large-variance": large,
    "latent-diffusion": latent_diffusion,
    "told": told,
}
NESTED = ("hvae-bottom-up", "latent-diffusion", "told")


def build(name: str) -> Case:
    """The case, its parameters stirred, the same at every call."""
    torch.manual_seed(0)
    case = CASES[name]()
    stirred(case.model)
    return case


def trace(pair: PyroPair, case: Case) -> tuple[dict[str, Tensor], Tensor]:
    """One run of the guide, the program replayed on it: the latents, and the bound of each row."""
    guide = poutine.trace(pair.guide).get_trace(case.x, case.context)
    program = poutine.trace(poutine.replay(pair.model, trace=guide)).get_trace(case.x, case.context)
    value = torch.zeros(len(case.x))
    for traced, sign in ((program, 1.0), (guide, -1.0)):
        traced.compute_log_prob()
        for name, site in traced.nodes.items():
            if site["type"] == "sample" and name != "data":
                value = value + sign * site["log_prob"]
    latents = {name: guide.nodes[name]["value"] for name in guide.stochastic_nodes}
    latents.pop("data", None)
    return latents, value


def sampled(case: Case, latents: Mapping[str, Tensor]) -> Tensor:
    """Our sampled bound of each row at given latents: ``log p(x, z) - log q(z | x)``."""
    terms: list[Tensor] = []

    def weigh(level: Latent) -> Tensor:
        z = latents[level.name]
        if level.q is not None:
            terms.append(-level.q.log_prob(z))
        if level.p is not None:
            terms.append(level.p.log_prob(z))
        return z

    return _path(case, weigh) + torch.stack(terms).sum(0)


def closed(case: Case, latents: Mapping[str, Tensor]) -> Tensor:
    """Our bound of each row along given latents, each level's KL closed where there is a form."""
    nats: list[Tensor] = []

    def add_rate(level: Latent) -> Tensor:
        assert level.q is not None
        assert level.p is not None
        nats.append(rate(level.q, level.p, latents[level.name]).total)
        return latents[level.name]

    return _path(case, add_rate) - torch.stack(nats).sum(0)


def _path(case: Case, draw: Callable[[Latent], Tensor]) -> Tensor:
    model, (_, x, context) = case.model, case
    state = run_path(model.prior.infer(model.encoder(x, context), context), draw)
    return model.decoder(state, context).log_prob(x)
