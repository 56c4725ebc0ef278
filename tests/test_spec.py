"""What data are: shapes, kinds, integers on the real line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmod.spec import Bins, DataSpec

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


def test_specs_of_the_same_data_are_equal_and_print_what_they_are() -> None:
    spec = DataSpec((1, 8, 8), 17)
    assert DataSpec.of([1, 8, 8], 17) == spec
    assert DataSpec.of(torch.Size((1, 8, 8)), np.int64(17)) == spec
    assert DataSpec.of(spec) is spec
    assert DataSpec.of(spec, 17) is spec
    assert DataSpec.of(np.int32(3)) == DataSpec((3,))
    assert (spec.size, spec.is_integer, DataSpec((3,)).is_integer) == (64, True, False)
    assert str(spec) == "(1, 8, 8), integers 0..16"
    assert eval(repr(spec)) == spec


def test_whatever_has_a_spec_gives_it() -> None:
    class Holder:
        spec = DataSpec((2,), 3)

    assert DataSpec.of(Holder()) is Holder.spec
    with pytest.raises(
        ValueError, match=r"got bins=4 beside data of \(2,\), integers 0..2.*leave bins"
    ):
        DataSpec.of(Holder(), 4)


@pytest.mark.parametrize(
    "shape",
    [(), (0, 3), (-1,), torch.zeros(2), np.zeros(2), "digits", True, None, DataSpec, (1.5,), {3}],
)
def test_what_is_no_shape_is_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match=r"^got .*; expected .*; "):
        DataSpec.of(shape)


def test_a_spec_places_integers_and_leaves_reals_alone() -> None:
    x = torch.tensor([[0, 1, 2]])
    spec = DataSpec((3,), 3)
    assert torch.equal(spec.center(x), Bins(3).center(x))
    assert spec.width == 1.0
    assert torch.equal(spec.edges(x)[0], Bins(3).edges(x)[0])
    real = torch.randn(1, 3)
    assert DataSpec((3,)).center(real) is real
    with pytest.raises(ValueError, match=r"got real data.*integer data.*bins="):
        DataSpec((3,)).edges(real)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int16, torch.uint16, torch.uint64, torch.float16]
)
def test_batches_of_every_type_are_checked_and_widened(dtype: torch.dtype) -> None:
    spec = DataSpec((3,), 256)
    x = torch.tensor([[0, 7, 200]]).to(dtype)
    spec.check(x)
    wide = spec.cast(x, torch.float64)
    assert wide.dtype is (torch.float64 if dtype.is_floating_point else torch.int64)
    assert (2 * wide).tolist() == [[0, 14, 400]]
    with pytest.raises(ValueError, match=r"expected integers in 0..99"):
        DataSpec((3,), 100).check(x)


def test_fractions_are_found_before_rounding() -> None:
    x = torch.tensor([[0.99999999]], dtype=torch.float64)
    assert float(x.float()) == 1.0
    with pytest.raises(ValueError, match="got 1 values of x that are not whole"):
        DataSpec((1,), 2).check(x)


def test_batches_that_do_not_fit_are_refused() -> None:
    spec = DataSpec((2,))
    spec.check(torch.tensor([[math.nan, 1.0]]), torch.tensor([[False, True]]))
    for x, why in (
        (torch.zeros(0, 2), "without a row"),
        (torch.zeros(2), r"a batch of shape \(B, 2\)"),
        (torch.zeros(1, 2).long(), "real numbers, because the data are described without bins"),
        (torch.tensor([[math.nan, 1.0]]), "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=why):
            spec.check(x)
    with pytest.raises(ValueError, match=r"observed of type"):
        spec.check(torch.zeros(1, 2), torch.ones(1, 2))
