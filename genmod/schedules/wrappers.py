r"""Schedules around another schedule: a part of it, its log-SNR shifted, or its states on another scale.

The bound of a diffusion depends only on the log-SNR. Other scales change neither the bound nor the samples,
unless the reverse variance depends on the forward step's: :class:`genmod.diffusion.FixedLarge`, and
:class:`genmod.diffusion.LearnedInterpolation`.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genmod.checks import check_positive, invalid
from genmod.config.settings import arguments
from genmod.schedules.base import Schedule
from genmod.schedules.quantiles import Logistic


class Wrapper(Schedule, ABC):
    """The base class of schedules around another schedule.

    Args:
        schedule: the other schedule.

    Raises:
        ValueError: the other schedule is not consistent (see :meth:`~genmod.schedules.Schedule.check`).
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        schedule.check()
        self.schedule = schedule

    def _around(self, inner: Schedule) -> Schedule:
        """The same wrapper around another schedule; itself around the same one."""
        if inner is self.schedule:
            return self
        bound = copy.deepcopy(self)
        bound.schedule = inner
        settings = arguments(bound)
        if settings is not None and "schedule" in settings:
            settings["schedule"] = inner
        bound.check()
        return bound


class Cut(Wrapper):
    r"""The part of a schedule between two log-SNRs; between them, the curve is unchanged.

    .. math:: \lambda'_t = \lambda_{(1 - t)\, t_0 + t\, t_1}, \qquad \lambda_{t_0} = \text{clean},\
        \lambda_{t_1} = \text{noisy}

    It is meant for tables of betas: their clean end suits 8-bit images, and data of fewer values need a
    noisier one. ``LinearBeta(1000).cut(clean=2.0)`` returns one.

    Args:
        schedule: the whole schedule.
        clean: the new log-SNR at t = 0; by default the schedule's own.
        noisy: the new log-SNR at t = 1; by default the schedule's own.

    Raises:
        ValueError: an end outside the schedule's own range, or ``clean <= noisy``.
    """

    def __init__(
        self, schedule: Schedule, clean: float | None = None, noisy: float | None = None
    ) -> None:
        super().__init__(schedule)
        first, last = schedule.log_snr_range()
        ends = (first if clean is None else clean, last if noisy is None else noisy)
        if not first >= ends[0] > ends[1] >= last:
            raise invalid(
                f"a cut from {ends[0]:g} to {ends[1]:g} of a schedule from {first:g} to {last:g}",
                "ends inside its own, clean > noisy",
                "cut less, or take LinearLogSNR(clean, noisy), which can have any two ends",
            )
        self.variance_preserving = schedule.variance_preserving
        self.start, self.end = schedule.time(torch.tensor(ends, dtype=torch.float64)).tolist()
        self.check()

    def _inner(self, t: Tensor) -> Tensor:
        """The time in the whole schedule; exact at both ends."""
        inner: Tensor = self.start * (1 - t) + self.end * t
        return inner

    def log_snr(self, t: Tensor) -> Tensor:
        return self.schedule.log_snr(self._inner(t))

    def slope(self, t: Tensor) -> Tensor:
        slope: Tensor = (self.end - self.start) * self.schedule.slope(self._inner(t))
        return slope

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule.scales(self._inner(t))

    def _scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule._scales(log_snr)

    def _time(self, log_snr: Tensor) -> Tensor:
        time: Tensor = (self.schedule.time(log_snr) - self.start) / (self.end - self.start)
        return time


class Shifted(Wrapper):
    r"""A schedule with its log-SNR shifted: more signal at every time (``by > 0``) or less.

    .. math:: \lambda_t' = \lambda_t + \text{by}

    Averaging neighboring pixels removes noise and keeps the image. So at ``d`` pixels a side, a log-SNR
    shifted by :math:`2 \log(\text{reference} / d)` hides as much of the image as the schedule does at
    ``reference`` pixels: see :meth:`to_resolution`. Scaling the data by ``b`` is
    ``by = 2 log b``. Shifted times of a rectified flow, :math:`t' = \frac{s t}{1 + (s - 1) t}`, are
    ``by = -2 log s``.

    Both ends are shifted. A free clean end is set so that the shifted end is what the data need.

    Args:
        schedule: the schedule to shift.
        by: the shift, in log-SNR.

    Reference: Hoogeboom, Heek, Salimans, "Simple diffusion" (2023), section 3.1; Chen, "On the
    Importance of Noise Scheduling for Diffusion Models" (2023), section 2.2; Esser et al., "Scaling
    Rectified Flow Transformers" (2024), eq. 23.
    """

    def __init__(self, schedule: Schedule, by: float) -> None:
        super().__init__(schedule)
        self.by, self.variance_preserving = by, schedule.variance_preserving
        self.check()

    @staticmethod
    def to_resolution(schedule: Schedule, resolution: int, reference: int = 64) -> Shifted:
        """A schedule for images of ``reference`` pixels a side, shifted to suit ``resolution``.

        >>> from genmod.schedules import Cosine
        >>> Shifted.to_resolution(Cosine(), 256).by
        -2.772588722239781
        """
        check_positive(resolution, "resolution")
        check_positive(reference, "reference")
        return Shifted(schedule, 2 * math.log(reference / resolution))

    def log_snr(self, t: Tensor) -> Tensor:
        return self.schedule.log_snr(t) + self.by

    def slope(self, t: Tensor) -> Tensor:
        return self.schedule.slope(t)

    def _time(self, log_snr: Tensor) -> Tensor:
        return self.schedule.time(log_snr - self.by)

    def _with_clean(self, clean: float, bins: int | None) -> Schedule:
        return self._around(self.schedule._with_clean(clean - self.by, bins))

    def _scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule._scales(log_snr)


class OnOtherScales(Wrapper, ABC):
    """The base class of schedules with the log-SNR of another one and states on other scales."""

    variance_preserving = False

    def log_snr(self, t: Tensor) -> Tensor:
        return self.schedule.log_snr(t)

    def slope(self, t: Tensor) -> Tensor:
        return self.schedule.slope(t)

    def _time(self, log_snr: Tensor) -> Tensor:
        return self.schedule.time(log_snr)

    def _with_clean(self, clean: float, bins: int | None) -> Schedule:
        return self._around(self.schedule._with_clean(clean, bins))

    @abstractmethod
    def _scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """The scales at each log-SNR."""


class VarianceExploding(OnOtherScales):
    r"""Variance-exploding states: :math:`\alpha = 1`, :math:`\sigma = e^{-\lambda / 2}`.

    Args:
        schedule: the log-SNR: ``LogNormal()`` or ``Polynomial()`` for EDM.

    Reference: Song et al., "Score-Based Generative Modeling through SDEs" (2021), section 3.4.

    >>> from genmod.schedules import LinearLogSNR
    >>> VarianceExploding(LinearLogSNR(4.0, -4.0)).scales(torch.tensor([0.0, 0.5]))
    (tensor([1., 1.]), tensor([0.1353, 1.0000]))
    """

    def _scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(log_snr), (-0.5 * log_snr).exp()


class RectifiedFlow(OnOtherScales):
    r"""Rectified flow: states on the straight line from data to noise, :math:`(1 - u) x + u \varepsilon`.

    By default ``u`` is linear in ``t``, from :math:`\mathrm{sigmoid}(-\text{clean} / 2)` to
    :math:`\mathrm{sigmoid}(-\text{noisy} / 2)`: rectified flow, cut at finite log-SNRs. With another
    schedule ``u`` is not linear in ``t``: ``LogNormal`` gives logit-normal times, ``Shifted`` shifted ones.

    Args:
        schedule: the log-SNR; ``Logistic()`` by default.

    Reference: Liu, Gong, Liu, "Flow Straight and Fast" (2023), eq. 1; Lipman et al., "Flow Matching for
    Generative Modeling" (2023), eq. 22.

    >>> RectifiedFlow().scales(torch.tensor([0.5, 1.0]))
    (tensor([0.5000, 0.0013]), tensor([0.5000, 0.9987]))
    """

    def __init__(self, schedule: Schedule | None = None) -> None:
        super().__init__(schedule or Logistic())

    def _scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return (0.5 * log_snr).sigmoid(), (-0.5 * log_snr).sigmoid()
