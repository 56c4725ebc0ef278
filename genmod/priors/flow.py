"""A normalizing flow as a prior."""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.distributions.flow import NormalizingFlow
from genmod.nn.flow import SplineFlow
from genmod.priors.learned import OpenPrior
from genmod.shapes import Shape, size


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
