"""Encoders: ``q(z | x)`` as a point, a Gaussian, level by level from the top, or fixed noise."""

from genmod.encoders.base import Encoder as Encoder
from genmod.encoders.base import Posterior as Posterior
from genmod.encoders.flat import Dirac as Dirac
from genmod.encoders.flat import Gaussian as Gaussian
from genmod.encoders.noising import Noising as Noising
from genmod.encoders.posteriors import Noised as Noised
from genmod.encoders.posteriors import TopDownPosterior as TopDownPosterior
from genmod.encoders.topdown import Head as Head
from genmod.encoders.topdown import TopDown as TopDown
