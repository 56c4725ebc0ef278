"""Priors with parameters: a Gaussian, mixtures, a flow; their shape may be left for a model to fill in."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import check_at_least, invalid
from genmod.config.settings import arguments
from genmod.distributions import Normal
from genmod.distributions.composed import Mixture
from genmod.distributions.flow import NormalizingFlow
from genmod.encoders import Encoder
from genmod.nn.flow import SplineFlow
from genmod.prior import DensityPrior, Prior
from genmod.tensors import Shape, size


class OpenPrior(DensityPrior):
    """The base class of priors whose shape may be left open: a model then binds it to its encoder.

    Args:
        shape: the latent's event shape; ``None`` leaves it open.
        name: the name of its rate.
    """

    def __init__(self, shape: Shape | None = None, name: str = "prior") -> None:
        super().__init__(() if shape is None else shape, name)
        self.is_open = shape is None

    def bind(self, encoder: Encoder) -> Prior:
        """A prior of these settings over the encoder's latents; itself, if its shape is known."""
        if not self.is_open:
            return self
        name = type(self).__name__
        if encoder.latent_shape is None:
            raise invalid(
                f"a {name} without a shape beside a {type(encoder).__name__}, whose latents have "
                "none either",
                "the shape of the latents",
                f"pass shape=(32,), or another shape, to {name}",
            )
        return self._with(self._missing(encoder))

    def with_shape(self, shape: Shape) -> OpenPrior:
        """A prior of these settings over latents of a shape; itself, if its shape is known."""
        return self._with({"shape": shape}) if self.is_open else self

    def named(self, name: str) -> OpenPrior:
        """A prior of these settings whose rate has another name; itself, if the user chose a name."""
        return self._with({"name": name}) if self.is_open and self.name == "prior" else self

    def law(self, n: int, context: Tensor | None = None) -> Distribution:
        """``p(z)`` of ``n`` rows."""
        if self.is_open:
            raise invalid(
                f"a {type(self).__name__} without a shape",
                "the shape of the latents",
                "pass shape=(32,), for example, or give the prior to a model: VAE(data, prior=...)",
            )
        return self.density(n, context)

    @abstractmethod
    def density(self, n: int, context: Tensor | None = None) -> Distribution:
        """``p(z)`` of ``n`` rows, once the shape is known."""

    def _missing(self, encoder: Encoder) -> dict[str, object]:
        """The settings that an encoder fills in."""
        return {"shape": encoder.latent_shape}

    def _with(self, settings: Mapping[str, object]) -> OpenPrior:
        """A prior of the same class with some settings replaced."""
        given: dict[str, Any] = {**(arguments(self) or {}), **settings}
        return type(self)(**given)


class LearnedGaussianPrior(OpenPrior):
    r"""A Gaussian prior whose mean and stds are learned, ``p(z) = N(z; m, diag s^2)``.

    Under a Gaussian posterior its rate is a closed KL.

    Args:
        shape: the latent's event shape; left out, that of the model's encoder.
        name: the name of its rate.

    >>> from genmod import VAE
    >>> print(VAE(3, latents=2, width=8, prior=LearnedGaussianPrior()).prior.formula())
    p(z) = N(z; m, diag s^2), learned
    """

    def __init__(self, shape: Shape | None = None, name: str = "prior") -> None:
        super().__init__(shape, name)
        if shape is not None:
            self.mean = nn.Parameter(torch.zeros(self.shape))
            self.log_std = nn.Parameter(torch.zeros(self.shape))

    def density(self, n: int, context: Tensor | None = None) -> Normal:
        """The Gaussian, the same for each row."""
        return Normal(self.mean.expand(n, *self.shape), self.log_std)

    def formula(self) -> str:
        """The prior as it stands on paper."""
        return "p(z) = N(z; m, diag s^2), learned"


class MixturePrior(OpenPrior):
    r"""A mixture of Gaussians as a prior (MoG), all of it learned.

    .. math:: p(z) = \sum_{k=1}^{K} w_k\, \mathcal{N}(z; m_k, \operatorname{diag} s_k^2)

    Its rate is a log-ratio at a draw: the KL to a mixture has no closed form. The means start at draws of
    N(0, I), the stds at one, the weights equal.

    Args:
        components: ``K``.
        shape: the latent's event shape; left out, that of the model's encoder.
        name: the name of its rate.

    Reference: Dilokthanakul et al., "Deep Unsupervised Clustering with Gaussian Mixture Variational
    Autoencoders" (2016); the baseline "MoG" of Tomczak, Welling, "VAE with a VampPrior" (2018), table 1.

    >>> MixturePrior(3, (2,)).sample(5).shape
    torch.Size([5, 2])
    """

    def __init__(
        self, components: int = 10, shape: Shape | None = None, name: str = "prior"
    ) -> None:
        super().__init__(shape, name)
        check_components(components)
        self.count = components
        if shape is not None:
            self.mean = nn.Parameter(torch.randn(components, *self.shape))
            self.log_std = nn.Parameter(torch.zeros(components, *self.shape))
            self.logits = nn.Parameter(torch.zeros(components))

    def density(self, n: int, context: Tensor | None = None) -> Mixture:
        """The mixture, one law for all rows."""
        return Mixture(lambda index: Normal(self.mean[index], self.log_std[index]), self.logits)

    def formula(self) -> str:
        """The prior as it stands on paper."""
        return f"p(z) = sum over {self.count} of w_k N(z; m_k, diag s_k^2), learned"


class FlowPrior(OpenPrior):
    r"""A normalizing flow as a prior: an invertible network of Gaussian noise, with an exact density.

    .. math:: \log p(z) = \log \mathcal{N}(f(z); 0, I) + \log |\det \partial f / \partial z|

    The network is a neural spline flow (:class:`~genmod.nn.flow.SplineFlow`, of zuko), which starts as the
    identity: the prior starts as N(0, I). Its rate is a log-ratio at a draw.

    Args:
        transforms: how many invertible maps follow each other.
        bins: segments of each spline.
        width: of the two hidden layers of each map's network.
        autoregressive: whether each entry sees every entry before it: more expressive, and ``D`` times
            slower to sample. By default half of the entries see the other half (coupling).
        shape: the latent's event shape; left out, that of the model's encoder.
        name: the name of its rate.

    Raises:
        ValueError: zuko is not installed (``pip install genmod-torch[flows]``).

    Reference: Durkan et al., "Neural Spline Flows" (2019); as a prior, Chen et al., "Variational Lossy
    Autoencoder" (2017), section 3.2.

    >>> FlowPrior(transforms=2, shape=(2,)).sample(5).shape
    torch.Size([5, 2])
    """

    like: Tensor

    def __init__(
        self,
        transforms: int = 3,
        bins: int = 8,
        width: int = 64,
        autoregressive: bool = False,
        shape: Shape | None = None,
        name: str = "prior",
    ) -> None:
        super().__init__(shape, name)
        self.register_buffer("like", torch.zeros(()), persistent=False)
        if shape is not None:
            self.transform = SplineFlow(
                size(self.shape), 0, transforms, bins, width, autoregressive
            )

    def density(self, n: int, context: Tensor | None = None) -> NormalizingFlow:
        """The flow, ``n`` rows of one law."""
        zero = self.like.expand(n, *self.shape)
        return NormalizingFlow(self.transform, zero, zero)

    def formula(self) -> str:
        """The prior as it stands on paper."""
        return f"p(z) = N(f(z); 0, I) |det df/dz|, z in R^{'x'.join(map(str, self.shape))}"


def check_components(components: int) -> None:
    """Require a mixture of at least one component."""
    check_at_least(components, 1, "components", "10 to 500 are common: pass 50")
