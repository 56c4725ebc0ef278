r"""A training step of the U-Net beside diffusers' UNet2DModel, at equal multiply-adds.

Both nets see the same 28 x 28 images in the same process and take turns; each ratio is the median
over rounds of the ratio within a round. A step is forward, mean squared error and backward, without
and with a step of fused AdamW. Multiply-adds are counted by hooks on convolutions, linear layers and
attention, and required to agree; a training step counts three times the forward ones. The peak is
the fastest of a large matrix product and of 3x3 convolutions in both memory layouts, measured in the
same rounds.

Half precision is skipped, and said to be, where the machine has no matrix units for it. With
``--shared`` on one thread, seconds are the process's own: for a machine that others use.

Run: python benchmarks/unet.py          (diffusers is used where it is installed)
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import product

import torch
from common import (
    Times,
    clock_of,
    machine,
    median,
    ratio,
    table,
    take_turns,
    timing_arguments,
    write,
)
from peak import TYPES, peaks, probes, types
from torch import Tensor, nn

from genmod.nn import UNet
from genmod.nn.convolution import Attention

SIDE = 28
OF_PEAK, OF_PEAK_AIM, OF_THEIRS = 0.20, 0.40, 0.45
"""Targets: the least share of the matrix peak, the one aimed at, the largest ratio to diffusers."""
APART = 0.05
"""By how much the multiply-adds of the nets may differ."""
OURS, PATCHED, THEIRS = "genmod UNet", "genmod UNet, patches", "diffusers UNet2DModel"


# ---------------------------------------------------------------------- the networks


class Theirs(nn.Module):
    """diffusers' U-Net, called as ours is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """The sample of its output."""
        said: Tensor = self.network(z, log_snr).sample
        return said


def ours(width: int = 48) -> UNet:
    """Three resolutions, one block in each and attention in the last: 1.1 million parameters."""
    return UNet((1, SIDE, SIDE), width=width, multipliers=(1, 2, 2))


def patched(width: int = 64) -> UNet:
    """As many parameters on patches of two pixels a side: not equal, but what one would rather use."""
    return UNet((1, SIDE, SIDE), width=width, multipliers=(1, 2), patch=2)


def theirs(width: int = 32) -> nn.Module | None:
    """The same resolutions and attention in diffusers; nothing where that is not installed."""
    if importlib.util.find_spec("diffusers") is None:
        return None
    UNet2DModel = importlib.import_module("diffusers").UNet2DModel
    network = UNet2DModel(
        sample_size=SIDE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(width, 2 * width, 2 * width),
        attention_head_dim=32,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )
    return Theirs(network)


def multiply_adds(network: nn.Module) -> int:
    """Multiply-adds of a forward pass, an image: convolutions, linear layers and attention.

    Attention is what a module of that name does between its linear layers, ``2 n^2 C`` for ``n``
    places of ``C`` channels. Norms, nonlinearities and additions are not counted.
    """
    counted = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Conv2d):
            taps = math.prod(module.kernel_size) * module.in_channels // module.groups
            counted += output.numel() * taps
        elif isinstance(module, nn.Linear):
            counted += output.numel() * module.in_features
        else:
            _, channels, *space = output.shape
            counted += 2 * math.prod(space) ** 2 * channels

    def counts(module: nn.Module) -> bool:
        named = isinstance(module, Attention) or type(module).__name__ == "Attention"
        return named or isinstance(module, nn.Conv2d | nn.Linear)

    hooks = [m.register_forward_hook(count) for m in network.modules() if counts(m)]
    with torch.no_grad():
        network(torch.zeros(1, 1, SIDE, SIDE), torch.zeros(1))
    for hook in hooks:
        hook.remove()
    return counted


@dataclass(frozen=True)
class Net:
    """A network, and what it costs."""

    name: str
    network: nn.Module
    cost: int

    @classmethod
    def of(cls, name: str, network: nn.Module) -> Net:
        """A network with its multiply-adds an image, forward."""
        return cls(name, network, multiply_adds(network))


def nets(with_theirs: bool) -> list[Net]:
    """Ours, theirs if it is there, and ours on patches.

    Raises:
        SystemExit: multiply-adds that do not agree.
    """
    found = [Net.of(OURS, ours())]
    other = theirs() if with_theirs else None
    if other is None:
        print("without diffusers: pip install diffusers, to see it beside ours\n")
    else:
        found.append(Net.of(THEIRS, other))
        apart = abs(found[0].cost / found[1].cost - 1)
        if apart > APART:
            raise SystemExit(f"multiply-adds that differ by {apart:.1%}: choose other widths")
    found.append(Net.of(PATCHED, patched()))
    costs = [(n.name, sum(p.numel() for p in n.network.parameters()), n.cost) for n in found]
    head = ["network", "parameters", "multiply-adds, image", "/ ours"]
    table(head, [(*row, row[2] / found[0].cost) for row in costs])
    return found


# ---------------------------------------------------------------------- what is timed


def step(net: Net, batch: int, kind: str, optimized: bool) -> Callable[[], None]:
    """One training step on a fixed batch."""
    generator = torch.Generator().manual_seed(0)
    z, eps = (torch.randn(batch, 1, SIDE, SIDE, generator=generator) for _ in range(2))
    log_snr = torch.linspace(-5, 10, batch)
    learned = list(net.network.parameters())
    optimizer = torch.optim.AdamW(learned, 1e-4, fused=True)
    half: AbstractContextManager[object] = (
        nullcontext() if kind == "float32" else torch.autocast("cpu", TYPES[kind])
    )

    def once() -> None:
        with half:
            predicted = net.network(z, log_snr)
        (predicted.float() - eps).square().mean().backward()
        if optimized:
            optimizer.step()
        for parameter in learned:
            parameter.grad = None

    return once


# ---------------------------------------------------------------------- the tables


@dataclass(frozen=True)
class Row:
    """A line of the table of steps."""

    net: str
    dtype: str
    optimizer: bool
    seconds: float
    gflops: float
    of_peak: float
    of_theirs: float | None


def rows(
    every: Sequence[Net], kinds: Sequence[str], batch: int, times: Times, best: dict[str, float]
) -> list[Row]:
    """All steps, each against diffusers' of its own type."""
    found = []
    for optimized, kind, net in product((False, True), kinds, every):
        name, other = (_step(each, kind, optimized) for each in (net.name, THEIRS))
        seconds = median(times, name)
        rate = 6e-9 * net.cost * batch / seconds
        of_theirs = ratio(times, name, other) if other in times else None
        found.append(Row(net.name, kind, optimized, seconds, rate, rate / best[kind], of_theirs))
    return found


def show(found: Sequence[Row]) -> None:
    """Print the steps."""
    head = ["training step", "type", "AdamW", "ms", "GFLOP/s", "of peak", "/ diffusers"]
    printed = [
        (
            row.net,
            row.dtype,
            "yes" if row.optimizer else "no",
            1e3 * row.seconds,
            row.gflops,
            f"{row.of_peak:.0%}",
            "" if row.of_theirs is None else f"{row.of_theirs:.3f}",
        )
        for row in found
    ]
    table(head, printed)


def judge(found: Sequence[Row], times: Times) -> list[tuple[str, str, str, str]]:
    """Print the targets beside what was reached, each in the fastest type.

    No net of the same multiply-adds can be faster than the peak: what diffusers reaches of it is
    the least ratio that this machine allows.
    """
    bare = [row for row in found if not row.optimizer]
    mine = min((row for row in bare if row.net == OURS), key=lambda row: row.seconds)
    share = f">= {OF_PEAK:.0%}, aim {OF_PEAK_AIM:.0%}"
    lines = [("share of the peak", mine.dtype, share, f"{mine.of_peak:.0%}")]
    other = min((row for row in bare if row.net == THEIRS), key=lambda r: r.seconds, default=None)
    if other is not None:
        names = [_step(row.net, row.dtype, False) for row in (mine, other)]
        least = f"{other.of_peak:.3f} at the peak itself"
        kinds = f"{mine.dtype} / {other.dtype}"
        reached = f"{ratio(times, names[0], names[1]):.3f}"
        lines.append(("time / diffusers", kinds, f"<= {OF_THEIRS}", reached))
        lines.append(("the least there could be", other.dtype, "", least))
        plain = f"{ratio(times, names[0], _step(THEIRS, 'float32', False)):.3f}"
        lines.append(("time / diffusers as it comes", f"{mine.dtype} / float32", "", plain))
    table(["target", "type", "wanted", "reached"], lines)
    return lines


def _step(net: str, kind: str, optimized: bool) -> str:
    return f"{net}, {kind}{', AdamW' if optimized else ''}"


def main(argv: Sequence[str] | None = None) -> None:
    """Count, take turns, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    timing_arguments(parser, rounds=21)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=2048, help="of the large matrix product")
    parser.add_argument("--alone", action="store_true", help="without diffusers")
    parser.add_argument("--bfloat16", action="store_true", help="also where it is slower")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    clock, batch = clock_of(arguments), arguments.batch
    print(", ".join(f"{name} {value}" for name, value in machine().items() if value), end=", ")
    print(f"batch {batch}, medians of {arguments.rounds} rounds")
    kinds = types(clock, arguments.bfloat16)
    every = nets(not arguments.alone)
    images = torch.randn(batch, 96, SIDE // 2, SIDE // 2)
    probed = [probe for kind in kinds for probe in probes(kind, arguments.side, images)]
    routes: dict[str, Callable[[], object]] = {probe.name: probe.run for probe in probed}
    for kind, net, optimized in product(kinds, every, (False, True)):
        routes[_step(net.name, kind, optimized)] = step(net, batch, kind, optimized)
    times = take_turns(routes, arguments.rounds, clock)
    found = rows(every, kinds, batch, times, peaks(probed, times))
    show(found)
    lines = judge(found, times)
    write(
        arguments.out,
        {
            "batch": batch,
            "multiply_adds": {net.name: net.cost for net in every},
            "steps": [vars(row) for row in found],
            "targets": lines,
            "seconds": times,
        },
    )


if __name__ == "__main__":
    main()
