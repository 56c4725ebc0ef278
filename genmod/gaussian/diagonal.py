"""Scalar and diagonal Gaussians given by their stds, with checked inputs.

Symbols: q = N(mean_q, std_q^2), p likewise; d = log(std_q / std_p) and
delta = (mean_q - mean_p) / std_p. The functions are elementwise: for a diagonal Gaussian, sum the
result over the event.

Claim: values and gradients have no overflow and no NaN for stds from 1e-6 to 1e6 in float32, and no
cancellation where q and p are nearly equal. Checking a std makes a GPU wait. If a network gives
log-stds, call the ``*_log_std`` forms of :mod:`genmod.gaussian.kernels`, which need no check.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.checks import can_read, invalid
from genmod.gaussian.kernels import (
    HALF_LOG_TAU,
    in_float32,
    kl_standard_log_std,
    same_shape,
)


def log_ratio(std_q: Tensor, std_p: Tensor) -> Tensor:
    """log(std_q / std_p), with full relative precision also where the two are nearly equal."""
    difference = std_q - std_p
    near = difference.abs() < 0.5 * std_p
    # log std_q - log std_p fails at std_q = 1.0001e6, std_p = 1e6 in float32: each log has an error of
    # 1e-6. log1p alone fails at std_q / std_p = 1e-12, where its argument rounds to -1.
    relative = torch.where(near, difference, 0) / std_p
    return torch.where(near, torch.log1p(relative), torch.log(std_q) - torch.log(std_p))


def kl(mean_q: Tensor, std_q: Tensor, mean_p: Tensor, std_p: Tensor) -> Tensor:
    """KL(q || p) of diagonal Gaussians, elementwise, in nats.

        log(std_p / std_q) + (std_q^2 + (mean_q - mean_p)^2) / (2 std_p^2) - 1/2

    Args:
        mean_q: mean of q, any shape; the other three broadcast with it.
        std_q: standard deviation of q, above 0.
        mean_p: mean of p.
        std_p: standard deviation of p, above 0.

    Returns:
        Nats per dimension, of the broadcast shape, never negative.

    Raises:
        ValueError: a std is not positive and finite, or the shapes do not broadcast.

    Reference: Bishop, "Pattern Recognition and Machine Learning" (2006), eq. 1.113 and exercise 1.30.

    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> kl(one, one, zero, one)
    tensor([0.5000])
    """
    mean_q, std_q, mean_p, std_p = checked_pair(mean_q, std_q, mean_p, std_p)
    return kl_standard_log_std((mean_q - mean_p) / std_p, log_ratio(std_q, std_p))


def kl_standard(mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)), elementwise, in nats: 1/2 (std^2 - 1 - log std^2 + mean^2).

    Args:
        mean: mean of q, any shape.
        std: standard deviation of q, above 0; broadcasts with ``mean``.

    Returns:
        Nats per dimension, of the broadcast shape, never negative.

    Raises:
        ValueError: a std is not positive and finite, or the shapes do not broadcast.

    Reference: Kingma, Welling, "Auto-Encoding Variational Bayes" (2014), eq. 10 and appendix B.

    >>> kl_standard(torch.tensor([0.0, 2.0]), torch.ones(2))
    tensor([0., 2.])
    """
    mean, std = same_shape(in_float32(mean), in_float32(std))
    check_std(std, "std")
    return kl_standard_log_std(mean, torch.log(std))


def entropy(std: Tensor) -> Tensor:
    """Entropy of N(., std^2), elementwise, in nats: log std + 1/2 log(2 pi e).

    Raises:
        ValueError: a std is not positive and finite.

    >>> entropy(torch.ones(1))
    tensor([1.4189])
    """
    std = in_float32(std)
    check_std(std, "std")
    return torch.log(std) + (HALF_LOG_TAU + 0.5)


def log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The log density of N(mean, std^2) at x, elementwise, in nats.

        -1/2 ((x - mean) / std)^2 - log std - 1/2 log(2 pi)

    Raises:
        ValueError: a std is not positive and finite, or the shapes do not broadcast.

    >>> log_prob(torch.zeros(1), torch.zeros(1), torch.ones(1))
    tensor([-0.9189])
    """
    x, mean, std = same_shape(*map(in_float32, (x, mean, std)))
    check_std(std, "std")
    return -0.5 * ((x - mean) / std).square() - torch.log(std) - HALF_LOG_TAU


def product(mean_1: Tensor, std_1: Tensor, mean_2: Tensor, std_2: Tensor) -> tuple[Tensor, Tensor]:
    """The normalized product of two Gaussians: precisions add, means average by precision.

        1 / std^2 = 1 / std_1^2 + 1 / std_2^2,    mean = std^2 (mean_1 / std_1^2 + mean_2 / std_2^2)

    Args:
        mean_1: mean of the first factor, any shape; the other three broadcast with it.
        std_1: standard deviation of the first factor, above 0.
        mean_2: mean of the second.
        std_2: standard deviation of the second, above 0.

    Returns:
        Mean and std of the product.

    Raises:
        ValueError: a std is not positive and finite, or the shapes do not broadcast.

    Reference:
        Sonderby, Raiko, Maaloe, Sonderby, Winther (2016), Ladder variational autoencoders.

    >>> one = torch.ones(1)
    >>> product(0 * one, one, one, one)
    (tensor([0.5000]), tensor([0.7071]))
    """
    mean_1, std_1, mean_2, std_2 = checked_pair(mean_1, std_1, mean_2, std_2)
    # Divide by the hypotenuse instead of adding precisions: in float32, 1 / std^2 overflows at
    # std = 1e-20, and std_1^2 std_2^2 / (std_1^2 + std_2^2) underflows at 1e-12.
    total = torch.hypot(std_1, std_2)
    root_1, root_2 = std_2 / total, std_1 / total  # the square roots of the weights of the means
    return root_1.square() * mean_1 + root_2.square() * mean_2, std_1 * root_1


def product_log_std(
    mean_1: Tensor, log_std_1: Tensor, mean_2: Tensor, log_std_2: Tensor
) -> tuple[Tensor, Tensor]:
    """The normalized product of two Gaussians: precisions add, means average by precision.

        1 / std^2 = 1 / std_1^2 + 1 / std_2^2,    mean = w mean_1 + (1 - w) mean_2,
        w = std^2 / std_1^2 = sigmoid(2 (log_std_2 - log_std_1))

    Args:
        mean_1: mean of the first factor, any shape; the other three broadcast with it.
        log_std_1: log standard deviation of the first factor.
        mean_2: mean of the second.
        log_std_2: log standard deviation of the second.

    Returns:
        Mean and log-std of the product. Unchecked.

    Raises:
        ValueError: the shapes do not broadcast.

    Reference:
        Sonderby, Raiko, Maaloe, Sonderby, Winther (2016), Ladder variational autoencoders.

    >>> one = torch.ones(1)
    >>> mean, log_std = product_log_std(0 * one, 0 * one, one, 0 * one)
    >>> mean, (2 * log_std).exp()
    (tensor([0.5000]), tensor([0.5000]))
    """
    given = (mean_1, log_std_1, mean_2, log_std_2)
    mean_1, log_std_1, mean_2, log_std_2 = same_shape(*map(in_float32, given))
    twice = 2 * (log_std_2 - log_std_1)
    # Two sigmoids, not w and 1 - w: at log_std_2 - log_std_1 = 14 in float32, 1 - w is zero, and a
    # mean_2 of 1e12 would be lost.
    mean = torch.sigmoid(twice) * mean_1 + torch.sigmoid(-twice) * mean_2
    return mean, -0.5 * torch.logaddexp(-2 * log_std_1, -2 * log_std_2)


def check_std(std: Tensor, name: str) -> None:
    """Require every standard deviation to be positive and finite."""
    if not can_read(std):
        return
    broken = int((~((std > 0) & (std < torch.inf))).sum())
    if broken > 0:
        raise invalid(
            f"{broken} values of {name} that are not positive and finite",
            "standard deviations above 0",
            "let the network give log_std, and call the *_log_std form, which needs no check",
        )


def checked_pair(
    mean_1: Tensor, std_1: Tensor, mean_2: Tensor, std_2: Tensor
) -> tuple[Tensor, ...]:
    """Two diagonal Gaussians of one shape, with positive stds."""
    given = tuple(map(in_float32, (mean_1, std_1, mean_2, std_2)))
    check_std(given[1], "the first std")
    check_std(given[3], "the second std")
    return same_shape(*given)
