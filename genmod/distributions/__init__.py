"""Distributions over one event a row: ``log_prob`` gives ``(B,)`` nats, ``elementwise`` each entry's."""

from genmod.distributions.counts import NegativeBinomial as NegativeBinomial
from genmod.distributions.counts import Poisson as Poisson
from genmod.distributions.discrete import Bernoulli as Bernoulli
from genmod.distributions.discrete import Categorical as Categorical
from genmod.distributions.discretized import DiscretizedLogistic as DiscretizedLogistic
from genmod.distributions.divergence import rate as rate
from genmod.distributions.divergence import register_kl_per_dim as register_kl_per_dim
from genmod.distributions.normal import Dirac as Dirac
from genmod.distributions.normal import Normal as Normal
