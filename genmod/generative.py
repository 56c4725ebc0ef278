"""What a model can do beside its bound: samples, codes, reconstructions, missing entries filled in.

Each needs the posterior, the prior and the law of the data alone. :mod:`genmod.model` has these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, SupportsIndex, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.arrays import Context, Rows, as_context, as_mask, as_tensor
from genmod.checks import invalid
from genmod.chunks import rows_per_chunk, run_in_chunks
from genmod.config import Settings
from genmod.decoders import Decoder
from genmod.distributions.base import mean_of
from genmod.encoders import Encoder, Posterior
from genmod.hub import Saved
from genmod.imputation import Imputation, impute_rows
from genmod.nn.modules import tensors_of
from genmod.path import Path, Request
from genmod.prior import Prior
from genmod.signatures import checked
from genmod.spec import DataSpec
from genmod.tensors import HALF, LatentTensors, PerSample

if TYPE_CHECKING:
    from genmod.model import LatentModel


class GenerativeModel(Saved, Settings, nn.Module, ABC):
    """What follows from ``q(z | x)``, ``p(z)`` and ``p(x | z)``. Every model is a :class:`LatentModel`."""

    encoder: Encoder
    decoder: Decoder
    prior: Prior

    @abstractmethod
    def posterior(
        self, x: Rows, context: Context = None, observed: Rows | None = None
    ) -> Posterior | Distribution:
        """``q(z | x)`` of checked data, ``(B, *event)``: what :meth:`Prior.infer` takes."""

    @abstractmethod
    def law(self, state: Tensor, context: Tensor | None = None) -> Distribution:
        """``p(x | state)`` in the data's own units, one event a row."""

    @abstractmethod
    def draw(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """A draw of ``x`` for each state."""

    def weighable(self) -> LatentModel:
        """A model of the same data whose latents have importance weights: itself, if it has them."""
        return cast("LatentModel", self)

    @property
    @abstractmethod
    def parameter_dtype(self) -> torch.dtype | None:
        """The type of its parameters."""

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
    def _most_rows(self) -> int:
        """How many rows it computes together."""
        return rows_per_chunk(self.spec.shape, self.device)

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
        path: Path | None = self(x, request)[1]
        assert path is not None
        return path.log_weight()[0]

    @torch.no_grad()
    @checked
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
        return self._draw_in_chunks(self._draw_from_prior, n, context, seeds)

    def _draw_from_prior(self, n: int, context: Tensor | None = None) -> Tensor:
        """``n`` draws of ``x`` that fit in memory: latents from the prior, then data from the decoder."""
        return self.draw(self.prior.sample(n, context), context)

    def _draw_in_chunks(
        self,
        draw: Callable[[int, Tensor | None], Tensor],
        n: int,
        context: Context = None,
        seeds: Sequence[SupportsIndex] | None = None,
    ) -> Tensor:
        """``n`` draws by ``draw(n, context)``, as many at a time as fit in memory."""
        context = as_context(context, n)

        def some(rows: slice) -> Tensor:
            return draw(rows.stop - rows.start, None if context is None else context[rows])

        return run_in_chunks(n, self._most_rows, some, seeds)

    @torch.no_grad()
    def encode(
        self, x: Rows, context: Context = None, observed: Rows | None = None
    ) -> LatentTensors:
        """A code of each sample, without randomness: what :meth:`decode` takes.

        The posterior's mean; a tuple of means, top level first, for a top-down hierarchy; for a
        diffusion the noise that the probability flow maps it to.
        """
        return self._code(self.posterior(x, context, observed), as_context(context, len(x)))

    @torch.no_grad()
    def decode(self, z: LatentTensors, context: Context = None) -> Distribution:
        """The distribution of ``x`` given a code, in the data's own units."""
        context = as_context(context, len(z if isinstance(z, Tensor) else z[0]))
        return self.law(self._state_of(z, context), context)

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
            posterior = self.posterior(x[rows], given, None if seen is None else seen[rows])
            law = self.law(self._restored_state(posterior, given), given)
            return mean_of(law, "the decoder's law")

        return run_in_chunks(len(x), self._most_rows, some)

    def _code(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> LatentTensors:
        """A code for each row of a posterior: the prior takes the mean of each latent."""
        return self.prior.means(posterior, context)

    def _state_of(self, code: LatentTensors, context: Tensor | None = None) -> Tensor:
        """The decoder's state for each code: the inverse of :meth:`_code`."""
        return self.prior.state_from(code, context)

    def _restored_state(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> Tensor:
        """The decoder's state for a reconstruction of each row: that of its code."""
        return self._state_of(self._code(posterior, context), context)

    @torch.no_grad()
    @checked
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
        return impute_rows(self.weighable(), x, seen, n, importance_samples, given, seeds)

    def check_full_precision(self, purpose: str) -> None:
        """Require parameters in float32 or float64.

        Args:
            purpose: what they are needed for.

        Raises:
            ValueError: parameters in half precision.
        """
        if self.parameter_dtype in HALF:
            raise invalid(
                f"a {type(self).__name__} in {self.parameter_dtype} to {purpose}",
                "parameters in float32 or float64",
                "call model.float(); fit(autocast=torch.bfloat16) trains in half precision",
            )

    def check_missing(self) -> None:
        """Require an encoder that can be trained on missing entries.

        Raises:
            ValueError: a diffusion's, which is fixed.
        """
        if not self.encoder.accepts_missing:
            raise invalid(
                f"missing entries for a {type(self).__name__}, whose encoder is fixed and would "
                "noise the zeros in their place",
                "complete data",
                "use VAE, HVAE or LatentDiffusion, whose encoders get the mask, or leave out "
                "incomplete rows",
            )

    def formula(self) -> str:
        """The formula of the model, as text."""
        return "\n".join(part.formula() for part in (self.encoder, self.decoder, self.prior))

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.parameters())
        lines = self.formula().replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {lines}\n  {count:,} parameters\n)"
