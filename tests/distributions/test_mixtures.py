"""Mixtures of discretized logistics: masses of one, the sum they stand for, draws that follow them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from genmod import random
from genmod.decoders import DiscretizedMixtureDecoder as MixtureDecoder
from genmod.decoders import Identity
from genmod.distributions import DiscretizedLogistic
from genmod.distributions.mixtures import DiscretizedMixture
from genmod.spec import Bins
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")


def masses(law: DiscretizedMixture, bins: int) -> Tensor:
    """Every level's mass for each entry, ``(B, *event, bins)``."""
    shape = law.logits[:, 0].shape
    levels = [law.elementwise(torch.full(shape, k)) for k in range(bins)]
    return torch.stack(levels, -1).exp()


def mixture(bins: int, components: int, spread: float = 2.0) -> DiscretizedMixture:
    """Two rows of three entries with parameters all over."""
    logits, location, log_scale = spread * torch.randn(3, 2, components, 3)
    return DiscretizedMixture(logits, location, log_scale - 2, Bins(bins))


@given(
    bins=st.sampled_from([2, 17, 256]),
    components=st.integers(1, 6),
    spread=st.sampled_from([0.1, 2.0, 10.0]),
    seed=st.integers(0, 99),
)
def test_the_masses_sum_to_one(bins: int, components: int, spread: float, seed: int) -> None:
    """Also with components far outside, and scales from far below a bin to far above the range."""
    torch.manual_seed(seed)
    total = masses(mixture(bins, components, spread), bins).sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_it_is_the_weighted_sum_of_its_components() -> None:
    torch.manual_seed(0)
    law = mixture(17, 4)
    x = torch.randint(0, 17, (2, 3))
    weights = law.logits.exp() / law.logits.exp().sum(1, keepdim=True)
    parts = [
        DiscretizedLogistic(law.location[:, c], law.log_scale[:, c], Bins(17)).elementwise(x).exp()
        for c in range(4)
    ]
    expected = (weights * torch.stack(parts, 1)).sum(1)
    torch.testing.assert_close(law.elementwise(x).exp(), expected)
    torch.testing.assert_close(law.log_prob(x), expected.log().sum(-1))
    levels = torch.arange(17.0)
    torch.testing.assert_close(law.mean, (masses(law, 17) * levels).sum(-1))


def test_one_component_is_a_discretized_logistic() -> None:
    torch.manual_seed(0)
    law = mixture(256, 1)
    one = DiscretizedLogistic(law.location[:, 0], law.log_scale[:, 0], Bins(256))
    x = torch.randint(0, 256, (2, 3))
    torch.testing.assert_close(law.elementwise(x), one.elementwise(x))


def test_draws_follow_the_masses() -> None:
    torch.manual_seed(0)
    law, bins, rows = mixture(9, 3), 9, 20_000
    logits, location, log_scale = (
        part[:1].expand(rows, -1, -1) for part in (law.logits, law.location, law.log_scale)
    )
    wide = DiscretizedMixture(logits, location, log_scale, Bins(bins))
    with random.keyed(1):
        drawn = wide.sample()
    hits = (drawn[..., None] == torch.arange(bins)).double()
    assert_mean(hits, masses(law, bins)[0], name="frequency of each level")


def test_gradients_reach_every_parameter_and_are_right() -> None:
    torch.manual_seed(0)
    x = torch.tensor([[0, 8, 16], [1, 5, 15]])
    inputs = [torch.randn(2, 3, 3, requires_grad=True) for _ in range(3)]

    def nats(logits: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        return DiscretizedMixture(logits, location, log_scale, Bins(17)).log_prob(x)

    assert torch.autograd.gradcheck(nats, inputs)


def test_a_new_decoder_spreads_its_components_over_the_range() -> None:
    """Outputs of zero: every level of 256 has nearly the same mass."""
    decoder = MixtureDecoder(Identity(), (1, 2, 2), 256, components=5)
    law = decoder(torch.zeros(1, 3 * 5 * 4))
    assert isinstance(law, DiscretizedMixture)
    spread = masses(law, 256)
    assert spread[..., 1:-1].amin() > 0.4 / 256
    assert spread[..., 1:-1].amax() < 2 / 256
    assert spread.sum(-1).sub(1).abs().max() < 1e-12
    with pytest.raises(ValueError, match="components"):
        MixtureDecoder(Identity(), (1, 2, 2), 256, components=0)
