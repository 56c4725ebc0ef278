r"""Steps per second of ``fit`` against a loop written by hand, with the same networks, data and loss.

The bare loops are what a competent user would write for one model: the loss spelled out in place
(Gaussian KL, exact logistic bin masses, velocity prediction in continuous time), fused AdamW, gradient
clipping, torch's own moving average of weights, batches by a permutation in each epoch. They check
nothing, seed nothing and keep nothing. Before anything is timed, both losses are required to agree.

Both loops take turns in blocks of steps within one process, and the ratio is the median over pairs of
neighboring blocks, so that a slow second of the machine hits both alike.

Run: python benchmarks/overhead.py
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from genmod import decoders, encoders
from genmod.data.images import digits
from genmod.model import LatentModel, Request
from genmod.models import VAE, Diffusion
from genmod.nn import MLP, DenoisingMLP
from genmod.path import AutoTimesteps
from genmod.spec import DataSpec
from genmod.training import training_loop

Loss = Callable[[Tensor], Tensor]


# ---------------------------------------------------------------------- the losses, by hand


def logistic_log_mass(x: Tensor, location: Tensor, log_scale: Tensor, half: float) -> Tensor:
    """Log mass of a logistic's bins around ``x`` on [-1, 1], summed over each row."""
    inverse = torch.exp(-log_scale)
    middle, reach = (x - location) * inverse, half * inverse
    below, above = F.logsigmoid(middle + reach), F.logsigmoid(reach - middle)
    inside = below + above + torch.log(-torch.expm1(-2 * reach))
    return torch.where(x <= -1, below, torch.where(x >= 1, above, inside)).sum(1)


class BareVAE(nn.Module):
    """A VAE's two networks, and its loss as one formula."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, bins: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.width = encoder, decoder, 2 / (bins - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Minus the mean bound of real rows on [-1, 1]."""
        mean, log_std = self.encoder(x).chunk(2, 1)
        std = log_std.exp()
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * log_std).sum(1)
        location, log_scale = self.decoder(mean + std * torch.randn_like(mean)).chunk(2, 1)
        log_scale = log_scale + math.log(self.width)
        return (kl - logistic_log_mass(x, location, log_scale, self.width / 2)).mean()


class BareDiffusion(nn.Module):
    """A velocity network in continuous time and the scale of its last step; its loss as one formula."""

    def __init__(
        self, network: nn.Module, ends: tuple[float, float], gain: float, bins: int
    ) -> None:
        super().__init__()
        self.network, self.width = network, 2 / (bins - 1)
        (self.clean, self.noisy), self.gain = ends, gain
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Minus the mean bound of real rows on [-1, 1], one stratified level each."""
        rows, dims = x.shape
        t = (torch.rand(()) + torch.arange(rows) / rows) % 1
        log_snr = self.clean + (self.noisy - self.clean) * t
        x_hat = self.denoise(x, log_snr)
        error = (x - x_hat).square().sum(1)
        steps = 0.5 * (self.clean - self.noisy) * torch.exp(log_snr) * error
        noise = 1 / (1 + math.exp(self.noisy))
        kept = (1 - noise) * x.square().sum(1)
        prior = 0.5 * (kept + dims * (noise - 1 - math.log(noise)))
        x_hat = self.denoise(x, torch.full((rows,), self.clean))
        log_scale = self.gain * self.log_scale
        log_mass = logistic_log_mass(x, x_hat, log_scale, self.width / 2)
        return (steps + prior - log_mass).mean()

    def denoise(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """Noise ``x`` to a log-SNR and let the network say what it was."""
        alpha = log_snr.sigmoid().sqrt()[:, None]
        sigma = (-log_snr).sigmoid().sqrt()[:, None]
        z = alpha * x + sigma * torch.randn_like(x)
        return alpha * z - sigma * self.network(z, log_snr)


# ---------------------------------------------------------------------- the two loops


def bare_steps(model: nn.Module, x: Tensor, batch: int, rate: float) -> Iterator[None]:
    """Training as one would write it in an afternoon; yields after every step."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.0, fused=True)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    while True:
        order = torch.randperm(len(x))
        for start in range(0, len(x) - batch + 1, batch):
            optimizer.zero_grad()
            loss = model(x[order[start : start + batch]])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(model)
            yield


@dataclass
class Case:
    """One size: our model, the bare one with networks of the same classes, and integer data."""

    name: str
    ours: LatentModel
    bare: nn.Module
    x: Tensor
    bins: int

    @property
    def real(self) -> Tensor:
        """The data as the bare loop wants them, converted once."""
        return self.x.flatten(1) * (2 / (self.bins - 1)) - 1

    def require_equal_losses(self, rows: int = 512, draws: int = 50) -> None:
        """Both losses of the same weights, averaged over draws, within five standard errors."""
        request = Request(timesteps=AutoTimesteps.TRAINING)
        x, real = self.x[:rows], self.real[:rows]
        with torch.no_grad():
            ours = torch.stack([-self.ours(x, request)[0].value.mean() for _ in range(draws)])
            bare = torch.stack([self.bare(real) for _ in range(draws)])
        error = math.hypot(float(ours.std()), float(bare.std())) / math.sqrt(draws)
        gap = float(ours.mean() - bare.mean())
        if abs(gap) > 5 * error:
            raise SystemExit(f"{self.name}: the losses differ by {gap:.4g} ({error:.2g})")


def digits_vae(width: int = 256, latents: int = 32) -> Case:
    """The one-line VAE on the digits."""
    x = digits().train
    ours = VAE((1, 8, 8), bins=17, latents=latents, width=width)
    bare = BareVAE(MLP(64, 2 * latents, width=width), MLP(latents, 128, width=width), 17)
    return Case(f"digits VAE, width {width}", ours, bare, x, 17)


def digits_diffusion(width: int = 256) -> Case:
    """The one-line diffusion on the digits, in continuous time."""
    x = digits().train
    ours = Diffusion((1, 8, 8), bins=17, width=width)
    ends = ours.diffusion.schedule.log_snr_range()
    (scale,) = (part for part in ours.modules() if isinstance(part, decoders.GlobalScale))
    bare = BareDiffusion(DenoisingMLP((64,), width=width), ends, scale.gain, 17)
    return Case(f"digits diffusion, width {width}", ours, bare, x, 17)


def large_vae() -> Case:
    """The textbook 784-400-20 VAE on random 8-bit images."""

    def nets() -> tuple[nn.Module, nn.Module]:
        up = nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))
        return up, nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 2 * 784))

    x = torch.randint(0, 256, (4096, 1, 28, 28))
    up, down = nets()
    scale = decoders.PredictedScale(2 / 255)
    ours = VAE(
        latents=20,
        encoder=encoders.GaussianEncoder(up, (20,), DataSpec((1, 28, 28), 256)),
        decoder=decoders.DiscretizedLogisticDecoder(down, (1, 28, 28), 256, scale),
    )
    return Case("VAE 784-400-20", ours, BareVAE(*nets(), 256), x, 256)


# ---------------------------------------------------------------------- the race


def race(
    case: Case, batch: int, blocks: int, block: int, progress: bool, clock: Callable[[], float]
) -> float:
    """Print one line: both medians of steps per second, and the median ratio of neighbors."""
    case.bare.load_state_dict(dict(zip(case.bare.state_dict(), same_order(case), strict=True)))
    case.require_equal_losses()
    rate, total = 1e-3, 10 * block * (blocks + 2)
    ours = training_loop(
        case.ours,
        case.x,
        steps=total,
        batch_size=batch,
        learning_rate=rate,
        progress=progress,
    )
    bare = bare_steps(case.bare, case.real, batch, rate)
    pairs = []

    def rate_of(steps: Iterator[object]) -> float:
        """Steps per second over the next block."""
        start = clock()
        for _ in range(block):
            next(steps)
        return block / (clock() - start)

    rate_of(ours), rate_of(bare)
    for turn in range(blocks):
        if turn % 2:
            second, first = rate_of(bare), rate_of(ours)
        else:
            first, second = rate_of(ours), rate_of(bare)
        pairs.append((first, second))
    ratio = statistics.median(a / b for a, b in pairs)
    mine, plain = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{case.name:28} {mine:12.1f} {plain:12.1f} {ratio:10.3f}", flush=True)
    return ratio


def same_order(case: Case) -> list[Tensor]:
    """Our weights in the order of the bare model's, whose parts are built in the same order."""
    if isinstance(case.bare, BareDiffusion):
        learned = dict(case.ours.named_parameters())
        scale = next(p for name, p in learned.items() if "log_scale" in name)
        return [scale.detach(), *(p.detach() for n, p in learned.items() if "log_scale" not in n)]
    return [parameter.detach() for parameter in case.ours.parameters()]


def main() -> None:
    """Every size in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=20, help="pairs of blocks for each size")
    parser.add_argument("--block", type=int, default=100, help="steps in a block")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--progress", action="store_true", help="with our progress bar shown")
    parser.add_argument("--shared", action="store_true", help="count the process's own seconds")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.shared else time.perf_counter
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {arguments.threads} threads, batch {arguments.batch}")
    print(f"{'':28} {'fit steps/s':>12} {'bare steps/s':>12} {'fit / bare':>10}")
    for build in (digits_vae, digits_diffusion, large_vae):
        race(build(), arguments.batch, arguments.blocks, arguments.block, arguments.progress, clock)


if __name__ == "__main__":
    main()
