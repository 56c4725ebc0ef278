"""A latent-variable model: an encoder, a decoder and a prior, priced by one bound."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.decoders import Decoder
from genmod.diffusion.timesteps import Timesteps
from genmod.distributions import masked_log_prob
from genmod.elbo import ELBO, Measure
from genmod.encoders import Encoder
from genmod.prior import Prior
from genmod.types import Batch, LatentTensors, Mask, PerSample


class LatentModel(nn.Module):
    """``p(x, z) = p(x | z) p(z)`` with a posterior ``q(z | x)``: every model of this package.

    Calling it gives its :class:`~genmod.elbo.ELBO`, so that whatever wraps a module sees the bound.

    Args:
        encoder: ``q(z | x)``.
        decoder: ``p(x | z)``.
        prior: ``p(z)``; it draws the latents and prices them.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, prior: Prior) -> None:
        super().__init__()
        self.encoder, self.decoder, self.prior = encoder, decoder, prior

    @property
    def measure(self) -> Measure:
        """What ``p(x)`` is; ``NONE`` if the prior does not normalize."""
        return self.decoder.measure if self.prior.proper else Measure.NONE

    def forward(
        self,
        x: Batch,
        draws: Timesteps = None,
        context: Tensor | None = None,
        observed: Mask | None = None,
    ) -> ELBO:
        """The bound: see :meth:`elbo`."""
        self.decoder.check(x, observed)
        x = _filled(x, observed)
        posterior = self.encoder(x, context)
        state, rates = self.prior.rates(posterior, draws, context)
        likelihood = self.decoder(state, context)
        return ELBO(masked_log_prob(likelihood, x, observed), rates, self.measure)

    def elbo(
        self,
        x: Batch,
        draws: Timesteps = None,
        context: Tensor | None = None,
        observed: Mask | None = None,
    ) -> ELBO:
        """The evidence lower bound of each sample, in nats, with one draw of the latents.

        Args:
            x: data, ``(B, *event)``; integers for a decoder that gives masses.
            draws: how many levels of a diffusion a sample visits; ``None`` visits all. Both estimate
                the same number. Models with few levels visit them all.
            context: what the model is told beside the data, ``(B, ...)``.
            observed: which entries count, like ``x``; the bound is then on the observed ones alone.

        Returns:
            The bound, per sample and per term.

        Raises:
            ValueError: data of a wrong shape, not finite, or outside the decoder's bins; all levels
                asked for in continuous time.
        """
        return self(x, draws, context, observed)

    def log_weight(
        self, x: Batch, context: Tensor | None = None, observed: Mask | None = None
    ) -> PerSample:
        """``log p(x, z) - log q(z | x)`` at one joint draw: the bound with every KL sampled.

        Its mean over draws is the ELBO; the log of the mean of its exponential is ``log p(x)``.

        Raises:
            ValueError: the model has no finite path of latents (continuous time), or no prior.
        """
        self.decoder.check(x, observed)
        x = _filled(x, observed)
        posterior = self.encoder(x, context)
        state, log_weight = self.prior.log_weight(posterior, context)
        return log_weight + masked_log_prob(self.decoder(state, context), x, observed)

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """``n`` draws of ``x``: latents from the prior, then data from the decoder.

        Raises:
            ValueError: the prior is no distribution (an autoencoder's).
        """
        return self.decoder(self.prior.sample(n, context), context).sample()

    @torch.no_grad()
    def encode(self, x: Batch, context: Tensor | None = None) -> LatentTensors:
        """A code of each sample, without randomness: what :meth:`decode` takes.

        The posterior's mean; a tuple of means, top level first, for a top-down hierarchy; for a
        diffusion the noise that the probability flow maps it to.
        """
        self.decoder.check(x)
        return self.prior.encode(self.encoder(x, context), context)

    @torch.no_grad()
    def decode(self, z: LatentTensors, context: Tensor | None = None) -> Distribution:
        """The distribution of ``x`` given a code."""
        return self.decoder(self.prior.state(z, context), context)

    @torch.no_grad()
    def reconstruct(self, x: Batch, context: Tensor | None = None) -> Tensor:
        """The decoder's mean for each sample, from its code; a diffusion noises half-way and denoises."""
        self.decoder.check(x)
        state = self.prior.restore(self.encoder(x, context), context)
        return self.decoder(state, context).mean

    def formula(self) -> str:
        """The model as it would stand on paper."""
        return "\n".join(part.formula() for part in (self.encoder, self.decoder, self.prior))

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.parameters())
        lines = self.formula().replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {lines}\n  {count:,} parameters\n)"


def _filled(x: Tensor, observed: Tensor | None) -> Tensor:
    """Zeros where nothing was observed: any posterior gives a bound, so any filling will do."""
    return x if observed is None else torch.where(observed, x, torch.zeros_like(x))
