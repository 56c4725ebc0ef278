r"""A diffusion of ``T`` latents whose encoder is learned: a top-down hierarchy that contains the fixed one.

Symbols as in :mod:`genmod.diffusion.reverse`; :math:`\delta, \gamma` are the outputs of the encoder's
network for ``(z_t, x)`` and the log-SNR of ``z_s``; at the noisiest latent ``z_t`` is zero there.

.. math::
    q(z_s | z_t, x) = \mathcal{N}(m + v \delta, v^2 e^{2 \gamma}), \qquad
    \mathcal{N}(m, v^2) = \text{the fixed } q(z_s | z_t, x)

The network starts at zero, where the model is the diffusion of ``T`` steps. With ``T = 1`` it is a VAE.

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), section 3, for the diffusion
as a hierarchy of any depth; Nielsen et al., "DiffEnc: Variational Diffusion with a Learned Encoder" (2024),
for another learned encoder, which moves the mean alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import check_at_least, invalid
from genmod.denoisers import Denoiser
from genmod.diffusion.noising import NoisingPosterior
from genmod.diffusion.reverse import ReverseProcess
from genmod.diffusion.variances import FixedSmall, ReverseVariance
from genmod.distributions import Normal
from genmod.elbo import Rate
from genmod.encoders import Encoder, Posterior
from genmod.nn.modules import outputs, tensors_of
from genmod.path import GenerativePath, InferencePath, Latent, Path
from genmod.prior import Prior
from genmod.priors.topdown import joined_levels
from genmod.schedules import Schedule
from genmod.schedules.base import time_dtype
from genmod.spec import SpecLike
from genmod.tensors import Batch, Mask, PerSample, Real, Shape


@dataclass(frozen=True, eq=False)
class LearnedNoisingPosterior(Posterior):
    """The posterior of a diffusion with a learned encoder, one law for each pair of times.

    Args:
        fixed: the posterior that only adds noise.
        network: ``network(z_and_x, log_snr)``, two numbers for each entry of ``x``.
        context: what the model is conditioned on.
    """

    fixed: NoisingPosterior
    network: nn.Module
    context: Tensor | None = None

    @property
    def rows(self) -> int:
        """How many samples it is the posterior of."""
        return self.fixed.rows

    def at(self, t: PerSample) -> Normal:
        """``q(z_t | x)`` of the noisiest latent, at its time ``(B,)``."""
        return self._moved(self.fixed.at(t), torch.zeros_like(self.fixed.x), t)

    def given(self, s: PerSample, t: PerSample, z_t: Real) -> Normal:
        """``q(z_s | z_t, x)`` for ``s < t``."""
        return self._moved(self.fixed.given(s, t, z_t), z_t, s)

    def _moved(self, law: Normal, z: Tensor, s: Tensor) -> Normal:
        seen = torch.cat([z, self.fixed.x], 1)
        log_snr = self.fixed.schedule.log_snr(s).to(z.dtype)
        shape = (2, *self.fixed.x.shape[1:])
        both = outputs(self.network, shape, seen, log_snr, context=self.context)
        return Normal(torch.addcmul(law.loc, law.stddev, both[:, 0]), law.log_std + both[:, 1])


class LearnedNoisingEncoder(Encoder):
    """The encoder of a diffusion that is learned: the fixed one, moved and scaled by a network.

    Args:
        network: a denoiser's network for twice the channels of the data, such as ``MLPs().denoiser((2 * C,
            *space))``. It is given ``z_t`` and ``x`` side by side and the log-SNR of ``z_s``.
        schedule: the noise at each time.
        spec: the data it reads.
    """

    accepts_missing = False

    def __init__(
        self, network: nn.Module, schedule: Schedule, spec: SpecLike | None = None
    ) -> None:
        super().__init__(spec)
        schedule.check()
        self.network, self.schedule = network, schedule
        self.latent_shape = None if self.spec is None else self.spec.shape

    def forward(
        self, x: Batch, context: Tensor | None = None, observed: Mask | None = None
    ) -> LearnedNoisingPosterior:
        """The posterior of a batch."""
        fixed = NoisingPosterior(self.real(x), self.schedule)
        return LearnedNoisingPosterior(fixed, self.network, context)

    def formula(self) -> str:
        """The formula of the encoder, as text."""
        return "q(z | x) = prod_s N(z_s; m + v d(z_t, x), v^2 exp(2 g(z_t, x)))"


class NoisingHierarchyPrior(Prior):
    r"""The chain of a diffusion as a hierarchy of ``T`` levels, for a posterior that is learned.

    It is the same :math:`p(z_1) \prod p(z_s | z_t)` as :class:`~genmod.diffusion.DiffusionPrior`. The
    marginals of a learned posterior are not known, so every bound visits all levels. Its rate is
    ``"levels"``.

    Args:
        denoiser: estimates ``x`` from ``z_t`` and its log-SNR.
        schedule: the noise at each time; the same object as the encoder's.
        shape: the event shape of ``x`` and of every latent.
        levels: ``T``, the number of latents.
        variance: of a reverse step; that of the fixed posterior by default.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        shape: Shape,
        levels: int,
        variance: ReverseVariance | None = None,
    ) -> None:
        super().__init__(shape)
        check_at_least(levels, 1, "levels", "pass levels=1 for a VAE")
        schedule.check()
        denoiser.check(schedule)
        self.denoiser, self.schedule, self.levels = denoiser, schedule, levels
        self.variance = variance or FixedSmall()

    @property
    def reverse(self) -> ReverseProcess:
        """The steps ``p(z_s | z_t)``."""
        return ReverseProcess(self.denoiser, self.schedule, self.variance)

    def _times(self, x: Tensor) -> Tensor:
        """The times of the latents, from clean to noise, as in a chain of as many latents."""
        return torch.linspace(0, 1, self.levels, dtype=time_dtype(x.device), device=x.device)

    def check_encoder(self, encoder: Encoder) -> None:
        """Require an encoder whose schedule is this prior's own.

        Raises:
            ValueError: another schedule, or latents of another shape.
        """
        super().check_encoder(encoder)
        # Not where a path is drawn: torch.export would take one schedule in two modules for two.
        own = not isinstance(encoder, LearnedNoisingEncoder) or encoder.schedule is self.schedule
        if not own:
            raise invalid(
                "an encoder with another schedule than the prior's own",
                "one schedule, one object, in encoder and prior",
                "build both with the same schedule",
            )

    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """``z_T`` down to ``z_1``, each given the one above."""
        if not isinstance(posterior, LearnedNoisingPosterior):
            raise invalid(
                f"a {type(posterior).__name__}",
                "that of a learned noising encoder",
                "pair NoisingHierarchyPrior with LearnedNoisingEncoder, or a NoisingEncoder with "
                "DiffusionPrior",
            )
        q, x, reverse = posterior, posterior.fixed.x, self.reverse
        times = self._times(x)
        top = times[-1].expand(q.rows)
        z = yield Latent(f"z{self.levels}", q.at(top), reverse.top(x, top))
        for i in range(self.levels - 1, 0, -1):
            t, s = times[i].expand(q.rows), times[i - 1].expand(q.rows)
            p = reverse.law(z, t, s, context)
            z = yield Latent(f"z{i}", q.given(s, t, z), p)
        return z

    def generate(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """From noise, level by level: ancestral sampling."""
        tensors = tensors_of(self, skip=(Schedule,))
        kind = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
        like, reverse = kind.new_zeros(()).expand(n, *self.shape), self.reverse
        times = self._times(like)
        z = yield f"z{self.levels}", reverse.top(like, times[-1].expand(n))
        for i in range(self.levels - 1, 0, -1):
            law = reverse.law(z, times[i].expand(n), times[i - 1].expand(n), context)
            z = yield f"z{i}", law
        return z

    def rates_of_path(self, path: Path) -> dict[str, Rate]:
        """One rate, ``"levels"``, of all levels from the top down."""
        return joined_levels(super().rates_of_path(path))

    def formula(self) -> str:
        """The formula of the prior, as text."""
        return (
            "p(z) = p(z_T) prod_t p(z_s | z_t), p(z_s | z_t) = q_0(z_s | z_t, x_hat(z_t)), "
            f"T = {self.levels}"
        )
