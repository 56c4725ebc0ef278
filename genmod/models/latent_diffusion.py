"""Latent diffusion: a VAE whose prior is a diffusion over its latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat

import torch
from torch import Tensor, nn

from genmod.checks import check_shape, require
from genmod.encoders import GaussianEncoder
from genmod.model import LatentModel
from genmod.models.build import unconditional
from genmod.models.diffusion import Diffusion
from genmod.models.sampling import Sampling
from genmod.models.vae import VAE
from genmod.nn import Condition, ConvNets, Ignored, Networks
from genmod.priors import NestedPrior, NormalPrior
from genmod.samplers import Sampler, State, TimeGrid
from genmod.types import Shape

_ROWS = 1024
"""Rows encoded together when latents are measured: images of a whole data set do not fit memory."""


class LatentDiffusion(LatentModel):
    r"""``p(x, z) = p(x | z) p(z)`` with a diffusion for ``p(z)``, priced as one bound:

    .. math:: \log p(x) \ge \mathbb{E}[\log p(x|z) - \log q(z|x) + \mathrm{ELBO}_{\text{diffusion}}(z)]

    The customary recipe has two stages: fit the autoencoding VAE (:meth:`first_stage`), then
    :meth:`freeze` it and fit the prior on its latents. Fitting the model as it is trains all parts
    jointly, on the plain bound.

    Args:
        shape: the event shape of ``x``.
        bins: how many levels integer data have; ``None`` for real data.
        latents: how many dimensions ``z`` has, or its shape, ``(channels, *space)``: then the
            diffusion over it is convolutional, too.
        width, depth, dropout, networks: of the VAE, see :class:`~genmod.models.VAE`.
        condition: what the diffusion is told beside ``z``, ``Labels(10)`` for example; the VAE ignores
            it, and its first stage needs none. Each method of the whole then wants its ``context``.
        vae: an autoencoding VAE of your own, fitted or not. Under a condition it is to take the context,
            too, if only to let it pass: ``VAE(..., condition=Ignored())``.
        diffusion: a diffusion over ``z`` of your own, built with ``bins=None``.

    Raises:
        ValueError: the diffusion's shape is not the latent's, or the VAE's encoder is no Gaussian.

    Reference: Vahdat, Kreis, Kautz, "Score-based Generative Modeling in Latent Space" (2021), eq. 4;
    Rombach et al., "High-resolution image synthesis with latent diffusion models" (2022).
    """

    def __init__(
        self,
        shape: Shape | int | None = None,
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
        unconditional(condition, diffusion)
        vae = vae or VAE(
            shape,
            bins,
            latents=latents,
            width=width,
            depth=depth,
            dropout=dropout,
            networks=networks,
            condition=None if condition is None else Ignored(),
        )
        if not isinstance(vae.encoder, GaussianEncoder):
            raise ValueError(
                f"got a VAE with a {type(vae.encoder).__name__} encoder; expected a Gaussian one "
                "over one latent; pass VAE(...), not a hierarchy or a diffusion"
            )
        code = vae.encoder.shape
        if diffusion is None:
            kind = ConvNets() if len(code) > 1 else None
            diffusion = Diffusion(code, networks=kind, condition=condition)
        require(
            diffusion.decoder.shape == code,
            f"a diffusion over {diffusion.decoder.shape}",
            f"one over the latent's shape {code}",
            "build it with Diffusion(shape=(latents,))",
        )
        super().__init__(vae.encoder, vae.decoder, NestedPrior(diffusion))

    @property
    def nested(self) -> NestedPrior:
        """The prior, as what it is."""
        assert isinstance(self.prior, NestedPrior)
        return self.prior

    @torch.no_grad()
    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        *,
        sampler: Sampler | None = None,
        steps: int | None = None,
        grid: TimeGrid | None = None,
        seeds: Sequence[int] | None = None,
        progress: bool = False,
    ) -> Tensor:
        """``n`` draws of ``x``: the inner diffusion's latents by a sampler, then ``z``, then ``x``.

        Args:
            n: how many.
            context: what the parts are told beside their input.
            sampler: how the inner diffusion is walked, as in :meth:`genmod.models.Diffusion.sample`.
            steps: how many steps it takes.
            grid: where they lie.
            seeds: one a sample.
            progress: whether a bar is shown.
        """
        way = Sampling(sampler, steps, grid, seeds, progress)
        state = way.draw(self.nested.model.prior, n, context)
        with way.noise:
            z = self.nested.law(state, context).sample()
            return self.decoder(z, context).sample()

    def states(
        self,
        n: int,
        context: Tensor | None = None,
        *,
        sampler: Sampler | None = None,
        steps: int | None = None,
        grid: TimeGrid | None = None,
        seeds: Sequence[int] | None = None,
        progress: bool = False,
    ) -> Iterator[State]:
        """Where the latents of ``n`` draws are after each step, and what the denoiser takes them for.

        The same path as :meth:`sample`'s, in the inner diffusion's units, ``(z - shift) / scale``: for
        the image that a state is taken for, ``decode(nested.outside(state.x_hat), context)``.

        Each argument is :meth:`sample`'s.

        Raises:
            ValueError: at once: settings out of range, or a context that the model cannot hear.
        """
        way = Sampling(sampler, steps, grid, seeds, progress)
        return way.states(self.nested.model.prior, n, context)

    def first_stage(self) -> LatentModel:
        """The same encoder and decoder under a standard normal prior."""
        assert isinstance(self.encoder, GaussianEncoder)
        return LatentModel(self.encoder, self.decoder, NormalPrior(self.encoder.shape))

    @torch.no_grad()
    def freeze(self, x: Tensor, context: Tensor | None = None) -> LatentDiffusion:
        """End the first stage: the encoder and decoder stay as they are from now on.

        The diffusion is told to see latents with the mean and spread that ``q`` gives them over ``x``.

        Args:
            x: data, enough of them to measure a spread.
            context: what the encoder is told beside the data.
        """
        check_shape(x, self.decoder.shape)
        assert isinstance(self.encoder, GaussianEncoder)
        told = repeat(None) if context is None else context.split(_ROWS)
        means, variances = [], []
        for rows, seen in zip(x.split(_ROWS), told, strict=False):
            q = self.encoder(rows, seen)
            means.append(q.mean)
            variances.append(q.variance)
        mean = torch.cat(means)
        total = mean.var(0, correction=0) + torch.cat(variances).mean(0)
        self.nested.standardize(mean.mean(0), total.sqrt())
        for part in self.fixed():
            part.requires_grad_(False)
        return self

    def fixed(self) -> Iterator[nn.Module]:
        """The parts that the first stage trains and the second leaves alone."""
        yield self.encoder
        yield self.decoder
