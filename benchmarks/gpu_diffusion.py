r"""A larger diffusion on gray MNIST and Fashion-MNIST, on a GPU: built, trained, scored in a time.

.. math:: \log p(x) \ge \mathbb{E}\,\log p(x | z_0) - \mathrm{KL}(q(z_1|x) \| p(z_1))
    - \tfrac12 \int (-\lambda_t')\, \mathbb{E}\|\varepsilon - \hat\varepsilon\|^2 dt

Continuous time, log-SNR linear and cut short at its clean end: what lies below is left to a decoder of
its own, a second U-Net that says a mixture of discretized logistics for every pixel of ``x`` given
``z_0``. Both see Fourier features. The bound is on an exact mass, so bits/dim (over 784 pixels) is a
code length; it is estimated from some levels an image, and printed with its standard error.

The time is shared by the data sets and covers everything: the pace is measured, and as many steps are
made as leave time to score. ``--stop-after`` ends this call after some minutes, where a machine is lent
for less than that; the same command then goes on from the files in ``--out``.

Run: python benchmarks/gpu_diffusion.py --root DATA --compile
Smoke test without a GPU: python benchmarks/gpu_diffusion.py --minutes 0.2 --width 16
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import torch
from common import LOADERS, machine
from record import Record
from settings import Settings, parser, settings_of
from torch import Tensor, nn

from genmod.data import Dataset
from genmod.decoders import DiscretizedMixtureDecoder
from genmod.evaluation import evaluate, score
from genmod.models import Diffusion
from genmod.nn import UNet
from genmod.nn.modules import load_weights, weights
from genmod.schedules import LinearLogSNR
from genmod.training import Step, training_loop

AIMS = {"mnist": 0.90, "fashion-mnist": 2.70}
"""Bits/dim to get below."""
_TIMED, _TRIED = 16, 0.1
"""Steps that are tried to learn the pace, and the most of the time that they may take."""
_KEPT = 0.97
"""What part of the time is planned for: the rest is for what cannot be foreseen."""
_SAVED = 40.0
"""Seconds between two checkpoints."""
_DRAWS = 4
"""Levels that a look at the validation images visits."""
_ENDLESS = 10**6
"""Steps of the run that is broken off once the pace is known."""


# ---------------------------------------------------------------------- what is built


class AtOneLevel(nn.Module):
    """A U-Net that only ever sees one noise level: ``net(z)``."""

    def __init__(self, network: UNet, log_snr: float) -> None:
        super().__init__()
        self.network, self.log_snr = network, log_snr

    def forward(self, z: Tensor) -> Tensor:
        """The network's outputs at its level."""
        said: Tensor = self.network(z, z.new_full((len(z),), self.log_snr))
        return said


def networks(data: Dataset, s: Settings) -> tuple[UNet, AtOneLevel]:
    """The denoiser's network and the decoder's."""

    def unet(width: int, blocks: int, outputs: int) -> UNet:
        return UNet(
            data.shape,
            width=width,
            multipliers=(1, 2, 2),
            blocks=blocks,
            dropout=s.dropout,
            fourier=s.fourier,
            outputs=outputs,
        )

    channels = data.shape[0]
    decoder = unet(s.decoder_width, s.decoder_blocks, 3 * s.components * channels)
    return unet(s.width, s.blocks, channels), AtOneLevel(decoder, s.clean)


def build(data: Dataset, s: Settings, network: UNet, decoder: AtOneLevel) -> Diffusion:
    """The model, untrained; its networks put their images in the memory order that convolutions like."""
    assert data.bins is not None
    model = Diffusion(
        data.shape,
        data.bins,
        denoiser=network,
        schedule=LinearLogSNR(s.clean, s.noisy),
        decoder=DiscretizedMixtureDecoder(decoder, data.shape, data.bins, s.components),
    )
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def prepared(data: Dataset, settings: Settings) -> Dataset:
    """Some of the validation images, and mirror images to train on if they are asked for."""
    mirrored = torch.cat([data.train, data.train.flip(-1)]) if settings.flips else data.train
    return replace(
        data, train=mirrored, validation=data.validation[: settings.validated], labels=None
    )


# ---------------------------------------------------------------------- how it is trained


def training(
    model: Diffusion,
    data: Dataset,
    s: Settings,
    steps: int,
    checkpoint: Path | None = None,
    every: int = 1,
) -> Iterator[Step]:
    """The run, or what is left of it."""
    return training_loop(
        model,
        data,
        steps=steps,
        batch_size=s.batch,
        learning_rate=s.learning_rate,
        weight_decay=s.weight_decay,
        warmup=min(s.warmup, steps // 4),
        ema=s.ema,
        seed=s.seed,
        autocast=torch.bfloat16 if s.half else None,
        validate_every=max(1, steps // s.looks),
        validation_timesteps=_DRAWS,
        checkpoint=checkpoint,
        checkpoint_every=every,
        progress=False,
    )


def plan(model: Diffusion, data: Dataset, s: Settings, began: float) -> dict[str, float]:
    """How many steps the time pays for, from how long steps, looks and scoring take here.

    The model is trained for some steps to see, so that what is compiled for it is compiled for the
    run as well, and then put back.
    """
    initial = {name: tensor.clone() for name, tensor in weights(model).items()}
    unseen = replace(data, validation=data.validation[:0])
    marks: list[float] = []
    for _ in training(model, unseen, s, _ENDLESS):
        marks.append(time.perf_counter())
        long = marks[-1] - began > _TRIED * 60 * s.minutes
        if len(marks) > _TIMED or (long and len(marks) > 3):
            break
    load_weights(model, initial)
    # The first steps allocate memory, choose kernels and compile.
    pace = statistics.median(late - early for early, late in pairwise(marks[len(marks) // 4 :]))
    row = _scoring_pace(model, data, s)
    scored = row * (s.rows or len(data.test)) * s.replicates
    look = row * len(data.validation) * (1 + _DRAWS) / (1 + s.draws)
    left = 60 * s.minutes - (time.perf_counter() - began) - scored - s.looks * look
    return {
        "steps": max(1, int(_KEPT * left / pace)),
        "step_seconds": pace,
        "look_seconds": look,
        "scoring_seconds": scored,
    }


def _scoring_pace(model: Diffusion, data: Dataset, s: Settings) -> float:
    """Seconds to score a row once."""
    plain, x = copy.deepcopy(model), data.test[: min(256, s.rows or 256)]
    score(plain, x[:8], timesteps=1)
    began = time.perf_counter()
    score(plain, x, timesteps=s.draws)
    return (time.perf_counter() - began) / len(x)


def train(model: Diffusion, data: Dataset, s: Settings, record: Record, stop: float) -> bool:
    """Train to the end, or until the time to stop; says whether it is the end."""
    steps, pace = int(record.plan["steps"]), record.plan["step_seconds"]
    every = max(1, int(_SAVED / pace))
    began = time.perf_counter() - record.seconds
    for step in training(model, data, s, steps, record.checkpoint, every):
        record.seconds = time.perf_counter() - began
        if step.validation is not None:
            record.look(step, s.batch)
        if step.number % every == 0:
            record.write()
            # Not in between: what came after the last checkpoint would be lost.
            if time.perf_counter() + every * pace > stop:
                return step.number == steps
    return True


# ---------------------------------------------------------------------- all of it


def measure(data: Dataset, s: Settings, folder: Path, compiled: bool, stop: float) -> Record | None:
    """Build, train and score on one data set; nothing where there was no time to end it."""
    began = time.perf_counter()
    record = Record.read(folder, data.name, asdict(s))
    if record is not None and record.report is not None:
        return record
    if began > stop:
        return None
    torch.manual_seed(s.seed)
    seen = prepared(data, s)
    network, decoder = networks(data, s)
    model = build(data, s, network, decoder)
    if compiled:
        network.compile()
        decoder.compile()
    if record is None:
        record = Record(folder, data.name, asdict(s), plan(model, seen, s, began))
        record.write()
        print(f"{data.name}: " + ", ".join(f"{k} {v:,.4g}" for k, v in record.plan.items()))
    ended = train(model, seen, s, record, stop)
    if not ended or time.perf_counter() + record.plan["scoring_seconds"] > stop:
        return None
    # A copy is not compiled: batches of other sizes would be compiled anew.
    model, x = copy.deepcopy(model), data.test[: s.rows or None]
    report = evaluate(
        model, x, timesteps=s.draws, replicates=s.replicates, seed=s.seed, seconds=record.seconds
    )
    record.end(report, weights(model))
    return record


def main(argv: Sequence[str] | None = None) -> None:
    """Every data set in turn."""
    arguments = parser((__doc__ or "").splitlines()[0]).parse_args(argv)
    stop = time.perf_counter() + 60 * arguments.stop_after
    torch.backends.cudnn.benchmark = torch.cuda.is_available()
    print(", ".join(f"{name} {value}" for name, value in machine().items() if value))
    for name in arguments.data:
        s, data = settings_of(arguments, name), LOADERS[name](arguments.root)
        record = measure(data, s, arguments.out, arguments.compile, stop)
        if record is None or record.report is None:
            print(f"stopped; the same command goes on with what is in {arguments.out}")
            return
        found = json.loads(json.dumps(record.report))
        bits, rows = found["bits_per_dim"], found["samples"]
        print(
            f"{name}: {bits['mean']:.4f} ± {bits['standard_error']:.4f} bits/dim ({found['stamp']}, "
            f"{rows:,} of {len(data.test):,} test images; aim < {AIMS[name]:.2f}), "
            f"{found['parameters']:,} parameters, {record.seconds:.0f} s of training; {record.path}"
        )


if __name__ == "__main__":
    main()
