r"""What a machine can do: large matrix products and 3x3 convolutions, in float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from common import Clock, Times, median, table, take_turns
from torch import Tensor, nn

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SMALL = 256
"""Sides of the product that tells the types apart: in software, bfloat16 is that slow."""


@dataclass(frozen=True)
class Probe:
    """Something that does little but multiply matrices: one of those the peak is taken from.

    Args:
        kind: what it is.
        run: does it.
        cost: its multiply-adds.
        type: in which type.
    """

    kind: str
    run: Callable[[], object]
    cost: int
    type: str

    @property
    def name(self) -> str:
        """What it does in which type."""
        return f"{self.kind}, {self.type}"

    def rate(self, times: Times) -> float:
        """GFLOP/s: two operations for each multiply-add."""
        return 2e-9 * self.cost / median(times, self.name)


def product(kind: str, side: int) -> Probe:
    """A product of square matrices."""
    a, b = torch.randn(2, side, side, dtype=TYPES[kind])
    return Probe(f"matrix product, {side}", lambda: a @ b, side**3, kind)


def convolution(kind: str, layout: str, order: torch.memory_format, x: Tensor) -> Probe:
    """A 3x3 convolution to as many channels."""
    channels = x.shape[1]
    w = torch.randn(channels, channels, 3, 3, dtype=TYPES[kind])
    placed = x.to(TYPES[kind]).contiguous(memory_format=order)
    cost = x.numel() * 9 * channels
    return Probe(
        f"convolution 3x3, {layout}",
        lambda: nn.functional.conv2d(placed, w, padding=1),
        cost,
        kind,
    )


def probes(kind: str, side: int, images: Tensor) -> list[Probe]:
    """A large matrix product, and a convolution in both memory layouts."""
    return [
        product(kind, side),
        convolution(kind, "channels first", torch.contiguous_format, images),
        convolution(kind, "channels last", torch.channels_last, images),
    ]


def types(clock: Clock, forced: bool) -> list[str]:
    """Float32, and bfloat16 where a product of matrices is faster in it; says why, where it is not."""
    rates = {}
    for kind in TYPES:
        probe = product(kind, _SMALL)
        rates[kind] = probe.rate(take_turns({probe.name: probe.run}, 3, clock))
    said = ", ".join(f"{kind} {rate:,.1f}" for kind, rate in rates.items())
    faster = rates["bfloat16"] > rates["float32"]
    print(f"products of {_SMALL} x {_SMALL}, GFLOP/s: {said}", end="; ")
    print("" if faster else "this machine has no matrix units for bfloat16", end=", ")
    print("which is timed as well\n" if faster or forced else "which is skipped\n")
    return list(TYPES) if faster or forced else ["float32"]


def peaks(every: Sequence[Probe], times: Times) -> dict[str, float]:
    """Print what the probes reached; returns the best of each type, GFLOP/s."""
    table(["peak", "type", "GFLOP/s"], [(p.kind, p.type, p.rate(times)) for p in every])
    kinds = {probe.type for probe in every}
    return {kind: max(p.rate(times) for p in every if p.type == kind) for kind in kinds}
