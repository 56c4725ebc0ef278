"""Bits and unordered levels against SciPy and torch; draws follow the masses."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from genmod.distributions import Bernoulli, Categorical

pytestmark = pytest.mark.usefixtures("float64")


def test_bits_are_scipys_bernoulli() -> None:
    logits = torch.randn(4, 3)
    law = Bernoulli(logits)
    x = torch.randint(0, 2, (4, 3))
    expected = torch.as_tensor(stats.bernoulli.logpmf(x, logits.sigmoid()))
    torch.testing.assert_close(law.elementwise(x), expected)
    torch.testing.assert_close(law.log_prob(x), expected.sum(1))
    torch.testing.assert_close(law.mean, logits.sigmoid())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bits_mass_never_saturates(dtype: torch.dtype) -> None:
    """At logits of +-200 a sigmoid is 0 or 1; the log mass is -200 and its gradient 1."""
    logits = torch.tensor([[200.0, -200.0]], dtype=dtype, requires_grad=True)
    value = Bernoulli(logits).log_prob(torch.tensor([[0, 1]]))
    (grad,) = torch.autograd.grad(value.sum(), logits)
    assert value.item() == -400
    torch.testing.assert_close(grad, torch.tensor([[-1.0, 1.0]], dtype=dtype))


def test_levels_are_torchs_categorical() -> None:
    """Any event shape; the masses of all levels sum to one."""
    logits = torch.randn(4, 2, 3, 5) * 3
    law = Categorical(logits)
    assert law.event_shape == (2, 3)
    x = torch.randint(0, 5, (4, 2, 3))
    expected = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(law.elementwise(x), expected.log_prob(x))
    torch.testing.assert_close(law.log_prob(x), expected.log_prob(x).sum((1, 2)))
    masses = torch.stack([law.elementwise(torch.full((4, 2, 3), k)) for k in range(5)]).exp()
    torch.testing.assert_close(masses.sum(0), torch.ones(4, 2, 3))
    levels = torch.arange(5.0)[:, None, None, None]
    torch.testing.assert_close(law.mean, (masses * levels).sum(0))


def test_draws_follow_the_masses() -> None:
    """Chi-square at a false alarm of 1e-6."""
    rows = 20_000
    logits = torch.tensor([[0.0, 1.0, -3.0, 2.0]])
    x = Categorical(logits[:, None].expand(rows, 1, 4)).sample()[:, 0]
    expected = logits[0].softmax(0) * rows
    seen = torch.bincount(x, minlength=4)
    assert stats.chisquare(seen, expected, sum_check=False).pvalue > 1e-6
    bits = Bernoulli(torch.full((rows, 1), -1.0)).sample()
    assert bits.dtype is torch.long
    ones = int(bits.sum())
    assert stats.binomtest(ones, rows, float(torch.tensor(-1.0).sigmoid())).pvalue > 1e-6


def test_several_draws_at_once_are_refused() -> None:
    for law in (Bernoulli(torch.zeros(2, 3)), Categorical(torch.zeros(2, 3, 4))):
        with pytest.raises(ValueError, match="repeat the rows"):
            law.sample((5,))
