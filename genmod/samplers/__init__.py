"""Samplers: ways from noise to data (and, for the probability flow, back)."""

from genmod.samplers.ancestral import Ancestral as Ancestral
from genmod.samplers.ancestral import FixedLarge as FixedLarge
from genmod.samplers.ancestral import FixedSmall as FixedSmall
from genmod.samplers.ancestral import ReverseVariance as ReverseVariance
from genmod.samplers.base import Sampler as Sampler
from genmod.samplers.flow import Heun as Heun
