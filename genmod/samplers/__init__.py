"""Samplers: ways from noise to data (and, for the probability flow, back)."""

from genmod.samplers.ancestral import Ancestral as Ancestral
from genmod.samplers.base import Sampler as Sampler
from genmod.samplers.flow import Heun as Heun
from genmod.samplers.variances import Analytic as Analytic
from genmod.samplers.variances import FixedLarge as FixedLarge
from genmod.samplers.variances import FixedSmall as FixedSmall
from genmod.samplers.variances import LearnedInterpolation as LearnedInterpolation
from genmod.samplers.variances import ReverseVariance as ReverseVariance
