"""Linear-Gaussian models: conditioning against the joint covariance; Bayes and the chain rule."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg
from torch import Tensor

from genmod.gaussian import LinearGaussian, kl_full, log_prob_full
from genmod.gaussian.linear import lower_root
from tests.gaussian.cases import (
    PROFILE,
    assert_same,
    covariance,
    factor,
    generator,
    seeds,
    sizes,
    vector,
)
from tests.statistics import assert_mean


def random_model(draw: torch.Generator, inputs: int, outputs: int) -> LinearGaussian:
    return LinearGaussian(
        mean=vector(draw, inputs),
        tril=factor(draw, inputs),
        weight=vector(draw, outputs, inputs),
        bias=vector(draw, outputs),
        noise_tril=factor(draw, outputs),
    )


def fields(model: LinearGaussian) -> list[Tensor]:
    return [model.mean, model.tril, model.weight, model.bias, model.noise_tril]


@PROFILE
@given(seeds, sizes, sizes)
def test_conditioning_equals_conditioning_the_joint_covariance(
    seed: int, inputs: int, outputs: int
) -> None:
    """By scipy's solve on the blocks of the joint."""
    draw = generator(seed)
    model = random_model(draw, inputs, outputs)
    mean, tril = (value.numpy() for value in model.joint())
    joint = tril @ tril.T
    z, x = slice(0, inputs), slice(inputs, None)
    seen = vector(draw, outputs)
    gain = linalg.solve(joint[x, x], joint[x, z], assume_a="pos").T
    expected = mean[z] + gain @ (seen.numpy() - mean[x])
    spread = joint[z, z] - gain @ joint[x, z]
    got_mean, got_tril = model.posterior(seen)
    np.testing.assert_allclose(got_mean.numpy(), expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(covariance(got_tril).numpy(), spread, rtol=1e-8, atol=1e-8)
    mean_x, tril_x = model.marginal()
    np.testing.assert_allclose(mean_x.numpy(), mean[x], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(tril_x.numpy(), linalg.cholesky(joint[x, x], lower=True), rtol=1e-8)


@PROFILE
@given(seeds, sizes, sizes)
def test_bayes_rule_holds_at_every_pair(seed: int, inputs: int, outputs: int) -> None:
    """In logs, p(z) p(x | z) = p(x) p(z | x) = p(z, x)."""
    draw = generator(seed)
    model = random_model(draw, inputs, outputs)
    z, x = vector(draw, inputs), vector(draw, outputs)
    forward = log_prob_full(z, model.mean, model.tril)
    forward = forward + log_prob_full(x, model.weight @ z + model.bias, model.noise_tril)
    backward = log_prob_full(x, *model.marginal()) + log_prob_full(z, *model.posterior(x))
    assert_same(backward, forward, 1e-9)
    assert_same(log_prob_full(torch.cat([z, x]), *model.joint()), forward, 1e-9)


@PROFILE
@given(seeds, sizes, sizes)
def test_reading_the_joint_backwards_twice_gives_it_back(
    seed: int, inputs: int, outputs: int
) -> None:
    """And the gain and offset of the reversed model give the posterior."""
    draw = generator(seed)
    model = random_model(draw, inputs, outputs)
    reverse = model.reverse()
    for got, expected in zip(fields(reverse.reverse()), fields(model), strict=True):
        assert_same(got, expected, 1e-7)
    x = vector(draw, outputs)
    mean, tril = model.posterior(x)
    assert_same(reverse.weight @ x + reverse.bias, mean, 1e-9)
    assert_same(reverse.noise_tril, tril)


@PROFILE
@given(seeds, st.integers(1, 3), st.integers(1, 3))
def test_the_chain_rule_of_the_kl(seed: int, inputs: int, outputs: int) -> None:
    """KL(q(a, b) || p(a, b)) = KL(q(a) || p(a)) + E_q(a) KL(q(b | a) || p(b | a)).

    The expectation is the KL at the mean of q(a), plus what the spread of a adds to the squared gap
    of the two conditional means. It holds in either order of a and b.
    """
    draw = generator(seed)
    q, p = random_model(draw, inputs, outputs), random_model(draw, inputs, outputs)
    at_mean = kl_full(
        q.weight @ q.mean + q.bias, q.noise_tril, p.weight @ q.mean + p.bias, p.noise_tril
    )
    gap = (q.weight - p.weight) @ q.tril
    spread = torch.linalg.solve_triangular(p.noise_tril, gap, upper=False).square().sum() / 2
    first = kl_full(q.mean, q.tril, p.mean, p.tril)
    assert_same(kl_full(*q.joint(), *p.joint()), first + at_mean + spread, 1e-8)
    reverse_q, reverse_p = q.reverse(), p.reverse()
    assert_same(kl_full(*reverse_q.joint(), *reverse_p.joint()), first + at_mean + spread, 1e-6)


def test_the_posterior_is_where_draws_of_the_joint_put_it() -> None:
    """E[(z - E[z | x]) x^T] = 0, and E|P^-1 (z - E[z | x])|^2 = D, by Monte Carlo."""
    draw = generator(11)
    model = random_model(draw, 2, 3)
    z = model.mean + vector(draw, 20_000, 2) @ model.tril.mT
    x = z @ model.weight.mT + model.bias + vector(draw, 20_000, 3) @ model.noise_tril.mT
    mean, tril = model.posterior(x)
    residual = torch.linalg.solve_triangular(tril, (z - mean).unsqueeze(-1), upper=False)
    assert_mean(residual @ x.unsqueeze(-2), torch.zeros(2, 3))
    assert_mean(residual.square().sum((-2, -1)), 2.0)
    mean_x, tril_x = model.marginal()
    white = torch.linalg.solve_triangular(tril_x, (x - mean_x).mT, upper=False).mT
    assert_mean(white.unsqueeze(-1) * white.unsqueeze(-2), torch.eye(3))


def test_batches_broadcast() -> None:
    """A batch of models gives each row what the row's own model gives."""
    draw = generator(12)
    mean, weight, x = vector(draw, 4, 1, 2), vector(draw, 5, 3, 2), vector(draw, 4, 5, 3)
    tril, bias, noise = factor(draw, 2), vector(draw, 3), factor(draw, 3, 5)
    batch = LinearGaussian(mean, tril, weight, bias, noise)
    got = (*batch.posterior(x), *batch.marginal(), *batch.joint())
    for i in range(4):
        for j in range(5):
            one = LinearGaussian(mean[i, 0], tril, weight[j], bias, noise[j])
            expected = (*one.posterior(x[i, j]), *one.marginal(), *one.joint())
            for many, single in zip(got, expected, strict=True):
                assert_same(many.expand(4, 5, *single.shape)[i, j], single, 1e-11)


def test_the_limits_of_no_noise_and_of_nothing_but_noise() -> None:
    """An x as good as z gives z back; an x of pure noise leaves the prior."""
    draw = generator(13)
    mean, tril, x = vector(draw, 2), factor(draw, 2), vector(draw, 2)
    unit, zero = torch.eye(2).double(), torch.zeros(2).double()
    sharp = LinearGaussian(mean, tril, unit, zero, 1e-7 * unit).posterior(x)
    assert_same(sharp[0], x, 1e-10)
    assert_same(sharp[1], 1e-7 * unit, 1e-12)
    blind = LinearGaussian(mean, tril, unit, zero, 1e7 * unit).posterior(x)
    assert_same(blind[0], mean, 1e-10)
    assert_same(blind[1], tril, 1e-10)


@PROFILE
@given(st.floats(-6, 6), st.floats(-6, 6), st.floats(-5, 5))
def test_float32_keeps_the_small_std_of_either_side(spread: float, noise: float, x: float) -> None:
    """Unsorted rows round the posterior's std to zero at spread 1e6, noise 1e-6."""
    std, noise_std = torch.tensor([[[10**spread]], [[10**noise]]]).float()
    one = torch.ones(1, 1)
    model = LinearGaussian(torch.zeros(1), std, one, torch.zeros(1), noise_std)
    seen = torch.tensor([x]) * noise_std[0]
    mean, tril = model.posterior(seen)
    exact_std, exact_noise, exact_seen = (float(v.double()) for v in (std, noise_std, seen))
    variance = exact_std**2 + exact_noise**2
    expected = torch.tensor([exact_std**2 / variance * exact_seen]).float()
    torch.testing.assert_close(mean, expected, rtol=3e-6, atol=1e-30)
    small = torch.tensor([[exact_std * exact_noise / variance**0.5]]).float()
    torch.testing.assert_close(tril, small, rtol=3e-6, atol=0)


@PROFILE
@given(seeds, sizes, sizes)
def test_the_root_is_the_cholesky_factor(seed: int, rows: int, extra: int) -> None:
    root = vector(generator(seed), rows, rows + extra)
    assert_same(lower_root(root), torch.linalg.cholesky(covariance(root)), 1e-6)
