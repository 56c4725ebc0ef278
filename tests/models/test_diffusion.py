r"""The diffusion as a model: built in one line or from parts, its terms the lecture's."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from genmod import random
from genmod.decoders import (
    DiscretizedLogisticDecoder,
    DiscretizedMixtureDecoder,
    GaussianDecoder,
    Identity,
)
from genmod.decoders.likelihoods import FixedScale
from genmod.denoisers import Learned, NoiseTarget, VelocityTarget
from genmod.diffusion import DiffusionPrior, FixedLarge, FixedSmall, LastStepDecoder, NoisingEncoder
from genmod.elbo import Kind, Measure
from genmod.model import LatentModel
from genmod.models import Diffusion
from genmod.schedules import LinearBeta, LinearLogSNR
from tests.oracles import F64, MILD, Bent, correlated, over_signs, real, standard
from tests.statistics import assert_equal_means

LAST = GaussianDecoder(Identity(), (2,), 0.5)
AROUND = DiscretizedMixtureDecoder(Identity(), (2,), 5, around=LinearLogSNR(4.0, -6.0))


def prior_of(model: LatentModel) -> DiffusionPrior:
    """The prior, as what it is."""
    assert isinstance(model.prior, DiffusionPrior)
    return model.prior


def test_one_line_with_the_optimal_parts_is_exact() -> None:
    """N(0, I) through the constructor: the lecture's table of betas, its variance, its decoder."""
    schedule = LinearBeta(1000)
    denoiser = standard(2).denoiser()
    sigma = float(schedule.scales(real(0.0))[1])
    last = LastStepDecoder(denoiser, schedule, GaussianDecoder(Identity(), (2,), FixedScale(sigma)))
    model = Diffusion(
        denoiser=denoiser, schedule=schedule, steps=25, variance=FixedLarge(), decoder=last
    ).double()
    x = real(0.3, -2.0, 1.1, 0.6).reshape(2, 2)
    value = over_signs(real(1.0, 1.0), lambda: model.elbo(x).value)
    torch.testing.assert_close(value, standard(2).law.log_prob(x), rtol=0, atol=1e-11)


def test_the_default_decoder_is_the_denoisers_last_step() -> None:
    r"""``p(x | z_0) = N(x_hat(z_0), s^2)`` with the clean end's noise to begin with: its mean bound

    on Gaussian data is ``-d/2 log(2 pi s^2) - mmse / (2 s^2)``, exactly.
    """
    data, schedule = correlated(), LinearLogSNR(5.0, -5.0)
    model = Diffusion((3,), denoiser=data.denoiser(), schedule=schedule, steps=4).double()
    found = data.mean_over_all(lambda x: model.elbo(x).reconstruction)
    variance = math.exp(-5.0)
    mmse = float(data.mmse(real(5.0)))
    expected = -1.5 * math.log(2 * math.pi * variance) - mmse / (2 * variance)
    assert found == pytest.approx(expected, rel=1e-6)  # the scale is a float32 parameter


def test_integer_data_are_scored_by_masses_that_sum_to_one() -> None:
    """Given ``z_0``, the decoder's masses over all 5 levels sum to one, entry by entry."""
    torch.manual_seed(0)
    model = Diffusion((1,), bins=5, steps=3, width=16, depth=1).double()
    assert model.measure is Measure.MASS
    state = model.prior.sample(3)
    levels = torch.arange(5)[:, None, None].expand(5, 3, 1)
    masses = torch.stack([model.decoder(state).log_prob(x) for x in levels]).exp().sum(0)
    torch.testing.assert_close(masses, torch.ones_like(masses))
    x = model.sample(50)
    assert x.min() >= 0
    assert x.max() <= 4
    assert bool((x == x.round()).all())


def test_the_bound_of_an_untrained_model_in_both_forms() -> None:
    """Closed terms and one sampled path have one mean, with integer data as well."""
    torch.manual_seed(0)
    model = Diffusion((2,), bins=5, steps=4, schedule=MILD, width=16, depth=1).double()
    x = real(1.0, 4.0).expand(4000, 2)
    with torch.no_grad():
        bound = model.elbo(x)
        assert {rate.kind for rate in bound.rates.values()} == {Kind.ANALYTIC}
        assert_equal_means(bound.value, model.log_weight(x))


def test_one_latent_is_a_vae_with_a_fixed_encoder() -> None:
    """``T = 1``: a prior term and a reconstruction, no steps."""
    model = Diffusion((2,), denoiser=Bent(), schedule=MILD, steps=1, decoder=LAST).double()
    x = real(0.4, -1.0)[None]
    with random.keyed(0):
        bound = model.elbo(x)
    assert list(bound.rates) == ["prior"]
    q = NoisingEncoder(MILD)(x).at(real(0.0))
    divergence = 0.5 * (q.variance + q.mean.square() - 1 - q.variance.log()).sum(-1)
    torch.testing.assert_close(bound.rates["prior"].total, divergence)
    with random.keyed(0):
        torch.testing.assert_close(bound.reconstruction, model.decoder(q.rsample()).log_prob(x))


def test_parts_of_ones_own_are_kept() -> None:
    """A denoiser stays what it is; any other module is a network, read as a velocity."""
    denoiser = Learned(nn.Identity(), NoiseTarget())
    model = Diffusion((2,), denoiser=denoiser, schedule=MILD, steps=7, variance=FixedLarge())
    prior = prior_of(model)
    assert prior.denoiser is denoiser
    assert prior.schedule is MILD
    assert prior.steps == 7
    assert isinstance(prior.variance, FixedLarge)
    assert isinstance(prior_of(Diffusion((2,))).variance, FixedSmall)

    class Network(nn.Module):
        def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
            return 0.1 * z

    read = prior_of(Diffusion(2, denoiser=Network())).denoiser
    assert isinstance(read, Learned)
    assert isinstance(read.target, VelocityTarget)


def test_prior_and_decoder_share_one_denoiser_through_a_copy() -> None:
    """One module in two parts: counted once, and still one after a deep copy (as EMA makes)."""
    model = Diffusion((2,), denoiser=Bent(), schedule=MILD, steps=3)
    assert sum(p.numel() for p in model.parameters()) == 2  # the denoiser's and the decoder's scale
    twin = copy.deepcopy(model)
    prior, decoder = prior_of(twin), twin.decoder
    assert isinstance(decoder, LastStepDecoder)
    assert decoder.denoiser is prior.denoiser is prior.reverse.denoiser
    assert decoder.schedule is prior.schedule
    x = torch.zeros(2, 2)
    with random.keyed(0):
        a = model.elbo(x).value
    with random.keyed(0):
        torch.testing.assert_close(twin.elbo(x).value, a)


def test_reconstruct_encode_and_decode() -> None:
    """The code of Gaussian data is the exact flow's; decoding it gives the data back.

    At each time an axis has variance ``alpha^2 l + sigma^2``; the flow keeps standard scores.
    """
    data, schedule = correlated(), LinearLogSNR(9.0, -5.0)
    model = Diffusion((3,), denoiser=data.denoiser(), schedule=schedule).double()
    x = data.axis_points()
    code = model.encode(x)
    assert isinstance(code, Tensor)
    (a0, a1), (s0, s1) = schedule.scales(real(0.0, 1.0))
    # The flow begins at the mean of z_0, not at a draw: standard scores shrink by that.
    clean = (a0.square() * data.values + s0.square()).sqrt()
    noisy = (a1.square() * data.values + s1.square()).sqrt()
    along = (a0 * (x - data.mean)) @ data.vectors * noisy / clean
    expected = a1 * data.mean + along @ data.vectors.T
    torch.testing.assert_close(code, expected, rtol=0, atol=2e-3)
    torch.testing.assert_close(model.decode(code).mean, x, rtol=0, atol=5e-3)
    torch.manual_seed(0)
    assert model.reconstruct(x).shape == x.shape


def test_a_context_reaches_the_denoiser_in_every_use() -> None:
    """A network that returns its context: the decoder's mean, samples and codes follow it."""

    class Told(nn.Module):
        def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
            assert context is not None
            return context + 0 * z

    from_context = Learned(Told(), NoiseTarget())
    model = Diffusion((2,), denoiser=from_context, schedule=MILD, steps=4).double()
    x = torch.zeros(3, 2, dtype=F64)
    told = [torch.full((3, 2), value, dtype=F64) for value in (0.0, 1.0)]
    bounds, samples, codes = [], [], []
    for context in told:
        with random.keyed(0):
            bounds.append(model.elbo(x, context=context).value)
            samples.append(model.sample(3, context))
            codes.append(model.reconstruct(x, context))
    for a, b in (bounds, samples, codes):
        assert bool((a != b).all())
    with random.keyed(0):
        few = model.elbo(x, 2, told[1])
    assert few.rates["steps"].nats.shape == (3, 2)


def test_the_repr_of_a_diffusion_is_its_formula() -> None:
    """Encoder, decoder and prior, as on paper."""
    said = repr(Diffusion((2,), bins=5, steps=3))
    assert "q(z_t | x) = N(z_t; alpha_t x, sigma_t^2 I)" in said
    assert "p(x | z_0) = Logistic over bins(x; x_hat(z_0), s)" in said
    assert "T = 3" in said


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Diffusion(), "got no description of the data and no decoder"),
        (lambda: Diffusion((2, 0)), "an event shape of positive sides"),
        (lambda: Diffusion((2,), steps=0), "steps=0"),
        (lambda: Diffusion((2,), bins=1), "bins=1; expected at least 2"),
        (lambda: Diffusion((2,), variance=FixedLarge()), "in continuous time"),
        (
            lambda: Diffusion(decoder=AROUND, schedule=LinearLogSNR(5.0, -6.0)),
            "under a schedule that starts at",
        ),
    ],
)
def test_a_diffusion_that_cannot_be_is_refused(build: type[Diffusion], message: str) -> None:
    """At construction, with what to do."""
    with pytest.raises(ValueError, match=message):
        build()


def test_data_that_do_not_fit_are_refused() -> None:
    """Shape, fractions, range, NaN: before anything is computed."""
    mass, density = Diffusion((2,), bins=5, steps=3), Diffusion((2,), steps=3)
    nan = torch.tensor([[0.0, math.nan]])
    for model, x, message in (
        (mass, torch.zeros(2, 3), r"x of shape \(2, 3\)"),
        (mass, torch.full((2, 2), 0.5), "not whole numbers"),
        (mass, torch.full((2, 2), 5), "set bins=6"),
        (density, nan, "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=message):
            model.elbo(x)
    decoder = DiscretizedLogisticDecoder(Identity(), (3,), 5)
    mixed = LatentModel(NoisingEncoder(MILD), decoder, DiffusionPrior(Bent(), MILD, (2,), 3))
    with pytest.raises(ValueError, match="the prior's shape"):
        mixed.elbo(torch.zeros(1, 3))
