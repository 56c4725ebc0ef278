"""A latent-variable model: an encoder, a decoder and a prior, scored by one bound.

Data that enter are checked, converted to the model's type, and standardized if they are real columns of a
table. What leaves is in the data's own units. What else a model can do is in :mod:`genmod.generative`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod import random
from genmod.arrays import Context, Rows, as_context, as_mask, as_tensor
from genmod.checks import instance, invalid, is_trusted
from genmod.decoders import Decoder
from genmod.decoders.base import check_decoder
from genmod.distributions.base import check_law, masked_log_prob
from genmod.distributions.composed import Rescaled
from genmod.elbo import ELBO, Measure, Rate
from genmod.encoders import Encoder
from genmod.encoders.base import Posterior, check_encoder, copied_posterior
from genmod.generative import GenerativeModel
from genmod.imputation import Imputation as Imputation
from genmod.nn.modules import call_part, first_float, float_dtype
from genmod.path import AutoTimesteps, Timesteps, repeated
from genmod.path import Path as LatentPath
from genmod.path import Request as Request
from genmod.prior import Prior
from genmod.saving import load_model
from genmod.schedules import Schedule
from genmod.tensors import HALF, Batch, copies

_PLAIN = Request()


class LatentModel(GenerativeModel):
    """``p(x, z) = p(x | z) p(z)`` with a posterior ``q(z | x)``: every model of this package.

    Wrappers (DDP, FSDP, torch.compile) need one entry, which is the call; :meth:`elbo` uses it.

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
        encoder, decoder = check_encoder(encoder), check_decoder(decoder)
        if encoder.spec is not None and encoder.spec != decoder.spec:
            raise invalid(
                f"an encoder of {encoder.spec} beside a decoder of {decoder.spec}",
                "one description of the data",
                "build both with the same DataSpec",
            )
        prior = instance(prior, Prior, "prior").bind(encoder)
        prior.check_encoder(encoder)
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self._masked = "observed" in inspect.signature(encoder.forward).parameters
        self.measure = decoder.measure if prior.proper else Measure.NONE

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of its data and laws: that of its parameters; float32 for half precision."""
        kind = self.parameter_dtype
        return torch.float32 if kind in HALF else kind

    @property
    def parameter_dtype(self) -> torch.dtype | None:
        """The type of its first floating point tensor, schedules left out: they are never cast."""
        found = first_float(self.decoder, skip=(Schedule,))
        return float_dtype(self, skip=(Schedule,)) if found is None else found.dtype

    def forward(self, x: Batch, request: Request = _PLAIN) -> tuple[ELBO, LatentPath | None]:
        """The bound of each sample, and the drawn path where it is asked for.

        Args:
            x: data, ``(B, *event)``; integers for a decoder that gives masses.
            request: context, mask, timesteps, number of draws, and whether the path is returned.

        Raises:
            ValueError: data of a wrong shape, not finite, or outside the decoder's range; timesteps for
                a model without noise levels; a part that does not give one number, or one law, a row.
        """
        self._check_inputs(x, request)
        rows, samples = x.shape[0], request.samples
        x, posterior, request = self._encoded(x, request)
        context, observed = request.context, request.observed
        path: LatentPath | None = None
        rates: Mapping[str, Rate]
        if request.needs_path or samples > 1:
            state, path = self.prior.draw_path(posterior, context, samples)
            rates = self.prior.rates_of_path(path)
        else:
            state, rates = self.prior.rates(posterior, request.timesteps, context)
        self._check_drawn(state, rates, rows * samples)
        reconstruction = masked_log_prob(self._likelihood(state, context), x, observed)
        units = self.decoder.spec.standardize
        if not units.is_identity:
            reconstruction = reconstruction + units.log_det(observed)
        elbo = ELBO(reconstruction, rates, self.measure)
        if path is None:
            return elbo, None
        path = replace(path, log_likelihood=reconstruction.reshape(samples, rows))
        return (elbo if samples == 1 else elbo.mean_over(samples)), path

    def _encoded(
        self, x: Tensor, request: Request
    ) -> tuple[Tensor, Posterior | Distribution, Request]:
        """``K`` copies of the data as they are scored, their posterior, and the request for them.

        Data are encoded once, if copies of the posterior are known.
        """
        x, seen = self._real(x, request.observed)
        posterior = self._posterior(seen, request.context, request.observed)
        if request.samples == 1:
            return x, posterior, request
        copied = copied_posterior(posterior, request.samples)
        x, request = repeated(x, request)
        if copied is None:
            seen = copies(seen, request.samples)
            copied = self._posterior(seen, request.context, request.observed)
        return x, copied, request

    def _real(self, x: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
        """The data to score and the data to encode, in the model's own type and units.

        Integers are scored as they are. Entries that were not observed are set to zero. Another value would
        also give a bound, because every posterior does.
        """
        kind = self.dtype or (x.dtype if x.is_floating_point() else torch.get_default_dtype())
        # Standardized in the type given: a column of mean 1e6 and std 1 has no digits left in float32.
        units = self.decoder.spec.standardize
        seen = (x if units.is_identity else units(x)).to(kind)
        if observed is not None:
            seen = torch.where(observed, seen, torch.zeros_like(seen))
            x = torch.where(observed, x, torch.zeros_like(x))
        return (seen if self.decoder.spec.bins is None else x), seen

    def _posterior(
        self, x: Tensor, context: Tensor | None, observed: Tensor | None
    ) -> Posterior | Distribution:
        # An encoder of one's own need not take masks: what was not observed is zero in any case.
        given = (x, context, observed) if observed is not None and self._masked else (x, context)
        posterior: Posterior | Distribution = call_part(self.encoder, *given)
        if isinstance(posterior, Distribution):
            check_law(posterior, len(x), self.prior.shape, "the encoder's posterior")
        elif posterior.rows != len(x):
            got = f"a posterior of {posterior.rows} rows for {len(x)} samples"
            advice = "return one output a row from the encoder's networks"
            raise invalid(got, "one row a sample", advice)
        return posterior

    def _likelihood(self, state: Tensor, context: Tensor | None) -> Distribution:
        law: Distribution = call_part(self.decoder, state, context)
        spec, name = self.decoder.spec, "the decoder's law"
        check_law(law, state.shape[0], spec.shape, name, mass=spec.is_integer)
        return law

    def _check_inputs(self, x: Batch, request: Request) -> None:
        checked = is_trusted() and request.observed is None
        if not checked or x.shape[1:] != self.decoder.spec.shape:
            self.decoder.check(x, request.observed)
        self._check_request(request, x.shape[0])

    def _check_request(self, request: Request, rows: int) -> None:
        """Require a request that this model can answer for ``rows`` rows of data.

        Raises:
            ValueError: a context with another number of rows; timesteps beside whole paths, or for a model
                without noise levels; importance weights of a density that is a random estimate.
        """
        context, timesteps, name = request.context, request.timesteps, type(self).__name__
        if context is not None and len(context) != rows:
            raise invalid(
                f"{len(context)} rows of context for {rows} samples",
                "one row a sample",
                "repeat the context, or pass fewer samples",
            )
        if isinstance(timesteps, int) and (request.needs_path or request.samples > 1):
            raise invalid(
                f"timesteps={timesteps} beside whole paths of latents",
                "one or the other",
                "leave timesteps out: a path visits every level",
            )
        if request.needs_path and self.prior.stochastic_density:
            raise invalid(
                f"a request for importance weights of a {name} whose prior density is a random "
                "estimate",
                "a density without noise",
                "use the exact trace (probes=None)",
            )
        stated = timesteps is not None and not isinstance(timesteps, AutoTimesteps)
        if stated and not self.prior.has_timesteps:
            raise invalid(
                f"timesteps={timesteps} for a {name} without noise levels",
                "none",
                "leave timesteps out: every latent is visited",
            )

    def _check_drawn(self, state: Tensor, rates: Mapping[str, Rate], rows: int) -> None:
        """Require what the prior returned to have rates, and one state a row."""
        if not rates and self.prior.proper:
            raise invalid(
                f"a {type(self.prior).__name__} without rates",
                "a rate for every latent",
                "or set proper = False",
            )
        if state.shape[0] != rows:
            got = f"a prior's state of {len(state)} rows for {rows} samples"
            raise invalid(got, "one row a sample", "return one state a row")

    def elbo(
        self,
        x: Rows,
        timesteps: Timesteps = AutoTimesteps.EVALUATION,
        context: Context = None,
        observed: Rows | None = None,
    ) -> ELBO:
        """The evidence lower bound of each sample, in nats, with one draw of the latents.

        Args:
            x: data, ``(B, *event)``; integers for a decoder that gives masses.
            timesteps: which levels of a diffusion a sample visits: ``n`` stratified ones, those of a
                :class:`~genmod.path.TimestepSampler`, or ``None``: all. Left out, all up to T = 1000;
                beyond, and in continuous time, 16 a sample, and the bound is an estimate.
            context: what the model is conditioned on, ``(B, ...)``.
            observed: which entries count, like ``x``; the bound is then on the observed ones alone.

        Returns:
            The bound, per sample and per term.

        Raises:
            ValueError: data of a wrong shape, not finite, or outside the decoder's range; all levels
                asked for in continuous time; timesteps for a model without noise levels.
        """
        x = as_tensor(x)
        elbo: ELBO = self(x, Request(as_context(context, len(x)), as_mask(observed), timesteps))[0]
        return elbo

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


def load(folder: Path | str, device: torch.device | str = "cpu") -> LatentModel:
    """The model in a folder that ``model.save`` or ``genmod train`` wrote, in evaluation mode.

    Args:
        folder: of the model, or of a run.
        device: where to put it.

    Raises:
        ValueError: no such folder, torn files, a part whose class was not registered, weights of another
            model.
    """
    model = load_model(folder, device)
    if not isinstance(model, LatentModel):
        raise invalid(f"a saved {type(model).__name__}", "a model", "pass its folder")
    return model
