"""Masses over bins: they sum to one, are right to the last tail, and so are their gradients."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from genmod.distributions import DiscretizedLogistic
from genmod.distributions.discretized import Discretized
from genmod.distributions.discretized_normal import DiscretizedNormal, log_ndtr
from genmod.spec import Bins

pytestmark = pytest.mark.usefixtures("float64")

FAMILIES: list[type[Discretized]] = [DiscretizedLogistic, DiscretizedNormal]
LOCATIONS = [-40.0, -3.0, -1.0, -0.3, 0.0, 0.5, 1.0, 1.01, 7.0, 40.0]
LOG_SCALES = [-12.0, -7.0, -4.5, -2.0, 0.0, 1.0, 3.0, 6.0]


def grid(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Every location with every log-scale, as one row."""
    pairs = torch.cartesian_prod(torch.tensor(LOCATIONS), torch.tensor(LOG_SCALES))
    return pairs[None, :, 0].to(dtype), pairs[None, :, 1].to(dtype)


def tail(family: type[Discretized], z: mpmath.mpf) -> mpmath.mpf:
    """``P(Z > z)`` of the standard member, at the working precision."""
    if family is DiscretizedLogistic:
        return 1 / (1 + mpmath.exp(z))
    return mpmath.erfc(z / mpmath.sqrt(2)) / 2


def exact_log_mass(
    family: type[Discretized], x: int, location: float, log_scale: float, K: int
) -> float:
    """The log mass with 60 digits, from the tail on the bin's own side."""
    with mpmath.workdps(60):
        scale, width = mpmath.exp(mpmath.mpf(log_scale)), mpmath.mpf(2) / (K - 1)
        center = x * width - 1
        a = -mpmath.inf if x == 0 else (center - width / 2 - location) / scale
        b = mpmath.inf if x == K - 1 else (center + width / 2 - location) / scale
        if a + b < 0:  # both families are symmetric: look from the other side
            a, b = -b, -a
        upper = 0 if b == mpmath.inf else tail(family, b)
        return float(mpmath.log(tail(family, a) - upper))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bins", [2, 17, 256])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_masses_sum_to_one(
    family: type[Discretized], bins: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Locations far outside [-1, 1], scales from a thousandth of a bin to a thousand bins."""
    location, log_scale = grid(dtype)
    masses = family(location, log_scale, Bins(bins)).masses()
    assert masses.dtype is dtype
    assert masses.shape == (*location.shape, bins)
    assert (masses.sum(-1) - 1).abs().max() < tolerance


@pytest.mark.parametrize("family", FAMILIES)
def test_the_masses_are_differences_of_the_distribution_function(family: type[Discretized]) -> None:
    """SciPy's, where float64 holds the difference."""
    law = stats.logistic if family is DiscretizedLogistic else stats.norm
    for location, log_scale in ((0.1, -1.0), (-0.7, 0.3), (1.4, -0.5)):
        bins = Bins(17)
        both = torch.tensor([[location]]), torch.tensor([[log_scale]])
        edges = torch.cat([bins.edges(torch.arange(17))[0], torch.tensor([torch.inf])])
        masses = torch.as_tensor(law.cdf(edges, location, math.exp(log_scale))).diff()
        torch.testing.assert_close(
            family(*both, bins).masses()[0, 0], masses, rtol=1e-11, atol=1e-15
        )


@pytest.mark.parametrize("family", FAMILIES)
@given(
    location=st.floats(-50, 50),
    log_scale=st.floats(-12, 6),
    bins=st.sampled_from([2, 3, 17, 256]),
    where=st.floats(0, 1),
)
def test_the_log_masses_are_right_to_the_last_tail(
    family: type[Discretized], location: float, log_scale: float, bins: int, where: float
) -> None:
    """Against 60 digits, where a plain difference is 0 and its log minus infinity."""
    x = min(int(where * bins), bins - 1)
    law = family(torch.tensor([[location]]), torch.tensor([[log_scale]]), Bins(bins))
    found = float(law.elementwise(torch.tensor([[x]])))
    # The location itself is only known to a rounding error: in sigmas, times the density's slope.
    inverse = math.exp(-log_scale)
    reach = (abs(location) + 1) * inverse
    rounding = 1e-15 * (1 + reach) * (1 + (reach if family is DiscretizedNormal else 1))
    expected = exact_log_mass(family, x, location, log_scale, bins)
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-11 + 4 * rounding)


@pytest.mark.parametrize("bins", [17, 256])
def test_in_float32_the_far_tail_keeps_six_digits(bins: int) -> None:
    """At 1 000 std from the mean the log mass is -5e5; a difference of two cdfs there is 0."""
    for family in FAMILIES:
        for location, log_scale, x in ((3.0, -6.0, 0), (-2.0, -5.5, bins - 2), (2.5, -4.0, 3)):
            law = family(
                torch.tensor([[location]], dtype=torch.float32),
                torch.tensor([[log_scale]], dtype=torch.float32),
                Bins(bins),
            )
            found = float(law.elementwise(torch.tensor([[x]])))
            assert found == pytest.approx(
                exact_log_mass(family, x, location, log_scale, bins), rel=3e-6
            )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("log_scale", [-5.0, -1.0, 2.0, 5.5])
def test_gradients_are_right_in_every_branch(family: type[Discretized], log_scale: float) -> None:
    """Open ends, near and far tails, bins narrow against the scale: finite and as differences say.

    At an open end the gradient in ``log_scale`` was NaN while infinity went through a product.
    """
    x = torch.tensor([[0, 1, 8, 15, 16]])
    for location in (-0.9, 0.0, 1.3):
        inputs = (
            torch.full((1, 5), location, requires_grad=True),
            torch.full((1, 5), log_scale, requires_grad=True),
        )

        def log_masses(loc: Tensor, scale: Tensor) -> Tensor:
            return family(loc, scale, Bins(17)).elementwise(x)

        assert torch.autograd.gradcheck(log_masses, inputs, eps=1e-6, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gradient_is_ever_nan(family: type[Discretized], dtype: torch.dtype) -> None:
    for bins in (2, 17, 256):
        for x in (0, 1, bins // 2, bins - 1):
            location, log_scale = (part.requires_grad_() for part in grid(dtype))
            law = family(location, log_scale, Bins(bins))
            grads = torch.autograd.grad(
                law.log_prob(torch.full(location.shape, x)).sum(), (location, log_scale)
            )
            assert all(bool(grad.isfinite().all()) for grad in grads)


def test_the_narrow_branch_of_the_normal_meets_the_other() -> None:
    """Across the border ``width (1 + |end|) = 0.01`` values and slopes agree with 60 digits."""
    width = Bins(256).width
    for end in (0.1, 3.0, 20.0):
        border = math.log(width * (1 + end) / 1e-2)
        log_scales = torch.linspace(border - 0.02, border + 0.02, 41)
        location = end * log_scales.exp()  # the middle bin lies ``end`` std left of the mean
        x = torch.full((1, 41), 127)
        found = DiscretizedNormal(location[None], log_scales[None], Bins(256)).elementwise(x)[0]
        expected = torch.tensor(
            [
                exact_log_mass(DiscretizedNormal, 127, float(loc), float(scale), 256)
                for loc, scale in zip(location, log_scales, strict=True)
            ]
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-11 * (1 + end) ** 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_follow_the_masses(family: type[Discretized]) -> None:
    """Chi-square at a false alarm of 1e-6."""
    location, log_scale = torch.tensor([[0.3, -2.0, 0.9]]), torch.tensor([[-1.5, 0.5, -0.2]])
    law = family(location.expand(20_000, -1), log_scale.expand(20_000, -1), Bins(9))
    x, masses = law.sample(), family(location, log_scale, Bins(9)).masses()[0]
    assert x.dtype is torch.long
    for entry in range(3):
        counts = torch.bincount(x[:, entry], minlength=9).double()
        expected = masses[entry] * len(x)
        pooled = expected > 5
        seen = torch.cat([counts[pooled], counts[~pooled].sum()[None]])
        hoped = torch.cat([expected[pooled], expected[~pooled].sum()[None].clamp(min=1e-9)])
        assert stats.chisquare(seen, hoped, sum_check=False).pvalue > 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_is_that_of_the_masses(family: type[Discretized]) -> None:
    """Narrow: the level itself. Wide: half of the mass at either end."""
    bins, level = Bins(9), torch.arange(9.0)
    narrow = family(bins.center(level)[None], torch.tensor(-9.0), bins)
    torch.testing.assert_close(narrow.mean[0], level)
    wide = family(torch.zeros(1, 1), torch.tensor(12.0), bins)
    torch.testing.assert_close(wide.mean, torch.full((1, 1), 4.0))
    skewed = family(torch.tensor([[0.8]]), torch.tensor(0.1), bins)
    torch.testing.assert_close(skewed.mean, (skewed.masses() * level).sum(-1))
    assert float(skewed.mean) < float(bins.value(torch.tensor(0.8)))  # the end cuts the tail


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_a_distribution_over_events(family: type[Discretized]) -> None:
    law = family(torch.zeros(4, 1, 2, 3), torch.zeros(2, 3), Bins(5))
    assert law.batch_shape == (4,)
    assert law.event_shape == (1, 2, 3)
    x = law.sample()
    torch.testing.assert_close(law.log_prob(x), law.elementwise(x).sum((1, 2, 3)))
    with pytest.raises(ValueError, match=r"sample_shape=\(2,\).*repeat the rows"):
        law.sample((2,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_slope_of_the_normals_tail_is_right_at_any_distance(dtype: torch.dtype) -> None:
    """``phi(x) / Phi(x)`` with 60 digits; torch's ``log_ndtr`` is 5 % off at -1e3 in float32."""
    x = torch.tensor([-3e6, -1e3, -40.0, -3.0, -1.0001, -0.9999, 0.0, 3.0], dtype=dtype)
    x.requires_grad_()
    value = log_ndtr(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    with mpmath.workdps(60):
        for i, point in enumerate(x.tolist()):
            mass = tail(DiscretizedNormal, -mpmath.mpf(point))
            assert float(value[i].detach()) == pytest.approx(float(mpmath.log(mass)), rel=1e-6)
            exact = mpmath.npdf(mpmath.mpf(point)) / mass
            assert float(slope[i]) == pytest.approx(
                float(exact), rel=4 * torch.finfo(dtype).eps * 8
            )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("x", [0, 3, 254, 255])
def test_in_float32_gradients_of_the_far_tail_keep_five_digits(
    family: type[Discretized], x: int
) -> None:
    """Against float64, where ``gradcheck`` has confirmed them, hundreds of std from the mean."""
    slopes = []
    for dtype in (torch.float64, torch.float32):
        location = torch.tensor([[0.3]], dtype=dtype, requires_grad=True)
        log_scale = torch.tensor([[-6.0]], dtype=dtype, requires_grad=True)
        log_mass = family(location, log_scale, Bins(256)).log_prob(torch.tensor([[x]]))
        slopes.append(torch.autograd.grad(log_mass.sum(), (location, log_scale)))
    for exact, found in zip(*slopes, strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
