"""Gray pixels as probabilities of a one: how often it is drawn, the entropy, and when it is drawn again."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from genmod import random
from genmod.data import Dataset, binarized, conditional
from genmod.data.binarized import BernoulliPixels
from genmod.data.images import digits
from genmod.data.rows import dataset
from genmod.decoders import BernoulliDecoder
from genmod.encoders import GaussianEncoder
from genmod.evaluation import evaluate
from genmod.model import LatentModel
from genmod.models import VAE
from genmod.priors import NormalPrior
from genmod.spec import DataSpec
from tests.statistics import assert_mean

BINS = 17


# ---------------------------------------------------------------------- coins


def test_a_pixel_is_one_as_often_as_its_gray_value_says() -> None:
    """Each of 17 gray values, drawn 40,000 times; the first is never one, the last always."""
    gray = torch.arange(BINS).expand(40_000, BINS)
    bits = BernoulliPixels(gray, BINS).sample()
    assert bits.dtype is torch.uint8
    assert not bits[:, 0].any()
    assert bits[:, -1].all()
    assert_mean(bits[:, 1:-1].double(), torch.arange(1, BINS - 1).double() / (BINS - 1))


def test_pixels_of_one_row_and_of_two_rows_are_independent() -> None:
    """Pixels of probability 1/2: every pair of them agrees half of the time."""
    bits = BernoulliPixels(torch.ones(40_000, 3, dtype=torch.int64), 3).sample()
    for one, other in itertools.combinations(bits.T, 2):
        assert_mean((one == other).double(), 0.5)
    assert_mean((bits[::2] == bits[1::2]).double(), torch.full((3,), 0.5))


def test_the_entropy_is_scipys_and_the_sum_over_all_outcomes() -> None:
    """Per row: SciPy's closed form, and - sum_b p(b) log p(b) over the eight outcomes of three pixels."""
    gray = torch.randint(0, BINS, (50, 3))
    entropy = BernoulliPixels(gray, BINS).entropy()
    bias = gray.double().numpy() / (BINS - 1)
    np.testing.assert_allclose(
        entropy, stats.bernoulli.entropy(bias).sum(1), rtol=1e-12, atol=1e-15
    )
    outcomes = np.array(list(itertools.product([0, 1], repeat=3)))
    masses = stats.bernoulli.pmf(outcomes, bias[:, None]).prod(-1)
    np.testing.assert_allclose(entropy, stats.entropy(masses, axis=1), rtol=1e-12, atol=1e-15)


def test_drawn_bits_do_not_depend_on_how_rows_are_cut() -> None:
    """Under one key, the rows of two pieces are those of the whole; so are rows asked for by index."""
    coins = BernoulliPixels(torch.randint(0, BINS, (23, 4)), BINS)

    def flip(first: int, last: int) -> Tensor:
        with random.keyed(3, step=2, start=first, block=23):
            return coins.sample(slice(first, last))

    whole = flip(0, 23)
    assert torch.equal(torch.cat([flip(0, 9), flip(9, 23)]), whole)
    with random.keyed(3, step=2):
        assert torch.equal(coins.sample(torch.arange(23)), whole)
    with random.keyed(3, step=3):
        assert not torch.equal(coins.sample(), whole)


# ---------------------------------------------------------------------- data sets


def test_a_binarized_data_set_has_the_rows_parts_and_labels_of_the_gray_one() -> None:
    """Where a pixel is empty its bit is 0, where it is full its bit is 1, in every row of every part."""
    gray, bits = digits(), binarized(digits())
    assert gray.labels is not None
    assert bits.labels is not None
    assert (bits.name, bits.bins, bits.shape) == ("binarized digits", 2, gray.shape)
    for split, part in bits.parts().items():
        assert torch.equal(bits.labels[split], gray.labels[split])
        assert not part[gray.parts()[split] == 0].any()
        assert part[gray.parts()[split] == 16].all()
        assert_mean((part - gray.parts()[split] / 16).double().flatten(), 0.0, name=split)
    assert bits.resample is not None
    assert torch.equal(bits.resample.gray, gray.train)
    assert gray.resample is None
    assert gray.entropy_floor is None


def test_bits_that_are_drawn_once_depend_on_the_seed_and_the_row_alone() -> None:
    """Not on torch's generator or default type, nor on how many rows there are beside it."""
    gray = digits()
    bits = binarized(gray, seed=4)
    torch.manual_seed(99)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    again = binarized(gray, seed=4)
    torch.set_default_dtype(default)
    fewer = dataclasses.replace(gray, test=gray.test[:31], labels=None)
    for split, part in bits.parts().items():
        assert torch.equal(again.parts()[split], part)
        assert torch.equal(binarized(fewer, seed=4).parts()[split][:31], part[:31])
        assert not torch.equal(binarized(gray, seed=5).parts()[split], part)


def test_no_part_repeats_the_noise_of_another() -> None:
    """Pixels of probability 1/2 in every part: two parts agree half of the time."""
    coins = torch.ones(4000, 5, dtype=torch.int64)
    bits = binarized(Dataset("coins", coins, coins, coins, bins=3))
    for one, other in itertools.combinations(bits.parts().values(), 2):
        assert_mean((one == other).double().flatten(), 0.5)


def test_the_entropy_floor_is_that_of_the_test_part() -> None:
    """By SciPy; without a test part there are none."""
    gray = digits()
    expected = stats.bernoulli.entropy(gray.test.numpy() / 16).sum((1, 2, 3)).mean()
    assert binarized(gray).entropy_floor == pytest.approx(expected, rel=1e-12)
    untested = binarized(dataclasses.replace(gray, test=gray.test[:0], labels=None))
    assert untested.entropy_floor is None
    assert f"{expected:.2f} nats a test row are noise" in repr(binarized(gray))


def test_the_entropy_of_a_subset_is_that_of_its_rows() -> None:
    """Whether gray images are cut or their bits; rows that lose their floors are refused."""
    gray = digits()
    bits = binarized(gray)
    fewer = bits.cut("test", 20)
    assert fewer.entropy_floor == binarized(gray.cut("test", 20)).entropy_floor
    assert fewer.entropy_floor != bits.entropy_floor
    assert torch.equal(fewer.test, bits.test[:20])
    report = evaluate(VAE((1, 8, 8), 2, latents=2, width=16), fewer)
    assert report.entropy_floor == fewer.entropy_floor
    assert bits.cut("test", 0).entropy_floor is None
    with pytest.raises(
        ValueError, match=r"an entropy of shape \(359,\) for a test part of 20 rows"
    ):
        dataclasses.replace(bits, test=bits.test[:20], labels=None)


# ---------------------------------------------------------------------- the floor


class Nothing(nn.Module):
    """A posterior network that returns the prior's mean and log-std."""

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Zeros for a latent of one number."""
        return torch.zeros(len(x), 2)


class Gray(nn.Module):
    """A decoder network whose context is the gray value of each pixel; ``shift`` changes its log-odds."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, state: Tensor, context: Tensor) -> Tensor:
        """The log-odds of each pixel; 800 stands for certainty, as exp(-800) is 0."""
        odds = context.double().log() - (BINS - 1 - context.double()).log()
        return odds.clamp(-800, 800) + self.shift


def told(shift: float = 0.0) -> LatentModel:
    """A model whose context is the gray image: its probabilities are the true ones at a shift of zero."""
    shape = (1, 8, 8)
    return LatentModel(
        GaussianEncoder(Nothing(), (1,), DataSpec(shape, 2)),
        BernoulliDecoder(Gray(shift), shape),
        NormalPrior((1,)),
    )


@pytest.mark.usefixtures("float64")
def test_a_model_given_the_gray_values_scores_exactly_the_entropy() -> None:
    """Over 30 draws of the test bits its mean value is minus the irreducible nats: a z-test.

    Its rate is zero, so the bound is the log-probability of the bits alone.
    """
    gray = digits()
    values = []
    for seed in range(30):
        bits = binarized(gray, seed)
        report = evaluate(told(), bits, gray.test)
        values.append(report.value.mean)
        assert report.terms["prior"].mean == 0
        assert report.structural is not None
        assert abs(report.structural.mean) < 4.9 * report.structural.error
    assert bits.entropy_floor is not None
    assert_mean(torch.tensor(values), -bits.entropy_floor)


@pytest.mark.usefixtures("float64")
def test_the_expected_cost_is_the_entropy_for_the_true_model_and_larger_for_others() -> None:
    """All outcomes of an image's random pixels, weighted by their masses (Gibbs' inequality).

    Twelve pixels are random: 4,096 outcomes instead of a mean over draws.
    """
    gray = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    gray.flatten()[20:32] = torch.tensor([1, 3, 5, 7, 8, 9, 11, 12, 13, 14, 15, 16])
    outcomes = torch.zeros(4096, 64, dtype=torch.int64)
    outcomes[:, 20:32] = torch.cartesian_prod(*[torch.arange(2)] * 12)
    bias = gray.flatten() / 16
    masses = torch.where(outcomes == 1, bias, 1 - bias).prod(1)
    context = gray.expand(4096, 1, 8, 8)

    def expected(shift: float) -> float:
        value = told(shift).elbo(outcomes.reshape(-1, 1, 8, 8), context=context).value
        return float((masses * value.nan_to_num(neginf=0.0)).sum())

    entropy = float(BernoulliPixels(gray, BINS).entropy())
    assert expected(0.0) == pytest.approx(-entropy, rel=1e-12)
    assert expected(0.1) < -entropy
    assert expected(-0.1) < -entropy


# ---------------------------------------------------------------------- what is refused


def test_what_is_no_gray_image_is_refused() -> None:
    """Reals, bits, and probabilities that do not fit the bits."""
    with pytest.raises(ValueError, match="expected gray values"):
        binarized(dataset(torch.randn(20, 2)))
    with pytest.raises(ValueError, match="bits need no binarization"):
        binarized(binarized(digits()))
    with pytest.raises(ValueError, match=r"from 0 to 3; expected integers in 0\.\.2"):
        BernoulliPixels(torch.tensor([[0, 3]]), 3)
    gray = digits()
    coins = BernoulliPixels(gray.test, BINS)
    with pytest.raises(ValueError, match=r"expected bits .*, and a pixel for each of them"):
        dataclasses.replace(binarized(gray), resample=coins)
    with pytest.raises(ValueError, match="bins=17; expected bits"):
        dataclasses.replace(gray, resample=BernoulliPixels(gray.train, BINS))
    for floor in (-1.0, float("nan"), float("inf")):
        entropy = torch.zeros(len(gray.test)).index_fill(0, torch.tensor(3), floor)
        with pytest.raises(
            ValueError, match="1 entropies that are negative or not finite; expected nats"
        ):
            dataclasses.replace(gray, entropy=entropy)


def test_conditional_refuses_data_without_labels_and_bad_rates() -> None:
    """A dropout rate outside [0, 1] is refused as well."""
    with pytest.raises(ValueError, match="without labels"):
        conditional(dataset(torch.randn(20, 2)))
    with pytest.raises(ValueError, match="a rate in"):
        conditional(digits(), dropout=1.1)
    x = torch.randn(4, 1)
    with pytest.raises(ValueError, match="without labels"):
        Dataset("x", x, x[:0], x[:0], context_dropout=0.1)
