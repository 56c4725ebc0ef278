r"""A VAE that starts from probabilistic PCA: before its first step it is the best Gaussian it can be.

``z`` is a standardized row of ``D`` columns, with covariance :math:`C = V \Lambda V^\top`. With ``L``
latents, :math:`s^2` the mean of the ``D - L`` smallest eigenvalues, and
:math:`W = V_L (\Lambda_L - s^2 I)^{1/2}`,

.. math:: p(z | u) = \mathcal{N}(W u, s^2 I), \qquad
    q(u | z) = \mathcal{N}\big(\Lambda_L^{-1} W^\top z,\; s^2 \Lambda_L^{-1}\big)

is a VAE whose bound is the log-likelihood itself. Networks are then added to both linear maps. They begin
at zero, so that training starts from the Gaussian and adds what is not Gaussian in the data.

Reference: Tipping, Bishop, "Probabilistic Principal Component Analysis" (1999), eqs. 6 and 7.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from genmod.config import Settings, register
from genmod.decoders import GaussianDecoder, PerDimensionScale
from genmod.encoders import GaussianEncoder
from genmod.models import VAE
from genmod.nn import MLP
from genmod.sklearn.rows import Array
from genmod.spec import DataSpec

_SHRINKAGES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
"""Weights of the identity in the covariance, chosen by cross-validation."""
_FOLDS = 5
_GAIN = 10.0
"""How fast the scales of columns are learned; see :class:`~genmod.decoders.PerDimensionScale`."""


class LinearPlusMLP(Settings, nn.Module):
    """A linear map plus a multilayer perceptron that starts at zero.

    Args:
        inputs: how many numbers it takes.
        outputs: how many it gives.
        width: of the perceptron's hidden layers.
        depth: its residual blocks.
    """

    def __init__(self, inputs: int, outputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.network = MLP(inputs, outputs, width=width, depth=depth)
        for parameter in self.network.last[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, inputs)`` to ``(B, outputs)``."""
        total: Tensor = self.linear(x) + self.network(x)
        return total

    @torch.no_grad()
    def set(self, weight: Array, bias: Array) -> None:
        """Put the linear map at a weight ``(m, n)`` of its first entries, and a bias; the rest is 0."""
        self.linear.weight.zero_()
        self.linear.weight[: weight.shape[0], : weight.shape[1]] = torch.tensor(weight)
        self.linear.bias.copy_(torch.tensor(bias))


# Written to files by its name, so that ``estimator.model_.save(folder)`` works.
register(LinearPlusMLP, "LinearPlusMLP")


def covariance(z: Array) -> Array:
    """The covariance of standardized rows, shrunk towards the identity as cross-validation chooses.

    Missing entries are left out of the product of each pair of columns.

    >>> z = np.random.default_rng(0).normal(size=(2000, 2))
    >>> bool(np.abs(covariance(z) - np.eye(2)).max() < 0.1)
    True
    """
    filled = np.nan_to_num(z)
    folds = np.array_split(np.random.default_rng(0).permutation(len(z)), min(_FOLDS, len(z)))
    nats = [
        sum(_log_likelihood(filled[f], _shrunk(np.delete(z, f, 0), alpha)) for f in folds)
        for alpha in _SHRINKAGES
    ]
    return _shrunk(z, _SHRINKAGES[int(np.argmax(nats))])


def _shrunk(z: Array, alpha: float) -> Array:
    seen = (~np.isnan(z)).astype(float)
    filled = np.nan_to_num(z)
    moments = filled.T @ filled / np.maximum(seen.T @ seen, 1)
    values, vectors = np.linalg.eigh((moments + moments.T) / 2)
    # Moments over pairs of columns need not be positive: with holes, eigenvalues can lie below 0.
    values = (1 - alpha) * np.maximum(values, 0) + alpha
    return (vectors * values) @ vectors.T


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
    root = np.sqrt(np.maximum(values[:count] - noise, 0))
    log_std = 0.5 * np.log(noise / values[:count])

    encoder = LinearPlusMLP(spec.feature_shape[0], 2 * count, width, depth)
    encoder.set((root / values[:count])[:, None] * vectors[:, :count].T, np.r_[0 * root, log_std])
    decoder = LinearPlusMLP(count, d, width, depth)
    decoder.set(vectors[:, :count] * root, np.zeros(d))
    scale = PerDimensionScale((d,), initial=math.sqrt(noise), gain=_GAIN)
    return VAE(
        latents=count,
        encoder=GaussianEncoder(encoder, (count,), spec),
        decoder=GaussianDecoder(decoder, spec, scale),
    )
