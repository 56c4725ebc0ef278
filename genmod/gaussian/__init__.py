"""Closed forms of Gaussians: KL divergence, entropy, density, product, conditioning, Wasserstein distance.

The suffix of a name says how the Gaussian is parameterized:

* no suffix: ``mean`` and ``std``, elementwise, in nats per dimension. Stds are checked to be positive.
* ``_log_std``: ``mean`` and ``log_std``, elementwise. Every log-std is valid, so nothing is checked.
  These are fast: use them in a training loop.
* ``_isotropic``: one ``std`` per sample, summed over the event.
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
    kl_isotropic,
    kl_standard,
    log_prob,
    product,
    product_log_normalizer,
    product_log_std,
    wasserstein_squared,
)
from genmod.gaussian.full import (
    entropy_full,
    kl_full,
    kl_standard_full,
    log_prob_full,
    wasserstein_squared_full,
)
from genmod.gaussian.kernels import (
    kl_log_std,
    kl_standard_log_std,
    log_prob_log_std,
)
from genmod.gaussian.linear import LinearGaussian

__all__ = [
    "LinearGaussian",
    "entropy",
    "entropy_full",
    "kl",
    "kl_full",
    "kl_isotropic",
    "kl_log_std",
    "kl_standard",
    "kl_standard_full",
    "kl_standard_log_std",
    "log_prob",
    "log_prob_full",
    "log_prob_log_std",
    "product",
    "product_log_normalizer",
    "product_log_std",
    "wasserstein_squared",
    "wasserstein_squared_full",
]
