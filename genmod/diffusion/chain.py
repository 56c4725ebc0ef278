r"""The prior of a diffusion: a chain of latents from noise to almost clean data, by denoising steps.

.. math:: p(z) = p(z_1) \prod_{s < t} p(z_s | z_t)

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.checks import check_at_least, invalid, whole_number
from genmod.denoisers import Denoiser
from genmod.diffusion.bound import diffusion_rates
from genmod.diffusion.noising import NoisingEncoder, NoisingPosterior
from genmod.diffusion.reverse import ReverseProcess
from genmod.diffusion.timesteps import resolve_timesteps
from genmod.diffusion.variances import FixedSmall, ReverseVariance
from genmod.elbo import Rate
from genmod.encoders import Encoder, Posterior
from genmod.nn.modules import tensors_of
from genmod.path import AutoTimesteps, GenerativePath, InferencePath, Latent, Path, Timesteps
from genmod.prior import Prior
from genmod.schedules import Schedule
from genmod.schedules.base import time_dtype
from genmod.tensors import HALF, Shape


class DiffusionPrior(Prior):
    r"""The prior of a diffusion: a chain of ``T`` latents, or in continuous time infinitely many.

    .. math:: p(z) = p(z_1) \prod_{s < t} p(z_s | z_t), \qquad
        p(z_s | z_t) = \mathcal{N}(\text{mean of } q(z_s | z_t, x = \hat x(z_t)),\ v_p I)

    Its rates are ``"prior"``, :math:`\mathrm{KL}(q(z_1|x) \,\|\, p(z_1))`, and ``"steps"``, the sum of
    :math:`\mathrm{KL}(q(z_s|z_t,x) \,\|\, p(z_s|z_t))`. Every latent has the event shape of the data.

    Args:
        denoiser: estimates ``x`` from ``z_t`` and its log-SNR.
        schedule: the noise at each time; the same object as the encoder's.
        shape: the event shape of ``x`` and of every latent.
        steps: ``T``, the number of latents. Latent ``i`` lies at ``t = (i - 1) / (T - 1)``, so there
            are ``T - 1`` denoising steps. ``None`` is continuous time.
        variance: :math:`v_p`, the variance of a reverse step; the posterior's by default.
        resolution: the number of latents that a sample in continuous time uses.

    Raises:
        ValueError: fewer than one step; an inconsistent schedule, or one that ends noisier than the
            denoiser's target allows; in continuous time, a reverse variance that is not the posterior's.

    Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), sections 3.3
    and 3.5.

    >>> from genmod.denoisers import GaussianDenoiser
    >>> from genmod.diffusion import NoisingEncoder
    >>> from genmod.schedules import Cosine
    >>> schedule = Cosine()
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2))
    >>> prior = DiffusionPrior(denoiser, schedule, (2,), steps=10)
    >>> z_0, rates = prior.rates(NoisingEncoder(schedule)(torch.zeros(5, 2)))
    >>> z_0.shape, {name: rate.nats.shape for name, rate in rates.items()}
    (torch.Size([5, 2]), {'prior': torch.Size([5, 1]), 'steps': torch.Size([5, 9])})
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        shape: Shape,
        steps: int | None = None,
        variance: ReverseVariance | None = None,
        resolution: int = 256,
    ) -> None:
        super().__init__(shape)
        steps = None if steps is None else whole_number(steps, "steps")
        resolution = whole_number(resolution, "resolution")
        check_at_least(resolution, 2, "resolution", "256 is the default")
        if steps is not None and steps < 1:
            raise invalid(
                f"steps={steps}",
                "steps >= 1, or None",
                "steps counts the latents; None is continuous time",
            )
        schedule.check()
        denoiser.check(schedule)
        self.denoiser, self.schedule, self.steps = denoiser, schedule, steps
        self.variance, self.resolution = variance or FixedSmall(), resolution
        if steps is None and not isinstance(self.variance, FixedSmall):
            raise invalid(
                f"{self.variance} in continuous time",
                "FixedSmall(), the posterior's own",
                "any other ratio of variances gives an infinite KL in infinitely many steps; set "
                "steps=T, or leave variance out",
            )

    @property
    def has_timesteps(self) -> bool:
        return True

    @property
    def reverse(self) -> ReverseProcess:
        """The steps ``p(z_s | z_t)``."""
        return ReverseProcess(self.denoiser, self.schedule, self.variance)

    def times(self, count: int | None = None, device: torch.device | None = None) -> Tensor:
        """The times of the latents, from clean to noise: ``count`` of them, or the chain's own."""
        place = device or next((t.device for t in tensors_of(self)), torch.device("cpu"))
        count = count or self.steps or self.resolution
        return torch.linspace(0, 1, count, dtype=time_dtype(place), device=place)

    def check_encoder(self, encoder: Encoder) -> None:
        """Require the encoder that adds noise by this prior's own schedule.

        Raises:
            ValueError: another kind of encoder, another schedule, or latents of another shape.
        """
        if not isinstance(encoder, NoisingEncoder):
            raise invalid(
                f"a {type(encoder).__name__} for a diffusion",
                "the encoder that adds noise",
                "pair diffusion.DiffusionPrior with diffusion.NoisingEncoder",
            )
        super().check_encoder(encoder)
        self._check_schedule(encoder.schedule)

    def rates(
        self,
        posterior: Posterior | Distribution,
        timesteps: Timesteps = AutoTimesteps.EVALUATION,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Mapping[str, Rate]]:
        """The rates ``"prior"`` (the noisiest latent) and ``"steps"`` (the denoising steps).

        Args:
            posterior: from :class:`~genmod.diffusion.NoisingEncoder`.
            timesteps: how many stratified levels a row visits, or a sampler of them. ``None`` visits all,
                in chunks; where gradients are enabled, their activations are recomputed.
            context: what the denoiser is conditioned on.

        Raises:
            ValueError: ``timesteps=None`` in continuous time.
        """
        q = self.noising(posterior)
        visits = resolve_timesteps(timesteps, self.steps)
        return diffusion_rates(q, self.reverse, self.steps, visits, context)

    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """``z_T`` down to ``z_1``, each given the one above.

        Raises:
            ValueError: in continuous time, where a path has infinitely many levels.
        """
        q = self.noising(posterior)
        if self.steps is None:
            raise invalid(
                "a request for one joint path in continuous time",
                "finitely many latents",
                "build the model with steps=T for importance weights or a codec",
            )
        times, reverse = self.times(device=q.x.device), self.reverse
        top = times[-1].expand(q.rows)
        z = yield Latent(f"z{self.steps}", q.at(top), reverse.top(q.x, top))
        for i in range(self.steps - 1, 0, -1):
            t, s = times[i].expand(q.rows), times[i - 1].expand(q.rows)
            law = reverse.law(z, t, s, context)
            z = yield Latent(f"z{i}", q.given(s, t, z), law)
        return z

    def generate(self, n: int, context: Tensor | None = None) -> GenerativePath:
        times, reverse = self.times(), self.reverse
        z = yield f"z{len(times)}", reverse.top(self.empty_states(n), times[-1].expand(n))
        for i in range(len(times) - 1, 0, -1):
            law = reverse.law(z, times[i].expand(n), times[i - 1].expand(n), context)
            z = yield f"z{i}", law
        return z

    def rates_of_path(self, path: Path) -> dict[str, Rate]:
        """``"prior"`` and ``"steps"``, from the laws of a joint draw."""
        top, *steps = super().rates_of_path(path).values()
        return {"prior": top} | ({"steps": Rate.join(steps, dim=1)} if steps else {})

    def noising(self, posterior: Posterior | Distribution) -> NoisingPosterior:
        """The posterior, required to be this diffusion's own.

        Raises:
            ValueError: another kind, data of another shape, half precision, another schedule.
        """
        if not isinstance(posterior, NoisingPosterior):
            raise invalid(
                f"a {type(posterior).__name__} posterior",
                "data noised to any time",
                "pair diffusion.DiffusionPrior with diffusion.NoisingEncoder",
            )
        x = posterior.x
        if x.shape[1:] != self.shape:
            raise invalid(
                f"data of shape {tuple(x.shape[1:])}",
                f"the prior's shape {self.shape}",
                "build the prior with the data's own event shape",
            )
        if x.dtype not in (torch.float32, torch.float64):
            raise invalid(
                f"data of type {x.dtype}",
                "float32 or float64: a rate in half precision overflows",
                "keep the data in float32; fit(..., autocast=torch.bfloat16) runs only the "
                "networks in half",
            )
        self._check_schedule(posterior.schedule)
        return posterior

    def _check_schedule(self, schedule: Schedule) -> None:
        if schedule is not self.schedule:
            raise invalid(
                f"data noised by another {type(schedule).__name__} than the prior's own",
                "one schedule, one object, in encoder and prior",
                "build both with the same schedule: two would give a number that bounds nothing",
            )

    def empty_states(self, n: int) -> Tensor:
        """``n`` states of zeros, in the type and on the device of the parameters."""
        tensors = tensors_of(self, skip=(Schedule,))
        found = next((t for t in tensors if t.is_floating_point()), None)
        zero = torch.zeros(()) if found is None else found.new_zeros(())
        zero = zero.float() if zero.dtype in HALF else zero
        return zero.expand(n, *self.shape)

    def formula(self) -> str:
        chain = "continuous time" if self.steps is None else f"T = {self.steps}"
        if not isinstance(self.variance, FixedSmall):
            chain = f"variance {self.variance}, {chain}"
        return (
            f"p(z) = p(z_T) prod_t p(z_s | z_t), p(z_s | z_t) = q(z_s | z_t, x_hat(z_t)), {chain}"
        )
