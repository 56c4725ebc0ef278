"""The units that models compute in: standardization is a map with an inverse and a determinant."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from genmod import VAE
from genmod.data import Standardize, load
from genmod.spec import Column, DataSpec

UNITS = Standardize(mean=(170.0, -3.0, 0.0), std=(10.0, 0.5, 1.0))


def table() -> Tensor:
    """Rows in the units of :data:`UNITS`."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(30, 3, dtype=torch.float64, generator=generator)
    return UNITS.inverse(z)


def test_the_inverse_undoes_it_and_the_determinant_is_that_of_the_jacobian() -> None:
    x = table()
    torch.testing.assert_close(UNITS.inverse(UNITS(x)), x, rtol=1e-14, atol=0)
    jacobian = torch.func.jacrev(lambda row: UNITS(row[None])[0])(x[0])
    assert float(torch.linalg.slogdet(jacobian)[1]) == pytest.approx(UNITS.log_det())


def test_a_mask_leaves_the_determinant_of_the_observed_entries() -> None:
    observed = torch.tensor([[True, True, True], [False, True, False], [True, False, True]])
    assert torch.as_tensor(UNITS.log_det(observed)).tolist() == pytest.approx(
        [-math.log(5.0), -math.log(0.5), -math.log(10.0)]
    )


def test_those_of_rows_give_mean_zero_and_std_one() -> None:
    """Also of the observed entries alone, whatever stands in the others."""
    x = table()
    z = Standardize.of(x)(x)
    assert float(z.mean(0).abs().max()) < 1e-13
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3, dtype=torch.float64))
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[5:, 1] = False
    filled = torch.where(observed, x, torch.nan)
    assert Standardize.of(filled, observed).mean[1] == pytest.approx(float(x[:5, 1].mean()))


def test_without_columns_it_changes_nothing() -> None:
    x = torch.randn(4, 2)
    units = DataSpec((2,)).standardize
    assert units.is_identity
    assert units(x) is x
    assert units.log_det() == 0.0


def test_columns_that_are_not_real_keep_their_values() -> None:
    spec = DataSpec((2,), columns=[Column("height", mean=170.0, std=10.0), Column("n", "count")])
    assert spec.standardize(torch.tensor([[180.0, 7.0]])).tolist() == [[1.0, 7.0]]


def test_a_constant_column_is_refused_by_name() -> None:
    """Rounding does not make two values of one."""
    x = table()
    for constant in (torch.full((30,), 0.3), torch.tensor([0.1 + 0.2, 0.3] * 15)):
        x[:, 1] = constant.double()
        with pytest.raises(ValueError, match="column 'b' without two different values"):
            Standardize.of(x, names=["a", "b", "c"])


@pytest.mark.parametrize(
    ("mean", "std"), [((0.0,), (1.0, 1.0)), ((0.0,), (0.0,)), ((math.inf,), (1.0,))]
)
def test_bad_numbers_are_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="a finite mean and a positive std for each column"):
        Standardize(mean, std)


def test_loaded_rows_are_standardized_by_the_training_part_or_as_given() -> None:
    """The two routes agree, and models take and give the data's own units."""
    x = table().numpy()
    own = load(x, standardize=True)
    assert own.spec.standardize == Standardize.of(own.train)
    given = load(x, standardize=Standardize.of(own.train))
    assert given.spec == own.spec
    units = Standardize(np.median(x, 0), np.ptp(x, 0))
    assert load(x, standardize=units).spec.standardize == units
    model = VAE(given, latents=1, width=8)
    mean = model.decode(torch.zeros(1, 1)).mean[0]
    assert float((mean - torch.tensor(given.spec.standardize.mean)).abs().max()) < 30


def test_units_of_another_number_of_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="2 means for 3 columns"):
        load(table().numpy(), standardize=Standardize((0.0, 0.0), (1.0, 1.0)))
