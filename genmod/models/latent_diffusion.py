"""Latent diffusion: a VAE whose prior is a diffusion over its latents."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from genmod import random
from genmod.checks import instance, invalid
from genmod.diffusion import DiffusionPrior
from genmod.encoders import GaussianEncoder
from genmod.model import LatentModel
from genmod.models.build import as_shape, check_condition, check_networks, stated_spec
from genmod.models.diffusion import Diffusion
from genmod.models.replace import find_diffusion
from genmod.models.sampling import DiffusionBased
from genmod.models.two_stage import first_stage, freeze_first_stage
from genmod.models.vae import VAE
from genmod.nn import ConvNets, Ignored, Networks
from genmod.nn.conditioning import Condition
from genmod.priors import NestedPrior
from genmod.shapes import Shape
from genmod.spec import SpecLike


class LatentDiffusion(DiffusionBased):
    r"""``p(x, z) = p(x | z) p(z)`` with a diffusion for ``p(z)``, scored by one bound:

    .. math:: \log p(x) \ge \mathbb{E}[\log p(x|z) - \log q(z|x) + \mathrm{ELBO}_{\text{diffusion}}(z)]

    The usual recipe has two stages: fit the autoencoding VAE (:meth:`first_stage`), then
    :meth:`freeze` it and fit the prior on its latents. Fitting the model as it is trains all parts
    jointly, on the plain bound.

    Args:
        spec: the data: a data set, a :class:`~genmod.spec.DataSpec`, or an event shape.
        bins: beside a shape, how many values integer data have; ``None`` for real data.
        latents: how many dimensions ``z`` has, or its shape, ``(channels, *space)``: then the
            diffusion over it is convolutional, too.
        width, depth, dropout, networks: of the VAE, see :class:`~genmod.models.VAE`.
        condition: what the diffusion is conditioned on, ``Labels(10)`` for example. The VAE ignores
            it, and its first stage needs none. Each method of the whole then needs ``context``.
        vae: an autoencoding VAE of your own, fitted or not. Under a condition it must accept the context,
            too, even if it ignores it: ``VAE(..., condition=Ignored())``.
        diffusion: a diffusion over ``z`` of your own, built with ``bins=None``.

    Raises:
        ValueError: the diffusion's shape is not the latent's, or the VAE's encoder is no Gaussian.

    Reference: Vahdat, Kreis, Kautz, "Score-based Generative Modeling in Latent Space" (2021), eq. 4;
    Rombach et al., "High-resolution image synthesis with latent diffusion models" (2022).
    """

    def __init__(
        self,
        spec: SpecLike | None = None,
        bins: int | None = None,
        *,
        latents: int | Shape = 32,
        width: int | None = None,
        depth: int | None = None,
        dropout: float = 0.0,
        networks: Networks | None = None,
        condition: Condition | None = None,
        vae: LatentModel | None = None,
        diffusion: LatentModel | None = None,
    ) -> None:
        check_condition(condition, diffusion)
        if vae is not None:
            settings = {"width": width, "depth": depth, "dropout": dropout, "networks": networks}
            check_networks(False, settings)
            stated_spec(spec, bins, instance(vae, LatentModel, "vae").decoder)
        vae = vae or VAE(
            spec,
            bins,
            latents=latents,
            width=width,
            depth=depth,
            dropout=dropout,
            networks=networks,
            condition=None if condition is None else Ignored(),
        )
        if not isinstance(vae.encoder, GaussianEncoder):
            raise invalid(
                f"a VAE with a {type(vae.encoder).__name__} encoder",
                "a Gaussian one over one latent",
                "pass VAE(...), not a hierarchy or a diffusion",
            )
        code = vae.encoder.latent_shape
        assert code is not None
        if as_shape(latents) not in (code, (32,)):
            raise invalid(
                f"latents={latents} beside a VAE over latents of shape {code}",
                "one or the other",
                "leave latents out",
            )
        if diffusion is None:
            kind = ConvNets() if len(code) > 1 else None
            diffusion = Diffusion(code, networks=kind, condition=condition)
        if instance(diffusion, LatentModel, "diffusion").decoder.shape != code:
            raise invalid(
                f"a diffusion over {diffusion.decoder.shape}",
                f"one over the latent's shape {code}",
                "build it with Diffusion(shape=(latents,))",
            )
        super().__init__(vae.encoder, vae.decoder, NestedPrior(diffusion))

    @property
    def nested(self) -> NestedPrior:
        """The prior: a nested one."""
        assert isinstance(self.prior, NestedPrior)
        return self.prior

    @property
    def diffusion(self) -> DiffusionPrior:
        """The prior of the diffusion over the latent."""
        return find_diffusion(self)

    def draw_from(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """A draw of ``x`` for each ``z_0`` of the diffusion: first the latent, then the data."""
        z = random.draw(self.nested.law(state, context), gradients=False)
        return self.draw(z, context)

    def first_stage(self) -> LatentModel:
        """The same encoder and decoder under a standard normal prior."""
        return first_stage(self)

    def freeze(
        self, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
    ) -> LatentDiffusion:
        """End the first stage: freeze the encoder and the decoder.

        Latents are standardized before they enter the diffusion, by the mean and the standard deviation
        that ``q`` gives them over ``x``. Both are measured in evaluation mode on the model's device.

        Args:
            x: data, enough of them to measure a standard deviation.
            context: what the encoder is conditioned on.
            observed: which entries of ``x`` count; ``None``: all.
        """
        freeze_first_stage(self, x, context, observed)
        return self

    def fixed(self) -> Iterator[nn.Module]:
        """The parts that the first stage trains and the second leaves alone."""
        yield self.encoder
        yield self.decoder
