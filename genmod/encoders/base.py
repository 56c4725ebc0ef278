"""Encoders: from data to a posterior over latents, ``q(z | x)``; a point, or a Gaussian around one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import layer_norm

from genmod.checks import instance, invalid
from genmod.config import Settings
from genmod.distributions import Dirac, Normal
from genmod.distributions.flow import NormalizingFlow
from genmod.distributions.normal import FullCovarianceNormal
from genmod.nn.modules import float_dtype, outputs
from genmod.spec import DataSpec, SpecLike
from genmod.tensors import Batch, Mask, Shape, copies, size


class Posterior(ABC):
    """The base class of posteriors that are not one distribution; a prior of the same kind draws them."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """How many samples it is the posterior of."""

    def copies(self, count: int) -> Posterior | None:
        """``count`` copies of all rows, one after another; ``None``: the encoder has to make them."""
        return None


class Encoder(Settings, nn.Module, ABC):
    """The base class of encoders: from data to a posterior over latents, ``q(z | x)``.

    An encoder of your own implements :meth:`forward` alone. It returns a distribution of batch shape
    ``(B,)`` over one latent, or a :class:`Posterior` for which the prior is made.

    Args:
        spec: the data it reads: a :class:`~genmod.spec.DataSpec`, a shape, or a data set. ``None``
            leaves it open; it is then checked at the first batch.
    """

    latent_shape: Shape | None = None
    """The event shape of the latent, where it is known at construction."""
    accepts_missing = True
    """Whether it can be trained on missing entries. A diffusion's cannot: it noises what stands there."""

    def __init__(self, spec: SpecLike | None = None) -> None:
        super().__init__()
        self.spec = None if spec is None else DataSpec.of(spec)

    @abstractmethod
    def forward(
        self, x: Batch, context: Tensor | None = None, observed: Mask | None = None
    ) -> Posterior | Distribution:
        """The posterior of a batch ``(B, *event)``.

        Args:
            x: the data, in the floating type of the model's parameters: integers as they are, real columns
                of a table standardized, and 0 where an entry was not observed.
            context: what the model is conditioned on, ``(B, ...)``.
            observed: which entries were observed, like ``x``; ``None``: all.
        """

    def formula(self) -> str:
        """The formula of the encoder, as text."""
        return f"q(z | x) = {type(self).__name__}"

    def real(self, x: Tensor) -> Tensor:
        """The data as real numbers: integers of ``n`` values lie on [-1, 1]."""
        x = x if x.is_floating_point() else self._cast(x)
        return x if self.spec is None else self.spec.center(x)

    def features(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """What a network gets of the data: see :meth:`genmod.spec.DataSpec.features`.

        Args:
            x: a batch, as :meth:`forward` gets it.
            observed: which entries were observed.
        """
        x = x if x.is_floating_point() else self._cast(x)
        return x if self.spec is None else self.spec.features(x, observed)

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(float_dtype(self) or torch.get_default_dtype())


class NetworkEncoder(Encoder, ABC):
    """The base class of encoders of one latent, whose parameters a network gives.

    Args:
        network: gives the parameters of the posterior from the features of the data.
        shape: the latent's event shape; an int for a vector.
        spec: the data it reads.
    """

    latent_shape: Shape

    def __init__(
        self, network: nn.Module, shape: Shape | int, spec: SpecLike | None = None
    ) -> None:
        super().__init__(spec)
        self.network = instance(network, nn.Module, "network")
        self.latent_shape = (shape,) if isinstance(shape, int) else tuple(shape)


class DiracEncoder(NetworkEncoder):
    """An autoencoder's encoder: one point, no uncertainty.

    Args:
        network: gives the latent's numbers. It takes the features of the data, of the shape
            ``spec.feature_shape``: the data themselves, one-hot categories of a table, and the mask where
            entries can be missing.
        shape: the latent's event shape.
        spec: the data it reads.
    """

    def forward(
        self, x: Batch, context: Tensor | None = None, observed: Mask | None = None
    ) -> Dirac:
        """The point of each row."""
        features = self.features(x, observed)
        return Dirac(outputs(self.network, self.latent_shape, features, context=context))

    def formula(self) -> str:
        """The formula of the encoder, as text."""
        return "q(z | x) = delta(z - e(x))"


class GaussianEncoder(NetworkEncoder):
    """A Gaussian encoder, ``q(z | x) = N(mean(x), std(x)^2)``, drawn by reparameterization.

    Args:
        network: gives two numbers for each of the latent's: its mean, then its log-std. It takes the
            features of the data, as for :class:`DiracEncoder`.
        shape: the latent's event shape.
        spec: the data it reads.
        normalized: whether the means of a row are shifted and scaled to average 0 and variance 1 over the
            latent's numbers (layer normalization). The scale of the latent is then fixed, which keeps the
            level above alive: see ``level_std`` of :class:`~genmod.models.HVAE`.

    Raises:
        ValueError: ``normalized`` for fewer than 3 numbers, of which one or none would be free.

    Reference: layer normalization, Ba, Kiros, Hinton (2016), eq. 3. Normalized means against collapse, by
    statistics of a batch instead of a row: Zhu et al., "A Batch Normalized Inference Network Keeps the KL
    Vanishing Away" (2020).
    """

    def __init__(
        self,
        network: nn.Module,
        shape: int | Shape,
        spec: SpecLike | None = None,
        normalized: bool = False,
    ) -> None:
        super().__init__(network, shape, spec)
        if normalized and size(self.latent_shape) < 3:
            raise invalid(
                f"normalized=True for a latent of shape {self.latent_shape}",
                "at least 3 numbers",
                "leave it out, or use more latents",
            )
        self.normalized = normalized

    def forward(
        self, x: Batch, context: Tensor | None = None, observed: Mask | None = None
    ) -> Normal:
        """The Gaussian of each row."""
        features = self.features(x, observed)
        both = outputs(self.network, (2, *self.latent_shape), features, context=context)
        mean, log_std = both.unbind(1)
        return Normal(layer_norm(mean, self.latent_shape) if self.normalized else mean, log_std)

    def formula(self) -> str:
        """The formula of the encoder, as text."""
        return "q(z | x) = N(z; mean(x), diag std(x)^2)"


def check_encoder(encoder: object) -> Encoder:
    """Require an encoder: a network alone gives no posterior."""
    advice = "wrap a network: encoders.GaussianEncoder(network, shape, spec)"
    return instance(encoder, Encoder, "encoder", advice)


def rows_of(posterior: Posterior | Distribution) -> int:
    """How many rows a posterior has."""
    return posterior.rows if isinstance(posterior, Posterior) else posterior.batch_shape[0]


def copied_posterior(
    posterior: Posterior | Distribution, count: int
) -> Posterior | Distribution | None:
    """``count`` copies of all rows of a posterior, one after another, so that data are encoded once.

    ``None`` for kinds that it does not know: then the copies of the data are encoded.
    """
    if isinstance(posterior, Posterior):
        return posterior.copies(count)
    if type(posterior) is Normal:
        return Normal(copies(posterior.loc, count), copies(posterior.log_std, count))
    if type(posterior) is FullCovarianceNormal:
        return FullCovarianceNormal(copies(posterior.loc, count), copies(posterior.tril, count))
    if type(posterior) is NormalizingFlow:
        return posterior.copies(count)
    return None


def check_latent_shape(encoder: Encoder, shape: Shape) -> None:
    """Require an encoder over latents of a prior's shape, if it states its own.

    Raises:
        ValueError: another shape.
    """
    if encoder.latent_shape is not None and encoder.latent_shape != shape:
        raise invalid(
            f"an encoder whose latents have shape {encoder.latent_shape}",
            f"the prior's shape {shape}",
            "build the encoder and the prior with the same latent shape",
        )


def require_distribution(posterior: Posterior | Distribution, shape: Shape) -> Distribution:
    """Require a posterior to be one distribution over latents of a shape.

    Raises:
        ValueError: it is noised or goes level by level, or has another shape.
    """
    if not isinstance(posterior, Distribution):
        raise invalid(
            f"a {type(posterior).__name__}",
            "one distribution over the latent",
            "pair encoders.TopDownEncoder with priors.TopDownPrior, and diffusion.NoisingEncoder "
            "with diffusion.DiffusionPrior",
        )
    if posterior.event_shape != shape:
        raise invalid(
            f"a posterior over latents of shape {tuple(posterior.event_shape)}",
            f"the prior's shape {tuple(shape)}",
            "build the encoder and the prior with the same latent shape",
        )
    return posterior
