"""Noise schedules: log-SNR against time."""

from genmod.schedules.base import Schedule as Schedule
from genmod.schedules.betas import CosineBeta as CosineBeta
from genmod.schedules.betas import LinearBeta as LinearBeta
from genmod.schedules.betas import ScaledLinearBeta as ScaledLinearBeta
from genmod.schedules.betas import SigmoidBeta as SigmoidBeta
from genmod.schedules.betas import Table as Table
from genmod.schedules.betas import ZeroTerminalSNR as ZeroTerminalSNR
from genmod.schedules.curve import MonotoneNetwork as MonotoneNetwork
from genmod.schedules.formulas import Cosine as Cosine
from genmod.schedules.formulas import LinearLogSNR as LinearLogSNR
from genmod.schedules.formulas import Polynomial as Polynomial
from genmod.schedules.formulas import Sigmoid as Sigmoid
from genmod.schedules.quantiles import Laplace as Laplace
from genmod.schedules.quantiles import Logistic as Logistic
from genmod.schedules.quantiles import LogNormal as LogNormal
from genmod.schedules.wrappers import RectifiedFlow as RectifiedFlow
from genmod.schedules.wrappers import Shifted as Shifted
from genmod.schedules.wrappers import VarianceExploding as VarianceExploding
