"""Noise schedules: log-SNR against time."""

from genmod.schedules.base import Bridge as Bridge
from genmod.schedules.base import Point as Point
from genmod.schedules.base import Schedule as Schedule
from genmod.schedules.base import time_dtype as time_dtype
from genmod.schedules.betas import CosineBeta as CosineBeta
from genmod.schedules.betas import LinearBeta as LinearBeta
from genmod.schedules.betas import ScaledLinearBeta as ScaledLinearBeta
from genmod.schedules.betas import SigmoidBeta as SigmoidBeta
from genmod.schedules.betas import ZeroTerminalSNR as ZeroTerminalSNR
from genmod.schedules.cosine import Cosine as Cosine
from genmod.schedules.learnable import GradientScale as GradientScale
from genmod.schedules.learnable import Learnable as Learnable
from genmod.schedules.learnable import MonotoneNetwork as MonotoneNetwork
from genmod.schedules.learnable import scale_gradient as scale_gradient
from genmod.schedules.linear import LinearLogSNR as LinearLogSNR
from genmod.schedules.polynomial import Polynomial as Polynomial
from genmod.schedules.quantiles import Laplace as Laplace
from genmod.schedules.quantiles import Logistic as Logistic
from genmod.schedules.quantiles import LogNormal as LogNormal
from genmod.schedules.quantiles import Quantiles as Quantiles
from genmod.schedules.sigmoid import Sigmoid as Sigmoid
from genmod.schedules.table import Table as Table
from genmod.schedules.wrappers import RectifiedFlow as RectifiedFlow
from genmod.schedules.wrappers import Shifted as Shifted
from genmod.schedules.wrappers import VarianceExploding as VarianceExploding
from genmod.schedules.wrappers import Wrapper as Wrapper
