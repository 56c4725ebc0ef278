"""Diffusion: the noising posterior, the reverse chain, its bound, its last step, its probability flow."""

from genmod.diffusion.chain import DiffusionPrior as DiffusionPrior
from genmod.diffusion.last_step import LastStepDecoder as LastStepDecoder
from genmod.diffusion.last_step import fit_scale as fit_scale
from genmod.diffusion.noising import NoisingEncoder as NoisingEncoder
from genmod.diffusion.timesteps import LossAwareTimesteps as LossAwareTimesteps
from genmod.diffusion.timesteps import StratifiedTimesteps as StratifiedTimesteps
from genmod.diffusion.timesteps import TabulatedTimesteps as TabulatedTimesteps
from genmod.diffusion.timesteps import UniformTimesteps as UniformTimesteps
from genmod.diffusion.variances import Analytic as Analytic
from genmod.diffusion.variances import FixedLarge as FixedLarge
from genmod.diffusion.variances import FixedSmall as FixedSmall
from genmod.diffusion.variances import LearnedInterpolation as LearnedInterpolation
