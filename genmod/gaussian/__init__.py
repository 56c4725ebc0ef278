"""Closed forms of Gaussians: KL divergence, entropy, density, product, conditioning.

The suffix of a name is the parameterization of the Gaussian:

* no suffix: ``mean`` and ``std``, elementwise, in nats per dimension. Stds are checked to be positive.
* ``_log_std``: ``mean`` and ``log_std``, elementwise. Every log-std is valid, so nothing is checked.
  These are in :mod:`genmod.gaussian.kernels`. They are fast: use them in a training loop.
* ``_full``: ``mean`` and the Cholesky factor ``tril`` of the covariance, one number per sample.

``_standard`` stands for a second Gaussian N(0, I). All functions are differentiable, broadcast as torch
does, and compute half precision in float32.

>>> import torch
>>> kl_standard(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]))
tensor([0., 2.])
"""

from genmod.gaussian.diagonal import (
    entropy,
    kl,
    kl_standard,
    log_prob,
    product,
)
from genmod.gaussian.full import kl_full, log_prob_full
from genmod.gaussian.linear import LinearGaussian

__all__ = [
    "LinearGaussian",
    "entropy",
    "kl",
    "kl_full",
    "kl_standard",
    "log_prob",
    "log_prob_full",
    "product",
]
