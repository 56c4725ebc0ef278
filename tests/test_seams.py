"""Where parts meet that were built apart: wrapped denoisers, reverse variances, samplers, schedules,
objectives, conditions and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genmod import random
from genmod.denoisers import (
    Calibrated,
    Data,
    Denoised,
    Denoiser,
    GaussianDenoiser,
    Guided,
    Learned,
    Noise,
    Velocity,
    calibrate,
)
from genmod.encoders import Noised
from genmod.evaluation import flow_bound
from genmod.inverse import DPS, MMPS, Mask, PiGDM, RePaint
from genmod.models import Diffusion, LatentDiffusion, with_denoiser
from genmod.nn import MLP, Labels
from genmod.objectives import Bound, Hybrid, LearnedSchedule, Objective, Sigmoid, Simple, Weighted
from genmod.priors import Denoising
from genmod.samplers import (
    DDIM,
    IPNDM,
    Analytic,
    Ancestral,
    DPMSolver,
    Euler,
    FixedLarge,
    Heun,
    LearnedInterpolation,
    Sampler,
    StochasticHeun,
    UniformLogSNR,
    UniPC,
)
from genmod.schedules import (
    Cosine,
    Laplace,
    LinearBeta,
    LinearLogSNR,
    LogNormal,
    Monotone,
    Schedule,
    ZeroTerminalSNR,
)
from genmod.training import fit
from genmod.visits import Importance

F64 = torch.float64
ZERO = ZeroTerminalSNR(LinearBeta(1000))
FIRST = Mask(torch.tensor([True, False]))
