"""A latent-variable model: an encoder, a decoder and a prior, scored by one bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import SupportsIndex

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.arrays import Context, Rows, as_context, as_mask, as_tensor
from genmod.checks import is_trusted
from genmod.chunks import run_in_chunks
from genmod.distributions.base import masked_log_prob
from genmod.elbo import ELBO, Rate
from genmod.encoders.base import Posterior, copied_posterior
from genmod.imputation import Imputation as Imputation
from genmod.imputation import impute_rows
from genmod.parts import ModelParts
from genmod.path import AutoTimesteps, Timesteps, repeated
from genmod.path import Path as LatentPath
from genmod.path import Request as Request
from genmod.saving.folder import load_model
from genmod.shapes import Batch, LatentTensors, Mask, PerSample, copies

_PLAIN = Request()


class LatentModel(ModelParts):
    """``p(x, z) = p(x | z) p(z)`` with a posterior ``q(z | x)``: every model of this package.

    Wrappers (DDP, FSDP, torch.compile) need one entry, which is the call; :meth:`elbo` uses it.

    Args:
        encoder: ``q(z | x)``.
        decoder: ``p(x | z)``.
        prior: ``p(z)``; it draws the latents and computes their rates.

    Raises:
        ValueError: parts that were built for different data, or for latents of different shapes.
    """

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
        reconstruction = reconstruction + self.spec.standardize.log_det(observed)
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

    def _check_inputs(self, x: Batch, request: Request) -> None:
        checked = is_trusted() and request.observed is None
        if not checked or x.shape[1:] != self.decoder.spec.shape:
            self.decoder.check(x, request.observed)
        self._check_request(request, x.shape[0])

    def _check_drawn(self, state: Tensor, rates: Mapping[str, Rate], rows: int) -> None:
        """Require what the prior returned to have rates, and one state a row."""
        # No `require` here: it would build both messages at every step of training.
        if not rates and self.prior.proper:
            raise ValueError(
                f"got a {type(self.prior).__name__} without rates; expected a rate for every latent; "
                "or set proper = False"
            )
        if state.shape[0] != rows:
            raise ValueError(
                f"got a prior's state of {len(state)} rows for {rows} samples; expected one row a sample; "
                "return one state a row"
            )

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

    def log_weight(
        self, x: Rows, context: Context = None, observed: Rows | None = None
    ) -> PerSample:
        """``log p(x, z) - log q(z | x)`` at one joint draw: the bound with every KL sampled.

        Its mean over draws is the ELBO. The log of the mean of its exponential is ``log p(x)``.

        Raises:
            ValueError: the model has no finite path of latents (continuous time), no prior, or one
                whose density is a random estimate.
        """
        x = as_tensor(x)
        request = Request(as_context(context, len(x)), as_mask(observed), needs_path=True)
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
    def encode(
        self, x: Rows, context: Context = None, observed: Rows | None = None
    ) -> LatentTensors:
        """A code of each sample, without randomness: what :meth:`decode` takes.

        The posterior's mean; a tuple of means, top level first, for a top-down hierarchy; for a
        diffusion the noise that the probability flow maps it to.
        """
        return self.prior.means(self.posterior(x, context, observed), as_context(context, len(x)))

    @torch.no_grad()
    def decode(self, z: LatentTensors, context: Context = None) -> Distribution:
        """The distribution of ``x`` given a code, in the data's own units."""
        context = as_context(context, len(z if isinstance(z, Tensor) else z[0]))
        return self.law(self.prior.state_from(z, context), context)

    @torch.no_grad()
    def reconstruct(self, x: Rows, context: Context = None, observed: Rows | None = None) -> Tensor:
        """The decoder's mean for each sample, from its code; a diffusion noises half-way and denoises.

        Of a category or an ordinal column it is the most probable code. With ``observed`` the code is
        that of the observed entries.
        """
        x, seen = as_tensor(x), as_mask(observed)
        context = as_context(context, len(x))

        def some(rows: slice) -> Tensor:
            given = None if context is None else context[rows]
            return self.restore(x[rows], given, None if seen is None else seen[rows])

        return run_in_chunks(len(x), self._most_rows, some)

    def restore(self, x: Batch, context: Tensor | None, observed: Mask | None = None) -> Tensor:
        """What :meth:`reconstruct` returns of rows that fit in memory."""
        means = self.prior.means(self.posterior(x, context, observed), context)
        return self.law(self.prior.state_from(means, context), context).mean

    @torch.no_grad()
    def impute(
        self,
        x: Rows,
        observed: Rows,
        n: int = 1,
        importance_samples: int = 64,
        *,
        context: Context = None,
        seeds: Sequence[SupportsIndex] | None = None,
    ) -> Imputation:
        r"""Fill missing entries: ``n`` draws of them given the observed ones (multiple imputation).

        Latents are drawn from the posterior of the observed entries, and resampled by their weights

        .. math:: w_k \propto \frac{p(x_{\text{obs}} | z_k)\, p(z_k)}{q(z_k | x_{\text{obs}})}

        (sampling importance resampling); then the entries are drawn from the decoder. A row without an
        observed entry gets draws of the model.

        Args:
            x: data, ``(B, *event)``; entries that were not observed may hold anything.
            observed: which entries were observed, like ``x``. To sample some columns given others, mark
                those others as observed.
            n: how many completed copies.
            importance_samples: ``K``, draws of the latents for each row; exact as ``K`` grows.
            context: what the model is conditioned on, ``(B, ...)``.
            seeds: one a row, from 0 on; the noise of a row then depends on its seed alone.

        Returns:
            The completed copies, their weighted mean, and the effective sample size of each row.

        Raises:
            ValueError: a model without importance weights (an autoencoder, a diffusion of the data); a
                decoder whose entries are coupled given the latents.

        Reference: Mattei, Frellsen, "MIWAE: Deep Generative Modelling and Imputation of Incomplete Data
        Sets" (2019), section 3 on single and multiple imputation.
        """
        x = as_tensor(x)
        given = as_context(context, len(x))
        seen = as_tensor(observed, "observed")
        return impute_rows(self, x, seen, n, importance_samples, given, seeds)

    def weighable(self) -> LatentModel:
        """A model of the same data whose latents have importance weights: itself, if it has them."""
        return self


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
        raise ValueError(f"got a saved {type(model).__name__}; expected a model; pass its folder")
    return model
