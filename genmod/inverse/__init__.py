r"""Inverse problems: samples of ``x`` given a linear measurement :math:`y = Ax + sn`, without training.

:class:`MMPS` and :class:`PiGDM` are denoisers that wrap a denoiser, for any sampler; :class:`DPS` and
:class:`RePaint` are samplers.
"""

from genmod.inverse.chains import DPS as DPS
from genmod.inverse.chains import RePaint as RePaint
from genmod.inverse.operators import AveragePool as AveragePool
from genmod.inverse.operators import Blur as Blur
from genmod.inverse.operators import Mask as Mask
from genmod.inverse.operators import Matrix as Matrix
from genmod.inverse.operators import Operator as Operator
from genmod.inverse.operators import Separable as Separable
from genmod.inverse.posterior import MMPS as MMPS
from genmod.inverse.posterior import PiGDM as PiGDM
from genmod.inverse.posterior import PosteriorDenoiser as PosteriorDenoiser
