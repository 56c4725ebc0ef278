"""Priors: ``p(z)`` that own the draw, one latent or many."""

from genmod.prior import Level as Level
from genmod.prior import Prior as Prior
from genmod.prior import walk as walk
from genmod.priors.denoising import Denoising as Denoising
from genmod.priors.flow import Flow as Flow
from genmod.priors.nested import Nested as Nested
from genmod.priors.simple import Flat as Flat
from genmod.priors.simple import Given as Given
from genmod.priors.simple import Normal as Normal
from genmod.priors.topdown import Block as Block
from genmod.priors.topdown import TopDown as TopDown
