"""All that decides a run of ``gpu_diffusion.py``, and the options that say it."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from common import LOADERS

FLIPPED = {"fashion-mnist"}
"""Data whose mirror images are as good: clothes are, digits are not."""


@dataclass(frozen=True)
class Settings:
    """All that decides a run; a run that goes on must have the same.

    Args:
        minutes: for one data set, everything included.
        width, blocks: of the denoiser's U-Net, of three resolutions.
        decoder_width, decoder_blocks: of the decoder's.
        components: bumps of the mixture for one pixel.
        clean, noisy: log-SNR at both ends.
        fourier: exponents of the Fourier features of both networks.
        flips: whether mirror images are trained on as well.
        validated, looks: validation images that are looked at, and how often.
        draws, replicates, rows: levels a test image visits, how often, and how many images (0: all).
    """

    minutes: float
    width: int
    blocks: int
    decoder_width: int
    decoder_blocks: int
    components: int
    clean: float
    noisy: float
    fourier: tuple[int, ...]
    dropout: float
    flips: bool
    batch: int
    learning_rate: float
    weight_decay: float
    warmup: int
    ema: float
    half: bool
    validated: int
    looks: int
    draws: int
    replicates: int
    rows: int
    seed: int


def parser(description: str) -> argparse.ArgumentParser:
    """The options of the script."""
    found = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = found.add_argument
    add("--data", nargs="+", choices=LOADERS, default=list(LOADERS))
    add("--root", type=Path, help="the folder that holds MNIST/raw")
    add("--out", type=Path, default=Path("runs/gpu"))
    add("--minutes", type=float, default=25.0, help="for all data sets together")
    add("--stop-after", type=float, default=math.inf, help="minutes until this call ends")
    add("--compile", action="store_true", help="compile the networks for training")
    add("--width", type=int, default=128)
    add("--blocks", type=int, default=3)
    add("--decoder-width", type=int, help="as the denoiser's, by default")
    add("--decoder-blocks", type=int, default=2)
    add("--components", type=int, default=10)
    add("--clean", type=float, default=5.0, help="log-SNR of z_0")
    add("--noisy", type=float, default=-7.0, help="log-SNR of z_1")
    add("--fourier", type=int, nargs="*", default=[1, 2, 3, 4])
    add("--dropout", type=float, default=0.1)
    add("--flips", action=argparse.BooleanOptionalAction, help="of clothes, by default")
    add("--batch", type=int, help="256, and 16 without a GPU")
    add("--learning-rate", type=float, default=5e-4)
    add("--weight-decay", type=float, default=0.01)
    add("--warmup", type=int, default=500)
    add("--ema", type=float, default=0.9995)
    add("--half", action=argparse.BooleanOptionalAction, help="bfloat16; on a GPU, by default")
    add("--looks", type=int, help="20, and 2 without a GPU")
    add("--validated", type=int, help="2000, and 32 without a GPU")
    add("--draws", type=int, help="32, and 1 without a GPU")
    add("--replicates", type=int, help="2, and 1 without a GPU")
    add("--rows", type=int, help="test images scored: 0 for all, and 32 without a GPU")
    add("--seed", type=int, default=0)
    return found


def settings_of(arguments: argparse.Namespace, name: str) -> Settings:
    """The settings for a data set; without a GPU, of a smoke test."""
    gpu = torch.cuda.is_available()
    fallback = {
        "minutes": arguments.minutes / len(arguments.data),
        "decoder_width": arguments.width,
        "flips": name in FLIPPED,
        "half": gpu,
        "batch": 256 if gpu else 16,
        "looks": 20 if gpu else 2,
        "validated": 2000 if gpu else 32,
        "draws": 32 if gpu else 1,
        "replicates": 2 if gpu else 1,
        "rows": 0 if gpu else 32,
    }
    given = {key: value for key, value in vars(arguments).items() if value is not None}
    chosen = {**fallback, **given, "minutes": fallback["minutes"]}
    chosen["fourier"] = tuple(arguments.fourier)
    return Settings(**{field.name: chosen[field.name] for field in fields(Settings)})
