"""Decoders: ``p(x | z)`` for bits, integers, real numbers, counts, and tables of columns of any kind."""

from genmod.decoders.base import Decoder as Decoder
from genmod.decoders.columns import Columns as Columns
from genmod.decoders.counts import NegativeBinomialDecoder as NegativeBinomialDecoder
from genmod.decoders.counts import PoissonDecoder as PoissonDecoder
from genmod.decoders.counts import (
    ZeroInflatedNegativeBinomialDecoder as ZeroInflatedNegativeBinomialDecoder,
)
from genmod.decoders.counts import ZeroInflatedPoissonDecoder as ZeroInflatedPoissonDecoder
from genmod.decoders.defaults import likelihood as likelihood
from genmod.decoders.likelihoods import BernoulliDecoder as BernoulliDecoder
from genmod.decoders.likelihoods import CategoricalDecoder as CategoricalDecoder
from genmod.decoders.likelihoods import DiscretizedGaussianDecoder as DiscretizedGaussianDecoder
from genmod.decoders.likelihoods import DiscretizedLogisticDecoder as DiscretizedLogisticDecoder
from genmod.decoders.likelihoods import GaussianDecoder as GaussianDecoder
from genmod.decoders.likelihoods import GlobalScale as GlobalScale
from genmod.decoders.likelihoods import Identity as Identity
from genmod.decoders.likelihoods import PerDimensionScale as PerDimensionScale
from genmod.decoders.likelihoods import PredictedScale as PredictedScale
from genmod.decoders.mixtures import ChannelMixtureDecoder as ChannelMixtureDecoder
from genmod.decoders.mixtures import DiscretizedMixtureDecoder as DiscretizedMixtureDecoder
from genmod.decoders.reals import CalibratedGaussianDecoder as CalibratedGaussianDecoder
from genmod.decoders.reals import ContinuousBernoulliDecoder as ContinuousBernoulliDecoder
from genmod.decoders.reals import LaplaceDecoder as LaplaceDecoder
from genmod.decoders.reals import StudentTDecoder as StudentTDecoder
