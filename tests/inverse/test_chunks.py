"""A measurement of each row stays with its row, in however many chunks a batch is computed.

A batch of a few dozen images is several chunks. The chunks are made small here by their memory.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genmod.chunks import computing, memory_limit, own_rows
from genmod.denoisers import Denoiser, GaussianDenoiser
from genmod.evaluation import score
from genmod.inverse import DPS, MMPS, Mask, PiGDM, RePaint
from genmod.models import Diffusion, with_denoiser
from genmod.samplers import DPMSolver

ROWS, CHUNK = 7, 2 * 4 * 200 * 2
"""Rows, and the bytes of two of them."""
FIRST = Mask(torch.tensor([True, False]))
Y = torch.linspace(-3, 3, ROWS)[:, None]

Wrap = Callable[[Tensor], Callable[[Denoiser], Denoiser]]
POSTERIORS: dict[str, Wrap] = {
    "MMPS": lambda y: lambda denoiser: MMPS(denoiser, FIRST, y, std=0.1),
    "PiGDM": lambda y: lambda denoiser: PiGDM(denoiser, FIRST, y, std=0.1),
}


def model() -> Diffusion:
    """The optimum for two correlated numbers."""
    denoiser = GaussianDenoiser(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    return Diffusion(2, denoiser=denoiser, steps=12)


def drawn(kind: str, y: Tensor, rows: int) -> Tensor:
    """A draw for each measurement, each row by a seed of its own."""
    seeds = range(rows)
    if kind in POSTERIORS:
        posterior = with_denoiser(model(), POSTERIORS[kind](y))
        return posterior.sample(rows, seeds=seeds, sampler=DPMSolver(order=2), steps=8)
    sampler = DPS(operator=FIRST, y=y, zeta=0.1)
    if kind == "RePaint":
        return model().sample(
            rows, seeds=seeds, sampler=RePaint(operator=FIRST, y=y, repeats=2, jump=3)
        )
    return model().sample(rows, seeds=seeds, sampler=sampler)


@pytest.mark.parametrize("kind", [*POSTERIORS, "DPS", "RePaint"])
def test_samples_do_not_depend_on_the_chunks(kind: str) -> None:
    """Nor whether one measurement is for all, or repeated for each row."""
    whole = drawn(kind, Y, ROWS)
    with memory_limit(CHUNK):
        cut, shared = drawn(kind, Y, ROWS), drawn(kind, Y[:1], ROWS)
    torch.testing.assert_close(cut, whole)
    torch.testing.assert_close(shared, drawn(kind, Y[:1].expand(ROWS, -1), ROWS))
    if kind != "DPS":  # which is exact for nothing
        torch.testing.assert_close(cut[:, :1], Y, atol=0.5, rtol=0)


@pytest.mark.parametrize("kind", POSTERIORS)
@pytest.mark.parametrize("batch_size", [1, 2, 5, ROWS])
def test_a_bound_does_not_depend_on_the_chunks_or_the_order(kind: str, batch_size: int) -> None:
    """Each row is scored under its own measurement, also where ids put the rows in another order."""
    posterior, x = with_denoiser(model(), POSTERIORS[kind](Y)), torch.cat([Y, Y], 1)
    expected = score(posterior, x, batch_size=ROWS).value
    torch.testing.assert_close(score(posterior, x, batch_size=batch_size).value, expected)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    moved = with_denoiser(model(), POSTERIORS[kind](Y[order]))
    found = score(moved, x[order], ids=order, batch_size=batch_size).value
    torch.testing.assert_close(found, expected[order])


def test_rows_that_are_no_batch_stay_as_they_are() -> None:
    """One for all, or as many as another batch has; and nothing outside of chunks."""
    with computing(torch.tensor([2, 0]), total=3):
        assert own_rows(torch.arange(3)).tolist() == [2, 0]
        assert own_rows(torch.arange(1)).tolist() == [0]
        with computing(slice(0, 1), total=2):
            assert own_rows(torch.arange(3)).tolist() == [0, 1, 2]
    assert own_rows(torch.arange(3)).tolist() == [0, 1, 2]
