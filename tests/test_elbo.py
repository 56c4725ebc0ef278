"""The bound's arithmetic: nats, totals, bits, joining; and what it refuses."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmod import ELBO, Kind, Measure, Rate, Stamp

pytestmark = pytest.mark.usefixtures("float64")


def rate(rows: int, levels: int, *, weight: float = 1.0, per_dim: bool = False) -> Rate:
    """A rate with random nats."""
    parts = torch.rand(rows, levels, 3) if per_dim else None
    nats = torch.rand(rows, levels) if parts is None else parts.sum(-1)
    place = torch.linspace(0, 1, levels).expand(rows, levels)
    each = None if parts is None else parts.unbind(1)
    return Rate(
        nats, torch.full_like(nats, weight), place, Kind.ANALYTIC, Stamp.BOUND, per_dim=each
    )


def test_the_value_is_reconstruction_minus_every_weighted_rate() -> None:
    """By hand: -2 - (2 * 0.5 + 2 * 1.0) - 0.25 = -5.25."""
    one, column = torch.ones(1, 1), torch.zeros(1, 2)
    weight = torch.full((1, 2), 2.0)
    steps = Rate(torch.tensor([[0.5, 1.0]]), weight, column, Kind.ANALYTIC, Stamp.BOUND)
    prior = Rate.single(0.25 * one[0], Kind.MONTE_CARLO, Stamp.BOUND)
    bound = ELBO(torch.tensor([-2.0]), {"steps": steps, "prior": prior}, Measure.DENSITY)
    assert bound.value.tolist() == [-5.25]


def test_a_single_rate_is_one_level_that_is_always_visited() -> None:
    nats = torch.tensor([1.0, -0.5])
    single = Rate.single(nats, Kind.MONTE_CARLO, Stamp.BOUND)
    assert single.nats.shape == single.weight.shape == single.level.shape == (2, 1)
    torch.testing.assert_close(single.total, nats)
    assert (single.weight == 1).all()
    assert (single.level == 0).all()


def test_weights_make_a_few_levels_estimate_the_sum_of_all() -> None:
    """Visiting each of 6 levels alone, with weight 6, gives the full sum in the mean, exactly."""
    full = rate(4, 6)
    six, place = torch.full((4, 1), 6.0), full.level[:, :1]
    alone = [
        Rate(full.nats[:, i : i + 1], six, place, Kind.ANALYTIC, Stamp.ESTIMATE) for i in range(6)
    ]
    mean = torch.stack([each.total for each in alone]).mean(0)
    torch.testing.assert_close(mean, full.total)


@given(cut=st.integers(1, 5), dim=st.integers(0, 1), per_dim=st.booleans())
def test_joining_what_was_cut_gives_back_the_whole(cut: int, dim: int, per_dim: bool) -> None:
    whole = rate(6, 6, per_dim=per_dim)
    pieces = []
    for part in (slice(None, cut), slice(cut, None)):
        index = (part, slice(None)) if dim == 0 else (slice(None), part)
        fields = {
            f.name: getattr(whole, f.name)[index]
            for f in dataclasses.fields(whole)
            if isinstance(getattr(whole, f.name), torch.Tensor)
        }
        each = whole.per_dim
        if each is not None:
            each = tuple(one[part] for one in each) if dim == 0 else each[part]
        pieces.append(dataclasses.replace(whole, **fields, per_dim=each))
    joined = Rate.join(pieces, dim=dim)
    for field in dataclasses.fields(whole):
        a, b = getattr(whole, field.name), getattr(joined, field.name)
        if field.name == "per_dim":
            assert (a is None) == (b is None) == (not per_dim)
            pairs = zip(a or (), b or (), strict=True)
            assert all(torch.equal(one, other) for one, other in pairs)
        else:
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_joined_levels_add_their_totals_and_joined_rows_keep_theirs() -> None:
    a, b = rate(3, 2), rate(3, 4, weight=2.0)
    torch.testing.assert_close(Rate.join([a, b], dim=1).total, a.total + b.total)
    torch.testing.assert_close(Rate.join([a, a], dim=0).total, torch.cat([a.total, a.total]))


def test_bounds_of_batches_join_row_by_row() -> None:
    bounds = [
        ELBO(torch.randn(n), {"prior": rate(n, 1), "steps": rate(n, 3)}, Measure.MASS)
        for n in (2, 5)
    ]
    joined = ELBO.join(bounds)
    torch.testing.assert_close(joined.value, torch.cat([bound.value for bound in bounds]))
    assert joined.measure is Measure.MASS
    assert set(joined.rates) == {"prior", "steps"}


def test_detached_bounds_keep_their_numbers_and_lose_their_gradients() -> None:
    parts = torch.rand(3, 1, 2, requires_grad=True)
    each = parts[:, 0]
    priced = Rate.single(each.sum(1), Kind.ANALYTIC, Stamp.BOUND, each)
    bound = ELBO(torch.randn(3, requires_grad=True), {"prior": priced}, Measure.MASS)
    still = bound.detach()
    torch.testing.assert_close(still.value, bound.value.detach(), rtol=0, atol=0)
    per_dim = still.rates["prior"].per_dim
    assert per_dim is not None
    assert torch.equal(per_dim[0], each.detach())
    assert not still.value.requires_grad
    assert not per_dim[0].requires_grad
    assert still.rates["prior"].noise is None
    assert still.measure is Measure.MASS


def test_bits_per_dim_of_a_mass() -> None:
    """Probability 1/2 for each of 64 pixels costs one bit a pixel; 256 levels cost eight."""
    for bins, bits in ((2, 1.0), (256, 8.0)):
        bound = ELBO(torch.tensor([-64 * math.log(bins)]), {}, Measure.MASS)
        assert float(bound.bits_per_dim(64)) == pytest.approx(bits, rel=1e-14)


def test_bits_per_dim_of_a_density_count_the_bin_and_not_the_units() -> None:
    """A uniform density on [0, 1] at bins of 1/256 is 8 bits; measured in other units it still is."""
    for unit in (1.0, 255.0, 1e-3):
        log_p = -10 * math.log(unit)
        bound = ELBO(torch.tensor([log_p]), {}, Measure.DENSITY)
        assert float(bound.bits_per_dim(10, bin_width=unit / 256)) == pytest.approx(8, rel=1e-12)


@pytest.mark.parametrize(
    ("measure", "dims", "width", "words"),
    [
        (
            Measure.NONE,
            4,
            None,
            r"bounds nothing.*a bound on a mass or a density; report the reconstruction",
        ),
        (Measure.NONE, 4, 0.1, "bounds nothing"),
        (Measure.MASS, 4, 0.1, r"bin_width=0.1.*leave it out"),
        (Measure.MASS, 0, None, r"dims=0.*at least 1"),
        (Measure.DENSITY, 4, None, r"bin_width=None.*stated; pass bin_width="),
        (Measure.DENSITY, 4, 0.0, r"bin_width=0"),
        (Measure.DENSITY, 4, -1.0, r"bin_width=-1"),
        (Measure.DENSITY, 4, math.nan, r"bin_width=nan"),
    ],
)
def test_bits_per_dim_without_a_meaning_are_refused(
    measure: Measure, dims: int, width: float | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        ELBO(torch.zeros(2), {}, measure).bits_per_dim(dims, width)


def test_a_bound_cannot_be_changed_by_accident() -> None:
    bound = ELBO(torch.zeros(2), {}, Measure.MASS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(bound, "measure", Measure.NONE)  # noqa: B010 - a type checker forbids the statement
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(rate(1, 1), "kind", Kind.MONTE_CARLO)  # noqa: B010


def test_enum_values_that_reports_print_are_fixed() -> None:
    """What reports and files print must not change by accident."""
    assert [stamp.value for stamp in Stamp] == ["exact", "bound", "estimate", "none"]
    assert [measure.value for measure in Measure] == ["mass", "density", "none"]
    assert [kind.value for kind in Kind] == ["analytic", "monte carlo"]


def test_wrong_shapes_are_caught_in_tests() -> None:
    """The import hook is on: a (B,) where (B, L) belongs does not pass silently."""
    with pytest.raises(TypeError):
        Rate(torch.zeros(3), torch.zeros(3), torch.zeros(3), Kind.ANALYTIC, Stamp.BOUND)
