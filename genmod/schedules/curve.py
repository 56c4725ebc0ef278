r"""Curves between two log-SNRs: the base class, and curves that are learned.

In continuous time the bound does not depend on a schedule between its ends; the variance of its
one-draw estimate does. So the denoiser follows the gradient of the estimate :math:`L`, and the
schedule that of :math:`L^2`, which is :math:`2 L` times the same gradient for each sample. The outputs of
a learned schedule pass through a :class:`GradientScale`, so that one backward pass serves both.

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), section 5.1 and
appendices H and I.2.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from genmod.checks import check_at_least
from genmod.config.settings import arguments
from genmod.schedules.base import Schedule
from genmod.schedules.consistency import NOMINAL, checked_ends


class Curve(Schedule, ABC):
    r"""The base class of schedules between two log-SNRs: ``clean`` at t = 0 and ``noisy`` at t = 1.

    A free clean end is ``nominal`` until :meth:`~genmod.schedules.Schedule.resolve` sets it for the data.
    Models do so when they are built: the best end depends on the number of values.

    Args:
        clean: log-SNR at t = 0; ``None`` leaves it free.
        noisy: log-SNR at t = 1.
        nominal: a free clean end before a model sets it.

    Raises:
        ValueError: ``clean <= noisy``, or an infinite end.

    >>> from genmod.schedules import Cosine
    >>> Cosine(), Cosine(clean=4.0)
    (Cosine(log_snr 13.3 .. -5, clean end free), Cosine(log_snr 4 .. -5))
    """

    clean: float
    noisy: float

    def __init__(self, clean: float | None, noisy: float, nominal: float = NOMINAL) -> None:
        super().__init__()
        self.has_free_end = clean is None
        self._set_ends(nominal if clean is None else clean, noisy)

    def _set_ends(self, clean: float, noisy: float) -> None:
        """Set the two ends. Subclasses also compute what depends on them."""
        self.clean, self.noisy = checked_ends(clean, noisy)

    def _with_clean(self, clean: float, bins: int | None) -> Schedule:
        if not self.has_free_end:
            return self
        # A copy: the same schedule may serve models of other data.
        bound = copy.deepcopy(self)
        bound.has_free_end = False
        bound._set_ends(clean, self.noisy)
        name, value = self._end_argument(clean)
        settings = arguments(bound)
        if settings is not None and name in settings:
            settings[name] = value  # so that a file of settings gives the same schedule back
        bound.check()
        return bound

    def _end_argument(self, clean: float) -> tuple[str, float]:
        """The constructor's argument for the clean end, and its value."""
        return "clean", clean

    def extra_repr(self) -> str:
        return super().extra_repr() + (", clean end free" if self.has_free_end else "")


class GradientScale:
    """The identity, whose gradient is multiplied by :attr:`rows`, one factor for each row, ``(B,)``.

    The factors depend on the loss. So they are set after the forward pass, before the backward pass.
    """

    def __init__(self) -> None:
        self.rows: Tensor | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """The same values; their gradient is scaled on its way to the schedule."""
        if not values.requires_grad:
            return values
        scaled = values.clone()
        scaled.register_hook(self._scale)
        return scaled

    def _scale(self, gradient: Tensor) -> Tensor:
        assert self.rows is not None, "a backward pass before the factors were set"
        levels, rest = divmod(len(gradient), len(self.rows))
        # Not one value for each row and level: an end, computed once for all rows, without a gradient.
        if rest:
            return torch.zeros_like(gradient)
        return gradient * self.rows.to(gradient.dtype).repeat_interleave(levels)


_active: ContextVar[GradientScale | None] = ContextVar("gradient_scale", default=None)


@contextmanager
def scale_gradient() -> Iterator[GradientScale]:
    """Inside this block, the outputs of every :class:`Learnable` schedule go through one GradientScale."""
    scale = GradientScale()
    token = _active.set(scale)
    try:
        yield scale
    finally:
        _active.reset(token)


class Learnable(Curve, ABC):
    r"""The base class of learned schedules: the curve has parameters, its ends are fixed.

    .. math:: \lambda_t = \lambda_0 + (\lambda_1 - \lambda_0)\, u(t), \qquad u(0) = 0,\ u(1) = 1

    A subclass defines :meth:`path`. Parameters keep their type when the model is cast: half precision
    does not resolve neighboring levels.

    Args:
        clean: log-SNR at t = 0; ``None`` leaves it free: a model sets it for its data.
        noisy: log-SNR at t = 1.
    """

    @abstractmethod
    def path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``u(t)``, strictly increasing from 0 to 1 whatever the parameters are, and its derivative."""

    def log_snr(self, t: Tensor) -> Tensor:
        return self._scaled(self.clean + (self.noisy - self.clean) * self.path(t)[0])

    def slope(self, t: Tensor) -> Tensor:
        """Its derivative, differentiable with respect to the parameters."""
        return self._scaled((self.noisy - self.clean) * self.path(t)[1])

    def _scaled(self, values: Tensor) -> Tensor:
        scale = _active.get()
        return values if scale is None else scale(values)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Learnable:
        def moved(tensor: Tensor) -> Tensor:
            cast = fn(tensor)
            return cast if cast.dtype is tensor.dtype else tensor.to(cast.device)

        whole: Callable[..., nn.Module] = super()._apply  # torch's has no types
        whole(moved, recurse)
        return self


class MonotoneNetwork(Learnable):
    r"""A learned schedule: a monotone network of one hidden layer.

    .. math:: u(t) = \frac{g(t) - g(0)}{g(1) - g(0)}, \qquad
        g(t) = t + \sum_k w_k\, \mathrm{sigmoid}(b_k t + c_k), \qquad w_k, b_k > 0

    It starts close to a straight line. Train it with :class:`~genmod.objectives.LearnedSchedule`. Weights
    are exponentials here, so that none is stuck at zero; the paper has absolute values, and 1024 features.

    Args:
        clean: log-SNR at t = 0; ``None`` leaves it free: a model sets it for its data.
        noisy: log-SNR at t = 1.
        features: the number of sigmoids.

    Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), appendices H and I.2.

    >>> MonotoneNetwork()
    MonotoneNetwork(log_snr 13.3 .. -5, clean end free)
    """

    def __init__(self, clean: float | None = None, noisy: float = -5.0, features: int = 64) -> None:
        super().__init__(clean, noisy)
        check_at_least(features, 1, "features", "64 bend a curve well")
        # Sigmoids side by side: each rises where its neighbor has risen half-way.
        steep = max(1.0, 2.0 * features)
        centers = (torch.arange(features) + 0.5) / features
        self.log_weight = nn.Parameter(torch.full((features,), -math.log(features)))
        self.log_steepness = nn.Parameter(torch.full((features,), math.log(steep)))
        self.shift = nn.Parameter(-steep * centers)
        self.check()

    def path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        weight, steepness, shift = (
            parameter.to(dtype=t.dtype, device=t.device)
            for parameter in (self.log_weight, self.log_steepness, self.shift)
        )
        weight, steepness = weight.exp(), steepness.exp()
        risen = (steepness * t[..., None] + shift).sigmoid()
        start, end = shift.sigmoid(), (steepness + shift).sigmoid()
        # Sums instead of matrix products: autocast computes those in half precision, where log-SNRs near
        # 13 are 0.008 apart.
        width = 1 + ((end - start) * weight).sum()
        slope = 1 + (risen * (1 - risen) * weight * steepness).sum(-1)
        return (t + ((risen - start) * weight).sum(-1)) / width, slope / width
