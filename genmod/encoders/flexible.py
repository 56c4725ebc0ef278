"""Encoders whose posterior is more than a diagonal Gaussian: full covariance, and a normalizing flow."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import invalid
from genmod.config.settings import arguments
from genmod.distributions.flow import NormalizingFlow
from genmod.distributions.normal import FullCovarianceNormal
from genmod.encoders.base import Encoder
from genmod.nn.flow import SplineFlow
from genmod.nn.modules import outputs
from genmod.spec import DataSpec, SpecLike
from genmod.tensors import Batch, Mask, Shape, size


class OpenEncoder(Encoder):
    """The base class of encoders of one network, which may be left for a model to build.

    Args:
        network: gives :meth:`outputs_for` numbers a row; it takes the features of the data, as for
            :class:`~genmod.encoders.GaussianEncoder`. ``None``: the model builds its default network.
        shape: the latent's event shape.
        spec: the data it reads.
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        shape: Shape | None = None,
        spec: SpecLike | None = None,
    ) -> None:
        super().__init__(spec)
        if (network is None) != (shape is None):
            raise invalid(
                f"{'no ' if network is None else 'a '}network and shape={shape} for "
                f"{type(self).__name__}",
                "both, or neither",
                "leave both out, and the model builds the network: VAE(data, latents=8, "
                "encoder=...)",
            )
        self.network = network
        self.latent_shape = None if shape is None else tuple(shape)

    def bind(self, build: Callable[[Shape], nn.Module], shape: Shape, spec: DataSpec) -> Encoder:
        """An encoder of these settings with a network of its own.

        Args:
            build: from the shape of its outputs to a network.
            shape: the latent's event shape.
            spec: the data.
        """
        network = build((self.outputs_for(size(shape)),))
        given: dict[str, Any] = {**(arguments(self) or {})}
        given |= {"network": network, "shape": shape, "spec": spec}
        return type(self)(**given)

    def forward(
        self, x: Batch, context: Tensor | None = None, observed: Mask | None = None
    ) -> Distribution:
        """The posterior of each row."""
        if self.network is None or self.latent_shape is None:
            raise invalid(
                f"a {type(self).__name__} without a network",
                "one",
                "give the encoder to a model, VAE(data, encoder=...), or pass network= and shape=",
            )
        count = self.outputs_for(size(self.latent_shape))
        found = outputs(self.network, (count,), self.features(x, observed), context=context)
        return self.posterior(found, self.latent_shape)

    @abstractmethod
    def outputs_for(self, size: int) -> int:
        """How many numbers a row the network gives for a latent of ``size`` numbers."""

    @abstractmethod
    def posterior(self, outputs: Tensor, shape: Shape) -> Distribution:
        """The law of the outputs of the network, ``(B, outputs)``."""


class FullCovarianceEncoder(OpenEncoder):
    r"""A Gaussian posterior with full covariance, ``N(mean(x), L(x) L(x)^T)``.

    It holds the correlations between latents that a diagonal posterior leaves out, at
    :math:`D (D + 3) / 2` outputs of the network. Under a Gaussian prior its rate is a closed KL.

    Args:
        network: gives the mean, the log of the diagonal of ``L``, and the entries below it (times
            :math:`\sqrt D`); left out, the model builds its default network.
        shape: the latent's event shape.
        spec: the data it reads.

    Reference: Kingma, Welling, "An Introduction to Variational Autoencoders" (2019), section 2.5.1.

    >>> from genmod import VAE
    >>> VAE(5, latents=3, width=8, encoder=FullCovarianceEncoder()).encoder.formula()
    'q(z | x) = N(z; mean(x), L(x) L(x)^T)'
    """

    def outputs_for(self, size: int) -> int:
        """``D (D + 3) / 2``."""
        return size * (size + 3) // 2

    def posterior(self, outputs: Tensor, shape: Shape) -> FullCovarianceNormal:
        """The Gaussian of each row."""
        dims = size(shape)
        mean, log_diagonal, lower = outputs.split((dims, dims, outputs.shape[1] - 2 * dims), dim=1)
        # Over sqrt(D), so that a new network of many latents does not start with a wide posterior.
        return FullCovarianceNormal.of(mean.reshape(-1, *shape), log_diagonal, lower / dims**0.5)

    def formula(self) -> str:
        """The encoder as it stands on paper."""
        return "q(z | x) = N(z; mean(x), L(x) L(x)^T)"


class FlowEncoder(OpenEncoder):
    r"""A normalizing flow as a posterior: an invertible network of Gaussian noise, conditioned on the data.

    .. math:: z = \mu(x) + \sigma(x)\, g(\varepsilon; h(x)), \qquad \varepsilon \sim \mathcal{N}(0, I)

    ``g`` is a neural spline flow (:class:`~genmod.nn.flow.SplineFlow`, of zuko). It starts as the identity,
    so that the posterior starts as a diagonal Gaussian. The rate is a log-ratio at a draw.

    Args:
        network: gives the mean, the log-std and ``context`` numbers ``h``; left out, the model builds its
            default network.
        shape: the latent's event shape.
        spec: the data it reads.
        transforms: how many invertible maps follow each other.
        bins: segments of each spline.
        width: of the two hidden layers of each map's network.
        context: the length of ``h``.
        autoregressive: whether each entry sees every entry before it; draws then take ``D`` passes of the
            network. By default half of the entries see the other half (coupling).

    Raises:
        ValueError: zuko is not installed (``pip install genmod-torch[flows]``).

    Reference: Rezende, Mohamed, "Variational Inference with Normalizing Flows" (2015), eq. 15; Durkan et
    al., "Neural Spline Flows" (2019).

    >>> from genmod import VAE
    >>> VAE(5, latents=3, width=8, encoder=FlowEncoder(transforms=2)).encoder.formula()
    'q(z | x) = N(f((z - mean(x)) / std(x); h(x)); 0, I) |det df/dz|'
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        shape: Shape | None = None,
        spec: SpecLike | None = None,
        transforms: int = 2,
        bins: int = 8,
        width: int = 64,
        context: int = 16,
        autoregressive: bool = False,
    ) -> None:
        super().__init__(network, shape, spec)
        self.context = context
        if shape is not None:
            self.transform = SplineFlow(
                size(shape), context, transforms, bins, width, autoregressive
            )

    def outputs_for(self, size: int) -> int:
        """``2 D`` and the numbers of the context."""
        return 2 * size + self.context

    def posterior(self, outputs: Tensor, shape: Shape) -> NormalizingFlow:
        """The flow of each row."""
        dims = size(shape)
        mean, log_std, context = outputs.split((dims, dims, self.context), dim=1)
        return NormalizingFlow(
            self.transform, mean.reshape(-1, *shape), log_std.reshape(-1, *shape), context
        )

    def formula(self) -> str:
        """The encoder as it stands on paper."""
        return "q(z | x) = N(f((z - mean(x)) / std(x); h(x)); 0, I) |det df/dz|"
