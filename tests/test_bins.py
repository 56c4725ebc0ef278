"""Integers on the real line."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmod.spec import Bins

pytestmark = pytest.mark.usefixtures("float64")


@given(count=st.integers(2, 300))
def test_the_bins_tile_the_line(count: int) -> None:
    """Each ends where the next begins; centers run from -1 to 1; the ends are open."""
    bins = Bins(count)
    x = torch.arange(count)
    lower, upper = bins.edges(x)
    torch.testing.assert_close(lower[1:], upper[:-1], rtol=0, atol=1e-14)
    assert lower[0] == -torch.inf
    assert upper[-1] == torch.inf
    center = bins.center(x)
    torch.testing.assert_close(center[[0, -1]], torch.tensor([-1.0, 1.0]), rtol=0, atol=1e-14)
    torch.testing.assert_close(center.diff(), torch.full((count - 1,), bins.width))
    assert bool(((lower < center) & (center < upper)).all())


@given(count=st.integers(2, 300), real=st.floats(-50, 50))
def test_a_real_number_falls_into_the_bin_around_it(count: int, real: float) -> None:
    bins = Bins(count)
    value = torch.tensor([real])
    lower, upper = bins.edges(bins.value(value))
    assert float(lower) - 1e-12 <= real <= float(upper) + 1e-12


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
def test_levels_and_centers_are_inverse_for_every_type(dtype: torch.dtype) -> None:
    bins = Bins(200)
    x = torch.arange(200).to(dtype)
    center = bins.center(x)
    assert center.dtype is (dtype if dtype.is_floating_point else torch.float64)
    assert torch.equal(bins.value(center), torch.arange(200))


def test_infinite_draws_fall_into_the_ends() -> None:
    assert Bins(5).value(torch.tensor([-torch.inf, torch.inf])).tolist() == [0, 4]


@pytest.mark.parametrize("count", [1, 0, -3])
def test_one_level_holds_no_information(count: int) -> None:
    with pytest.raises(ValueError, match=rf"got bins={count}; expected at least 2.*17 for the"):
        Bins(count)
