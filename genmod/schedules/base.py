r"""Noise schedules: log-SNR as a function of time.

Symbols: :math:`z_t = \alpha_t x + \sigma_t \varepsilon`, :math:`\lambda_t = \log(\alpha_t^2 / \sigma_t^2)`
(``log_snr``), ``t`` in [0, 1] from clean (0) to noise (1), ``s < t``. DDPM's :math:`\bar\alpha_t` is
:math:`\alpha_t^2` here.

Claim: if the log-SNR decreases strictly and is finite at both ends, the KL of every step is finite and
positive. Precision: times are float64 where the device has it, and so is what is computed from them. With
a million steps, neighboring log-SNRs near 13 differ by 2e-5, of which float32 keeps one digit.

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), sections 3.1 and 3.2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from genmod.checks import check_at_least, invalid
from genmod.config import Settings
from genmod.schedules.consistency import check_schedule, check_slope, clean_end
from genmod.signatures import checked
from genmod.spec import DataSpec


def time_dtype(device: torch.device) -> torch.dtype:
    """The type of times: float64, except where the device has none (Apple's MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


class Point(NamedTuple):
    """A schedule at one time a row; each field is ``(B,)``."""

    t: Tensor
    log_snr: Tensor
    alpha: Tensor
    sigma: Tensor
    variance_preserving: bool


class Bridge(NamedTuple):
    r"""The law of :math:`z_s` given :math:`z_t` and ``x``, for ``s < t``; each field is ``(B,)``.

    .. math:: q(z_s | z_t, x) =
        \mathcal{N}(\text{coef_z}\, z_t + \text{coef_x}\, x,\ \exp(\text{log_std})^2)

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eqs. 6-7.
    """

    coef_z: Tensor
    coef_x: Tensor
    log_std: Tensor
    log_sigma_ratio: Tensor
    """``log(sigma_t / sigma_s)``: the log-std of the forward step minus ``log_std``."""

    @classmethod
    def between(cls, near: Point, far: Point) -> Bridge:
        r"""The law between two times.

        With :math:`c = 1 - \mathrm{SNR}_t / \mathrm{SNR}_s` its mean is
        :math:`\frac{\alpha_t \sigma_s^2}{\alpha_s \sigma_t^2} z_t + \alpha_s c\, x` and its variance
        :math:`\sigma_s^2 c`.

        Reference: Kingma et al. (2021), appendix A.2, eqs. 25-27.
        """
        kept = -torch.expm1(far.log_snr - near.log_snr)
        return cls(
            coef_z=(far.alpha / near.alpha) * (near.sigma / far.sigma).square(),
            coef_x=near.alpha * kept,
            log_std=near.sigma.log() + 0.5 * kept.log(),
            log_sigma_ratio=(far.sigma / near.sigma).log(),
        )


class Schedule(Settings, nn.Module, ABC):
    r"""The base class of noise schedules: a log-SNR on [0, 1], decreasing and finite at both ends.

    .. math:: z_t = \alpha_t x + \sigma_t \varepsilon, \qquad \lambda_t = \log(\alpha_t^2 / \sigma_t^2)

    A schedule of your own defines :meth:`log_snr`. If its states are not variance preserving, it also
    defines :meth:`scales`, consistent with it, and sets ``variance_preserving = False``. A closed form
    of :meth:`slope` is optional. Models and samplers call :meth:`check`, which compares the three.

    >>> class Straight(Schedule):
    ...     def log_snr(self, t):
    ...         return 4 - 9 * t
    >>> Straight().scales(torch.tensor([0.0, 1.0], dtype=torch.float64))[0].square()
    tensor([0.9820, 0.0067], dtype=torch.float64)

    Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), section 3.
    """

    variance_preserving = True
    """Whether ``alpha_t**2 + sigma_t**2`` is one."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """The log signal-to-noise ratio at each time, of the shape of ``t``."""

    def forward(self, t: Tensor) -> Tensor:
        """:meth:`log_snr`."""
        return self.log_snr(t)

    def slope(self, t: Tensor) -> Tensor:
        """The derivative of :meth:`log_snr` at each time (negative), by automatic differentiation.

        Works inside ``torch.no_grad()`` and ``torch.inference_mode()`` too.

        Raises:
            ValueError: no gradient reaches ``t`` through ``log_snr``, from a table look-up for example.
        """
        return _derivative(self._recorded, t, type(self).__name__)

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`(\alpha_t, \sigma_t)`; by default variance preserving: their squares sum to one."""
        return self._scales(self.log_snr(t))

    def at(self, t: Tensor) -> Point:
        """Log-SNR and scales at each time."""
        log_snr = self.log_snr(t)
        # The log-SNR once, unless a subclass has scales of its own.
        own = type(self).scales is not Schedule.scales
        scales = self.scales(t) if own else self._scales(log_snr)
        return Point(t, log_snr, *scales, self.variance_preserving)

    def _scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """The scales at each log-SNR: a hook of the wrappers of this package."""
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()

    def bridge(self, s: Tensor, t: Tensor) -> Bridge:
        r"""The law of :math:`z_s` given :math:`z_t` and ``x``."""
        return Bridge.between(self.at(s), self.at(t))

    @torch.no_grad()
    def log_snr_range(self) -> tuple[float, float]:
        """The log-SNR at the clean end (t = 0) and at the noisy end (t = 1)."""
        clean, noisy = self.log_snr(self._times(2)).tolist()
        return clean, noisy

    @torch.no_grad()
    def scales_at_zero(self) -> tuple[float, float]:
        r""":math:`\alpha_0` and :math:`\sigma_0`: :math:`z_0 = \alpha_0 x + \sigma_0 \varepsilon`."""
        alpha, sigma = self.scales(self._times(1))
        return float(alpha), float(sigma)

    @checked
    def alpha_bars(self, steps: int) -> Tensor:
        r"""DDPM's :math:`\bar\alpha_1, \dots, \bar\alpha_T`, ``(T,)``, for ``steps`` latents.

        They are :math:`\mathrm{sigmoid}(\lambda)`, those of the process scaled to preserve variance, for
        every schedule. They lie on the same curve for any number of steps.
        """
        return self._nodes(steps).sigmoid()

    @checked
    def betas(self, steps: int) -> Tensor:
        r"""DDPM's :math:`\beta_1, \dots, \beta_T`, ``(T,)``, for ``steps`` latents.

        .. math:: \beta_i = 1 - \bar\alpha_i / \bar\alpha_{i-1}, \qquad \bar\alpha_0 = 1

        Reference: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 19.

        >>> from genmod.schedules import Cosine
        >>> Cosine().betas(3)
        tensor([1.6745e-06, 4.5974e-01, 9.8761e-01], dtype=torch.float64)
        """
        kept = nn.functional.logsigmoid(self._nodes(steps))
        return -torch.expm1(torch.cat([kept[:1], kept.diff()]))

    @torch.no_grad()
    def _nodes(self, steps: int) -> Tensor:
        """The log-SNR of each of ``steps`` latents, on the CPU."""
        check_at_least(steps, 1, "steps", "steps counts the latents")
        return self.log_snr(self._times(steps)).cpu()

    def _times(self, count: int) -> Tensor:
        """Times from 0 to 1, on the device of the schedule's own tensors."""
        own = (*self.parameters(), *self.buffers())
        device = own[0].device if own else torch.device("cpu")
        return torch.linspace(0, 1, count, dtype=time_dtype(device), device=device)

    @torch.no_grad()
    def time(self, log_snr: Tensor) -> Tensor:
        """The time at which the schedule has each log-SNR: the inverse of :meth:`log_snr`.

        Log-SNRs beyond an end give that end.
        """
        clean, noisy = self.log_snr_range()
        inside = self._time(log_snr.clamp(noisy, clean)).clamp(0, 1)
        inside = torch.where(log_snr <= noisy, torch.ones_like(inside), inside)
        return torch.where(log_snr >= clean, torch.zeros_like(inside), inside)

    def _time(self, log_snr: Tensor) -> Tensor:
        """The inverse between the ends: bisection to the last bit, unless a subclass has a formula."""
        return _bisected(self.log_snr, log_snr)

    def resolve(self, spec: DataSpec) -> Schedule:
        r"""The schedule for given data: a copy whose free clean end is set for them.

        A schedule without a free end is returned as it is. A table of betas whose clean end is far cleaner
        than the data need gives a warning: its extra levels need nats and training time.

        Args:
            spec: the description of the data; the clean end depends on its number of values.

        Returns:
            A schedule with fixed ends. For ``n`` values the clean end is :math:`\log n - 1`, at least 1;
            for bits 2.5, for real numbers 13.3.

        Raises:
            ValueError: the schedule is inconsistent; see :meth:`check`.
        """
        self.check()
        return self._with_clean(clean_end(spec.bins), spec.bins)

    def _with_clean(self, clean: float, bins: int | None) -> Schedule:
        """The schedule with its clean end at ``clean``, if that end is free."""
        return self

    def check(self) -> None:
        """Require :meth:`log_snr`, :meth:`scales` and :meth:`slope` to describe one schedule.

        Compared numerically at 1001 times. Models, encoders and wrappers call it when they are built.

        Raises:
            ValueError: the log-SNR is infinite or does not decrease; the scales belong to another
                log-SNR, or are not variance preserving though ``variance_preserving`` is true; the slope
                is not the derivative.
        """
        t = self._times(1001)
        check_schedule(self, t)
        if type(self).slope is not Schedule.slope or self._is_differentiable(t):
            check_slope(self, t)

    def _is_differentiable(self, t: Tensor) -> bool:
        """Whether autograd can differentiate the log-SNR. (Only continuous time needs a slope.)"""
        with torch.inference_mode(False), torch.enable_grad():
            return self._recorded(t.clone().requires_grad_()).requires_grad

    def _recorded(self, t: Tensor) -> Tensor:
        """The log-SNR with a graph for autograd, also for parameters made in inference mode."""
        own = (*self.named_parameters(), *self.named_buffers())
        copies = {name: tensor.clone() for name, tensor in own if tensor.is_inference()}
        # Autograd cannot save a parameter made in inference mode, but it can save a copy of it.
        return functional_call(self, copies, (t,)) if copies else self.log_snr(t)

    def extra_repr(self) -> str:
        """The two ends."""
        clean, noisy = self.log_snr_range()
        return f"log_snr {clean:.4g} .. {noisy:.4g}"


def _derivative(log_snr: Callable[[Tensor], Tensor], t: Tensor, name: str) -> Tensor:
    """The derivative of a log-SNR by autograd, where gradients are disabled too."""
    keep = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        # A clone: a tensor made in inference mode can never require a gradient.
        time = t.detach().clone().requires_grad_()
        values = log_snr(time)
        if not values.requires_grad:
            raise invalid(
                f"a {name} whose log_snr(t) has no gradient with respect to t",
                "differentiable operations on t",
                "compute log_snr from t with torch functions, or define slope(t) in the class",
            )
        (slope,) = torch.autograd.grad(values.sum(), time, create_graph=keep)
    return slope


def _bisected(log_snr: Callable[[Tensor], Tensor], wanted: Tensor) -> Tensor:
    """The times in [0, 1] at which a decreasing log-SNR has given values, to the last bit."""
    low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
    for _ in range(64):
        middle = (low + high) / 2
        above = log_snr(middle) > wanted
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2
