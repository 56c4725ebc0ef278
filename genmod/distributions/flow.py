"""The law of a normalizing flow: an invertible map of Gaussian noise, with an exact density."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.func import functional_call

from genmod import random
from genmod.distributions.base import refuse_sample_shape
from genmod.gaussian import kernels
from genmod.tensors import Sizes, copies, event_sum

_TOGETHER = 4096
"""Rows by points that are mapped at once."""
_POINTS = 32
"""Pairs of fixed noise from which the mean and the variance are computed."""


class NormalizingFlow(Distribution):
    r"""A normalizing flow: :math:`z = \mu + \sigma\, g(\varepsilon; c)`, with
    :math:`\varepsilon \sim \mathcal{N}(0, I)` and an invertible network :math:`g = f^{-1}`.

    .. math:: \log p(z) = \log \mathcal{N}(\varepsilon; 0, I) + \log |\det \partial f / \partial y|
        - \sum \log \sigma, \qquad \varepsilon = f(y; c), \quad y = (z - \mu) / \sigma

    Draws are reparameterized. The mean and the variance have no closed form: they are averages over 64
    fixed points of noise.

    Args:
        transform: ``transform(value, context, inverse)`` gives the image of flat events ``(B, D)`` and the
            log-determinant, as :class:`~genmod.nn.flow.SplineFlow` does.
        mean: ``(B, *event)``.
        log_std: the log of the scale, broadcast to the shape of the mean.
        context: what the transform is conditioned on, ``(B, C)``.

    Reference: Rezende, Mohamed, "Variational Inference with Normalizing Flows" (2015), eq. 5;
    Papamakarios et al., "Normalizing Flows for Probabilistic Modeling and Inference" (2021), eq. 6.
    """

    has_rsample = True
    support = constraints.real
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self, transform: nn.Module, mean: Tensor, log_std: Tensor, context: Tensor | None = None
    ) -> None:
        self.transform, self.context = transform, context
        self.loc, self.log_std = mean, log_std.expand_as(mean)
        # Apart from the module, so that a detached copy of this law has detached weights.
        self.weights: dict[str, Tensor] = dict(transform.named_parameters())
        super().__init__(mean.shape[:1], mean.shape[1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean over 64 fixed points of noise, ``(B, *event)``."""
        return self._at_fixed_points().mean(0)

    @property
    def variance(self) -> Tensor:
        """The variance over 64 fixed points of noise, ``(B, *event)``."""
        return self._at_fixed_points().var(0, correction=0)

    def rsample(self, sample_shape: Sizes = ()) -> Tensor:
        """A draw, differentiable in all parameters."""
        refuse_sample_shape(sample_shape)
        return self._image(random.normal_like(self.loc))

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """A draw without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of events ``(..., B, *event)``, nats; leading dimensions broadcast."""
        y = (value - self.loc) * torch.exp(-self.log_std)
        noise, log_det = self._run(self._flat(y), inverse=False)
        log_noise = kernels.log_prob_standard(noise).sum(-1)
        return log_noise + log_det - event_sum(self.log_std)

    def copies(self, count: int) -> NormalizingFlow:
        """``count`` copies of all rows, one after another; the weights are the same tensors."""
        context = None if self.context is None else copies(self.context, count)
        mean, log_std = copies(self.loc, count), copies(self.log_std, count)
        made = NormalizingFlow(self.transform, mean, log_std, context)
        made.weights = self.weights
        return made

    def _image(self, noise: Tensor) -> Tensor:
        y, _ = self._run(self._flat(noise), inverse=True)
        return self.loc + torch.exp(self.log_std) * y.reshape(noise.shape)

    def _at_fixed_points(self) -> Tensor:
        """Events at noise that is the same in every call, ``(points, B, *event)``."""
        size = self._flat(self.loc).shape[-1]
        # NumPy's noise is a constant to torch.export; torch's own would be drawn anew by the file.
        half = torch.from_numpy(np.random.default_rng(0).standard_normal((_POINTS, size)))
        points = torch.cat([half, -half]).to(self.loc).reshape(-1, 1, *self.event_shape)
        # A few points at a time, so that many rows need no more memory than a training step.
        # An exported graph takes any number of rows, so it maps all points at once.
        rows = 1 if torch.compiler.is_compiling() else max(1, len(self.loc))
        together = max(1, _TOGETHER // rows)
        pieces = points.expand(-1, *self.loc.shape).split(together)
        return torch.cat([self._image(piece) for piece in pieces])

    def _run(self, value: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        given = (value, self.context, inverse)
        found: tuple[Tensor, Tensor] = functional_call(self.transform, self.weights, given)
        return found

    def _flat(self, value: Tensor) -> Tensor:
        """Events as vectors."""
        return value.flatten(value.ndim - len(self.event_shape))
