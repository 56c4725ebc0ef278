r"""The prior of a diffusion's probability flow: an ODE that maps noise to :math:`z_0`.

In variance-preserving states :math:`u = z / \sqrt{\alpha^2 + \sigma^2} = a x + s \varepsilon`, with
:math:`a^2 = \mathrm{sigmoid}(\lambda)`, and with the log-SNR :math:`\lambda` for time, the flow is

.. math:: \frac{du}{d\lambda} = \frac{a}{2}\,(\hat x(u, \lambda) - a u), \qquad
    \frac{d \log p}{d\lambda} = -\frac{a}{2}\,
    \Big(\mathrm{tr}\,\frac{\partial \hat x}{\partial u} - a D\Big).

The right-hand sides stay bounded at both ends, so equal steps of log-SNR are accurate enough. The result
depends on the two ends of the schedule only.

Reference: Song et al., "Score-based generative modeling through stochastic differential equations"
(2021), eqs. 13 and 39; Grathwohl et al., "FFJORD" (2019), section 3.1, for one probe a trajectory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from genmod import random
from genmod.checks import check_at_least, invalid
from genmod.diffusion.chain import DiffusionPrior
from genmod.elbo import Stamp
from genmod.encoders import Encoder, Posterior
from genmod.nn.jacobian import Linear, pullback
from genmod.path import GenerativePath, InferencePath, Latent
from genmod.prior import Prior
from genmod.schedules.base import time_dtype
from genmod.tensors import PerSample, Real, Sizes, event_sum, size


class AugmentedState(NamedTuple):
    """A state and the change of its log-density so far, or the derivatives of both."""

    state: Tensor
    """``(B, *event)``."""
    log_density: Tensor
    """``(B, K)``, one for each probe."""


class FlowedToNoise(NamedTuple):
    """The result of the flow from data to noise."""

    noise: Tensor
    """The variance-preserving state at the noisy end, ``(B, *event)``."""
    nats: Tensor
    """The log-density of each state by each probe, ``(B, K)``; float64 unless the device has none."""


class ProbabilityFlowPrior(Prior):
    r"""The density of a diffusion's probability flow as a prior: noise that the ODE maps to ``z_0``.

    .. math:: \log p(z_0) = \log N(u_1; 0, I)
        + \int_{\lambda_0}^{\lambda_1} \mathrm{div}\,\frac{du}{d\lambda}\, d\lambda
        - \tfrac{D}{2} \log(\alpha_0^2 + \sigma_0^2)

    It is another model than the chain of latents with the same denoiser: unless the denoiser is
    optimal, the two have different marginals. It has one latent instead of many, so no noise levels
    are drawn. A solver of fixed steps computes the density, so the value is an estimate, too high or too
    low. It has no gradients.

    Args:
        diffusion: its denoiser and its schedule's ends are used.
        steps: of the classical Runge-Kutta method (fourth order, four evaluations a step), even in
            log-SNR.
        probes: ``None``: the exact trace, ``D`` backward passes an evaluation. ``K``: Hutchinson's
            estimate from ``K`` random signs a trajectory, unbiased for the log-density (not for the
            density), ``K`` backward passes. Signs have the least variance of all probes with
            independent entries.

    Raises:
        ValueError: fewer than one step, or one.

    Reference: Hutchinson, "A stochastic estimator of the trace of the influence matrix" (1990).

    >>> from genmod.models import Diffusion
    >>> flow = ProbabilityFlowPrior(Diffusion(2).prior, steps=8)
    >>> flow.log_density(torch.zeros(5, 2)).nats.shape
    torch.Size([5, 1])
    """

    claim = Stamp.ESTIMATE

    def __init__(
        self, diffusion: DiffusionPrior, steps: int = 128, probes: int | None = None
    ) -> None:
        super().__init__(diffusion.shape)
        check_at_least(steps, 1, "steps", "128 is the default")
        if probes is not None and probes < 1:
            raise invalid(
                f"probes={probes}",
                "at least one, or None",
                "None computes the exact trace; several probes give a standard error",
            )
        self.diffusion, self.steps, self.probes = diffusion, steps, probes

    @property
    def stochastic_density(self) -> bool:
        """Whether the trace is estimated by probes."""
        return self.probes is not None

    @torch.no_grad()
    def log_density(self, z: Real, context: Tensor | None = None) -> FlowedToNoise:
        """The log-density of states at t = 0, and the noise that each comes from."""
        signs = None if self.probes is None else _signs(z, self.probes)
        log_scale, clean, noisy = self._ends()

        def field(u: Tensor, log_snr: float) -> AugmentedState:
            def moved(u: Tensor) -> tuple[Tensor, Tensor]:
                velocity, x_hat = self._velocity(u, log_snr, _usable(context))
                return x_hat, velocity

            _, (velocity,), pull = pullback(moved, u)
            assert velocity is not None
            trace = _exact_trace(pull, u) if signs is None else _probed_trace(pull, signs)
            a = _data_scale(log_snr)
            rate = 0.5 * a * (trace.to(time_dtype(u.device)) - a * size(self.shape))
            return AugmentedState(velocity, rate)

        u, change = self._run(field, z * math.exp(-log_scale), clean, noisy)
        top = -0.5 * event_sum(u.to(change.dtype).square() + math.log(2 * math.pi))
        return FlowedToNoise(u, top[:, None] + change - size(self.shape) * log_scale)

    @torch.no_grad()
    def push(self, noise: Real, context: Tensor | None = None) -> Tensor:
        """The state at t = 0 that the flow maps each noise to."""
        log_scale, clean, noisy = self._ends()
        nothing = noise.new_zeros(len(noise), 1)

        def field(u: Tensor, log_snr: float) -> AugmentedState:
            return AugmentedState(self._velocity(u, log_snr, context)[0], nothing)

        return self._run(field, noise, noisy, clean).state * math.exp(log_scale)

    def _run(
        self, field: Callable[[Tensor, float], AugmentedState], u: Tensor, start: float, end: float
    ) -> AugmentedState:
        """The classical Runge-Kutta method from one log-SNR to another."""
        width = (end - start) / self.steps
        total: Tensor | float = 0.0
        for i in range(self.steps):
            at, middle, after = (start + (i + part) * width for part in (0.0, 0.5, 1.0))
            k1 = field(u, at)
            k2 = field(u + width / 2 * k1.state, middle)
            k3 = field(u + width / 2 * k2.state, middle)
            k4 = field(u + width * k3.state, after)
            state, change = (
                width / 6 * (a + 2 * b + 2 * c + d)
                for a, b, c, d in zip(k1, k2, k3, k4, strict=True)
            )
            u, total = u + state, total + change
        assert isinstance(total, Tensor)
        return AugmentedState(u, total)

    def _velocity(self, u: Tensor, log_snr: float, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """``du / d log_snr``, and ``x_hat``."""
        a = _data_scale(log_snr)
        x_hat = self.diffusion.denoiser(u, u.new_full((len(u),), log_snr), context).x_hat
        return 0.5 * a * (x_hat - a * u), x_hat

    def _ends(self) -> tuple[float, float, float]:
        """The log of ``sqrt(alpha_0^2 + sigma_0^2)``, and the log-SNR at both ends."""
        schedule = self.diffusion.schedule
        start = torch.zeros(1, dtype=torch.float64)
        with torch.no_grad():
            alpha, sigma = schedule.scales(start)
        return (math.log(math.hypot(float(alpha), float(sigma))), *schedule.log_snr_range())

    # ------------------------------------------------------------------ as a prior

    def check_encoder(self, encoder: Encoder) -> None:
        self.diffusion.check_encoder(encoder)

    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """One latent, ``z_0``.

        Args:
            posterior: from :class:`genmod.diffusion.NoisingEncoder`.
            context: what the denoiser is conditioned on.
        """
        q = self.diffusion.noising(posterior)
        clean = torch.zeros(q.rows, dtype=time_dtype(q.x.device), device=q.x.device)
        z = yield Latent("z0", q.at(clean), ProbabilityFlowDistribution(self, q.rows, context))
        return z

    def generate(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """One latent, ``z_0``: the flow maps noise to it."""
        z = yield "z0", ProbabilityFlowDistribution(self, n, context)
        return z

    def formula(self) -> str:
        trace = "exact trace" if self.probes is None else f"{self.probes} probes"
        return f"p(z_0) = the probability flow's, {self.steps} Runge-Kutta steps, {trace}"


class ProbabilityFlowDistribution(Distribution):
    """``p(z_0)`` of a probability flow as a torch distribution over a batch of rows.

    Args:
        flow: the prior.
        rows: the number of rows.
        context: what the denoiser is conditioned on, one row each.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real

    def __init__(
        self, flow: ProbabilityFlowPrior, rows: int, context: Tensor | None = None
    ) -> None:
        super().__init__(torch.Size([rows]), torch.Size(flow.shape), validate_args=False)
        self.flow, self.rows, self.context = flow, rows, context

    def log_prob(self, value: Tensor) -> PerSample:
        """The log-density of each row: the mean over probes."""
        return self.flow.log_density(value, self.context).nats.mean(1).to(value.dtype)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        if len(sample_shape) > 0:
            raise invalid(
                f"sample_shape={tuple(sample_shape)}",
                "an empty sample shape",
                "build the law with more rows",
            )
        noise = random.normal_like(self.flow.diffusion.empty_states(self.rows))
        return self.flow.push(noise, self.context)


def _data_scale(log_snr: float) -> float:
    """The variance-preserving alpha of a log-SNR."""
    return math.sqrt(1 / (1 + math.exp(-log_snr)))


def _usable(context: Tensor | None) -> Tensor | None:
    """The context as a tensor that autograd takes."""
    return None if context is None else context.clone()


def _signs(z: Tensor, probes: int) -> Tensor:
    """Random signs, ``(K, B, *event)``, keyed by row."""
    drawn = random.uniform((len(z), probes, *z.shape[1:]), z.dtype, z.device)
    return torch.where(drawn < 0.5, -1.0, 1.0).to(z.dtype).transpose(0, 1)


def _exact_trace(pull: Linear, u: Tensor) -> Tensor:
    """The trace of the Jacobian of each row, ``(B, 1)``. (No row's output depends on another row.)"""
    diagonal = []
    for i in range(u[0].numel()):
        unit = torch.zeros(u.shape, dtype=u.dtype, device=u.device)
        unit.flatten(1)[:, i] = 1
        diagonal.append(pull(unit).flatten(1)[:, i])
    return torch.stack(diagonal).sum(0)[:, None]


def _probed_trace(pull: Linear, signs: Tensor) -> Tensor:
    """An unbiased estimate of the trace by each probe, ``(B, K)``."""
    return torch.stack([event_sum(sign * pull(sign)) for sign in signs], 1)
