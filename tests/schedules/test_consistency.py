r"""A schedule whose parts contradict each other is refused by whatever is built with it.

The oracle: x ~ N(0, 1) under the optimal denoiser. Every consistent schedule then gives a bound below
log p(x); the schedules here gave up to 7 nats more before they were refused.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genmod.denoisers import GaussianDenoiser
from genmod.diffusion import DiffusionPrior, NoisingEncoder
from genmod.models import Diffusion
from genmod.samplers import Heun
from genmod.schedules import (
    Cosine,
    LinearLogSNR,
    Schedule,
    Shifted,
    Table,
    VarianceExploding,
)

F64 = torch.float64
TIMES = torch.linspace(0, 1, 101, dtype=F64)


class Line(Schedule):
    """A log-SNR and nothing else: all other methods are the base class's."""

    def log_snr(self, t: Tensor) -> Tensor:
        return 5 - 10 * t


class ScalesOfAnotherLogSNR(Line):
    """Scales that lie 1 above the log-SNR."""

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_snr = self.log_snr(t) + 1
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()


class ScalesAlone(LinearLogSNR):
    """``scales`` of a straight path, whose log-SNR is another."""

    variance_preserving = False

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        u = 0.01 + 0.98 * t
        return 1 - u, u


class NotPreserving(Line):
    """Consistent scales, under the wrong flag."""

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), (-0.5 * self.log_snr(t)).exp()


class PrivateScales(Line):
    """The method that wrappers change, changed wrongly."""

    def _scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return log_snr.sigmoid(), (-log_snr).sigmoid()


class NegativeAlpha(Line):
    """The sign of the data turned."""

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = super().scales(t)
        return -alpha, sigma


class HalfSlope(Line):
    """A closed form with a factor lost."""

    def slope(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -5.0)


class LocallyWrongSlope(Line):
    """Right on the first half."""

    def slope(self, t: Tensor) -> Tensor:
        return torch.where(t < 0.5, -10.0, -11.0).to(t.dtype)


class DetachedPart(Schedule):
    """Autograd sees one of two terms, so the base class's slope is wrong."""

    def log_snr(self, t: Tensor) -> Tensor:
        return 5 - 5 * t - 5 * t.detach()


class OneNumber(Line):
    """One log-SNR for all times."""

    def log_snr(self, t: Tensor) -> Tensor:
        return (5 - 10 * t).sum()


class AnotherPoint(Line):
    """``at`` disagrees with ``scales``: the bound reads the former, samplers the latter."""

    def _scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return super()._scales(log_snr + 0.5)

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return super().scales(t)


REFUSED: dict[str, tuple[Callable[[], Schedule], str]] = {
    "scales of another log-SNR": (ScalesOfAnotherLogSNR, "where log_snr gives"),
    "scales alone": (ScalesAlone, "compute scales from log_snr"),
    "not variance preserving": (NotPreserving, "set variance_preserving = False"),
    "private scales": (PrivateScales, "alpha, sigma > 0"),
    "negative alpha": (NegativeAlpha, "alpha, sigma > 0"),
    "half of the slope": (HalfSlope, "correct slope, or leave it out"),
    "slope wrong on one half": (LocallyWrongSlope, "the derivative of log_snr"),
    "a detached part": (DetachedPart, "the derivative of log_snr"),
    "one number for all times": (OneNumber, "one log-SNR for each time"),
    "a point of another log-SNR": (AnotherPoint, "where log_snr gives"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize(
    "user",
    [
        NoisingEncoder,
        VarianceExploding,
        lambda s: Shifted(s, 1.0),
        lambda s: DiffusionPrior(GaussianDenoiser(torch.zeros(2), torch.eye(2)), s, (2,)),
        lambda s: Heun(None, s),
        lambda s: Diffusion(2, schedule=s, width=8),
    ],
)
def test_a_contradiction_is_refused_at_construction(
    case: str, user: Callable[[Schedule], object]
) -> None:
    """By an encoder, and by schedules made of it."""
    build, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        user(build())


class StraightPath(Schedule):
    """Scales of one's own that agree with the log-SNR."""

    variance_preserving = False

    def log_snr(self, t: Tensor) -> Tensor:
        alpha, sigma = self.scales(t)
        return 2 * (alpha / sigma).log()

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        u = 0.01 + 0.98 * t
        return 1 - u, u


class FromTable(Schedule):
    """A look-up that autograd cannot differentiate: it serves discrete time."""

    def log_snr(self, t: Tensor) -> Tensor:
        found = np.interp(t.detach().cpu().numpy(), [0.0, 0.3, 1.0], [5.0, 1.0, -6.0])
        return torch.as_tensor(found, dtype=t.dtype, device=t.device)


class Float32(Schedule):
    """A log-SNR computed in float32."""

    def log_snr(self, t: Tensor) -> Tensor:
        return 5 - 10 * t.float()


class Learned(Schedule):
    """A schedule with a parameter, and the base class's slope."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(10.0, dtype=F64))

    def log_snr(self, t: Tensor) -> Tensor:
        return 5 - self.rate * t - t.square()


ACCEPTED: list[Callable[[], Schedule]] = [
    Line,
    StraightPath,
    FromTable,
    Float32,
    Learned,
    lambda: Table(torch.linspace(9, -9, 1000)),
    lambda: Cosine(0.008, 40.0, -40.0),
]


@pytest.mark.parametrize("build", ACCEPTED)
def test_what_agrees_is_accepted(build: Callable[[], Schedule]) -> None:
    schedule = build()
    NoisingEncoder(schedule)
    point, scales = schedule.at(TIMES), schedule.scales(TIMES)
    torch.testing.assert_close((point.alpha, point.sigma), scales)


def test_overridden_scales_reach_the_bound() -> None:
    """``at`` and ``bridge``, of which the bound is made, read an overridden ``scales``."""
    point = StraightPath().at(TIMES)
    torch.testing.assert_close(point.alpha + point.sigma, torch.ones_like(TIMES))
    s, t = TIMES[:-1], TIMES[1:]
    bridge = StraightPath().bridge(s, t)
    alpha_s, alpha_t = StraightPath().scales(s)[0], StraightPath().scales(t)[0]
    torch.testing.assert_close(bridge.coef_z * alpha_t + bridge.coef_x, alpha_s)


@pytest.mark.parametrize("build", [Line, Learned, StraightPath])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("made_inside", [False, True])
def test_the_base_slope_is_right_in_every_mode(
    build: Callable[[], Schedule], mode: Callable[[], torch.no_grad], made_inside: bool
) -> None:
    """Also of a schedule built inside."""
    schedule = build()
    with mode():
        schedule = build() if made_inside else schedule
        t = torch.linspace(0.1, 0.9, 9, dtype=F64)
        slope = schedule.slope(t)
        numeric = (schedule.log_snr(t + 1e-6) - schedule.log_snr(t - 1e-6)) / 2e-6
        torch.testing.assert_close(slope, numeric, rtol=1e-6, atol=1e-6)
    if mode is not torch.enable_grad:
        assert not slope.requires_grad
    elif build is Learned and not made_inside:
        assert torch.autograd.grad(slope.sum(), list(schedule.parameters()))[0] == -9


def test_a_slope_that_autograd_cannot_give_is_refused() -> None:
    with pytest.raises(ValueError, match="define slope"):
        FromTable().slope(TIMES)


def test_a_table_used_first_in_inference_mode_trains_later() -> None:
    """The table is kept in the type of the times: kept in inference mode, no graph could hold it."""
    table = Table(torch.tensor([5.0, 1.0, -4.0]))
    t = torch.tensor([0.2, 0.7])
    with torch.inference_mode():
        table.log_snr(t)
    time = t.clone().requires_grad_()
    (slope,) = torch.autograd.grad(table.log_snr(time).sum(), time)
    torch.testing.assert_close(slope, torch.tensor([-8.0, -10.0]))
