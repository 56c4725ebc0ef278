"""Gaussian KL, forward and backward: ours against the plain formula, torch.distributions and Pyro.

Every route computes the KL of the same (mean, log_std) pairs, sums it, and takes the gradient.
Routes take turns within a round, and each ratio is the median over rounds of the ratio to the plain
formula in that round, so that a slow second of the machine hits all of them alike.

Run: python benchmarks/gaussian_kl.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import pyro.distributions as pyro
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from genmod.gaussian.kernels import kl_log_std, kl_standard_log_std

Route = Callable[..., Tensor]


def plain(mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
    """The formula as it is usually written, under autograd."""
    log_ratio = log_std_q - log_std_p
    square = ((mean_q - mean_p) / log_std_p.exp()).square()
    return 0.5 * ((2 * log_ratio).exp() + square - 1 - 2 * log_ratio)


def plain_standard(mean: Tensor, log_std: Tensor) -> Tensor:
    """The usual formula against N(0, 1)."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std)


def with_torch(mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
    """The registry of torch.distributions, without validation."""
    q = Normal(mean_q, log_std_q.exp(), validate_args=False)
    return kl_divergence(q, Normal(mean_p, log_std_p.exp(), validate_args=False))


def with_torch_standard(mean: Tensor, log_std: Tensor) -> Tensor:
    """The registry, against N(0, 1)."""
    zero = torch.zeros((), dtype=mean.dtype)
    return with_torch(mean, log_std, zero, zero)


def with_pyro(mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
    """Pyro, as its mean-field ELBO does it: an event of the last dimension."""
    q = pyro.Normal(mean_q, log_std_q.exp(), validate_args=False).to_event(1)
    p = pyro.Normal(mean_p, log_std_p.exp(), validate_args=False).to_event(1)
    return kl_divergence(q, p)


def with_pyro_standard(mean: Tensor, log_std: Tensor) -> Tensor:
    """Pyro, against N(0, 1)."""
    zero = torch.zeros(mean.shape[-1], dtype=mean.dtype)
    return with_pyro(mean, log_std, zero, zero)


ROUTES: dict[str, dict[str, Route]] = {
    "to N(0, I)": {
        "plain": plain_standard,
        "genmod": kl_standard_log_std,
        "torch": with_torch_standard,
        "pyro": with_pyro_standard,
    },
    "general": {
        "plain": plain,
        "genmod": kl_log_std,
        "torch": with_torch,
        "pyro": with_pyro,
    },
}


def seconds(route: Route, inputs: list[Tensor], repeats: int) -> float:
    """Seconds of one forward and backward, averaged over ``repeats``."""
    start = time.perf_counter()
    for _ in range(repeats):
        torch.autograd.grad(route(*inputs).sum(), inputs)
    return (time.perf_counter() - start) / repeats


def measure(routes: dict[str, Route], inputs: list[Tensor], rounds: int, repeats: int) -> None:
    """Print one line a route: median time, and median ratio to the plain formula."""
    times: dict[str, list[float]] = {name: [] for name in routes}
    for route in routes.values():
        seconds(route, inputs, repeats)
    for _ in range(rounds):
        for name, route in routes.items():
            times[name].append(seconds(route, inputs, repeats))
    for name, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken, times["plain"], strict=True))
        print(f"    {name:8} {1e3 * statistics.median(taken):10.3f} ms   {ratio:6.2f} x plain")


def main() -> None:
    """Both KLs at a large and at a small size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=21, help="rounds of each table")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads, float32, forward + backward")
    for shape, repeats in (((4096, 1024), 1), ((128, 20), 100)):
        for title, routes in ROUTES.items():
            count = 4 if title == "general" else 2
            generator = torch.Generator().manual_seed(0)
            inputs = [
                torch.randn(shape, generator=generator).mul_(0.5).requires_grad_()
                for _ in range(count)
            ]
            print(f"{list(shape)}, {title}")
            measure(routes, inputs, arguments.rounds, repeats)


if __name__ == "__main__":
    main()
