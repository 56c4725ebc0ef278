"""Columns of a table: what belongs to each kind, and what networks get of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from genmod.columns import Column, ColumnKind, features
from genmod.config.plain import from_plain, to_plain
from genmod.spec import DataSpec, Standardize

TABLE = (
    Column("height", "real", mean=170.0, std=10.0),
    Column("year", ColumnKind.INTEGER, mean=2000.0, std=5.0, low=1990),
    Column("visits", "count", mean=3.0),
    Column("color", "category", ("red", "green", "blue")),
    Column("grade", "ordinal", (1, 2, 3, 4, 5)),
)
SPEC = DataSpec((5,), columns=TABLE, missing=True)
ROWS = torch.tensor([[180.0, 1995.0, 0.0, 2.0, 4.0], [165.0, 2010.0, 7.0, 0.0, 0.0]])


def test_rows_that_belong_pass_and_missing_entries_may_hold_anything() -> None:
    SPEC.check(ROWS)
    seen = torch.ones_like(ROWS, dtype=torch.bool)
    broken = ROWS.clone()
    broken[0] = torch.tensor([math.nan, 0.5, -3.0, 17.0, 0.3])
    seen[0] = False
    SPEC.check(broken, seen)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, math.inf, "NaN or infinite"),
        (1, 1990.5, "'year'.*such as 1990.5; expected whole numbers"),
        (1, 1980.0, "'year'.*from 1990 to inf"),
        (2, -1.0, "'visits'.*from 0 to inf"),
        (3, 3.0, "'color'.*such as 3.*from 0 to 2"),
        (4, 5.0, "'grade'.*from 0 to 4"),
    ],
)
def test_a_value_that_does_not_belong_is_refused_with_its_column(
    place: int, value: float, message: str
) -> None:
    rows = ROWS.clone()
    rows[1, place] = value
    with pytest.raises(ValueError, match=message):
        SPEC.check(rows)


def test_integers_are_refused_because_columns_are_floating_point() -> None:
    with pytest.raises(ValueError, match=r"torch.int64.*floating point.*x.float\(\)"):
        SPEC.check(ROWS.long())


def test_a_spec_with_columns_is_plain_data_and_back() -> None:
    plain: Any = to_plain(SPEC)
    assert plain["columns"][0] == {
        "class": "Column", "name": "height", "kind": "real", "values": None, "mean": 170.0,
        "std": 10.0, "low": None, "high": None,
    }  # fmt: skip
    assert type(plain["columns"][0]["kind"]) is str
    assert from_plain(plain) == SPEC
    assert hash(from_plain(plain)) == hash(SPEC)
    assert to_plain(from_plain(plain)) == plain


def test_what_it_says_of_itself() -> None:
    assert (
        str(SPEC)
        == "(5,), columns: 1 real, 1 integer, 1 count, 1 category, 1 ordinal, some missing"
    )
    assert (SPEC.is_mixed, SPEC.is_discrete, SPEC.is_integer) == (True, False, False)
    reals = DataSpec((1,), columns=TABLE[:1])
    assert (reals.is_mixed, reals.is_discrete) == (False, False)
    assert DataSpec((2,), columns=TABLE[1:3]).is_discrete
    assert reals.standardize == Standardize([170.0], [10.0])
    assert SPEC.standardize == Standardize((170.0, *4 * (0.0,)), (10.0, *4 * (1.0,)))
    assert DataSpec((2,), columns=TABLE[1:3]).standardize.is_identity
    assert DataSpec((3,)).standardize.is_identity


def test_features_are_of_spread_near_one_and_zero_where_missing() -> None:
    seen = torch.ones_like(ROWS, dtype=torch.bool)
    seen[1, [0, 2, 3]] = False
    found = SPEC.features(ROWS, seen)
    assert found.shape == (2, *SPEC.feature_shape) == (2, 12)
    grown = math.log1p(0.0) - math.log1p(3.0)
    expected = torch.tensor([
        [180.0, -1.0, grown, 1.0, 0, 0, 1, 1, 1, 1, 1, 1],
        [0.0, 2.0, 0.0, -1.0, 0, 0, 0, 0, 1, 0, 0, 1],
    ])  # fmt: skip
    torch.testing.assert_close(found, expected)
    assert torch.equal(SPEC.features(ROWS), SPEC.features(ROWS, torch.ones_like(seen)))
    assert torch.equal(features(ROWS, TABLE), SPEC.features(ROWS)[:, :7])


def test_images_with_missing_pixels_get_the_mask_as_channels() -> None:
    spec = DataSpec((1, 2, 2), 3, missing=True)
    x = torch.tensor([[[[0.0, 1.0], [2.0, 2.0]]]])
    seen = torch.tensor([[[[True, True], [True, False]]]])
    assert spec.feature_shape == (2, 2, 2)
    assert spec.features(x, seen).tolist() == [
        [[[-1.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]]]
    ]
    assert DataSpec((1, 2, 2), 3).feature_shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "number"}, "expected one of 'real', 'integer'"),
        ({"kind": "category"}, "'a' .category. with values=None"),
        ({"values": ("x", "y")}, "of no other kind"),
        ({"std": 0.0}, "positive std"),
        ({"mean": math.nan}, "finite mean"),
        ({"kind": "count", "high": 3}, "bounds of an integer alone"),
        ({"kind": "integer", "low": 3, "high": 3}, "low < high"),
    ],
)
def test_columns_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Column("a", **settings)


def test_columns_of_another_number_or_with_equal_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"5 columns for events of shape .4,."):
        DataSpec((4,), columns=TABLE)
    with pytest.raises(ValueError, match=r"two columns named .'a'.; .*rename"):
        DataSpec((2,), columns=(Column("a"), Column("a", "count")))
    with pytest.raises(ValueError, match="bins=3 beside columns"):
        DataSpec((1,), 3, columns=TABLE[:1])
