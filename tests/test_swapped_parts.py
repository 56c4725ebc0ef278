"""A part of one's own that breaks a promise is refused where it enters, by name and with what to do.

Each case is a mistake that would else give a wrong number without a word, or an error inside the package.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Independent,
    Normal,
    TransformedDistribution,
)
from torch.distributions.transforms import AffineTransform

from genmod import decoders, encoders, priors
from genmod.denoisers import Denoised, Denoiser, GaussianDenoiser
from genmod.editing import interpolate
from genmod.evaluation import evaluate, score
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion, with_denoiser
from genmod.nn import Labels, MLPs
from genmod.objectives import IWAE, Bound, Objective
from genmod.samplers import DDIM, DPMSolver, Heun, Sampler, SingleStep, State
from genmod.schedules import Schedule
from genmod.spec import DataSpec
from genmod.training import fit
from tests.test_bad_input import require_teaching

X = torch.linspace(-2, 2, 18).reshape(6, 3)
SMALL: dict[str, Any] = {"width": 8}


def trained(model: LatentModel, objective: Any = None, **settings: Any) -> object:
    """Two steps of training."""
    return fit(model, X, objective, steps=2, batch_size=3, progress=False, **settings)


def vae(**parts: Any) -> VAE:
    """A small VAE of three numbers."""
    return VAE(3, latents=2, **({} if len(parts) == 2 else SMALL), **parts)


# ---------------------------------------------------------------------- inputs changed in place


class Halved(nn.Module):
    """A network that halves its first input in place, or a copy of it."""

    def __init__(self, outputs: int, in_place: bool, inputs: int = 3) -> None:
        super().__init__()
        self.layer, self.in_place = nn.Linear(inputs, outputs), in_place

    def forward(self, x: Tensor, *_: Tensor) -> Tensor:
        found: Tensor = self.layer(x.mul_(0.5) if self.in_place else x * 0.5)
        return found


class HalvedEncoder(encoders.Encoder):
    """An encoder of one's own with the same fault, without a network of the package's kind."""

    def __init__(self, in_place: bool) -> None:
        super().__init__(3)
        self.network = Halved(2, in_place)

    def forward(self, x: Tensor, context: Any = None, observed: Any = None) -> Independent:
        return Independent(Normal(self.network(x), 1.0), 1)


class HalvedDecoder(decoders.Decoder):
    """A decoder of one's own."""

    def __init__(self, in_place: bool) -> None:
        super().__init__(3)
        self.network = Halved(3, in_place, 2)

    def forward(self, state: Tensor, context: Any = None) -> Independent:
        return Independent(Normal(self.network(state), 1.0), 1)


class HalvedDenoiser(Denoiser):
    """A denoiser of one's own."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.network = Halved(3, in_place)

    def forward(self, z: Tensor, log_snr: Tensor, context: Any = None) -> Denoised:
        return Denoised(self.network(z))


HALVED: dict[str, Callable[[bool], LatentModel]] = {
    "encoder": lambda i: vae(encoder=HalvedEncoder(i)),
    "encoder's network": lambda i: vae(encoder=encoders.GaussianEncoder(Halved(4, i), 2, 3)),
    "point": lambda i: Autoencoder(
        3, latents=2, encoder=encoders.DiracEncoder(Halved(2, i), 2, 3), **SMALL
    ),
    "decoder": lambda i: vae(decoder=HalvedDecoder(i)),
    "decoder's network": lambda i: vae(decoder=decoders.GaussianDecoder(Halved(3, i, 2), 3)),
    "denoiser": lambda i: Diffusion(3, denoiser=HalvedDenoiser(i), steps=4),
    "denoiser's network": lambda i: Diffusion(3, denoiser=Halved(3, i), steps=4),
    "continuous": lambda i: Diffusion(3, denoiser=Halved(3, i)),
}

USES: dict[str, Callable[[LatentModel], object]] = {
    "elbo": lambda model: model.elbo(X.clone()),
    "score": lambda model: score(model, X.clone()),
    "evaluate": lambda model: evaluate(model, X.clone()),
    "reconstruct": lambda model: model.reconstruct(X.clone()),
    "fit": lambda model: fit(model, X.clone(), steps=1, progress=False),
}


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("part", HALVED)
def test_a_part_that_changes_its_input_in_place_is_refused(part: str, use: str) -> None:
    """As ``ReLU(inplace=True)`` in the first layer does: the data would be scored after it."""
    USES[use](HALVED[part](False))
    with pytest.raises(ValueError, match="in place") as error:
        USES[use](HALVED[part](True))
    require_teaching(str(error.value), "clone")


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("sampler", [None, DDIM(), Heun(), DPMSolver(order=2)], ids=str)
def test_no_sampler_accepts_a_denoiser_that_changes_its_state(sampler: Sampler | None) -> None:
    for part in ("denoiser", "denoiser's network"):
        with pytest.raises(ValueError, match="in place"):
            HALVED[part](True).sample(2, sampler=sampler, steps=3)  # type: ignore[call-arg]


# ---------------------------------------------------------------------- other returns than promised


class OwnLoss(Objective):
    """An objective of one's own."""

    def __init__(self, loss: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.own = loss

    def loss(self, elbo: Any, path: Any, batch: Any) -> Any:
        return self.own(elbo.value)


class Weighted(Objective):
    """An objective with a weight to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.zeros(()))

    def loss(self, elbo: Any, path: Any, batch: Any) -> Tensor:
        return -(elbo.value * self.log_weight.exp()).mean() + self.log_weight.square()


class OwnSchedule(Schedule):
    """A schedule that forgets to depend on time."""

    def log_snr(self, t: Tensor) -> Any:
        return 3.0


class OwnDenoiser(Denoiser):
    """A denoiser of one's own."""

    def __init__(self, result: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.result = result

    def forward(self, z: Tensor, log_snr: Tensor, context: Any = None) -> Any:
        return self.result(z)


class OwnStep(SingleStep):
    """A sampler that returns nothing."""

    def update(self, z_t: Tensor, x_hat: Tensor, t: Tensor, s: Tensor) -> Any:
        z_t + x_hat


class OwnPath(Sampler):
    """A sampler that ends after some states, each of them given by a function."""

    def __init__(self, count: int, state: Callable[[Tensor, Tensor], Any] | None = None) -> None:
        super().__init__()
        self.count, self.state = count, state or (lambda s, z: State(s, z, z))

    def trajectory(self, z: Tensor, times: Tensor, denoise: Any) -> Any:
        for s in times[1 : 1 + self.count]:
            yield self.state(s, z)


class NoPath(Sampler):
    """A sampler whose trajectory is no generator."""

    def trajectory(self, z: Tensor, times: Tensor, denoise: Any) -> Any:
        return None


class OwnLaw(decoders.Decoder):
    """A decoder of one's own."""

    def __init__(self, spec: Any, law: Callable[[Tensor], Any]) -> None:
        super().__init__(spec)
        self.layer, self.law = nn.Linear(2, 3), law

    def forward(self, state: Tensor, context: Any = None) -> Any:
        return self.law(self.layer(state))


class OwnPosterior(encoders.Encoder):
    """An encoder whose law has no formula for its mean."""

    def __init__(self) -> None:
        super().__init__(3)
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor, context: Any = None, observed: Any = None) -> Any:
        return without_mean(self.layer(x))


def without_mean(location: Tensor) -> TransformedDistribution:
    """A law that torch knows no mean of."""
    normal = Independent(Normal(location, 1.0), 1)
    return TransformedDistribution(normal, [AffineTransform(0.0, 2.0, event_dim=1)])


def density(location: Tensor) -> Independent:
    """A density of three numbers."""
    return Independent(Normal(location, 1.0), 1)


INTEGERS = DataSpec((3,), bins=4)
ROWS = torch.tensor([[0, 1, 3], [2, 2, 1]])


def diffusion(**parts: Any) -> Diffusion:
    """A small diffusion of three numbers."""
    return Diffusion(3, steps=4, **({} if "denoiser" in parts else SMALL), **parts)


RETURNS: dict[str, tuple[Callable[[], object], str]] = {
    "objective: float": (lambda: trained(vae(), OwnLoss(lambda v: 1.0)), "loss of type float"),
    "objective: None": (lambda: trained(vae(), OwnLoss(lambda v: None)), "loss of type NoneType"),
    "objective: a row each": (lambda: trained(vae(), OwnLoss(lambda v: -v)), "loss of shape"),
    "objective: unlearned": (lambda: trained(vae(), Weighted()), "1 parameters of Weighted"),
    "schedule: float": (lambda: diffusion(schedule=OwnSchedule()), "gives a float"),
    "denoiser: tensor": (
        lambda: diffusion(denoiser=OwnDenoiser(lambda z: z)).elbo(X),
        "expected a Denoised",
    ),
    "denoiser: None": (
        lambda: diffusion(denoiser=OwnDenoiser(lambda z: None)).sample(2),
        "expected a Denoised",
    ),
    "sampler: None": (lambda: diffusion().sample(2, sampler=OwnStep()), "a NoneType of shape None"),
    "sampler: no state": (lambda: diffusion().sample(2, sampler=OwnPath(0)), "got 0 states"),
    "sampler: too few": (lambda: diffusion().sample(2, sampler=OwnPath(2)), "got 2 states"),
    "sampler: no path": (lambda: diffusion().sample(2, sampler=NoPath()), "got 0 states"),
    "sampler: tuples": (
        lambda: diffusion().sample(2, sampler=OwnPath(3, lambda s, z: (s, z, z))),
        "got tuple",
    ),
    "sampler: one row": (
        lambda: diffusion().sample(2, sampler=OwnPath(3, lambda s, z: State(s, z[:1], z))),
        r"got \(1, 3\)",
    ),
    "decoder: a density of integers": (
        lambda: VAE(latents=2, decoder=OwnLaw(INTEGERS, density), **SMALL).elbo(ROWS),
        "density for integers",
    ),
    "decoder: no mean": (
        lambda: vae(decoder=OwnLaw(3, without_mean)).reconstruct(X),
        "without a mean as the decoder's law",
    ),
    "path: no mean": (
        lambda: interpolate(vae(decoder=OwnLaw(3, without_mean)), X[:2], X[2:4], 3),
        "without a mean as the decoder's law",
    ),
    "encoder: no mean": (
        lambda: vae(encoder=OwnPosterior()).encode(X),
        "without a mean as the posterior of prior",
    ),
}


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("case", RETURNS)
def test_what_a_part_must_not_return_is_refused_by_name(case: str) -> None:
    run, got = RETURNS[case]
    with pytest.raises(ValueError, match=got) as error:
        run()
    require_teaching(str(error.value))


def test_a_mass_of_integers_is_taken_from_any_library() -> None:
    """The same decoder with torch's own law of integers, by hand."""
    law = OwnLaw(
        INTEGERS, lambda z: Independent(Categorical(logits=z[..., None].expand(-1, -1, 4)), 1)
    )
    elbo = VAE(latents=2, decoder=law, **SMALL).elbo(ROWS)
    torch.testing.assert_close(elbo.reconstruction, torch.full((2,), -3 * math.log(4)))


def test_an_objective_learns_a_weight_under_an_optimizer_that_has_it() -> None:
    model, objective = vae(), Weighted()
    optimizer = torch.optim.SGD([*model.parameters(), *objective.parameters()], lr=0.1)
    trained(model, objective, optimizer=optimizer, warmup=0, decay=False)
    assert float(objective.log_weight.detach()) != 0


# ---------------------------------------------------------------------- things of another kind

KINDS: dict[str, tuple[Callable[[], object], str]] = {
    "encoder: network": (lambda: vae(encoder=nn.Linear(3, 4)), "encoders.GaussianEncoder"),
    "encoder: class": (lambda: vae(encoder=encoders.GaussianEncoder), r"GaussianEncoder\(...\)"),
    "decoder: network": (lambda: vae(decoder=nn.Linear(2, 3)), "decoders.GaussianDecoder"),
    "point: network": (
        lambda: Autoencoder(3, latents=2, encoder=nn.Linear(3, 2)),  # type: ignore[arg-type]
        "encoders.GaussianEncoder",
    ),
    "hierarchy: network": (
        lambda: HVAE(decoder=nn.Linear(2, 3)),  # type: ignore[arg-type]
        "decoders.GaussianDecoder",
    ),
    "prior of a model: number": (
        lambda: LatentModel(
            encoders.GaussianEncoder(nn.Linear(3, 4), 2, 3),
            decoders.GaussianDecoder(nn.Linear(2, 3), 3),
            2,  # type: ignore[arg-type]
        ),
        "instance of Prior",
    ),
    "network: None": (
        lambda: encoders.GaussianEncoder(None, 2, 3),  # type: ignore[arg-type]
        "instance of Module",
    ),
    "denoiser: class": (lambda: diffusion(denoiser=GaussianDenoiser), r"GaussianDenoiser\(...\)"),
    "denoiser: function": (lambda: diffusion(denoiser=lambda z, t: z), "of type function"),
    "wrapped: None": (
        lambda: with_denoiser(diffusion(), lambda denoiser: None),  # type: ignore[arg-type,return-value]
        "instance of Denoiser",
    ),
    "networks: class": (lambda: VAE(3, networks=MLPs), r"call it: MLPs\(\)"),  # type: ignore[arg-type]
    "condition: class": (lambda: VAE(3, condition=Labels), r"Labels\(...\)"),  # type: ignore[arg-type]
    "objective: class": (lambda: trained(vae(), IWAE), r"call it: IWAE\(\)"),
    "objective: function": (lambda: trained(vae(), lambda *_: 0.0), "of type function"),
    "objective: word": (lambda: trained(vae(), "iwae"), r"did you mean IWAE\(\)"),
    "optimizer: class": (
        lambda: trained(vae(), optimizer=torch.optim.SGD),
        r"SGD\(...\)",
    ),
    "optimizer: word": (lambda: trained(vae(), optimizer="adam"), "optimizer='adam'"),
    "number of samples": (lambda: vae().sample(2.0), "got n=2.0"),  # type: ignore[arg-type]
    "one seed": (lambda: vae().sample(2, seeds=7), "got 1 seeds for 2"),  # type: ignore[arg-type]
    "sparse": (lambda: vae().elbo(X.to_sparse()), "to_dense"),
    "sparse data": (lambda: trained_on(X.to_sparse()), "to_dense"),
}


def trained_on(x: object) -> object:
    """A step of training on rows."""
    return fit(vae(), x, steps=1, progress=False)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("case", KINDS)
def test_a_thing_of_another_kind_is_refused_by_name(case: str) -> None:
    run, got = KINDS[case]
    with pytest.raises(ValueError, match=got) as error:
        run()
    require_teaching(str(error.value))


def test_an_optimizer_that_needs_the_loss_again_is_refused() -> None:
    model = vae()
    with pytest.raises(ValueError, match="LBFGS") as error:
        trained(model, optimizer=torch.optim.LBFGS(model.parameters()))
    require_teaching(str(error.value), "SGD")


def test_an_int_is_the_shape_of_a_vector_everywhere() -> None:
    """In parts as in models."""
    model = LatentModel(
        encoders.GaussianEncoder(nn.Linear(3, 4), 2, 3),
        decoders.GaussianDecoder(nn.Linear(2, 3), 3),
        priors.NormalPrior(2),
    )
    assert model.encoder.latent_shape == model.prior.shape == (2,)
    assert model.sample(2).shape == (2, 3)


def test_numbers_in_the_other_byte_order_are_numbers() -> None:
    """Files of astronomy, and of many instruments, hold them."""
    model = vae().eval()
    for kind in (">f4", ">f8"):
        torch.testing.assert_close(model.encode(X.numpy().astype(kind)), model.encode(X))


# ---------------------------------------------------------------------- settings that nothing uses


def own_vae(**settings: Any) -> VAE:
    """Both parts are the user's."""
    return VAE(
        latents=2,
        encoder=encoders.GaussianEncoder(nn.Linear(3, 4), 2, 3),
        decoder=decoders.GaussianDecoder(nn.Linear(2, 3), 3),
        **settings,
    )


def own_autoencoder(**settings: Any) -> Autoencoder:
    """Both parts are the user's."""
    return Autoencoder(
        latents=2,
        encoder=encoders.DiracEncoder(nn.Linear(3, 2), 2, 3),
        decoder=decoders.GaussianDecoder(nn.Linear(2, 3), 3),
        **settings,
    )


def own_latent(**settings: Any) -> LatentDiffusion:
    """The VAE is the user's."""
    return LatentDiffusion(vae=own_vae(), diffusion=Diffusion(2, **SMALL), **settings)


OWN: dict[str, tuple[Callable[..., object], tuple[str, ...]]] = {
    "VAE": (own_vae, ("width", "depth", "dropout", "networks")),
    "Autoencoder": (own_autoencoder, ("width", "depth", "dropout", "networks")),
    "Diffusion": (
        lambda **settings: Diffusion(3, denoiser=Halved(3, False), **settings),
        ("width", "depth", "dropout", "networks", "fourier"),
    ),
    "LatentDiffusion": (own_latent, ("width", "depth", "dropout", "networks", "latents", "spec")),
}
IGNORED = {
    "width": 7,
    "depth": 3,
    "dropout": 0.1,
    "networks": MLPs(),
    "fourier": (2,),
    "latents": 5,
    "spec": 9,
}


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, (_, ns) in OWN.items() for n in ns])
def test_a_setting_that_no_part_would_use_is_refused(kind: str, name: str) -> None:
    """Beside parts of one's own, settings of default networks did nothing."""
    build = OWN[kind][0]
    build()
    with pytest.raises(ValueError, match="beside") as error:
        build(**{name: IGNORED[name]})
    require_teaching(str(error.value))


@pytest.mark.parametrize("settings", [{"width": 0}, {"width": -4}, {"depth": -1}], ids=str)
def test_networks_without_a_width_are_refused(settings: dict[str, int]) -> None:
    """They have no unit: the model would not read its data, with a warning of torch's alone."""
    for kind in (VAE, Autoencoder, HVAE, Diffusion, LatentDiffusion):
        with pytest.raises(ValueError, match="expected at least"):
            kind(3, **settings)  # type: ignore[arg-type]


def test_bounds_are_still_bounds() -> None:
    """The objects of this file without their faults train."""
    for part in HALVED.values():
        trained(part(False), Bound())
