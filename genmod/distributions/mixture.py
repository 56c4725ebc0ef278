r"""A mixture of discretized logistics for each entry.

.. math:: P(k) = \sum_c w_c \left[F\!\left(\tfrac{b_k - \mu_c}{s_c}\right) -
    F\!\left(\tfrac{a_k - \mu_c}{s_c}\right)\right], \qquad w = \mathrm{softmax}(\text{logits})

Reference: Salimans, Karpathy, Chen, Kingma, "PixelCNN++" (2017), eqs. 1-2.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints

from genmod import random
from genmod.distributions.base import Factorized, check_parameters
from genmod.distributions.discretized import DiscretizedLogistic
from genmod.distributions.logistic import logistic_log_mass
from genmod.shapes import Sizes
from genmod.spec import Bins


class DiscretizedMixture(Factorized):
    """A mixture of discretized logistics for each entry.

    Args:
        logits: of the components' weights, ``(B, C, *event)``.
        location: their locations, where values lie in [-1, 1], shaped alike.
        log_scale: the logarithms of their scales, shaped alike.
        bins: the values.

    >>> half = torch.zeros(1, 2, 1)
    >>> law = DiscretizedMixture(half, torch.tensor([[[-1.0], [1.0]]]), half - 9, Bins(5))
    >>> [round(float(law.log_prob(torch.tensor([[k]])).exp()), 3) for k in range(5)]
    [0.5, 0.0, 0.0, 0.0, 0.5]
    """

    support = constraints.nonnegative_integer

    def __init__(self, logits: Tensor, location: Tensor, log_scale: Tensor, bins: Bins) -> None:
        self.logits, self.location, self.log_scale = logits, location, log_scale
        self.bins = bins
        super().__init__(logits[:, 0].shape)

    @property
    def mean(self) -> Tensor:
        """The mean value, ``(B, *event)``."""
        means = [
            DiscretizedLogistic(location, log_scale, self.bins).mean
            for location, log_scale in zip(
                self.location.unbind(1), self.log_scale.unbind(1), strict=True
            )
        ]
        return (self.logits.softmax(1) * torch.stack(means, 1)).sum(1)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Integers: a draw of a component (the Gumbel-max trick), then of its density's bin."""
        self.refuse_extra(sample_shape)
        check_parameters(self, self.logits, self.location, self.log_scale)
        with torch.no_grad():
            shape, device = tuple(self.logits.shape), self.logits.device
            noise = random.uniform(shape, torch.float64, device)
            chosen = (self.logits - (-noise.log()).log()).argmax(1, keepdim=True)
            location, log_scale = (
                part.gather(1, chosen)[:, 0] for part in (self.location, self.log_scale)
            )
            return DiscretizedLogistic(location, log_scale, self.bins).sample()

    def elementwise(self, x: Tensor) -> Tensor:
        """The log mass of each entry's bin."""
        wide = x[:, None].expand_as(self.logits)
        masses = logistic_log_mass(wide, self.location, self.log_scale, self.bins)
        return (self.logits.log_softmax(1) + masses).logsumexp(1)
