r"""How far each method for inverse problems ends from the true posterior of Gaussian data, in nats.

A signal of 16 correlated numbers, ten of them measured without noise: the law of the other six is a
Gaussian that is known. The denoiser is the optimal one, so what a method loses is its own doing, and its
finite number of steps'. The divergence is that of a Gaussian with the samples' moments.

Run: python benchmarks/posteriors.py
"""

from __future__ import annotations

import argparse

import torch
from common import table
from torch import Tensor

from genmod.denoisers import GaussianDenoiser
from genmod.gaussian import kl_full
from genmod.inverse import DPS, MMPS, Mask, PiGDM, RePaint
from genmod.samplers import Ancestral, Sampler
from genmod.schedules import LinearLogSNR

F64 = torch.float64
PLACE = torch.arange(16, dtype=F64)
COVARIANCE = torch.exp(-(PLACE[:, None] - PLACE).abs() / 4)
SEEN = (PLACE < 5) | (PLACE > 10)
Y = torch.tensor([[0.5, 1.0, 1.3, 0.6, -0.2, -1.5, -1.0, -0.4, 0.2, 0.1]], dtype=F64)


def posterior() -> tuple[Tensor, Tensor]:
    """Mean and covariance of the hidden numbers, given the others."""
    across = COVARIANCE[~SEEN][:, SEEN]
    gain = torch.linalg.solve(COVARIANCE[SEEN][:, SEEN], across.T).T
    return gain @ Y[0], COVARIANCE[~SEEN][:, ~SEEN] - gain @ across.T


def methods() -> dict[str, Sampler]:
    """Each method, with the settings that change its bias."""
    prior, mask = GaussianDenoiser(torch.zeros(16, dtype=F64), COVARIANCE), Mask(SEEN)
    schedule = LinearLogSNR(10.0, -10.0)
    told = {
        **{f"MMPS, {n} iterations": MMPS(prior, mask, Y, 0.0, iterations=n) for n in (1, 2, 5)},
        "Pi-GDM": PiGDM(prior, mask, Y, 0.0),
    }
    found: dict[str, Sampler] = {name: Ancestral(d, schedule) for name, d in told.items()}
    for zeta in (0.01, 0.03, 0.1, 0.3, 1.0):
        found[f"DPS, zeta = {zeta:g}"] = DPS(prior, schedule, operator=mask, y=Y, zeta=zeta)
    for repeats in (1, 4, 10):
        name = f"RePaint, {repeats} pass{'es' if repeats > 1 else ''}"
        found[name] = RePaint(prior, schedule, operator=mask, y=Y, repeats=repeats, jump=20)
    return found


@torch.no_grad()
def row(sampler: Sampler, steps: int, rows: int) -> list[str]:
    """Nats off; the error of the mean in posterior stds; variance as a share; the misfit to ``y``."""
    torch.manual_seed(0)
    start, times = torch.randn(rows, 16, dtype=F64), torch.linspace(1, 0, steps + 1, dtype=F64)
    z = sampler.run(start, times)
    (mean, covariance), hidden = posterior(), z[:, ~SEEN]
    off = (hidden.mean(0) - mean) / covariance.diagonal().sqrt()
    found, exact = (torch.linalg.cholesky(c) for c in (hidden.T.cov(), covariance))
    return [
        f"{float(kl_full(hidden.mean(0), found, mean, exact)):.3f}",
        f"{float(off.square().mean().sqrt()):.2f}",
        f"{float((hidden.var(0) / covariance.diagonal()).mean()):.2f}",
        f"{float((z[:, SEEN] - Y).square().mean().sqrt()):.3f}",
    ]


def main(steps: int, rows: int) -> None:
    """The table."""
    floor = (6 + 6 * 7 / 2) / (2 * rows)
    print(f"{rows} draws of {steps} steps; moments of exact draws would be {floor:.3f} nats off")
    head = ["method", "nats off", "mean off, stds", "variance, share", "misfit to y"]
    table(head, [[name, *row(s, steps, rows)] for name, s in methods().items()])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=250, help="of each chain")
    parser.add_argument("--rows", type=int, default=2000, help="draws")
    chosen = parser.parse_args()
    main(chosen.steps, chosen.rows)
