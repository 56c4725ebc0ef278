"""The border: what passes, what is refused, and that a refusal teaches."""

from __future__ import annotations

import math
from enum import Enum

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from genmod import checks
from genmod.distributions.base import check_law
from genmod.tensors import event_sum, expand_like, repeat, size

NAN = torch.tensor([[1.0, math.nan], [math.inf, 2.0]])


def test_an_error_states_got_expected_and_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"^got a; expected b; c$"):
        raise checks.invalid("a", "b", "c")


@pytest.mark.parametrize("value", [0, -1, math.nan, -math.inf])
def test_what_is_less_than_the_least_is_refused_and_so_is_a_nan(value: float) -> None:
    checks.check_at_least(1, 1, "n", "pass more")
    with pytest.raises(ValueError, match=rf"^got n={value}; expected at least 1; pass more$"):
        checks.check_at_least(value, 1, "n", "pass more")


def test_shapes() -> None:
    checks.check_shape(torch.zeros(5, 2, 3), (2, 3))
    checks.check_shape(torch.zeros(5), ())
    for x in (torch.zeros(2, 3), torch.zeros(5, 3, 2), torch.zeros(5, 1, 2, 3)):
        with pytest.raises(ValueError, match=r"got image of shape .*\(B, 2, 3\).*reshape"):
            checks.check_shape(x, (2, 3), "image")


def test_real_numbers_are_finite_where_they_count() -> None:
    checks.check_real(torch.tensor([1, 2]))
    checks.check_real(NAN, ~NAN.isnan() & ~NAN.isinf())
    with pytest.raises(ValueError, match="got 2 values of x that are NaN or infinite"):
        checks.check_real(NAN)
    with pytest.raises(ValueError, match="got 1 values"):
        checks.check_real(NAN, torch.tensor([[True, True], [False, True]]))
    for x in (torch.zeros(2, dtype=torch.complex64), torch.zeros(2, dtype=torch.bool)):
        with pytest.raises(ValueError, match="real numbers"):
            checks.check_real(x)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float16])
def test_whole_numbers_of_any_type_are_integers(dtype: torch.dtype) -> None:
    x = torch.tensor([[0, 16, 3]], dtype=dtype)
    checks.check_integers(x, 17)
    with pytest.raises(ValueError, match=r"from 0 to 16; expected integers in 0..15; set bins=17"):
        checks.check_integers(x, 16)


def test_what_is_no_level_is_refused_where_it_counts() -> None:
    x = torch.tensor([[0.5, 1.0], [-1.0, 9.0]])
    checks.check_integers(x, 2, torch.tensor([[False, True], [False, False]]))
    checks.check_integers(x, 2, torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="got 1 values of x that are not whole"):
        checks.check_integers(x, 2)
    with pytest.raises(ValueError, match=r"x from -1 to 9"):
        checks.check_integers(x, 2, torch.tensor([[False, True], [True, True]]))
    with pytest.raises(ValueError, match="NaN"):
        checks.check_integers(NAN, 3)


def test_masks_are_boolean_and_of_the_datas_shape() -> None:
    x = torch.zeros(2, 3)
    checks.check_mask(torch.ones(2, 3, dtype=torch.bool), x)
    for mask in (torch.ones(2, 3), torch.ones(3, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"got observed of type.*pass True"):
            checks.check_mask(mask, x)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_settings_are_positive(value: float) -> None:
    checks.check_positive(1e-300, "std")
    with pytest.raises(ValueError, match=r"got std=.*positive finite.*change std"):
        checks.check_positive(value, "std")


def test_checks_of_values_are_skipped_once_the_caller_vouches_for_them() -> None:
    """And only inside the block, an error in it included; shapes are always checked."""
    with checks.trusted():
        checks.check_real(NAN)
        checks.check_integers(NAN, 2)
        with pytest.raises(ValueError, match="shape"):
            checks.check_shape(NAN, (3,))
    with pytest.raises(KeyError), checks.trusted():
        raise KeyError
    with pytest.raises(ValueError, match="NaN"):
        checks.check_real(NAN)


def test_shapes_helpers_agree_with_their_plain_forms() -> None:
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    assert size(()) == 1
    assert size((2, 3)) == 6
    torch.testing.assert_close(event_sum(x), x.sum((1, 2)))
    torch.testing.assert_close(event_sum(x[:, 0, 0]), x[:, 0, 0])
    scale = torch.arange(4.0)
    assert expand_like(scale, x).dtype is x.dtype
    torch.testing.assert_close(
        expand_like(scale, x) * x, torch.einsum("b,bij->bij", scale.double(), x)
    )
    assert torch.equal(repeat(x, 2)[::2], x)
    assert torch.equal(repeat(x, 2)[1::2], x)
    assert repeat(x, 1) is x


LAWS = {
    "rows and events": (Independent(Normal(torch.zeros(3, 2), 1.0), 1), (2,), False),
    "a matrix's event": (Independent(Normal(torch.zeros(3, 4, 2), 1.0), 2), (4, 2), False),
    "an event without sides": (Normal(torch.zeros(3), 1.0), (), False),
    "one law for all rows": (Independent(Normal(torch.zeros(2), 1.0), 1), (2,), True),
    "a prior with rows": (Independent(Normal(torch.zeros(3, 2), 1.0), 1), (2,), True),
}
WRONG_LAWS = {
    "no Independent": (Normal(torch.zeros(3, 2), 1.0), (2,), False, r"Independent\(law, 1\)"),
    "no Independent, square": (
        Normal(torch.zeros(3, 3), 1.0),
        (3,),
        False,
        r"Independent\(law, 1\)",
    ),
    "half of the event": (
        Independent(Normal(torch.zeros(3, 4, 2), 1.0), 1),
        (4, 2),
        False,
        r"wrap it: torch.distributions.Independent\(law, 1\)",
    ),
    "a prior without Independent": (Normal(torch.zeros(2), 1.0), (2,), True, "wrap it"),
    "one row for a batch": (
        Independent(Normal(torch.zeros(1, 2), 1.0), 1),
        (2,),
        False,
        "one row a sample",
    ),
    "a stray dimension": (
        Independent(Normal(torch.zeros(3, 1, 2), 1.0), 1),
        (2,),
        False,
        r"\(3, 1\)",
    ),
    "a shared law where rows are needed": (
        Independent(Normal(torch.zeros(2), 1.0), 1),
        (2,),
        False,
        r"expected batch shape \(3,\) and",
    ),
    "another event": (Independent(Normal(torch.zeros(3, 4), 1.0), 1), (2,), False, "event shape"),
}


@pytest.mark.parametrize("case", LAWS)
def test_a_law_of_one_event_a_row_passes(case: str) -> None:
    law, shape, shared = LAWS[case]
    check_law(law, 3, shape, "the law", shared)


@pytest.mark.parametrize("case", WRONG_LAWS)
def test_a_law_that_broadcasts_to_something_else_is_refused(case: str) -> None:
    law, shape, shared, message = WRONG_LAWS[case]
    with pytest.raises(ValueError, match=message):
        check_law(law, 3, shape, "the law", shared)


def test_what_is_no_law_is_refused_by_its_type() -> None:
    with pytest.raises(ValueError, match="of type Tensor"):
        check_law(torch.zeros(3), 3, (), "the decoder's law")


def test_checks_of_values_pass_where_values_cannot_be_read() -> None:
    """Inside ``vmap``, alone or around a gradient, and in one graph of a compiler; not of ``grad``."""

    def checked(x: Tensor) -> Tensor:
        checks.check_real(x)
        checks.check_integers(x, 3)
        return 2 * x

    x = torch.tensor([[0.0, math.nan], [1.0, 7.0]])
    torch.testing.assert_close(torch.vmap(checked)(x), 2 * x, equal_nan=True)
    slopes = torch.vmap(torch.func.grad(lambda row: checked(row).sum()))(x)
    torch.testing.assert_close(slopes, torch.full((2, 2), 2.0))
    torch.compiler.reset()
    compiled = torch.compile(checked, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), 2 * x, equal_nan=True)
    with pytest.raises(ValueError, match="NaN"):
        torch.func.grad(lambda row: checked(row).sum())(x)


class Color(Enum):
    RED = "red"
    LIGHT_BLUE = "light-blue"


class Part:
    pass


class Wheel(Part):
    pass


def test_a_choice_is_taken_by_name_or_by_member() -> None:
    assert checks.choice(Color, "red") is Color.RED
    assert checks.choice(Color, Color.LIGHT_BLUE) is Color.LIGHT_BLUE
    for value, why in (
        ("rad", r"got color='rad'; expected one of 'red', 'light-blue'; did you mean 'red'\?"),
        ("LIGHT_BLUE", r"did you mean 'light-blue'\?"),
        (3, "choose one of these"),
        (None, "got color=None"),
        (Color, "got color=<enum"),
    ):
        with pytest.raises(ValueError, match=why):
            checks.choice(Color, value)
    assert checks.one_of(["vae", "hvae"], "vae", "model") == "vae"
    with pytest.raises(ValueError, match=r"got model='vea'.*did you mean 'vae'\?"):
        checks.one_of(["vae", "hvae"], "vea", "model")


def test_an_instance_is_wanted_not_its_class_nor_its_name() -> None:
    wheel = Wheel()
    assert checks.instance(wheel, Part, "part") is wheel
    for value, why in (
        (Wheel, r"got part=Wheel, a class; expected an instance of Part; call it: Wheel\(\)"),
        ("weel", r"got part='weel'; expected an instance of Part; did you mean Wheel\(\)\?"),
        (int, "got part=int, a class; .*pass an instance"),
        (3, "got part of type int"),
    ):
        with pytest.raises(ValueError, match=why):
            checks.instance(value, Part, "part")
