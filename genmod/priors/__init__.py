"""Priors ``p(z)``, over one latent or many: a prior draws the latents and computes their rates."""

from genmod.path import Latent as Latent
from genmod.prior import DensityPrior as DensityPrior
from genmod.prior import Prior as Prior
from genmod.priors.learned import FlowPrior as FlowPrior
from genmod.priors.learned import LearnedGaussianPrior as LearnedGaussianPrior
from genmod.priors.learned import MixturePrior as MixturePrior
from genmod.priors.nested import NestedPrior as NestedPrior
from genmod.priors.simple import FlatPrior as FlatPrior
from genmod.priors.simple import NormalPrior as NormalPrior
from genmod.priors.topdown import TopDownBlock as TopDownBlock
from genmod.priors.topdown import TopDownPrior as TopDownPrior
from genmod.priors.vamp import VampPrior as VampPrior
