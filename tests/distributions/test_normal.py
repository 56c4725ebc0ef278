"""The normal against torch's, its draws by reparameterization, and its closed divergences."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch.distributions import Independent, kl_divergence
from torch.distributions import Normal as TorchNormal

from genmod import random
from genmod.distributions import Dirac, Normal
from genmod.distributions.base import elementwise, masked_log_prob
from genmod.distributions.normal import StandardNormal
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")


def pair(*shape: int) -> tuple[Normal, TorchNormal]:
    """Ours and torch's with the same numbers."""
    mean, log_std = torch.randn(shape), torch.randn(shape)
    return Normal(mean, log_std), TorchNormal(mean, log_std.exp())


def test_it_is_torchs_normal_over_one_event() -> None:
    ours, theirs = pair(4, 2, 3)
    event = Independent(theirs, 2)
    x = torch.randn(4, 2, 3) * 5
    assert ours.batch_shape == event.batch_shape
    assert ours.event_shape == event.event_shape
    torch.testing.assert_close(ours.log_prob(x), event.log_prob(x))
    torch.testing.assert_close(ours.elementwise(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.entropy(), event.entropy())
    for name in ("mean", "mode", "stddev", "variance"):
        torch.testing.assert_close(getattr(ours, name), getattr(event, name))


def test_the_standard_one_is_a_normal_of_zeros() -> None:
    x = torch.randn(4, 3)
    standard, plain = StandardNormal((4, 3)), Normal(torch.zeros(4, 3), torch.zeros(4, 3))
    torch.testing.assert_close(standard.log_prob(x), plain.log_prob(x))
    torch.testing.assert_close(standard.entropy(), plain.entropy())
    torch.manual_seed(1)
    drawn = standard.sample()
    torch.manual_seed(1)
    torch.testing.assert_close(drawn, plain.sample())
    assert StandardNormal((2,), torch.float32).sample().dtype is torch.float32


def test_a_draw_is_mean_plus_std_times_noise() -> None:
    """sigma, not sigma^2 (a slide's slip), so that the draw's gradients are 1 and ``std eps``."""
    mean, log_std = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    q = Normal(mean, log_std)
    with random.keyed(4):
        eps = random.normal((5, 3))
    with random.keyed(4):
        z = q.rsample()
    torch.testing.assert_close(z, mean + log_std.exp() * eps)
    by_mean, by_std = torch.autograd.grad(z.sum(), (mean, log_std))
    torch.testing.assert_close(by_mean, torch.ones(5, 3))
    torch.testing.assert_close(by_std, log_std.exp() * eps)
    assert not q.sample().requires_grad


def test_draws_have_its_law() -> None:
    q = Normal(torch.full((20_000, 1), 1.5), torch.tensor(-0.7))
    z = q.sample()[:, 0]
    assert stats.kstest(z, "norm", (1.5, float(q.stddev[0, 0]))).pvalue > 1e-6
    assert_mean(-q.log_prob(z[:, None]), q.entropy()[0], name="entropy")


def test_closed_divergences_are_torchs() -> None:
    """From every form of a normal that torch knows."""
    q, q_torch = pair(4, 3)
    p, p_torch = pair(4, 3)
    expected = kl_divergence(q_torch, p_torch).sum(-1)
    torch.testing.assert_close(kl_divergence(q, p), expected)
    torch.testing.assert_close(kl_divergence(q, Independent(p_torch, 1)), expected)
    standard = kl_divergence(q_torch, TorchNormal(torch.zeros(3), torch.ones(3))).sum(-1)
    torch.testing.assert_close(kl_divergence(q, StandardNormal((4, 3))), standard)


def test_a_scale_that_broadcasts_is_one_scale() -> None:
    x, mean = torch.randn(4, 3), torch.randn(4, 3)
    for log_std in (torch.tensor(0.3), torch.full((3,), 0.3), torch.full((4, 1), 0.3)):
        q = Normal(mean, log_std)
        assert q.log_std.shape == mean.shape
        torch.testing.assert_close(
            q.log_prob(x), TorchNormal(mean, torch.tensor(0.3).exp()).log_prob(x).sum(1)
        )


def test_several_draws_at_once_are_refused() -> None:
    q, _ = pair(4, 3)
    for draw in (q.rsample, q.sample, StandardNormal((4, 3)).sample, Dirac(q.mean).sample):
        with pytest.raises(ValueError, match=r"sample_shape=\(2,\).*empty.*repeat the rows"):
            draw((2,))


# ---------------------------------------------------------------------- entries apart


def test_entries_apart_sum_to_the_row() -> None:
    """For ours and for torch's; a mask leaves entries out."""
    ours, theirs = pair(4, 3)
    x, observed = torch.randn(4, 3), torch.rand(4, 3) < 0.5
    for law in (ours, Independent(theirs, 1)):
        torch.testing.assert_close(elementwise(law, x).sum(1), law.log_prob(x))
        kept = (theirs.log_prob(x) * observed).sum(1)
        torch.testing.assert_close(masked_log_prob(law, x, observed), kept)
        torch.testing.assert_close(masked_log_prob(law, x, None), law.log_prob(x))


def test_entries_of_a_full_covariance_do_not_come_apart() -> None:
    full = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    with pytest.raises(ValueError, match="factorizes over the entries"):
        elementwise(full, torch.zeros(3, 2))


# ---------------------------------------------------------------------- a point


def test_a_point_is_drawn_as_it_is_and_has_no_density() -> None:
    point = torch.randn(4, 3, requires_grad=True)
    q = Dirac(point)
    assert q.rsample() is point
    assert q.mean is point
    assert not q.sample().requires_grad
    with pytest.raises(ValueError, match=r"got a Dirac.*density; use priors.FlatPrior\(\)"):
        q.log_prob(point)
