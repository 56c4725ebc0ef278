"""The sigmoid schedule."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genmod.checks import require
from genmod.schedules.curve import Curve


class Sigmoid(Curve):
    r"""Signal that falls along a sigmoid, cut at stated log-SNR ends.

    .. math:: \bar\alpha = \frac{S(e) - S(v)}{S(e) - S(b)}, \qquad S = \mathrm{sigmoid}

    where ``v`` runs linearly in ``t`` from :math:`b` (``start / temperature``) towards :math:`e`
    (``end / temperature``). Uncut, its log-SNR is infinite at both ends, so ``t`` runs over the part
    between the ends given here; inside, the curve is unchanged.

    Args:
        start: where the sigmoid starts.
        end: where it ends.
        temperature: divides both: lower is steeper in the middle.
        clean: log-SNR at t = 0; ``None`` leaves it free: a model sets it for its data.
        noisy: log-SNR at t = 1.

    Reference: Jabri, Fleet, Chen, "Scalable Adaptive Computation for Iterative Generation" (2023); as
    written in Chen, "On the Importance of Noise Scheduling for Diffusion Models" (2023), algorithm 1.

    >>> Sigmoid().alpha_bars(3)
    tensor([1.0000, 0.5175, 0.0067], dtype=torch.float64)
    """

    def __init__(
        self,
        start: float = -3.0,
        end: float = 3.0,
        temperature: float = 1.0,
        clean: float | None = None,
        noisy: float = -5.0,
    ) -> None:
        require(end > start, f"start={start}, end={end}", "start < end", "swap them")
        require(temperature > 0, f"temperature={temperature}", "above 0", "the paper's is 1")
        self.width = (end - start) / temperature
        # S(a) - S(b) = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2)): no difference is lost.
        half = 0.5 / temperature
        self.offset = math.log(math.cosh(start * half)) - math.log(math.cosh(end * half))
        super().__init__(clean, noisy)
        self.check()

    def _set_ends(self, clean: float, noisy: float) -> None:
        super()._set_ends(clean, noisy)
        ends = torch.tensor([clean, noisy], dtype=torch.float64)
        self.first, last = self._run(ends).tolist()
        self.rest = float(self._left(ends[1]))
        self.rise = last - self.first

    def _run(self, log_snr: Tensor) -> Tensor:
        r"""How far ``v`` has run where the log-SNR is :math:`\lambda`: the inverse of the curve."""
        ratio, half = (log_snr - self.offset).exp(), 0.5 * self.width
        return (2 * math.sinh(half) / (ratio + math.exp(-half))).log1p()

    def _left(self, log_snr: Tensor) -> Tensor:
        r"""How far ``v`` has still to run there.

        The width less what has run, which at a log-SNR of -36 rounds to the width itself.
        """
        ratio, half = (self.offset - log_snr).exp(), 0.5 * self.width
        return (2 * math.sinh(half) / (ratio + math.exp(-half))).log1p()

    def _ways(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """How far ``v`` has run and has still to run, each precise where it is short."""
        return self.first + self.rise * t, self.rest + self.rise * (1 - t)

    def log_snr(self, t: Tensor) -> Tensor:
        r""":math:`\log\frac{\sinh((e - v) / 2)\, \cosh(b / 2)}{\sinh((v - b) / 2)\, \cosh(e / 2)}`."""
        run, left = self._ways(t)
        return _log_sinh(0.5 * left) - _log_sinh(0.5 * run) + self.offset

    def slope(self, t: Tensor) -> Tensor:
        """Its derivative in closed form."""
        run, left = self._ways(t)
        slope: Tensor = -0.5 * self.rise * (1 / (0.5 * left).tanh() + 1 / (0.5 * run).tanh())
        return slope

    def _time(self, log_snr: Tensor) -> Tensor:
        time: Tensor = (self._run(log_snr) - self.first) / self.rise
        return time


def _log_sinh(x: Tensor) -> Tensor:
    """For ``x > 0``: neither a small nor a large ``x`` leaves the range of numbers."""
    return x + (-torch.expm1(-2 * x)).log() - math.log(2)
