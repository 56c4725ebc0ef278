"""Noise: keyed by (seed, step, row), of the right law, and even where it should be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.utils.checkpoint import checkpoint

from genmod import random
from genmod.checks import whole_number
from genmod.chunks import by_rows
from genmod.random import replayable
from genmod.random.streams import mix, stratified
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")

ALARM = 1e-6


def draws(kind: str, rows: int) -> torch.Tensor:
    """Noise of one kind."""
    if kind == "normal":
        return random.normal((rows, 3))
    if kind == "uniform":
        return random.uniform((rows, 3))
    return stratified(rows, 3, torch.float64)


KINDS = ["normal", "uniform", "stratified"]


@pytest.mark.parametrize("kind", KINDS)
@given(
    rows=st.integers(2, 60),
    block=st.integers(1, 70),
    cuts=st.lists(st.integers(1, 59), max_size=4),
    seed=st.integers(0, 2**63),
    step=st.integers(0, 2**31),
)
def test_a_row_gets_the_same_noise_however_the_batch_is_cut(
    kind: str, rows: int, block: int, cuts: list[int], seed: int, step: int
) -> None:
    """Bit for bit, for every cut and across the borders of blocks; the second call too."""
    with random.keyed(seed, step, block=block):
        whole = [draws(kind, rows), draws(kind, rows)]
    ends = sorted({cut for cut in cuts if cut < rows} | {0, rows})
    for call in range(2):
        parts = []
        for start, end in itertools.pairwise(ends):
            with random.keyed(seed, step, start=start, block=block):
                for _ in range(call):
                    draws(kind, end - start)
                parts.append(draws(kind, end - start))
        assert torch.equal(torch.cat(parts), whole[call])


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_is_all_that_matters(kind: str) -> None:
    """Not what torch drew before, nor what another block drew inside or around."""
    with random.keyed(1, 2):
        first = draws(kind, 5)
    torch.randn(7)
    with random.keyed(9, 9):
        draws(kind, 4)
        with random.keyed(1, 2):
            again = draws(kind, 5)
    assert torch.equal(first, again)


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_steps_calls_and_blocks_differ(kind: str) -> None:
    seen = []
    for seed, step, start in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 5)):
        with random.keyed(seed, step, start=start, block=5):
            seen += [draws(kind, 5), draws(kind, 5)]
    flat = torch.stack(seen).flatten(1)
    apart = (flat[:, None] - flat[None]).abs().amax(-1)
    assert bool((apart + torch.eye(len(seen)) > 1e-3).all())


def test_an_inner_block_leaves_the_outer_one_where_it_was() -> None:
    with random.keyed(3):
        one, two = draws("normal", 4), draws("normal", 4)
    with random.keyed(3):
        assert torch.equal(draws("normal", 4), one)
        with random.keyed(4):
            draws("normal", 4)
        assert torch.equal(draws("normal", 4), two)


def test_outside_keyed_torchs_generator_draws() -> None:
    torch.manual_seed(8)
    expected = torch.randn(2, 3)
    torch.manual_seed(8)
    assert torch.equal(random.normal((2, 3)), expected)
    assert not torch.equal(random.normal((2, 3)), expected)


def test_keyed_noise_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    with random.keyed(0):
        draws("normal", 3)
        draws("stratified", 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_type_and_shape_of_what_it_is_added_to(dtype: torch.dtype) -> None:
    like = torch.zeros(2, 3, 4, dtype=dtype)
    with random.keyed(0):
        assert random.normal_like(like).dtype is dtype
        assert random.uniform((2, 3), dtype).dtype is dtype
        assert stratified(4, 2, dtype).dtype is dtype
        assert random.normal_like(like).shape == like.shape


@cache
def many(kind: str, rows: int = 20) -> torch.Tensor:
    """Noise over many steps, one row each ``(steps, rows, 3)``: what a whole training run sees."""
    out = []
    for step in range(2000):
        with random.keyed(7, step, block=rows):
            out.append(draws(kind, rows))
    return torch.stack(out)


def test_normal_noise_is_standard_normal_and_independent() -> None:
    """Mean, variance, fourth moment; no correlation between rows, entries or steps."""
    z = many("normal")
    flat = z.reshape(len(z), -1)
    assert_mean(flat, 0.0, name="mean")
    assert_mean(flat.square(), 1.0, name="variance")
    assert_mean(flat.flatten() ** 4, 3.0, name="fourth moment")
    assert_mean(flat[:, :-1] * flat[:, 1:], 0.0, name="between entries")
    assert_mean(flat[:-1:2] * flat[1::2], 0.0, name="between steps")
    assert stats.kstest(flat.flatten(), "norm").pvalue > ALARM


@pytest.mark.parametrize("kind", ["uniform", "stratified"])
def test_uniform_noise_is_uniform(kind: str) -> None:
    """Each entry of each row by itself, over steps; stratified ones after undoing ``(j + o)/3``."""
    u = many(kind)
    if kind == "stratified":
        u = u * 3 - torch.arange(3)
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    for row in (0, 7, 19):
        for entry in range(3):
            assert stats.kstest(u[:, row, entry], "uniform").pvalue > ALARM
    assert_mean(u[:, 4, 1], 0.5)


@given(rows=st.integers(1, 40), count=st.integers(1, 12), seed=st.integers(0, 1000))
def test_stratified_numbers_hit_each_cell_once(rows: int, count: int, seed: int) -> None:
    """Each row has one number in each ``1/count``, and the batch is a comb of ``rows * count``."""
    with random.keyed(seed):
        u = stratified(rows, count, torch.float64)
    cells = (u * count).long()
    assert torch.equal(cells, torch.arange(count).expand(rows, -1))
    # One offset for the batch: measured from it, the numbers are a comb.
    order = u.flatten().sort().values
    gaps = (order.diff() * rows * count - 1).abs()
    assert not len(gaps) or float(gaps.max()) < 1e-9


@given(
    block=st.integers(2, 512),
    part=st.floats(0.01, 1.0),
    count=st.integers(1, 8),
    seed=st.integers(0, 1000),
)
def test_the_first_rows_of_a_block_are_an_even_cover_too(
    block: int, part: float, count: int, seed: int
) -> None:
    """A last block that is not whole: its star discrepancy is that of van der Corput's numbers.

    In the order of the rows, 103 of 256 covered 40 % of each cell: a discrepancy of 0.6.
    """
    rows = max(1, round(part * block))
    with random.keyed(seed, block=block):
        u = stratified(rows, count, torch.float64)
    offset = (u * count).remainder(1.0).flatten()[::count].sort().values
    place = torch.arange(rows + 1) / rows
    apart = torch.maximum((offset - place[:-1]).abs(), (offset - place[1:]).abs()).max()
    # Niederreiter (1992), theorem 3.6, doubled for the shift that wraps around; ranks round by 1 / rows.
    assert float(apart) <= 2 * (math.log2(rows) / 3 + 1) / rows + 2 / rows


def test_stratified_numbers_stay_below_one_in_float32() -> None:
    """``(j + o) / n`` can round up to 1 for the last level of a row just below the border."""
    for seed in range(300):
        with random.keyed(seed):
            u = stratified(512, 7, torch.float32)
        assert float(u.max()) < 1
        assert float(u.min()) >= 0


def test_stratified_means_vary_less_than_independent_ones() -> None:
    """The reason for them: a batch's mean of a smooth function varies far less."""
    even, free = many("stratified").exp().mean((1, 2)), many("uniform").exp().mean((1, 2))
    assert_mean(even, torch.e - 1)
    assert float(even.var()) < float(free.var()) / 30


def test_keys_do_not_collide() -> None:
    keys = {mix(a, b, c) for a in range(30) for b in range(30) for c in range(30)}
    assert len(keys) == 27_000
    assert all(0 <= key < 2**63 for key in keys)
    assert mix(0) != mix(0, 0)


@pytest.mark.parametrize(("start", "block"), [(3, None), (-1, 4), (0, 0), (0, -2)])
def test_a_piece_of_an_unknown_block_is_refused(start: int, block: int | None) -> None:
    """``start`` without ``block`` would quietly give every piece the first rows' noise."""
    with (
        pytest.raises(ValueError, match=r"got start=.*expected start=0, or a block.*pass block="),
        random.keyed(0, start=start, block=block),
    ):
        pass


# ---------------------------------------------------------------------- a seed for each row


@pytest.mark.parametrize("kind", KINDS)
def test_a_seeded_row_is_its_seeds_alone(kind: str) -> None:
    """Bit for bit: alone, in another order, beside other rows; the second draw too."""
    with random.seeded([5, 7, 2]):
        whole = [draws(kind, 3), draws(kind, 3)]
    with random.seeded([2, 9, 9, 5]):
        other = [draws(kind, 4), draws(kind, 4)]
    with random.seeded([7]):
        alone = [draws(kind, 1), draws(kind, 1)]
    for a, b, c in zip(whole, other, alone, strict=True):
        assert torch.equal(a[[2, 0]], b[[0, 3]])
        assert torch.equal(b[1], b[2])
        assert torch.equal(a[1:2], c)
        assert not torch.equal(a[0], a[1])
    assert not torch.equal(whole[0], whole[1])


def test_seeds_entered_again_go_on() -> None:
    """In pieces or at once, and what is drawn between them is another's."""
    with random.seeded([1, 2]):
        whole = [draws("normal", 2), draws("normal", 2)]
    seeds = random.seeded([1, 2])
    with seeds:
        first = draws("normal", 2)
    before = torch.randn(3)
    with random.keyed(0):
        draws("normal", 5)
        with seeds:
            second = draws("normal", 2)
    assert torch.equal(torch.stack([first, second]), torch.stack(whole))
    assert not torch.equal(first, second)
    assert len(before) == 3


def test_seeded_noise_is_standard_normal_and_rows_are_independent() -> None:
    """Over many neighboring seeds: mean, variance, no correlation between rows or draws."""
    with random.seeded(range(20_000)):
        a, b = draws("normal", 20_000), draws("normal", 20_000)
    for z in (a, b):
        assert_mean(z, 0.0, name="mean")
        assert_mean(z.square(), 1.0, name="variance")
        assert_mean(z[:-1:2] * z[1::2], 0.0, name="between rows")
    assert_mean(a * b, 0.0, name="between draws")


def test_a_row_without_a_seed_is_refused() -> None:
    with random.seeded([1, 2]), pytest.raises(ValueError, match=r"3 rows .* with 2 seeds"):
        draws("normal", 3)


@pytest.mark.parametrize("kind", KINDS)
@given(
    ids=st.lists(st.integers(0, 900), min_size=1, max_size=40),
    seed=st.integers(0, 2**63),
    step=st.integers(0, 2**31),
)
def test_a_row_id_gets_the_same_noise_in_any_batch(
    kind: str, ids: list[int], seed: int, step: int
) -> None:
    """Bit for bit: in any order, repeated or alone; and as the row of that number has it."""
    with random.keyed(seed, step, ids=ids):
        found = [draws(kind, len(ids)), draws(kind, len(ids))]
    for place, row in enumerate(ids[:4]):
        with random.keyed(seed, step, ids=torch.tensor([row])):
            assert torch.equal(draws(kind, 1)[0], found[0][place])
            assert torch.equal(draws(kind, 1)[0], found[1][place])
        with random.keyed(seed, step, start=row, block=256):
            assert torch.equal(draws(kind, 1)[0], found[0][place])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ids": [-1]}, "ids of at least 0"),
        ({"ids": torch.tensor([0.5])}, "whole numbers of shape"),
        ({"ids": torch.tensor([[0]])}, "whole numbers of shape"),
        ({"ids": [3], "start": 2, "block": 4}, "leave start out"),
    ],
)
def test_keys_that_mean_nothing_are_refused(settings: dict[str, object], said: str) -> None:
    with (
        pytest.raises(ValueError, match=said),
        random.keyed(**{"seed": 0, **settings}),  # type: ignore[arg-type]
    ):
        pass


@pytest.mark.parametrize("value", [0.5, "one", None, np.float64(2)])
def test_a_seed_is_a_whole_number(value: object) -> None:
    with pytest.raises(ValueError, match=r"got seed=.*expected a whole number"):
        whole_number(value, "seed")


def test_several_draws_of_each_row() -> None:
    """``K`` draws of ``B`` rows, one batch apart: the first are those of ``K = 1``, each by its id."""
    with random.keyed(0, ids=[3, 300]):
        one = draws("normal", 2)
    with random.keyed(0, ids=[3, 300]):
        many = draws("normal", 6)
    with random.keyed(0, ids=[300]):
        alone = draws("normal", 3)
    assert torch.equal(many[:2], one)
    assert torch.equal(many[1::2], alone)
    assert many.unique().numel() == many.numel()


def test_as_many_ids_as_rows() -> None:
    with (
        pytest.raises(ValueError, match=r"noise for 3 rows inside keyed\(\) with 2 ids"),
        random.keyed(0, ids=[0, 1]),
    ):
        draws("normal", 3)


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, torch.tensor])
def testwhole_numbers_of_any_kind_are_seeds(kind: Callable[[int], int]) -> None:
    with random.keyed(7, ids=[3]):
        expected = draws("normal", 1)
    with random.keyed(kind(7), ids=[3]):
        assert torch.equal(draws("normal", 1), expected)
    with random.seeded([7]):
        expected = draws("normal", 1)
    with random.seeded([kind(7)]):
        assert torch.equal(draws("normal", 1), expected)


def test_a_law_of_torchs_own_gives_the_same_number_for_the_same_key() -> None:
    law = torch.distributions.Gamma(torch.full((4,), 2.0), 1.0)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with random.keyed(1, ids=range(4)) as drawn:
        first = random.draw(law)
    assert drawn.used
    torch.randn(3)
    with random.keyed(1, ids=range(4)):
        assert torch.equal(random.draw(law), first)
    with random.keyed(2, ids=range(4)):
        assert not torch.equal(random.draw(law), first)
    with random.keyed(1, ids=range(4)) as drawn:
        draws("normal", 4)
    assert not drawn.used
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_laws_of_torchs_own_are_drawn_row_by_row() -> None:
    """The number of a row id depends neither on the chunks nor on the order of the rows."""

    def drawn(ids: torch.Tensor, size: int) -> torch.Tensor:
        def run(rows: slice) -> torch.Tensor:
            count = len(ids[rows])
            law = torch.distributions.Laplace(torch.zeros(count), 1.0)
            return torch.stack([draws("normal", count)[:, 0], random.draw(law)], 1)

        pieces = [slice(i, min(i + size, len(ids))) for i in range(0, len(ids), size)]
        return torch.cat(list(by_rows(pieces, lambda rows: random.keyed(5, ids=ids[rows]), run)))

    ids = torch.arange(20)
    whole, order = drawn(ids, 20), torch.randperm(20)
    assert torch.equal(drawn(ids, 3), whole)
    assert torch.equal(drawn(order, 7), whole[order])
    assert torch.equal(drawn(ids[4:5], 1), whole[4:5])
    assert whole.unique().numel() == 40


def test_seeded_laws_of_torchs_own_continue_where_they_stopped() -> None:
    law = torch.distributions.Laplace(torch.zeros(1), 1.0)
    with random.seeded([3]):
        whole = [random.draw(law), random.draw(law)]
    pieces = random.seeded([3])
    for expected in whole:
        with pieces:
            assert torch.equal(random.draw(law), expected)
        torch.randn(2)
    assert not torch.equal(*whole)


def test_recomputed_activations_see_the_same_noise() -> None:
    """Activation checkpointing calls a network again in the backward pass, outside of the key."""
    weight = torch.tensor([0.5, 2.0], requires_grad=True)

    def noisy(x: torch.Tensor) -> torch.Tensor:
        return (weight * random.normal_like(x)).square() * random.normal_like(x)

    def gradient(recompute: bool) -> torch.Tensor:
        with random.keyed(0, ids=[2, 9, 4]):
            draws("normal", 3)
            x = torch.ones(3, 2)
            again = replayable(noisy)
            out = checkpoint(again, x, use_reentrant=False) if recompute else noisy(x)
            draws("normal", 3)
        (found,) = torch.autograd.grad(out.sum(), weight)
        return found

    assert torch.equal(gradient(recompute=True), gradient(recompute=False))


def test_replaying_outside_a_key_follows_torchs_generator() -> None:
    noise = replayable(random.normal)
    torch.manual_seed(1)
    first = noise((2,))
    with random.keyed(0):
        torch.manual_seed(1)
        assert torch.equal(noise((2,)), first)
