"""Decoders: ``p(x | z)`` for bits, levels, integers and real numbers."""

from genmod.decoders.base import Decoder as Decoder
from genmod.decoders.denoised import Denoised as Denoised
from genmod.decoders.likelihoods import Bernoulli as Bernoulli
from genmod.decoders.likelihoods import Categorical as Categorical
from genmod.decoders.likelihoods import DiscretizedGaussian as DiscretizedGaussian
from genmod.decoders.likelihoods import DiscretizedLogistic as DiscretizedLogistic
from genmod.decoders.likelihoods import DiscretizedMixture as DiscretizedMixture
from genmod.decoders.likelihoods import Gaussian as Gaussian
from genmod.decoders.likelihoods import Identity as Identity
from genmod.decoders.likelihoods import LocationScale as LocationScale
from genmod.decoders.likelihoods import likelihood as likelihood
from genmod.decoders.scales import Fixed as Fixed
from genmod.decoders.scales import Global as Global
from genmod.decoders.scales import PerDimension as PerDimension
from genmod.decoders.scales import Predicted as Predicted
from genmod.decoders.scales import Scale as Scale
