"""The argument ``prior=``: all that it takes, and what it refuses, with the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Poisson,
)

from genmod import HVAE, VAE, Diffusion, Kind, Stamp, load, priors
from genmod.config import Settings, register
from genmod.config.plain import from_plain, read_arguments, to_plain
from genmod.distributions import Normal
from genmod.encoders import GaussianEncoder
from genmod.nn import MLP
from genmod.priors.given import ModulePrior, as_prior
from genmod.priors.simple import DistributionPrior


@register
class Wide(Settings, nn.Module):
    """A module of a user's own with a density: N(m, 4 I)."""

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(size))

    def log_prob(self, z: Tensor) -> Tensor:
        return self._law().log_prob(z)

    def sample(self, n: int) -> Tensor:
        return self._law().sample((n,))

    def _law(self) -> MultivariateNormal:
        eye = torch.eye(len(self.mean), dtype=self.mean.dtype, device=self.mean.device)
        return MultivariateNormal(self.mean, 4 * eye)


class ByShape(Wide):
    """The same with torch's signature."""

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        return self._law().sample(sample_shape)


GIVEN: dict[str, Any] = {
    "nothing": (lambda: None, priors.NormalPrior),
    "a prior": (lambda: priors.MixturePrior(3), priors.MixturePrior),
    "a model": (lambda: VAE(2, latents=1, width=8), priors.NestedPrior),
    "a diffusion": (lambda: Diffusion(2, width=8, steps=3), priors.NestedPrior),
    "a law": (
        lambda: MultivariateNormal(torch.zeros(2), torch.eye(2)),
        DistributionPrior,
    ),
    "a module": (Wide, ModulePrior),
    "a module like torch's": (ByShape, ModulePrior),
}


@pytest.mark.parametrize("family", [VAE, HVAE])
@pytest.mark.parametrize("name", GIVEN)
def test_one_argument_takes_them_all(name: str, family: Any) -> None:
    make, kind = GIVEN[name]
    latents = 2 if family is VAE else (3, 2)
    model = family(5, latents=latents, width=8, prior=make())
    top = model.prior if family is VAE else model.prior.model.prior
    assert isinstance(top, kind)
    assert model.elbo(torch.randn(4, 5)).value.isfinite().all()
    assert model.sample(3).shape == (3, 5)


def test_a_modules_density_is_the_priors() -> None:
    model: Any = VAE(5, latents=2, width=8, prior=Wide()).double().eval()
    rate = model.elbo(torch.randn(4, 5).double()).rates["prior"]
    assert rate.kind is Kind.MONTE_CARLO
    assert rate.claim is Stamp.BOUND
    z = torch.randn(4, 2).double()
    law = model.prior.law(4)
    torch.testing.assert_close(law.log_prob(z), model.prior.module.log_prob(z))
    model.elbo(torch.randn(4, 5).double()).value.sum().backward()
    assert model.prior.module.mean.grad is not None


class Whole(Wide):
    def sample(self, n: int) -> Tensor:
        return super().sample(n).round().long()


class PerEntry(Wide):
    def log_prob(self, z: Tensor) -> Tensor:
        return -z.square()


class Pair(Wide):
    def sample(self, n: int) -> Tensor:
        z = super().sample(n)
        return z, self.log_prob(z)  # type: ignore[return-value]


def counts() -> Independent:
    return Independent(Poisson(torch.ones(2)), 1)


BAD: dict[str, Any] = {
    "a law of another size": (
        lambda: MultivariateNormal(torch.zeros(3), torch.eye(3)),
        r"shape \(3,\); expected \(2,\).*latents=3",
    ),
    "a prior of another size": (lambda: priors.MixturePrior(3, (4,)), r"latents=4 to the model"),
    "a model of another size": (lambda: VAE(3, latents=1, width=8), r"latents=3 to the model"),
    "a module of another size": (lambda: Wide(3), r"draws of shape \(2, 3\).*expected \(2, 2\)"),
    "a law with a mass": (counts, "mass on integers; expected a law with a density"),
    "a mixture with a mass": (
        lambda: MixtureSameFamily(Categorical(torch.ones(2)), counts().expand((2,))),
        "mass on integers",
    ),
    "a model with a mass": (
        lambda: VAE(2, bins=5, latents=1, width=8),
        r"value is a mass.*give the inner model a Gaussian decoder",
    ),
    "a module with a mass": (Whole, "it has a mass; expected real draws"),
    "a log density of each entry": (PerEntry, r"\(2, 2\) from PerEntry.*one number a row"),
    "draws that are a pair": (Pair, r"a tuple from Pair\.sample.*a tensor of draws"),
    "a network": (lambda: MLP(2, 2, width=8), "prior=MLP; expected a prior, a model"),
    "no component": (lambda: priors.MixturePrior(0), "components=0; expected at least 1"),
    "too few pseudo-inputs": (
        lambda: priors.VampPrior(3, torch.zeros(2, 5)),
        "as many pseudo-inputs as components",
    ),
    "pseudo-inputs of another shape": (
        lambda: priors.VampPrior(2, torch.zeros(2, 4)),
        r"pseudo_inputs of shape \(2, 4\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_prior_of_these_latents_is_refused_with_the_fix(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        VAE(5, latents=2, width=8, prior=make())


@pytest.mark.parametrize("given", [priors.MixturePrior, "mixture"])
def test_a_class_or_a_name_is_refused(given: object) -> None:
    encoder = GaussianEncoder(MLP(3, 4, width=8), (2,))
    with pytest.raises(ValueError, match=r"got prior=(MixturePrior, a class|str); .*an instance"):
        as_prior(given, encoder, (2,))


def test_a_prior_without_a_shape_needs_a_model() -> None:
    with pytest.raises(ValueError, match=r"without a shape.*VAE\(data, prior="):
        priors.MixturePrior(3).sample(2)
    with pytest.raises(ValueError, match="does not state its data"):
        priors.VampPrior(3).bind(GaussianEncoder(MLP(3, 4, width=8), (2,)))


def test_an_encoder_without_a_network_needs_a_model() -> None:
    from genmod.encoders import FullCovarianceEncoder

    with pytest.raises(ValueError, match=r"without a network.*VAE\(data, encoder="):
        FullCovarianceEncoder()(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="both, or neither"):
        FullCovarianceEncoder(MLP(3, 5, width=8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_module_of_a_users_own_is_saved_once_it_is_registered(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model: Any = VAE(5, latents=2, width=8, prior=Wide()).to(dtype).eval()
    with torch.no_grad():
        model.prior.module.mean.add_(1)
    model.save(tmp_path)
    again: Any = load(tmp_path)
    assert torch.equal(model.sample(3, seeds=range(3)), again.sample(3, seeds=range(3)))


WORDS = {
    "MixturePrior(3)": priors.MixturePrior,
    "mixture-prior": priors.MixturePrior,
    "VampPrior(4)": priors.VampPrior,
    "FlowPrior(transforms=1)": priors.FlowPrior,
    "LearnedGaussianPrior": priors.LearnedGaussianPrior,
    "Diffusion(2)": priors.NestedPrior,
}


@pytest.mark.parametrize("text", WORDS)
def test_a_prior_is_set_by_a_word(text: str) -> None:
    """As ``--set model.prior=...`` gives it, and the settings come back as they were."""
    given: dict[str, Any] = {"spec": 5, "latents": 2, "width": 8, "prior": text}
    settings: dict[str, Any] = read_arguments(VAE, given)
    model = VAE(**settings)
    assert isinstance(model.prior, WORDS[text])
    again = from_plain(to_plain(model))
    assert repr(again) == repr(model)


@pytest.mark.parametrize("text", ["FullCovarianceEncoder", "FlowEncoder(transforms=1)"])
def test_a_posterior_is_set_by_a_word(text: str) -> None:
    given: dict[str, Any] = {"spec": 5, "latents": 2, "width": 8, "encoder": text}
    settings: dict[str, Any] = read_arguments(VAE, given)
    model = VAE(**settings)
    assert type(model.encoder).__name__ == text.split("(")[0]
    assert repr(from_plain(to_plain(model))) == repr(model)


def test_the_same_prior_can_be_given_to_two_models() -> None:
    """Each binds its own: they share no parameter."""
    prior = priors.MixturePrior(3)
    a, b = (VAE(5, latents=2, width=8, prior=prior) for _ in range(2))
    assert not {id(p) for p in a.parameters()} & {id(p) for p in b.parameters()}
    assert isinstance(a.posterior(torch.zeros(2, 5)), Normal)
