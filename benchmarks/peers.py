"""The networks that ``diffusion.py`` compares, of about a million parameters each, all called as ours are.

A peer is asked for what its own library asks for by default, and told the noise level as its own
library tells it: diffusers' U-Net is asked for the noise and told the index of the level,
denoising-diffusion-pytorch's for the velocity and told the index, azula's for what its
``KarrasDenoiser`` asks for, which is minus the velocity where noise preserves the variance, and told
``log(sigma / alpha)``. Their shapes are those of their libraries' own examples, narrowed alike.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from unet import SIDE, theirs

from genmod.denoisers import NoiseTarget, Target, VelocityTarget
from genmod.nn import UNet
from genmod.schedules import Table

TOLD = 128
"""Numbers that tell azula's blocks the noise level."""
OURS = 4e-3
"""The learning rate of ours, which every peer tries too."""
HALF = 2e-3
"""A third try for every peer: most like it better."""


@dataclass(frozen=True)
class Entrant:
    """A network to train, and how.

    Args:
        name: what the table calls it.
        package: what has to be installed for it.
        build: makes ``network(z, log_snr)`` for a table of levels.
        target: what its output is read as.
        rates: learning rates to try; the best counts.
        share: of a peer's time, the most that ours may take to where the peer ends; none for ours.
    """

    name: str
    package: str
    build: Callable[[Table], nn.Module]
    target: Target
    rates: Sequence[float]
    share: float | None = None

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return importlib.util.find_spec(self.package) is not None


class Indexed(nn.Module):
    """A network that wants the index of the level, counted from the clean end, told the log-SNR.

    Args:
        network: ``network(z, index)``.
        schedule: the table of levels; a log-SNR counts as that of the nearest row.
    """

    between: Tensor

    def __init__(self, network: nn.Module, schedule: Table) -> None:
        super().__init__()
        self.network = network
        rising = schedule.table.flip(0)
        self.register_buffer("between", ((rising[1:] + rising[:-1]) / 2).float(), persistent=False)

    def index(self, log_snr: Tensor) -> Tensor:
        """The row of the table that each log-SNR is nearest to."""
        return len(self.between) - torch.bucketize(log_snr, self.between)

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """The network's output."""
        said: Tensor = self.network(z, self.index(log_snr))
        return said


class Centered(nn.Module):
    """azula's U-Net, told ``log(sigma / alpha)`` by azula's own sine encoding.

    Its default shape is 64, 128, 256 channels of three blocks each: here at a quarter of the width.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        layers, unet = (importlib.import_module(f"azula.nn.{name}") for name in ("layers", "unet"))
        self.told = layers.SineEncoding(TOLD)
        self.network = unet.UNet(1, 1, hid_channels=channels, mod_features=TOLD)

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """The velocity: minus what azula's denoiser asks its network for."""
        said: Tensor = self.network(z, self.told(-log_snr / 2))
        return -said


def _diffusers(schedule: Table) -> nn.Module:
    network = theirs()
    assert network is not None
    return Indexed(network, schedule)


def _lucidrains(schedule: Table) -> nn.Module:
    module = importlib.import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
    return Indexed(module.Unet(20, dim_mults=(1, 2, 4), channels=1), schedule)


def tapered() -> UNet:
    """Few channels where there are many pixels, many where there are few: a million parameters, cheap."""
    return UNet((1, SIDE, SIDE), width=16, multipliers=(1, 2, 4, 8))


GENMOD = Entrant("genmod", "genmod", lambda schedule: tapered(), VelocityTarget(), (OURS,))
PEERS = [
    Entrant("diffusers", "diffusers", _diffusers, NoiseTarget(), (1e-4, HALF, OURS), share=0.25),
    Entrant(
        "denoising-diffusion-pytorch",
        "denoising_diffusion_pytorch",
        _lucidrains,
        VelocityTarget(),
        (1e-4, HALF, OURS),
        share=0.15,
    ),
    Entrant(
        "azula",
        "azula",
        lambda schedule: Centered(),
        VelocityTarget(),
        (1e-3, HALF, OURS),
        share=0.60,
    ),
]
"""With the learning rate of each library's own trainer, tutorial or first example, and with faster ones."""
