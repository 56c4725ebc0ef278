"""A decoder is its network's output, read as a distribution: which number is which parameter."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from genmod import Measure, decoders, diffusion
from genmod.decoders import Decoder, Identity
from genmod.decoders.likelihoods import FixedScale, Scale
from genmod.denoisers import GaussianDenoiser
from genmod.distributions.base import Factorized
from genmod.nn import MLP
from genmod.schedules import LinearLogSNR
from genmod.spec import Bins
from tests.oracles_vae import affine

pytestmark = pytest.mark.usefixtures("float64")

STATE = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def network(outputs: int) -> nn.Linear:
    """A linear map of a state of three numbers."""
    return affine(torch.randn(outputs, 3), torch.randn(outputs))


def test_bits_and_levels_read_logits() -> None:
    """Entry by entry; the level changes fastest."""
    bits = network(4)
    x = torch.randint(0, 2, (6, 2, 2))
    law = decoders.BernoulliDecoder(bits, (2, 2))(STATE)
    logits = bits(STATE).reshape(6, 2, 2)
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(x.double())
    torch.testing.assert_close(law.log_prob(x), expected.sum((1, 2)))
    levels = network(6)
    x = torch.randint(0, 3, (6, 2))
    law = decoders.CategoricalDecoder(levels, (2,), 3)(STATE)
    expected = torch.distributions.Categorical(logits=levels(STATE).reshape(6, 2, 3)).log_prob(x)
    torch.testing.assert_close(law.log_prob(x), expected.sum(1))


def scales() -> dict[str, tuple[Scale | float, Tensor]]:
    """Each source of a scale, and the scale it then is on two entries, for a network's numbers."""
    per_dimension = decoders.PerDimensionScale((2,), 0.5)
    with torch.no_grad():
        per_dimension.log_scale.copy_(torch.tensor([0.1, 1.2]) / per_dimension.gain)
    return {
        "a number": (0.7, torch.tensor(0.7)),
        "fixed": (FixedScale(0.7), torch.tensor(0.7)),
        "global": (decoders.GlobalScale(1.3), torch.tensor(1.3)),
        "per dimension": (per_dimension, torch.tensor([0.1, 1.2]).exp()),
    }


@pytest.mark.parametrize("name", list(scales()))
def test_a_gaussian_has_the_scale_it_was_given(name: str) -> None:
    torch.manual_seed(1)
    scale, std = scales()[name]
    mean = network(2)
    x = torch.randn(6, 2)
    law = decoders.GaussianDecoder(mean, (2,), scale)(STATE)
    expected = torch.distributions.Normal(mean(STATE), std).log_prob(x).sum(1)
    torch.testing.assert_close(law.log_prob(x), expected)


def test_a_predicted_scale_comes_after_the_locations() -> None:
    """First the location of each entry, then the log-scale of each; zero means ``initial``."""
    both = network(4)
    x = torch.randn(6, 2)
    law = decoders.GaussianDecoder(both, (2,), decoders.PredictedScale(0.3))(STATE)
    said = both(STATE)
    expected = torch.distributions.Normal(said[:, :2], 0.3 * said[:, 2:].exp())
    torch.testing.assert_close(law.log_prob(x), expected.log_prob(x).sum(1))


def test_learned_scales_learn_the_spread_of_the_data() -> None:
    """The gradient vanishes where the scale is the root mean square of the residuals."""
    x = torch.randn(500, 2) * torch.tensor([0.5, 3.0])
    spread = x.square().mean(0).sqrt()
    for scale, best in (
        (decoders.GlobalScale(), x.square().mean().sqrt()),
        (decoders.PerDimensionScale((2,)), spread),
    ):
        with torch.no_grad():
            scale.log_scale.copy_(best.log() / scale.gain)
        decoder = decoders.GaussianDecoder(affine(torch.zeros(2, 3), torch.zeros(2)), (2,), scale)
        decoder(torch.zeros(500, 3)).log_prob(x).mean().backward()
        assert scale.log_scale.grad is not None
        assert float(scale.log_scale.grad.abs().max()) < 1e-12 * scale.gain


@pytest.mark.parametrize(
    "family", [decoders.DiscretizedLogisticDecoder, decoders.DiscretizedGaussianDecoder]
)
def test_discretized_decoders_put_integers_on_the_line(
    family: type[decoders.DiscretizedLogisticDecoder] | type[decoders.DiscretizedGaussianDecoder],
) -> None:
    """Level ``k`` of 9 lies at ``k / 4 - 1``; the default scale is the width of a bin, learned."""
    location = affine(0.1 * torch.randn(2, 3), torch.zeros(2))
    decoder = family(location, (2,), 9)
    assert isinstance(decoder.scale, decoders.GlobalScale)
    x = torch.randint(2, 7, (6, 2))
    assert float(decoder.scale(x).detach().exp()) == pytest.approx(Bins(9).width)
    cdf = stats.logistic.cdf if family is decoders.DiscretizedLogisticDecoder else stats.norm.cdf
    with torch.no_grad():
        center, place, width = x / 4 - 1, location(STATE), Bins(9).width
        upper, lower = center + width / 2, center - width / 2
        masses = cdf(upper, place, width) - cdf(lower, place, width)
        law = decoder(STATE)
        assert isinstance(law, Factorized)
        torch.testing.assert_close(
            law.elementwise(x), torch.as_tensor(masses).log(), rtol=1e-6, atol=1e-6
        )


def test_a_gaussians_default_scale_is_one_and_learned() -> None:
    decoder = decoders.GaussianDecoder(network(2), (2,))
    assert isinstance(decoder.scale, decoders.GlobalScale)
    assert float(decoder.scale.log_scale.detach()) == 0


# ---------------------------------------------------------------------- the customary choice


@pytest.mark.parametrize(
    ("bins", "kind", "measure"),
    [
        (None, decoders.GaussianDecoder, Measure.DENSITY),
        (2, decoders.BernoulliDecoder, Measure.MASS),
        (3, decoders.DiscretizedLogisticDecoder, Measure.MASS),
        (256, decoders.DiscretizedLogisticDecoder, Measure.MASS),
    ],
)
def test_the_default_likelihood_suits_the_data(
    bins: int | None, kind: type[Decoder], measure: Measure
) -> None:
    """Its network has as many outputs as the decoder reads, whatever the scale."""
    for scale in (None, 0.5, decoders.GlobalScale(), decoders.PredictedScale()):
        decoder = decoders.likelihood(network, (2, 2), bins, scale)
        assert decoder.measure is measure
        assert isinstance(decoder, kind) or (bins == 2 and scale is not None)
        x = decoder(STATE).sample()
        decoder.check(x)
        assert bool(decoder(STATE).log_prob(x).isfinite().all())


def test_identity_returns_the_state() -> None:
    assert Identity()(STATE) is STATE
    assert Identity()(STATE, STATE) is STATE


def test_a_diffusions_last_step_is_its_denoisers() -> None:
    """``p(x | z_0) = N(x_hat(z_0), s^2)``: for Gaussian data, the mean of ``x`` given ``z_0``.

    ``x ~ N(m, v)``, ``z_0 = a x + s eps``: ``E[x | z_0] = m + a v / (a^2 v + s^2) (z_0 - a m)``.
    """
    m, v, schedule = 0.7, 2.0, LinearLogSNR(1.0, -3.0)
    denoiser = GaussianDenoiser(torch.full((2,), m), v * torch.eye(2))
    decoder = diffusion.LastStepDecoder(
        denoiser, schedule, decoders.GaussianDecoder(Identity(), (2,), 0.4)
    )
    z = torch.randn(5, 2)
    alpha, sigma = (float(part) for part in schedule.scales(torch.zeros((), dtype=torch.float64)))
    mean = m + alpha * v / (alpha**2 * v + sigma**2) * (z - alpha * m)
    law = decoder(z)
    torch.testing.assert_close(law.mean, mean)
    x = torch.randn(5, 2)
    torch.testing.assert_close(
        law.log_prob(x), torch.distributions.Normal(mean, 0.4).log_prob(x).sum(1)
    )
    assert decoder.formula() == "p(x | z_0) = N(x; x_hat(z_0), s)"


# ---------------------------------------------------------------------- what it refuses and says


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_is_positive(value: float) -> None:
    for build in (FixedScale, decoders.GlobalScale, decoders.PredictedScale):
        with pytest.raises(ValueError, match="expected a positive finite number"):
            build(value)
    with pytest.raises(ValueError, match="initial="):
        decoders.PerDimensionScale((2,), value)


def test_a_network_of_the_wrong_size_is_refused_by_name() -> None:
    for decoder in (
        decoders.BernoulliDecoder(MLP(3, 5), (4,)),
        decoders.CategoricalDecoder(MLP(3, 5), (2,), 3),
        decoders.GaussianDecoder(MLP(3, 5), (4,), decoders.PredictedScale()),
        decoders.DiscretizedLogisticDecoder(MLP(3, 5), (4,), 9),
    ):
        with pytest.raises(ValueError, match=r"got 5 outputs a row from MLP.*last layer"):
            decoder(STATE)


def test_a_single_value_is_refused() -> None:
    for build in (
        lambda: decoders.CategoricalDecoder(network(2), (2,), 1),
        lambda: decoders.DiscretizedLogisticDecoder(network(2), (2,), 1),
        lambda: decoders.DiscretizedGaussianDecoder(network(2), (2,), 0),
    ):
        with pytest.raises(ValueError, match="at least 2;"):
            build()


def test_formulas_show_which_scale_is_learned() -> None:
    said = {
        "s": (0.5, decoders.GlobalScale()),
        "s_i": (decoders.PerDimensionScale((2,)),),
        "s_i(z)": (decoders.PredictedScale(),),
    }
    for symbol, choices in said.items():
        for scale in choices:
            decoder = decoders.GaussianDecoder(network(2), (2,), scale)
            assert decoder.formula() == f"p(x | z) = N(x; d(z), {symbol})"
    assert "0.25" in repr(FixedScale(0.25))
