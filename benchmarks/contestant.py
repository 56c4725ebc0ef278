"""A network in training beside others on the clock, and what all of them are judged by."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from common import Clock
from peers import Entrant
from torch import Tensor, nn

from genmod import random
from genmod.decoders import DiscretizedLogisticDecoder, GlobalScale, Identity
from genmod.denoisers import Learned
from genmod.denoisers.targets import scales_of
from genmod.diffusion import LastStepDecoder, fit_scale
from genmod.evaluation.batching import evaluating
from genmod.models import Diffusion
from genmod.random.streams import stratified
from genmod.schedules import LinearBeta, Table
from genmod.spec import Bins
from genmod.training.batches import Batches

LEVELS = 1000
"""Of DDPM's table of betas."""
WARMUP, CLIP, EMA = 50, 1.0, 0.99
"""Steps until the learning rate is full, the largest norm of a gradient, the decay of the average."""
Row = dict[str, float]
"""A point of a curve: seconds, step, mse, bits."""


@dataclass(frozen=True)
class Held:
    """What a look looks at.

    Args:
        x: held-out images.
        draws: levels that each of them visits.
        tuned: training images that choose the decoder's scale.
        seed: the key of levels and noise.
    """

    x: Tensor
    draws: int
    tuned: Tensor
    seed: int = 1
    block: int = 64

    def look(self, model: Diffusion, draws: int | None = None) -> tuple[Tensor, Tensor]:
        """The noise error, and bits/dim, of each image; with as many draws as are asked for."""
        dims, bits, errors = self.x[0].numel(), [], []
        with evaluating(model):
            fit_scale(model, self.tuned, seed=self.seed)
            for start in range(0, len(self.x), self.block):
                rows = self.x[start : start + self.block]
                with random.keyed(self.seed, start=start, block=self.block):
                    bound = model.elbo(rows, draws or self.draws)
                steps = bound.rates["steps"].error
                assert steps is not None
                errors.append(steps.mean(1) / dims)
                bits.append(bound.bits_per_dim(dims))
        return torch.cat(errors), torch.cat(bits)


@dataclass
class Contestant:
    """A network in training.

    Args:
        entrant: which.
        rate: its learning rate.
        batches: what it is trained on.
        held: what it is judged by.
        clock: seconds.
    """

    entrant: Entrant
    rate: float
    batches: Batches
    held: Held
    clock: Clock
    seconds: float = 0.0
    step: int = 0
    curve: list[Row] = field(default_factory=list)
    better: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.schedule: Table = LinearBeta(LEVELS)
        self.network = self.entrant.build(self.schedule)
        self.averaged = copy.deepcopy(self.network)
        self.parameters = sum(p.numel() for p in self.network.parameters())
        self.denoiser = Learned(self.network, self.entrant.target).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), self.rate, fused=True)

    @property
    def name(self) -> str:
        """Who, and at which rate."""
        return f"{self.entrant.name}, {self.rate:g}"

    def turn(self, seconds: float, looks: int) -> None:
        """Train for some seconds, and look some times on the way."""
        began = self.seconds
        for look in range(looks):
            while self.seconds < began + seconds * (look + 1) / looks:
                before = self.clock()
                self.advance()
                self.seconds += self.clock() - before
            self.look()

    def advance(self) -> None:
        """One step, and a step of the average."""
        loss = self.loss()
        self.optimizer.param_groups[0]["lr"] = self.rate * min(1, (self.step + 1) / WARMUP)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP, foreach=True)
        self.optimizer.step()
        self.step += 1
        with torch.no_grad():
            decay = min(EMA, (self.step - 1) / (self.step + 8))
            pairs = list(self.averaged.parameters()), list(self.network.parameters())
            torch._foreach_lerp_(*pairs, 1 - decay)

    def loss(self) -> Tensor:
        """The mean squared error of the noise: the same batch, levels and noise for all."""
        x = Bins(256).center(self.batches(self.step)[0])
        with random.keyed(self.batches.seed, self.step):
            u = stratified(len(x), 1, torch.float64)[:, 0]
            eps = random.normal_like(x)
        log_snr = self.schedule.table[(u * LEVELS).long()].to(x.dtype)
        alpha, sigma = scales_of(log_snr, x)
        x_hat = self.denoiser(alpha * x + sigma * eps, log_snr).x_hat
        # (alpha / sigma) (x - x_hat) is eps_hat - eps.
        return (alpha / sigma * (x - x_hat)).square().mean()

    def look(self) -> None:
        """Add a row to the curve: the better of the weights and their average, for each number."""
        looks = [self.held.look(self._model(each)) for each in (self.network, self.averaged)]
        found = [[float(each.mean()) for each in one] for one in looks]
        mse, bits = (min(each) for each in zip(*found, strict=True))
        self.better = self.network if found[0][1] <= found[1][1] else self.averaged
        self.curve.append({"seconds": self.seconds, "step": self.step, "mse": mse, "bits": bits})
        print(
            f"  {self.name:34} {self.seconds:6.1f} s, step {self.step:5,}: noise error {mse:.4f}, "
            f"{bits:.3f} bits/dim",
            flush=True,
        )

    def bits(self, draws: int) -> Tensor:
        """Bits/dim of each image, by many draws, of what had fewer at the last look."""
        return self.held.look(self._model(self.better), draws)[1]

    def _model(self, network: nn.Module) -> Diffusion:
        denoiser = Learned(network, self.entrant.target)
        inner = DiscretizedLogisticDecoder(
            Identity(), tuple(self.held.x.shape[1:]), 256, GlobalScale()
        )
        decoder = LastStepDecoder(denoiser, self.schedule, inner)
        return Diffusion(
            bins=256, denoiser=denoiser, schedule=self.schedule, decoder=decoder, steps=LEVELS
        )
