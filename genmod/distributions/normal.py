"""Normal distributions: with independent dimensions, with a full covariance, and a single point."""

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
from genmod.checks import invalid
from genmod.distributions.base import Factorized, refuse_sample_shape
from genmod.distributions.divergence import register_kl_per_dim
from genmod.gaussian import kernels
from genmod.gaussian.full import kl_full, kl_standard_full, log_prob_full
from genmod.tensors import Shape, Sizes, event_sum


class Normal(Factorized):
    r"""A normal distribution with diagonal covariance, ``N(mean, std^2)`` for each entry.

    The first dimension of the parameters is the batch, all others form one event. Draws are
    reparameterized, :math:`z = \mu + \sigma \varepsilon`, so that gradients reach both parameters.
    Density, entropy and KL are the closed forms of :mod:`genmod.gaussian`.

    Args:
        mean: ``(B, *event)``.
        log_std: the logarithm of the standard deviation, broadcast to the shape of the mean. Every
            real number is valid.

    Reference: Kingma, Welling, "Auto-Encoding Variational Bayes" (2014), section 2.4 and eq. 9.

    >>> q = Normal(torch.zeros(2, 3), torch.zeros(2, 3))
    >>> q.batch_shape, q.event_shape, q.rsample().shape
    (torch.Size([2]), torch.Size([3]), torch.Size([2, 3]))
    >>> q.log_prob(torch.zeros(2, 3))  # one number a row, in nats
    tensor([-2.7568, -2.7568])
    """

    has_rsample = True
    support = constraints.real

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.loc = mean
        self.log_std = log_std if log_std.shape == mean.shape else log_std.expand_as(mean)
        super().__init__(mean.shape)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return self.log_std.exp()

    @property
    def variance(self) -> Tensor:
        return (2 * self.log_std).exp()

    def rsample(self, sample_shape: Sizes = ()) -> Tensor:
        """A draw ``mean + std * eps``, differentiable in both; noise from :mod:`genmod.random`."""
        if sample_shape:
            self.refuse_extra(sample_shape)
        return torch.addcmul(self.loc, self.log_std.exp(), random.normal_like(self.loc))

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def elementwise(self, x: Tensor) -> Tensor:
        return kernels.log_prob_log_std(x, self.loc, self.log_std)

    def entropy(self) -> Tensor:
        return event_sum(kernels.entropy_log_std(self.log_std))


class StandardNormal(Normal):
    """The standard normal distribution ``N(0, I)``, one row a sample.

    Its density, and the KL of a :class:`Normal` from it, are cheaper than with general parameters.

    Args:
        shape: ``(B, *event)``.
        dtype: the type of its draws.
        device: the device of its draws.
    """

    def __init__(
        self, shape: Shape, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> None:
        zero = torch.zeros((), dtype=dtype, device=device).expand(shape)
        super().__init__(zero, zero)

    def elementwise(self, x: Tensor) -> Tensor:
        return kernels.log_prob_standard(x)


@register_kl_per_dim(Normal, Normal)
def _kl_normal(q: Normal, p: Normal) -> Tensor:
    return kernels.kl_log_std(q.loc, q.log_std, p.loc, p.log_std)


@register_kl_per_dim(Normal, StandardNormal)
def _kl_standard(q: Normal, p: StandardNormal) -> Tensor:
    return kernels.kl_standard_log_std(q.loc, q.log_std)


def _kl_independent(q: Normal, p: Distribution) -> Tensor:
    base = p.base_dist if isinstance(p, Independent) else p
    if not isinstance(base, TorchNormal) or p.event_shape != q.event_shape:
        raise NotImplementedError  # what torch's registry raises without a closed form
    return event_sum(kernels.kl_log_std(q.loc, q.log_std, base.loc, base.scale.log()))


def _kl_full(q: Normal, p: MultivariateNormal) -> Tensor:
    full = MultivariateNormal(q.loc, scale_tril=torch.diag_embed(q.stddev), validate_args=False)
    return torch.distributions.kl_divergence(full, p)


register_kl(Normal, Independent)(_kl_independent)
register_kl(Normal, MultivariateNormal)(_kl_full)


class Dirac(Factorized):
    """A point mass (Dirac): all probability at one point a row, the posterior of an autoencoder.

    It has no density, so its rate is undefined.

    Args:
        point: ``(B, *event)``.
    """

    has_rsample = True
    support = constraints.real

    def __init__(self, point: Tensor) -> None:
        self.point = point
        super().__init__(point.shape)

    @property
    def mean(self) -> Tensor:
        return self.point

    def rsample(self, sample_shape: Sizes = ()) -> Tensor:
        self.refuse_extra(sample_shape)
        return self.point

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        return self.rsample(sample_shape).detach()

    def elementwise(self, x: Tensor) -> Tensor:
        """Refused: a point has no density.

        Raises:
            ValueError: always, because its rate under a density is infinite.
        """
        raise invalid(
            "a Dirac posterior under a prior that is a density",
            "a posterior with a density",
            "use priors.FlatPrior() (an autoencoder, which bounds nothing), or "
            "encoders.GaussianEncoder",
        )


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


def _full_diagonal(q: FullCovarianceNormal, p: Normal) -> Tensor:
    # In units of p, in which it is N(0, I).
    scale = torch.exp(-p.log_std).flatten(1)
    delta = (q.loc - p.loc).flatten(1) * scale
    return kl_standard_full(delta, q.tril * scale[..., None])


def _full_full(q: FullCovarianceNormal, p: FullCovarianceNormal) -> Tensor:
    return kl_full(q.loc.flatten(1), q.tril, p.loc.flatten(1), p.tril)


def _full_torch(q: FullCovarianceNormal, p: MultivariateNormal) -> Tensor:
    return kl_full(q.loc, q.tril, p.loc, p.scale_tril)


def _full_independent(q: FullCovarianceNormal, p: Distribution) -> Tensor:
    base = p.base_dist if isinstance(p, Independent) else p
    if not isinstance(base, TorchNormal) or p.event_shape != q.event_shape:
        raise NotImplementedError  # what torch's registry raises without a closed form
    return _full_diagonal(q, Normal(base.loc.expand(q.loc.shape), base.scale.log()))


register_kl(FullCovarianceNormal, Normal)(_full_diagonal)
register_kl(FullCovarianceNormal, FullCovarianceNormal)(_full_full)
register_kl(FullCovarianceNormal, MultivariateNormal)(_full_torch)
register_kl(FullCovarianceNormal, Independent)(_full_independent)
