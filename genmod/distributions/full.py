"""Gaussians with full covariance, one event a row."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    constraints,
    register_kl,
)
from torch.distributions import Normal as TorchNormal

from genmod import random
from genmod.distributions.base import refuse_sample_shape
from genmod.distributions.normal import Normal
from genmod.gaussian.full import kl_full, kl_standard_full, log_prob_full
from genmod.shapes import Sizes


class FullCovarianceNormal(Distribution):
    r"""A normal distribution with full covariance, :math:`\mathcal{N}(\mu, L L^T)`, over one event a row.

    Draws are reparameterized, :math:`z = \mu + L \varepsilon`.

    Args:
        mean: ``(B, *event)``, with ``D`` numbers an event.
        tril: ``L``, the Cholesky factor of the covariance of the flat event, ``(B, D, D)``.

    Reference: Kingma, Welling, "An Introduction to Variational Autoencoders" (2019), section 2.5.1.

    >>> law = FullCovarianceNormal(torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3))
    >>> law.log_prob(torch.zeros(2, 3))
    tensor([-2.7568, -2.7568])
    """

    has_rsample = True
    support = constraints.real
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, mean: Tensor, tril: Tensor) -> None:
        self.loc, self.tril = mean, tril
        super().__init__(mean.shape[:1], mean.shape[1:], validate_args=False)

    @classmethod
    def of(cls, mean: Tensor, log_diagonal: Tensor, lower: Tensor) -> FullCovarianceNormal:
        """The law of any real numbers: ``L`` has the diagonal ``exp(log_diagonal)``.

        Args:
            mean: ``(B, *event)``.
            log_diagonal: ``(B, D)``.
            lower: the entries of ``L`` below its diagonal, row by row, ``(B, D (D - 1) / 2)``.
        """
        size = log_diagonal.shape[-1]
        row, column = torch.tril_indices(size, size, -1, device=mean.device)
        tril = torch.diag_embed(log_diagonal.exp())
        return cls(
            mean,
            tril.index_put(
                (torch.arange(len(mean), device=mean.device)[:, None], row, column), lower
            ),
        )

    @property
    def mean(self) -> Tensor:
        """The mean, ``(B, *event)``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance of each entry: the diagonal of the covariance, ``(B, *event)``."""
        return self.tril.square().sum(-1).reshape(self.loc.shape)

    def rsample(self, sample_shape: Sizes = ()) -> Tensor:
        """A draw ``mean + L eps``, differentiable in both."""
        refuse_sample_shape(sample_shape)
        noise = random.normal_like(self.loc).flatten(1)
        return self.loc + (self.tril @ noise[..., None]).reshape(self.loc.shape)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """A draw without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of events ``(..., B, *event)``, nats; leading dimensions broadcast."""
        flat = value.flatten(value.ndim - len(self.event_shape))
        return log_prob_full(flat, self.loc.flatten(1), self.tril)


def _kl_diagonal(q: FullCovarianceNormal, p: Normal) -> Tensor:
    # In units of p, in which it is N(0, I).
    scale = torch.exp(-p.log_std).flatten(1)
    delta = (q.loc - p.loc).flatten(1) * scale
    return kl_standard_full(delta, q.tril * scale[..., None])


def _kl_full(q: FullCovarianceNormal, p: FullCovarianceNormal) -> Tensor:
    return kl_full(q.loc.flatten(1), q.tril, p.loc.flatten(1), p.tril)


def _kl_torch(q: FullCovarianceNormal, p: MultivariateNormal) -> Tensor:
    return kl_full(q.loc, q.tril, p.loc, p.scale_tril)


def _kl_independent(q: FullCovarianceNormal, p: Distribution) -> Tensor:
    base = p.base_dist if isinstance(p, Independent) else p
    if not isinstance(base, TorchNormal) or p.event_shape != q.event_shape:
        raise NotImplementedError  # what torch's registry raises without a closed form
    return _kl_diagonal(q, Normal(base.loc.expand(q.loc.shape), base.scale.log()))


register_kl(FullCovarianceNormal, Normal)(_kl_diagonal)
register_kl(FullCovarianceNormal, FullCovarianceNormal)(_kl_full)
register_kl(FullCovarianceNormal, MultivariateNormal)(_kl_torch)
register_kl(FullCovarianceNormal, Independent)(_kl_independent)
