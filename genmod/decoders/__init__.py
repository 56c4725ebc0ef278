"""Decoders: ``p(x | z)`` for bits, levels, integers and real numbers."""

from genmod.decoders.base import Decoder as Decoder
from genmod.decoders.likelihoods import BernoulliDecoder as BernoulliDecoder
from genmod.decoders.likelihoods import CategoricalDecoder as CategoricalDecoder
from genmod.decoders.likelihoods import DiscretizedGaussianDecoder as DiscretizedGaussianDecoder
from genmod.decoders.likelihoods import DiscretizedLogisticDecoder as DiscretizedLogisticDecoder
from genmod.decoders.likelihoods import DiscretizedMixtureDecoder as DiscretizedMixtureDecoder
from genmod.decoders.likelihoods import GaussianDecoder as GaussianDecoder
from genmod.decoders.likelihoods import Identity as Identity
from genmod.decoders.likelihoods import LocationScaleDecoder as LocationScaleDecoder
from genmod.decoders.likelihoods import likelihood as likelihood
from genmod.decoders.scales import FixedScale as FixedScale
from genmod.decoders.scales import GlobalScale as GlobalScale
from genmod.decoders.scales import PerDimensionScale as PerDimensionScale
from genmod.decoders.scales import PredictedScale as PredictedScale
from genmod.decoders.scales import Scale as Scale
