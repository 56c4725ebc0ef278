r"""The prior of a diffusion: a chain of latents from noise to almost data, each step a denoising.

Each level's KL is closed, because ``q`` is fixed, linear and Gaussian:

.. math:: \mathrm{KL}(q(z_s|z_t,x) \| p(z_s|z_t))
    = \tfrac{1}{2}\,\text{gap}\,\|\varepsilon-\hat\varepsilon\|^2,
    \qquad \text{gap} = \frac{\mathrm{SNR}_s}{\mathrm{SNR}_t} - 1

and, in continuous time, gap is :math:`-d\lambda/dt`. Marginals :math:`q(z_t|x)` are closed too, so
levels can be visited in any order, and their sum estimated from a few.

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), eqs. 13-18.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.checks import require
from genmod.denoisers import Denoiser
from genmod.diffusion import FixedSmall, NoisingPosterior, ReverseVariance
from genmod.diffusion.bound import step_rate
from genmod.diffusion.timesteps import Timesteps, TimestepSampler, bin_index, timestep_sampler
from genmod.distributions import Normal, StandardNormal, rate
from genmod.elbo import Rate
from genmod.encoders import Posterior
from genmod.prior import GenerativePath, InferencePath, Latent, Prior
from genmod.samplers import Ancestral, Heun, UniformLogSNR
from genmod.schedules import Schedule, time_dtype
from genmod.shapes import expand_like
from genmod.types import LatentTensors, Shape

CHUNK = 8192
"""Rows that go through the network at once when every level is visited."""


class DiffusionPrior(Prior):
    """``T`` latents, or a continuum of them.

    Args:
        denoiser: what ``x`` was, given ``z_t`` and its log-SNR.
        schedule: how noisy each time is; the encoder's own.
        shape: the event shape of ``x`` and of every latent.
        steps: ``T``, the number of latents (level ``i`` lies at ``t = (i - 1) / (T - 1)``, so there
            are ``T - 1`` denoising steps); ``None`` is continuous time.
        variance: the variance of a reverse step; the posterior's by default.
        resolution: how many latents the chain is cut into when it is sampled in continuous time.

    Raises:
        ValueError: fewer than one step, or a schedule that is none, or one that ends noisier than what
            the denoiser predicts can be read at; in continuous time, a reverse variance that is not
            the posterior's.
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
        require(
            steps is None or steps >= 1,
            f"steps={steps}",
            "steps >= 1, or None",
            "steps counts the latents; None is continuous time",
        )
        schedule.check()
        denoiser.check(schedule)
        self.denoiser, self.schedule, self.steps = denoiser, schedule, steps
        self.chain = Ancestral(denoiser, schedule, variance)
        self.resolution = resolution
        require(
            steps is not None or isinstance(self.chain.variance, FixedSmall),
            f"{self.chain.variance} in continuous time",
            "FixedSmall(), the posterior's own",
            "FixedLarge() tends to it as steps grow, and a variance at a fixed ratio to it costs "
            "infinitely many nats; set steps=T",
        )

    def times(self, count: int | None = None) -> Tensor:
        """The times of the latents, from clean to noise: ``count`` of them, or the chain's own."""
        count = count or self.steps or self.resolution
        device = self.anchor.device
        return torch.linspace(0, 1, count, dtype=time_dtype(device), device=device)

    # ------------------------------------------------------------------ what a posterior costs

    def rates(
        self,
        posterior: Posterior | Distribution,
        draws: Timesteps = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Mapping[str, Rate]]:
        """``"prior"``: what the noisiest latent costs; ``"steps"``: what the denoising steps cost.

        Args:
            posterior: from :class:`genmod.diffusion.NoisingEncoder`.
            draws: how many stratified levels a row visits, or which; ``None`` visits all of them, in chunks
                whose activations are recomputed when gradients are wanted.
            context: what the denoiser is told beside the state.

        Raises:
            ValueError: every level asked for in continuous time.
        """
        q = self._noised(posterior)
        rows = len(q.x)
        clean = torch.zeros(rows, dtype=time_dtype(q.x.device), device=q.x.device)
        noisy = clean if self.steps == 1 else torch.ones_like(clean)
        # All rows end at one time: one number each, broadcast.
        rates = {"prior": rate(q.at(noisy[:1]), self._top(rows, noisy[:1]), q.x)}
        if self.steps != 1:
            price = self._every_step if draws is None else partial(self._some, draws=draws)
            rates["steps"] = price(q, context=context)
        return q.at(clean).rsample(), rates

    def _some(
        self, q: NoisingPosterior, draws: int | TimestepSampler, context: Tensor | None
    ) -> Rate:
        """A few levels a row."""
        device = q.x.device
        u, weight = timestep_sampler(draws)(len(q.x), time_dtype(device), device)
        if self.steps is None:
            return step_rate(self.chain, q, u, None, context, weight)
        count = self.steps - 1
        index = bin_index(u, count)
        t, s = (index + 1) / count, index / count
        return step_rate(self.chain, q, t, s, context, weight * count)

    def _every_step(self, q: NoisingPosterior, context: Tensor | None) -> Rate:
        """Every level, a chunk of them at a time."""
        if self.steps is None:
            raise ValueError(
                "got draws=None in continuous time; expected a number of levels to visit; pass "
                "draws=n (unbiased), or build the model with steps=T to visit all T"
            )
        times = self.times().expand(len(q.x), -1)
        width = max(1, CHUNK // max(len(q.x), 1))
        chunks = zip(times[:, 1:].split(width, 1), times[:, :-1].split(width, 1), strict=True)
        priced = [step_rate(self.chain, q, t, s, context, lean=True) for t, s in chunks]
        return Rate.join(priced, dim=1)

    # ------------------------------------------------------------------ one path through the chain

    def levels(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """``z_T`` down to ``z_1``, each given the one above.

        Raises:
            ValueError: in continuous time, where a path has no end of levels.
        """
        q = self._noised(posterior)
        if self.steps is None:
            raise ValueError(
                "got a request for one joint path in continuous time; expected finitely many "
                "latents; build the model with steps=T for importance weights or a codec"
            )
        rows, times = len(q.x), self.times()
        top = times[-1].expand(rows)
        z = yield Latent(f"z{self.steps}", q.at(top), self._top(rows, top))
        for i in range(self.steps - 1, 0, -1):
            t, s = times[i].expand(rows), times[i - 1].expand(rows)
            law = self.chain.law(z, t, s, context)
            z = yield Latent(f"z{i}", q.given(s, t, z), law)
        return z

    def descent(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """From noise, step by step: the lecture's sampling algorithm."""
        times = self.times()
        z = yield f"z{len(times)}", self._top(n, times[-1].expand(n))
        for i in range(len(times) - 1, 0, -1):
            law = self.chain.law(z, times[i].expand(n), times[i - 1].expand(n), context)
            z = yield f"z{i}", law
        return z

    # ------------------------------------------------------------------ codes

    def encode(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> LatentTensors:
        """The noise that the probability flow maps ``x`` to (from the mean of ``z`` at t = 0)."""
        q, times = self._noised(posterior), self._flow_times().flip(0)
        start = q.at(times[0].expand(len(q.x))).mean
        return Heun(self.denoiser, self.schedule).run(start, times, context)

    def state(self, z: LatentTensors, context: Tensor | None = None) -> Tensor:
        """The state at t = 0 that the probability flow maps noise to: the inverse of :meth:`encode`."""
        assert isinstance(z, Tensor)
        times = self._flow_times()
        return Heun(self.denoiser, self.schedule).run(z, times, context)

    def _flow_times(self) -> Tensor:
        """Even in log-SNR: where a schedule's ends are steep, Heun's method goes astray in even times."""
        return UniformLogSNR().times(self.schedule, self.resolution, self.anchor.device)

    def restore(self, posterior: Posterior | Distribution, context: Tensor | None = None) -> Tensor:
        """Noise ``x`` to half of the way (t = 1/2) and denoise it by the chain."""
        q = self._noised(posterior)
        times = self.times()
        below = times[: max(1, (len(times) + 1) // 2)].flip(0)
        z = q.at(below[0].expand(len(q.x))).sample()
        return self.chain.run(z, below, context)

    def _noised(self, posterior: Posterior | Distribution) -> NoisingPosterior:
        if not isinstance(posterior, NoisingPosterior):
            raise ValueError(
                f"got a {type(posterior).__name__} posterior; expected data noised to any time; pair "
                "diffusion.DiffusionPrior with diffusion.NoisingEncoder"
            )
        require(
            tuple(posterior.x.shape[1:]) == self.shape,
            f"data of shape {tuple(posterior.x.shape[1:])}",
            f"the prior's shape {self.shape}",
            "build the prior with the data's own event shape",
        )
        require(
            posterior.x.dtype in (torch.float32, torch.float64),
            f"data of type {posterior.x.dtype}",
            "float32 or float64: a rate in half precision overflows",
            "let networks alone run in half precision, fit(..., autocast=torch.bfloat16)",
        )
        require(
            posterior.schedule is self.schedule,
            f"data noised by another {type(posterior.schedule).__name__} than the prior's own",
            "one schedule, one object, in encoder and prior",
            "build both with the same schedule: two would give a number that bounds nothing",
        )
        return posterior

    def _top(self, n: int, t: Tensor) -> Normal:
        r""":math:`p(z_1) = N(0, (\alpha_1^2 + \sigma_1^2) I)`: what data of unit variance become."""
        if self.schedule.variance_preserving:
            return StandardNormal((n, *self.shape), self.anchor.dtype, self.anchor.device)
        zero = self.anchor.expand(n, *self.shape)
        return Normal(zero, expand_like(torch.hypot(*self.schedule.scales(t)).log(), zero))

    def formula(self) -> str:
        """The prior as it would stand on paper."""
        chain = "continuous time" if self.steps is None else f"T = {self.steps}"
        variance = self.chain.variance
        if not isinstance(variance, FixedSmall):
            chain = f"variance {variance}, {chain}"
        return (
            f"p(z) = p(z_T) prod_t p(z_s | z_t), p(z_s | z_t) = q(z_s | z_t, x_hat(z_t)), {chain}"
        )
