"""Diffusion: a hierarchical VAE whose encoder is fixed, linear and Gaussian."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import instance, invalid
from genmod.decoders import Decoder, GaussianDecoder, GlobalScale, Identity, likelihood
from genmod.denoisers import Denoiser, Learned
from genmod.diffusion import DiffusionPrior, LastStepDecoder, NoisingEncoder
from genmod.diffusion.variances import ReverseVariance
from genmod.encoders import Posterior
from genmod.model import LatentModel
from genmod.models.build import (
    check_condition,
    check_networks,
    data_spec,
    resolve_networks,
    stated_spec,
)
from genmod.models.sampling import DiffusionBased
from genmod.nn import Networks
from genmod.nn.conditioning import Condition
from genmod.samplers import Ancestral, Heun, UniformLogSNR
from genmod.schedules import LinearLogSNR, Schedule
from genmod.spec import DataSpec, SpecLike
from genmod.tensors import LatentTensors


class Diffusion(DiffusionBased):
    r"""A diffusion model: a hierarchical VAE whose encoder only adds noise, in ``T`` steps or a continuum.

    A schedule gives :math:`\alpha_t, \sigma_t` for ``t`` in [0, 1]. The encoder is fixed, and a denoiser
    :math:`\hat x(z_t, t)` is all that is learned:

    .. math::
        q(z_t | x) = \mathcal{N}(\alpha_t x, \sigma_t^2 I), \qquad
        p(z_s | z_t) = q(z_s | z_t, x = \hat x(z_t, t)), \quad s < t.

    The bound has three terms, in nats per sample: ``reconstruction`` at the clean end, ``rates["prior"]``
    at the noisy end, and ``rates["steps"]`` between them. With :math:`\mathrm{SNR} = \alpha^2 / \sigma^2`,

    .. math::
        \begin{aligned}
        \log p(x) \ge{} & \mathbb{E}_{q}[\log p(x | z_0)] - \mathrm{KL}(q(z_1 | x) \| p(z_1)) \\
        & - \sum_{s < t} \tfrac12 (\mathrm{SNR}(s) - \mathrm{SNR}(t))\,
        \mathbb{E}_q \|x - \hat x(z_t, t)\|^2.
        \end{aligned}

    Args:
        spec: the data: a data set, a :class:`~genmod.spec.DataSpec`, or an event shape.
        bins: beside a shape, how many values integer data have; ``None`` for real data (of spread near
            one).
        denoiser: a :class:`~genmod.denoisers.Denoiser`, or any network ``net(z, log_snr)``, whose output
            is taken for the velocity. By default an MLP, or a U-Net.
        schedule: the noise schedule; log-SNR linear in time by default. A free clean end is resolved
            against the data: :meth:`~genmod.schedules.Schedule.resolve`.
        steps: ``T``, the number of latents; ``None`` is continuous time.
        variance: the reverse variance; the posterior's own by default. A learned one gives the network
            twice as many outputs.
        decoder: ``p(x | z_0)``; by default the denoiser's own last step with a learned scale.
        width, depth, dropout: of the default network: an MLP, or a U-Net for images of at least 16 pixels a
            side.
        networks: another kind of networks, with settings of their own.
        fourier: exponents ``n`` of the features ``sin, cos(2^n pi z)`` that the network takes beside
            ``z``.
        condition: what the network is conditioned on, ``Labels(10)`` for example. The bound is then on
            ``log p(x | context)``, and each method needs its ``context``.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eqs. 4-6; Kingma,
    Salimans, Poole, Ho, "Variational Diffusion Models" (2021), eqs. 11 and 13.

    >>> import torch
    >>> model = Diffusion((1, 8, 8), bins=17)
    >>> x = torch.zeros(2, 1, 8, 8, dtype=torch.long)
    >>> sorted(model.elbo(x, timesteps=4).rates)
    ['prior', 'steps']

    >>> from genmod.nn import Labels
    >>> conditional = Diffusion((1, 8, 8), bins=17, condition=Labels(10), steps=4)
    >>> conditional.sample(2, context=torch.tensor([3, 7])).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        spec: SpecLike | None = None,
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
        data = data_spec(stated_spec(spec, bins, decoder), "decoder")
        if data.is_mixed:
            raise invalid(f"data of {data} for a Diffusion", *_REALS_ALONE)
        schedule = LinearLogSNR() if schedule is None else instance(schedule, Schedule, "schedule")
        schedule = schedule.resolve(data)
        learned = variance is not None and variance.learned
        check_condition(condition, denoiser)
        settings = {"width": width, "depth": depth, "dropout": dropout, "networks": networks}
        check_networks(denoiser is None, {**settings, "fourier": fourier})
        if denoiser is None:
            kind = resolve_networks(networks, data, width, depth, dropout, condition)
            channels = 2 * data.shape[0] if learned else None
            denoiser = kind.denoiser(data.shape, fourier, channels)
        if not isinstance(denoiser, Denoiser):
            network = instance(denoiser, nn.Module, "denoiser")
            denoiser = Learned(network, interpolation=learned)
        if decoder is None:
            decoder = LastStepDecoder(denoiser, schedule, _last_step(data, schedule))
        _check_start(decoder, schedule)
        prior = DiffusionPrior(denoiser, schedule, data.shape, steps, variance)
        super().__init__(NoisingEncoder(schedule, data), decoder, prior)

    @property
    def diffusion(self) -> DiffusionPrior:
        """The prior."""
        assert isinstance(self.prior, DiffusionPrior)
        return self.prior

    def draw_from(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """A draw of ``x`` for each ``z_0``."""
        return self.draw(state, context)

    def _code(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> LatentTensors:
        """The noise that the probability flow maps each row to (from the mean of ``z_0``)."""
        q = self.diffusion.noising(posterior)
        times = self._flow_times().flip(0)
        return self._flow().run(q.at(times[0].expand(q.rows)).mean, times, context)

    def _state_of(self, code: LatentTensors, context: Tensor | None = None) -> Tensor:
        """``z_0`` for given noise: the inverse of :meth:`_code`."""
        assert isinstance(code, Tensor)
        return self._flow().run(code, self._flow_times(), context)

    def _restored_state(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> Tensor:
        """``z_0`` after noising each row half-way (t = 1/2) and denoising it by the chain."""
        prior = self.diffusion
        q, times = prior.noising(posterior), prior.times()
        below = times[: max(1, (len(times) + 1) // 2)].flip(0)
        z = q.at(below[0].expand(q.rows)).sample()
        chain = Ancestral(prior.denoiser, prior.schedule, prior.variance)
        return chain.run(z, below, context)

    def weighable(self) -> LatentModel:
        """Refused: the encoder of a diffusion is fixed and noises whatever stands in a missing entry.

        Raises:
            ValueError: always.
        """
        raise invalid(
            "a Diffusion to impute with",
            "a model whose encoder can leave entries out",
            "use VAE, HVAE or LatentDiffusion, or draw from p(x | y) by genmod.inverse with the "
            "observed entries as the measurement y",
        )

    def _flow(self) -> Heun:
        # The steps of codes are short: there the published weight is the more accurate one.
        return Heun(self.diffusion.denoiser, self.diffusion.schedule, published=True)

    def _flow_times(self) -> Tensor:
        """Even in log-SNR: with even times Heun's method fails where a schedule's ends are steep."""
        prior = self.diffusion
        return UniformLogSNR().times(prior.schedule, prior.resolution, prior.times().device)


_REALS_ALONE = (
    "real columns alone: noise is added to numbers on a scale, not to codes and counts",
    "use VAE, HVAE or LatentDiffusion, whose decoders give each column its own law",
)


def _check_start(decoder: Decoder, schedule: Schedule) -> None:
    """Require a decoder made for the first state of this schedule, if it is made for one."""
    if decoder.schedule is None:
        return
    given, wanted = decoder.schedule.scales_at_zero(), schedule.scales_at_zero()
    if not all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(given, wanted, strict=True)):
        raise invalid(
            f"a decoder for z_0 = {given[0]:.4g} x + {given[1]:.4g} eps under a schedule that "
            f"starts at {wanted[0]:.4g} x + {wanted[1]:.4g} eps",
            "one schedule for both",
            "build the decoder with the schedule of the diffusion",
        )


def _last_step(data: DataSpec, schedule: Schedule) -> Decoder:
    """Probability around the denoised state, with the spread of the noise at the clean end."""
    noise = math.exp(-schedule.log_snr_range()[0] / 2)
    if not data.is_integer:
        return GaussianDecoder(Identity(), data, GlobalScale(noise))
    # A logistic of scale s has a standard deviation of 1.81 s. The denoiser soon errs by less than
    # the noise, and a scale that lagged behind it would cost 0.06 bits/dim on the digits.
    scale = max(noise * math.sqrt(3) / math.pi, data.width / 8)
    return likelihood(lambda _: Identity(), data, scale=GlobalScale(scale))
