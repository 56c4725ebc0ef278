"""The three parts of a latent-variable model, and the border where data enter and leave it.

Data that enter are checked, converted to the model's type, and standardized if they are real columns of a
table. Laws and draws that leave are in the data's own units.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod import random
from genmod.arrays import Context, Rows, as_context, as_mask, as_tensor
from genmod.checks import check_law, require
from genmod.chunks import rows_per_chunk
from genmod.config import Settings
from genmod.decoders import Decoder
from genmod.distributions.joined import Rescaled
from genmod.elbo import Measure
from genmod.encoders import Encoder, Posterior
from genmod.encoders.base import check_posterior
from genmod.nn.modules import float_dtype, parameters_of, tensors_of
from genmod.path import AutoTimesteps, Request
from genmod.prior import Prior
from genmod.saving.hub import Saved
from genmod.schedules import Schedule
from genmod.spec import DataSpec


class ModelParts(Saved, Settings, nn.Module):
    """An encoder ``q(z | x)``, a decoder ``p(x | z)`` and a prior ``p(z)`` that fit together.

    Args:
        encoder: ``q(z | x)``.
        decoder: ``p(x | z)``.
        prior: ``p(z)``; it draws the latents and computes their rates.

    Raises:
        ValueError: parts that were built for different data, or for latents of different shapes.
    """

    measure: Measure
    """Whether ``p(x)`` is a mass or a density; ``NONE`` if the prior is not normalized."""

    def __init__(self, encoder: Encoder, decoder: Decoder, prior: Prior) -> None:
        super().__init__()
        require(
            encoder.spec is None or encoder.spec == decoder.spec,
            f"an encoder of {encoder.spec} beside a decoder of {decoder.spec}",
            "one description of the data",
            "build both with the same DataSpec",
        )
        prior = prior.bind(encoder)
        prior.check_encoder(encoder)
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self._masked = "observed" in inspect.signature(encoder.forward).parameters
        self.measure = decoder.measure if prior.proper else Measure.NONE

    @property
    def spec(self) -> DataSpec:
        """The data it is a model of."""
        return self.decoder.spec

    @property
    def device(self) -> torch.device:
        """The device of its first parameter or buffer; the CPU if it has none."""
        found = next(tensors_of(self), None)
        return torch.device("cpu") if found is None else found.device

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of its first floating point tensor, schedules left out: they are never cast."""
        for parameter in parameters_of(self.decoder, skip=(Schedule,)):
            if parameter.is_floating_point():
                return parameter.dtype
        return float_dtype(self, skip=(Schedule,))

    @property
    def _most_rows(self) -> int:
        """How many rows it computes together."""
        return rows_per_chunk(self.spec.shape, self.device)

    def posterior(
        self, x: Rows, context: Context = None, observed: Rows | None = None
    ) -> Posterior | Distribution:
        """``q(z | x)`` of checked data, ``(B, *event)``: what :meth:`Prior.infer` takes."""
        x, seen = as_tensor(x), as_mask(observed)
        context = as_context(context, len(x))
        self.decoder.check(x, seen)
        self._check_request(Request(context, seen), len(x))
        return self._posterior(self._real(x, seen)[1], context, seen)

    def law(self, state: Tensor, context: Tensor | None = None) -> Distribution:
        """``p(x | state)`` in the data's own units, one event a row."""
        law = self._likelihood(state, context)
        if self.spec.standardize.is_identity:
            return law
        return Rescaled(law, *self.spec.standardize.moments(state))

    def check_missing(self) -> None:
        """Require an encoder that can be trained on missing entries.

        Raises:
            ValueError: a diffusion's, which is fixed.
        """
        require(
            self.encoder.accepts_missing,
            f"missing entries for a {type(self).__name__}, whose encoder is fixed and would noise "
            "the zeros in their place",
            "complete data",
            "use VAE, HVAE or LatentDiffusion, whose encoders get the mask, or leave out incomplete rows",
        )

    def draw(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """A draw of ``x`` for each state.

        Raises:
            ValueError: values that are not finite, or integers outside their range.
        """
        z = random.draw(self._likelihood(state, context), gradients=False)
        x = self.spec.standardize.inverse(z)
        if self.spec.columns is not None and not x.is_floating_point():
            # A law of counts alone draws integers.
            x = x.to(self.dtype or torch.get_default_dtype())
        self.spec.check(x, name="samples")
        return x

    def formula(self) -> str:
        """The formula of the model, as text."""
        return "\n".join(part.formula() for part in (self.encoder, self.decoder, self.prior))

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.parameters())
        lines = self.formula().replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {lines}\n  {count:,} parameters\n)"

    def _check_request(self, request: Request, rows: int) -> None:
        """Require a request that this model can answer for ``rows`` rows of data.

        Raises:
            ValueError: a context with another number of rows; timesteps beside whole paths, or for a model
                without noise levels; importance weights of a density that is a random estimate.
        """
        context, timesteps, name = request.context, request.timesteps, type(self).__name__
        if context is not None and len(context) != rows:
            raise ValueError(
                f"got {len(context)} rows of context for {rows} samples; expected one row a sample; "
                "repeat the context, or pass fewer samples"
            )
        if isinstance(timesteps, int) and (request.needs_path or request.samples > 1):
            raise ValueError(
                f"got timesteps={timesteps} beside whole paths of latents; expected one or the other; "
                "leave timesteps out: a path visits every level"
            )
        if request.needs_path and self.prior.stochastic_density:
            raise ValueError(
                f"got a request for importance weights of a {name} whose prior density is a random "
                "estimate; expected a density without noise; use the exact trace (probes=None)"
            )
        stated = timesteps is not None and not isinstance(timesteps, AutoTimesteps)
        if stated and not self.prior.has_timesteps:
            raise ValueError(
                f"got timesteps={timesteps} for a {name} without noise levels; expected none; "
                "leave timesteps out: every latent is visited"
            )

    def _real(self, x: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
        """The data to score and the data to encode, in the model's own type and units.

        Integers are scored as they are. Entries that were not observed are set to zero. Another value would
        also give a bound, because every posterior does.
        """
        kind = self.dtype or (x.dtype if x.is_floating_point() else torch.get_default_dtype())
        if kind in (torch.bfloat16, torch.float16):
            raise ValueError(
                f"got a model in {kind}; expected float32 or float64: a bound in half precision is wrong; "
                "keep the parameters in float32 and use fit(..., autocast=torch.bfloat16)"
            )
        # Standardized in the type given: a column of mean 1e6 and std 1 has no digits left in float32.
        seen = self.spec.standardize(x).to(kind)
        if observed is not None:
            seen = torch.where(observed, seen, torch.zeros_like(seen))
            x = torch.where(observed, x, torch.zeros_like(x))
        return (seen if self.decoder.spec.bins is None else x), seen

    def _posterior(
        self, x: Tensor, context: Tensor | None, observed: Tensor | None
    ) -> Posterior | Distribution:
        # An encoder of one's own need not take masks: what was not observed is zero in any case.
        given = (x, context, observed) if observed is not None and self._masked else (x, context)
        posterior: Posterior | Distribution = self.encoder(*given)
        check_posterior(posterior, x.shape[0], self.prior.shape)
        return posterior

    def _likelihood(self, state: Tensor, context: Tensor | None) -> Distribution:
        law = self.decoder(state, context)
        check_law(law, state.shape[0], self.decoder.spec.shape, "the decoder's law")
        return law
