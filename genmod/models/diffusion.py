"""Diffusion: a hierarchical VAE whose encoder is fixed, linear and Gaussian."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from genmod.checks import require
from genmod.decoders import Decoder, GaussianDecoder, GlobalScale, Identity, likelihood
from genmod.denoisers import Denoiser, Learned
from genmod.diffusion import DiffusionPrior, LastStepDecoder, NoisingEncoder, ReverseVariance
from genmod.model import LatentModel
from genmod.models.build import event_shape, resolve_networks, unconditional
from genmod.models.sampling import Sampling
from genmod.nn import Condition, Networks
from genmod.samplers import Sampler, State, TimeGrid
from genmod.schedules import LinearLogSNR, Schedule
from genmod.spec import Bins
from genmod.types import Shape


class Diffusion(LatentModel):
    """``T`` latents of the data's own shape, or a continuum of them, each a noisier ``x``.

    Args:
        shape: the event shape of ``x``.
        bins: how many levels integer data have; ``None`` for real data (of spread near one).
        denoiser: a :class:`~genmod.denoisers.Denoiser`, or any network ``net(z, log_snr)``, read as a
            velocity. By default a perceptron, or a U-Net.
        schedule: the noise schedule; log-SNR linear in time by default.
        steps: ``T``, the number of latents as the lecture counts them; ``None`` is continuous time.
        variance: the reverse variance; the posterior's own by default. A learned one gives the network
            twice as many outputs.
        decoder: ``p(x | z_0)``; by default the denoiser's own last step with a learned scale.
        width, depth, dropout: of the customary network: a perceptron, or a U-Net for images of at least
            16 pixels a side.
        networks: another kind of networks, with settings of their own.
        fourier: exponents ``n`` of the features ``sin, cos(2^n pi z)`` that the network sees beside
            ``z``.
        condition: what the network is told beside ``z``, ``Labels(10)`` for example: the bound is then
            on ``log p(x | context)``, and each method wants its ``context``.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020); Kingma, Salimans,
    Poole, Ho, "Variational Diffusion Models" (2021).

    >>> import torch
    >>> model = Diffusion((1, 8, 8), bins=17)
    >>> x = torch.zeros(2, 1, 8, 8, dtype=torch.long)
    >>> sorted(model.elbo(x, draws=4).rates)
    ['prior', 'steps']

    >>> from genmod.nn import Labels
    >>> told = Diffusion((1, 8, 8), bins=17, condition=Labels(10), steps=4)
    >>> told.sample(2, context=torch.tensor([3, 7])).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        shape: Shape | int | None = None,
        bins: int | None = None,
        *,
        denoiser: Denoiser | nn.Module | None = None,
        schedule: Schedule | None = None,
        steps: int | None = None,
        variance: ReverseVariance | None = None,
        decoder: Decoder | None = None,
        width: int | None = None,
        depth: int | None = None,
        dropout: float = 0.0,
        networks: Networks | None = None,
        fourier: tuple[int, ...] = (),
        condition: Condition | None = None,
    ) -> None:
        if shape is None and decoder is not None:
            shape = decoder.shape
        event = event_shape(shape, "decoder")
        schedule = schedule or LinearLogSNR()
        learned = variance is not None and variance.learned
        unconditional(condition, denoiser)
        if denoiser is None:
            kind = resolve_networks(networks, event, width, depth, dropout, condition)
            denoiser = kind.denoiser(event, fourier, 2 * event[0] if learned else None)
        if not isinstance(denoiser, Denoiser):
            denoiser = Learned(denoiser, interpolation=learned)
        if decoder is None:
            decoder = LastStepDecoder(denoiser, schedule, _last_step(event, bins, schedule))
        _check_start(decoder, schedule)
        prior = DiffusionPrior(denoiser, schedule, event, steps, variance)
        super().__init__(NoisingEncoder(schedule, bins), decoder, prior)

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
        """``n`` draws of ``x``: the last latent by a sampler, then data from the decoder.

        Args:
            n: how many.
            context: what the denoiser is told beside the state.
            sampler: any of :mod:`genmod.samplers`, ``DPMSolver(order=2)`` say; the chain by default.
            steps: how many steps it takes; as many as the chain by default.
            grid: where they lie: even in time by default.
            seeds: one a sample, whose noise then depends on nothing else: ``sample(1, seeds=[7])``
                draws one of a batch again.
            progress: whether a bar is shown.

        >>> from genmod.samplers import DDIM
        >>> model = Diffusion((1, 8, 8), bins=17, width=16)
        >>> model.sample(2, sampler=DDIM(eta=0.5), steps=4, seeds=[0, 7]).shape
        torch.Size([2, 1, 8, 8])
        """
        way = Sampling(sampler, steps, grid, seeds, progress)
        state = way.draw(self.prior, n, context)
        with way.noise:
            return self.decoder(state, context).sample()

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
        """Where ``n`` draws are after each step, and what the denoiser takes them for.

        The same path as :meth:`sample`'s, whose decoder takes the last ``z``.
        """
        return Sampling(sampler, steps, grid, seeds, progress).states(self.prior, n, context)


def _check_start(decoder: Decoder, schedule: Schedule) -> None:
    """Require a decoder made for the first state of this schedule, if it is made for one."""
    if decoder.schedule is None:
        return
    given, wanted = decoder.schedule.scales_at_zero(), schedule.scales_at_zero()
    require(
        all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(given, wanted, strict=True)),
        f"a decoder for z_0 = {given[0]:.4g} x + {given[1]:.4g} eps under a schedule that starts at "
        f"{wanted[0]:.4g} x + {wanted[1]:.4g} eps",
        "one schedule for both",
        "hand the decoder the schedule of the diffusion",
    )


def _last_step(event: Shape, bins: int | None, schedule: Schedule) -> Decoder:
    """Probability around the denoised state, of the spread that is left at the clean end."""
    noise = math.exp(-schedule.log_snr_range()[0] / 2)
    if bins is None:
        return GaussianDecoder(Identity(), event, GlobalScale(noise))
    return likelihood(
        lambda _: Identity(), event, bins, GlobalScale(max(noise, Bins(bins).width / 8))
    )
