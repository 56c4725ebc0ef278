"""Encoders: ``q(z | x)`` as a point, a Gaussian, a normalizing flow, or level by level from the top."""

from genmod.encoders.base import DiracEncoder as DiracEncoder
from genmod.encoders.base import Encoder as Encoder
from genmod.encoders.base import GaussianEncoder as GaussianEncoder
from genmod.encoders.base import Posterior as Posterior
from genmod.encoders.flexible import FlowEncoder as FlowEncoder
from genmod.encoders.flexible import FullCovarianceEncoder as FullCovarianceEncoder
from genmod.encoders.topdown import TopDownEncoder as TopDownEncoder
from genmod.encoders.topdown import TopDownHead as TopDownHead
