"""Samplers: ways from noise to data (and, for the probability flow, back)."""

from genmod.samplers import _fused as _fused
from genmod.samplers.base import Sampler as Sampler
from genmod.samplers.base import State as State
from genmod.samplers.dpm import DPMSolver as DPMSolver
from genmod.samplers.flow import Euler as Euler
from genmod.samplers.flow import Heun as Heun
from genmod.samplers.flow import StochasticHeun as StochasticHeun
from genmod.samplers.grids import PolynomialGrid as PolynomialGrid
from genmod.samplers.grids import UniformLogSNR as UniformLogSNR
from genmod.samplers.grids import UniformTime as UniformTime
from genmod.samplers.multistep import IPNDM as IPNDM
from genmod.samplers.multistep import UniPC as UniPC
from genmod.samplers.single_step import DDIM as DDIM
from genmod.samplers.single_step import Ancestral as Ancestral
from genmod.samplers.single_step import SingleStep as SingleStep
