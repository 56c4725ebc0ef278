"""A latent-variable model: an encoder, a decoder and a prior, scored by one bound."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import SupportsIndex

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod import random
from genmod.arrays import Context, Rows, as_context, as_tensor
from genmod.checks import check_law, is_trusted, require
from genmod.chunks import rows_per_chunk, run_in_chunks
from genmod.config import Settings
from genmod.decoders import Decoder
from genmod.distributions.base import masked_log_prob
from genmod.elbo import ELBO, Measure
from genmod.encoders import Encoder, Posterior, check_posterior
from genmod.nn.modules import float_dtype, tensors_of
from genmod.path import Path as LatentPath
from genmod.path import Request as Request
from genmod.path import repeated
from genmod.prior import AutoTimesteps, Prior, Timesteps
from genmod.saving import Saved
from genmod.schedules import Schedule
from genmod.shapes import Batch, LatentTensors, Mask, PerSample
from genmod.spec import DataSpec

_PLAIN = Request()


class LatentModel(Saved, Settings, nn.Module):
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
    """What ``p(x)`` is; ``NONE`` if the prior does not normalize."""

    def __init__(self, encoder: Encoder, decoder: Decoder, prior: Prior) -> None:
        super().__init__()
        require(
            encoder.spec is None or encoder.spec == decoder.spec,
            f"an encoder of {encoder.spec} beside a decoder of {decoder.spec}",
            "one description of the data",
            "build both with the same DataSpec",
        )
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
        """Where its first parameter or buffer lies; the CPU if it has none."""
        found = next(tensors_of(self), None)
        return torch.device("cpu") if found is None else found.device

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of its first floating point tensor, schedules left out: they are never cast."""
        for name, parameter in self.decoder.named_parameters():
            if parameter.is_floating_point() and not name.startswith("schedule."):
                return parameter.dtype
        return float_dtype(self, skip=(Schedule,))

    @property
    def _most_rows(self) -> int:
        """How many rows go through it together."""
        return rows_per_chunk(self.spec.shape, self.device)

    def forward(self, x: Batch, request: Request = _PLAIN) -> tuple[ELBO, LatentPath | None]:
        """The bound of each sample, and the drawn path where it is asked for.

        Args:
            x: data, ``(B, *event)``; integers for a decoder that gives masses.
            request: what is asked beside them.

        Raises:
            ValueError: data of a wrong shape, not finite, or outside the decoder's range; timesteps for
                a model without noise levels; a part that does not give one number, or one law, a row.
        """
        checked = is_trusted() and request.observed is None
        if not checked or x.shape[1:] != self.decoder.spec.shape:
            self.decoder.check(x, request.observed)
        self.prior.check_request(request, len(x), type(self).__name__)
        rows, samples = len(x), request.samples
        if samples > 1:
            x, request = repeated(x, request)
        context, observed = request.context, request.observed
        x, seen = self._real(x, observed)
        posterior = self._posterior(seen, context, observed)
        path = None
        if request.needs_path or samples > 1:
            state, path = self.prior.walk(posterior, context, samples)
            rates = self.prior.price(path)
        else:
            state, found = self.prior.rates(posterior, request.timesteps, context)
            rates = dict(found)
        got, expected = f"a {type(self.prior).__name__} without rates", "a rate for every latent"
        require(bool(rates) or not self.prior.proper, got, expected, "or set proper = False")
        require(
            len(state) == len(x),
            f"a prior's state of {len(state)} rows for {len(x)} samples",
            "one row a sample",
            "return one state a row",
        )
        reconstruction = masked_log_prob(self._likelihood(state, context), x, observed)
        elbo = ELBO(reconstruction, rates, self.measure)
        if path is None:
            return elbo, None
        path = replace(path, log_likelihood=reconstruction.reshape(samples, rows))
        return (elbo if samples == 1 else elbo.mean_over(samples)), path

    def elbo(
        self,
        x: Rows,
        timesteps: Timesteps = AutoTimesteps.EVALUATION,
        context: Context = None,
        observed: Mask | None = None,
    ) -> ELBO:
        """The evidence lower bound of each sample, in nats, with one draw of the latents.

        Args:
            x: data, ``(B, *event)``; integers for a decoder that gives masses.
            timesteps: which levels of a diffusion a sample visits: ``n`` stratified ones, those of a
                :class:`~genmod.prior.TimestepSampler`, or ``None``: all. Left out, all up to T = 1000;
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
        elbo: ELBO = self(x, Request(as_context(context, len(x)), observed, timesteps))[0]
        return elbo

    def log_weight(
        self, x: Rows, context: Context = None, observed: Mask | None = None
    ) -> PerSample:
        """``log p(x, z) - log q(z | x)`` at one joint draw: the bound with every KL sampled.

        Its mean over draws is the ELBO. The log of the mean of its exponential is ``log p(x)``.

        Raises:
            ValueError: the model has no finite path of latents (continuous time), no prior, or one
                whose density is a random estimate.
        """
        x = as_tensor(x)
        request = Request(as_context(context, len(x)), observed, needs_path=True)
        path: LatentPath | None = self(x, request)[1]
        assert path is not None
        return path.log_weight()[0]

    @torch.no_grad()
    def sample(
        self, n: int, context: Context = None, *, seeds: Sequence[SupportsIndex] | None = None
    ) -> Tensor:
        """``n`` draws of ``x``: latents from the prior, then data from the decoder.

        Args:
            n: how many.
            context: what the model is conditioned on, ``(n, ...)``, or one label for all.
            seeds: one a sample. The noise of a sample then depends on its seed alone:
                ``sample(1, seeds=[7])`` draws one of a batch again.

        Raises:
            ValueError: the prior is no distribution (an autoencoder's); the model returns NaN.
        """
        context = as_context(context, n)

        def some(rows: slice) -> Tensor:
            given = None if context is None else context[rows]
            return self.draw(self.prior.sample(rows.stop - rows.start, given), given)

        return run_in_chunks(n, self._most_rows, some, seeds)

    @torch.no_grad()
    def encode(self, x: Rows, context: Context = None) -> LatentTensors:
        """A code of each sample, without randomness: what :meth:`decode` takes.

        The posterior's mean; a tuple of means, top level first, for a top-down hierarchy; for a
        diffusion the noise that the probability flow maps it to.
        """
        return self.prior.means(self.posterior(x, context), as_context(context, len(x)))

    @torch.no_grad()
    def decode(self, z: LatentTensors, context: Context = None) -> Distribution:
        """The distribution of ``x`` given a code."""
        context = as_context(context, len(z if isinstance(z, Tensor) else z[0]))
        return self._likelihood(self.prior.state_from(z, context), context)

    @torch.no_grad()
    def reconstruct(self, x: Rows, context: Context = None) -> Tensor:
        """The decoder's mean for each sample, from its code; a diffusion noises half-way and denoises."""
        x = as_tensor(x)
        context = as_context(context, len(x))

        def some(rows: slice) -> Tensor:
            return self.restore(x[rows], None if context is None else context[rows])

        return run_in_chunks(len(x), self._most_rows, some)

    def restore(self, x: Batch, context: Tensor | None) -> Tensor:
        """What :meth:`reconstruct` returns of rows that fit in memory."""
        means = self.prior.means(self.posterior(x, context), context)
        return self._likelihood(self.prior.state_from(means, context), context).mean

    def posterior(
        self, x: Rows, context: Context = None, observed: Mask | None = None
    ) -> Posterior | Distribution:
        """``q(z | x)`` of checked data, ``(B, *event)``: what :meth:`Prior.infer` takes."""
        x = as_tensor(x)
        context = as_context(context, len(x))
        self.decoder.check(x, observed)
        self.prior.check_request(Request(context, observed), len(x), type(self).__name__)
        return self._posterior(self._real(x, observed)[1], context, observed)

    def draw(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """A draw of ``x`` for each state.

        Raises:
            ValueError: values that are not finite, or integers outside their range.
        """
        x = random.draw(self._likelihood(state, context), gradients=False)
        self.spec.check(x, name="samples")
        return x

    def formula(self) -> str:
        """The model as it stands on paper."""
        return "\n".join(part.formula() for part in (self.encoder, self.decoder, self.prior))

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.parameters())
        lines = self.formula().replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {lines}\n  {count:,} parameters\n)"

    def _real(self, x: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
        """The data to score and the data to encode, in the model's own type.

        Integers are scored as they are. Entries that were not observed are zero. Any other value
        would also give a bound, because any posterior does.
        """
        kind = self.dtype or (x.dtype if x.is_floating_point() else torch.get_default_dtype())
        if kind in (torch.bfloat16, torch.float16):
            raise ValueError(
                f"got a model in {kind}; expected float32 or float64: a bound in half precision is wrong; "
                "keep the parameters in float32 and use fit(..., autocast=torch.bfloat16)"
            )
        seen = x.to(kind)
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
        check_posterior(posterior, len(x), self.prior.shape)
        return posterior

    def _likelihood(self, state: Tensor, context: Tensor | None) -> Distribution:
        law = self.decoder(state, context)
        check_law(law, len(state), self.decoder.spec.shape, "the decoder's law")
        return law
