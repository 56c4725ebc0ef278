r"""A VAE that starts from probabilistic PCA: before its first step it is a fitted Gaussian.

``z`` is a standardized row of ``D`` columns, with covariance :math:`C = V \Lambda V^\top`. With ``L``
latents, :math:`s^2` the mean of the ``D - L`` smallest eigenvalues, and
:math:`W = V_L (\Lambda_L - s^2 I)^{1/2}`,

.. math:: p(z | u) = \mathcal{N}(W u, s^2 I), \qquad
    q(u | z) = p(u | z) = \mathcal{N}\big(\Lambda_L^{-1} W^\top z,\; s^2 \Lambda_L^{-1}\big)

is a VAE whose bound is the log-likelihood itself. Networks are then added to the linear maps. They begin
at zero, so that training starts from the Gaussian and adds what is not Gaussian in the data.

Reference: Tipping, Bishop, "Probabilistic Principal Component Analysis" (1999), eqs. 6 and 7.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from genmod import random
from genmod.config import register
from genmod.decoders import GaussianDecoder, PerDimensionScale
from genmod.encoders import Encoder
from genmod.models import VAE
from genmod.models.build import LinearSkip
from genmod.nn import MLP
from genmod.sklearn.rows import Array
from genmod.spec import DataSpec
from genmod.tensors import Batch, Mask

_SHRINKAGES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
"""Weights of the identity in the covariance, chosen by cross-validation."""
_FOLDS = 5
_ROUNDS = 20
"""Rounds at most, of robust covariances and of the EM algorithm."""
_ROWS, _SHRINKAGE = 3000, 3e-3
"""Of the EM algorithm, for rows with missing entries: rows at most, weight of the identity."""
_GAIN = 10.0
"""How fast the scales of columns are learned; see :class:`~genmod.decoders.PerDimensionScale`."""


class FullNormal(MultivariateNormal):
    """A normal law with full covariance whose noise can be keyed by rows."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws with gradients."""
        shape = self._extended_shape(sample_shape)
        noise = random.normal(tuple(shape), self.loc.dtype, self.loc.device)
        drawn: Tensor = self.loc + (self._unbroadcasted_scale_tril @ noise[..., None])[..., 0]
        return drawn


class PrincipalEncoder(Encoder):
    r"""The exact posterior of probabilistic PCA given the observed entries, corrected by a network.

    .. math:: \Lambda = I + W_o^\top W_o / s^2, \qquad
        q(u | z_o) = \mathcal{N}\big(\Lambda^{-1} W_o^\top z_o / s^2,\; \Lambda^{-1}\big)

    with the rows :math:`W_o` of the observed entries. A perceptron, zero at first, shifts the mean and
    scales the standard deviations. ``W`` and the scale of each column are learned.

    Args:
        latents: how many dimensions the latent has.
        spec: real columns.
        width: of the perceptron.
        depth: its residual blocks.
    """

    def __init__(self, latents: int, spec: DataSpec, width: int, depth: int) -> None:
        super().__init__(spec)
        self.latent_shape = (latents,)
        self.weight = nn.Parameter(torch.zeros(spec.size, latents))
        self.log_noise = nn.Parameter(torch.zeros(spec.size))
        self.network = _from_zero(spec.feature_shape[0], 2 * latents, width, depth)

    def forward(
        self, x: Batch, context: Tensor | None = None, observed: Mask | None = None
    ) -> Distribution:
        seen = torch.ones_like(x) if observed is None else observed.to(x.dtype)
        scaled = self.weight * (-self.log_noise).exp()[:, None]
        counted = seen[:, :, None] * scaled
        eye = torch.eye(scaled.shape[1], dtype=x.dtype, device=x.device)
        precision = eye + counted.mT @ scaled
        # With an upper triangle R, R R' = precision, the lower triangle of its inverse is R^-1'.
        upper = torch.linalg.cholesky(precision.flip(-1, -2)).flip(-1, -2)
        tril = torch.linalg.solve_triangular(upper, eye, upper=True).mT
        right = (x * (-self.log_noise).exp())[:, None] @ counted
        mean = (right @ tril @ tril.mT)[:, 0]
        shift, log_scale = self.network(self.features(x, observed)).chunk(2, 1)
        scale_tril = log_scale.exp()[..., None] * tril
        return FullNormal(mean + shift, scale_tril=scale_tril, validate_args=False)

    def formula(self) -> str:
        return "q(z | x) = N(z; mean(x), Sigma(x)), near the posterior of probabilistic PCA"


# Written to files by its name, so that ``estimator.model_.save(folder)`` works.
register(PrincipalEncoder, "PrincipalEncoder")


def _from_zero(inputs: int, outputs: int, width: int, depth: int) -> MLP:
    """A perceptron whose output starts at zero."""
    network = MLP(inputs, outputs, width=width, depth=depth)
    for parameter in network.last[-1].parameters():
        nn.init.zeros_(parameter)
    return network


def covariance(z: Array) -> Array:
    """The covariance of standardized rows, shrunk towards the identity.

    Without missing entries cross-validation chooses how much. With them it is that of the EM algorithm.

    >>> z = np.random.default_rng(0).normal(size=(2000, 2))
    >>> bool(np.abs(covariance(z) - np.eye(2)).max() < 0.1)
    True
    """
    if np.isnan(z).any():
        return _by_em(z)
    return _shrunk(_moments(z), _shrinkage(z))


def _shrinkage(z: Array) -> float:
    """The weight of the identity that cross-validation chooses."""
    folds = np.array_split(np.random.default_rng(0).permutation(len(z)), min(_FOLDS, len(z)))
    nats = [
        sum(_log_likelihood(z[f], _shrunk(_moments(np.delete(z, f, 0)), alpha)) for f in folds)
        for alpha in _SHRINKAGES
    ]
    return _SHRINKAGES[int(np.argmax(nats))]


def _moments(z: Array) -> Array:
    return np.asarray(z.T @ z / len(z))


def _shrunk(cov: Array, alpha: float) -> Array:
    return (1 - alpha) * cov + alpha * np.eye(len(cov))


def _by_em(z: Array) -> Array:
    """The covariance of rows with missing entries, by the EM algorithm.

    Each round completes the rows by their conditional means and covariances, and takes the moments again.

    Reference: Little, Rubin, "Statistical Analysis with Missing Data" (2002), section 11.2.
    """
    z = np.random.default_rng(0).permutation(z)[:_ROWS]
    patterns, which = np.unique(np.isnan(z), axis=0, return_inverse=True)
    cov = np.eye(z.shape[1])
    for _ in range(_ROUNDS):
        total = np.zeros_like(cov)
        for number, holes in enumerate(patterns):
            rows, seen = z[which.ravel() == number], ~holes
            weight = np.linalg.solve(cov[np.ix_(seen, seen)], cov[np.ix_(seen, holes)])
            full = np.where(holes, 0.0, rows)
            full[:, holes] = rows[:, seen] @ weight
            total += full.T @ full
            rest = cov[np.ix_(holes, holes)] - cov[np.ix_(holes, seen)] @ weight
            total[np.ix_(holes, holes)] += len(rows) * rest
        cov = _shrunk(total / len(z), _SHRINKAGE)
    return cov


def central_rows(x: Array, share: float) -> Array:
    """The positions of the rows that remain when a fraction of the rows, far from the others, is set aside.

    The covariance of the rows that remain has a small determinant (FastMCD). From a start by medians, each
    round takes the covariance of these rows, and keeps the rows of the smallest Mahalanobis distance.

    Args:
        x: complete rows, ``(N, D)``.
        share: the fraction to set aside, in [0, 1).

    Reference: Rousseeuw, Van Driessen, "A Fast Algorithm for the Minimum Covariance Determinant Estimator"
    (1999), theorem 1.

    >>> x = np.r_[np.random.default_rng(0).normal(size=(18, 2)), [[9.0, 9.0], [-9.0, 9.0]]]
    >>> int(central_rows(x, 0.1).max())
    17
    """
    count = max(len(x) - math.ceil(share * len(x)), min(2, len(x)))
    center = np.median(x, 0)
    spread = np.median(np.abs(x - center), 0)
    spread = np.where(spread > 0, spread, x.std(0) + 1e-300)
    # Clipped: an entry far out in one column must not outweigh the other columns.
    distance = np.clip((x - center) / spread, -3, 3)
    kept = np.sort(np.argsort((distance**2).sum(1), kind="stable")[:count])
    alpha = None
    for _ in range(_ROUNDS):
        mean, std = x[kept].mean(0), x[kept].std(0)
        if not (std > 1e-12 * np.abs(mean)).all():
            return np.arange(len(x))  # a column varies in the other rows alone
        z = (x - mean) / std
        alpha = _shrinkage(z[kept]) if alpha is None else alpha
        cov = _shrunk(_moments(z[kept]), alpha)
        distance = np.einsum("nd,nd->n", z @ np.linalg.inv(cov), z)
        before, kept = kept, np.sort(np.argsort(distance, kind="stable")[:count])
        if np.array_equal(before, kept):
            break
    return kept


def _log_likelihood(z: Array, cov: Array) -> float:
    values, vectors = np.linalg.eigh(cov)
    square = (z @ vectors) ** 2 / values
    return -0.5 * float((square + np.log(values)).sum())


def principal_vae(spec: DataSpec, z: Array, latents: int, width: int, depth: int) -> VAE:
    """A VAE that starts from probabilistic PCA.

    Args:
        spec: real columns.
        z: standardized training rows, ``(N, D)``; NaN where an entry is missing.
        latents: how many dimensions the latent has, at most ``D``. ``D - 1`` hold every covariance.
        width: of its perceptrons.
        depth: their residual blocks.
    """
    d, count = spec.size, min(latents, spec.size)
    values, vectors = (each[..., ::-1] for each in np.linalg.eigh(covariance(z)))
    noise = float(values[count:].mean()) if count < d else float(values[-1]) / 2
    weight = vectors[:, :count] * np.sqrt(np.maximum(values[:count] - noise, 0))
    encoder = PrincipalEncoder(count, spec, width, depth)
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor(weight))
        encoder.log_noise.fill_(math.log(noise) / 2)
    decoder = LinearSkip(_from_zero(count, d, width, depth), count, d)
    with torch.no_grad():
        decoder.linear.weight.copy_(torch.tensor(weight))
        decoder.linear.bias.zero_()
    scale = PerDimensionScale((d,), initial=math.sqrt(noise), gain=_GAIN)
    return VAE(
        latents=count,
        encoder=encoder,
        decoder=GaussianDecoder(decoder, spec, scale),
    )
