r"""Schedules given as a table of T betas, the published tables, and a rescaling to zero terminal SNR.

A table's :math:`\beta_i` and :math:`\bar\alpha_i` are those of its paper, for ``i = 1 .. T``; the
latent :math:`x_i` lies at ``t = (i - 1) / (T - 1)``.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from genmod.checks import check_at_least, invalid
from genmod.schedules.base import Schedule
from genmod.schedules.wrappers import Cut

FAR = 5.0
"""How far above the needed log-SNR a table's clean end may lie without a warning. DDPM's table is 4.7 above
it on 8-bit images, which is common practice, and 7.4 above it on the digits."""


class Table(Schedule):
    r"""A table of log-SNRs at :math:`t = 0, 1/(T-1), \dots, 1`, with straight lines between.

    A model may have any number of latents. If ``steps - 1`` divides ``T - 1``, each of them is an entry of
    the table; otherwise they lie on the straight lines.

    Args:
        log_snrs: ``(T,)``, strictly decreasing, at least two.
    """

    def __init__(self, log_snrs: Tensor) -> None:
        super().__init__()
        if log_snrs.ndim != 1 or len(log_snrs) < 2:
            raise invalid(
                f"a table of shape {tuple(log_snrs.shape)}",
                "one dimension and at least 2 entries",
                "a diffusion of one latent needs no table: use steps=1 with any schedule",
            )
        # A plain attribute, not a buffer: .half() must not round it.
        self.table = log_snrs.detach().double().cpu()
        self._placed: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        rising = (self.table.diff() >= 0).nonzero().flatten()
        if not self.table.isfinite().all() or len(rising):
            raise invalid(
                f"a table with infinite entries or a rise at {rising[:3].tolist()}",
                "finite, strictly decreasing log-SNRs",
                "clip betas away from 0 and 1",
            )

    @staticmethod
    def from_betas(betas: Tensor) -> Table:
        r"""The table of DDPM's :math:`\beta_1, \dots, \beta_T`; :math:`x_i` lies at ``(i-1)/(T-1)``.

        Raises:
            ValueError: fewer than two betas, or one outside (0, 1).
        """
        if betas.ndim != 1 or len(betas) < 2:
            raise invalid(
                f"betas of shape {tuple(betas.shape)}",
                "at least two, as a vector",
                "a table of DDPM's length has 1000",
            )
        if not ((betas > 0) & (betas < 1)).all():
            raise invalid(
                f"betas from {float(betas.min()):g} to {float(betas.max()):g}",
                "every beta inside (0, 1)",
                "beta = 1 makes the log-SNR infinite: clip it to 0.999 as Improved DDPM does, or "
                "let ZeroTerminalSNR end the table at a finite floor",
            )
        log_alpha_bar = torch.log1p(-betas.double()).cumsum(0)
        return Table(log_alpha_bar - (-torch.expm1(log_alpha_bar)).log())

    def cut(self, clean: float | None = None, noisy: float | None = None) -> Cut:
        """The part of the table between two log-SNRs; inside, the curve is unchanged.

        Args:
            clean: the new log-SNR at t = 0; by default the table's own.
            noisy: the new log-SNR at t = 1; by default the table's own.

        Raises:
            ValueError: an end outside the table's own range, or ``clean <= noisy``.

        >>> from genmod.schedules import LinearBeta
        >>> LinearBeta(1000).cut(clean=2.0).log_snr_range()[0]
        2.0
        """
        return Cut(self, clean, noisy)

    def _with_clean(self, clean: float, bins: int | None) -> Schedule:
        """The table itself; warns if its clean end is much cleaner than the data need."""
        excess = float(self.table[0]) - clean
        if bins is not None and excess > FAR:
            warnings.warn(
                f"{type(self).__name__} ends at log-SNR {float(self.table[0]):.3g}, but data of {bins} "
                f"values need about {clean:.3g}: the decoder needs fewer nats for the rest. Cut the "
                f"table: schedule.cut(clean={clean:.3g})",
                UserWarning,
                stacklevel=4,
            )
        return self

    def log_snr_range(self) -> tuple[float, float]:
        return float(self.table[0]), float(self.table[-1])

    def _place(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        table = self._like(t)
        cell = t * (len(table) - 1)
        left = cell.long().clamp(0, len(table) - 2)
        low, high = table[left], table[left + 1]
        return low, high - low, cell - left

    def _like(self, t: Tensor) -> Tensor:
        """The table in the type and on the device of ``t``."""
        place = t.device, t.dtype
        if place not in self._placed:
            # A tensor made in inference mode could not be used in a later backward pass.
            with torch.inference_mode(False):
                self._placed[place] = self.table.to(dtype=t.dtype, device=t.device)
        return self._placed[place]

    def log_snr(self, t: Tensor) -> Tensor:
        low, rise, part = self._place(t)
        return torch.addcmul(low, rise, part)

    def slope(self, t: Tensor) -> Tensor:
        return self._place(t)[1] * (len(self.table) - 1)

    def _time(self, log_snr: Tensor) -> Tensor:
        table = self._like(log_snr)
        right = torch.searchsorted(-table, -log_snr.contiguous()).clamp(1, len(table) - 1)
        low, high = table[right - 1], table[right]
        return (right - 1 + (log_snr - low) / (high - low)) / (len(table) - 1)


def _counted(steps: int) -> int:
    """A number of betas, at least two: one has no slope."""
    check_at_least(steps, 2, "steps", "1000 is the default")
    return steps


class LinearBeta(Table):
    r"""The linear schedule of DDPM, entry by entry: :math:`\beta_i` is linear in ``i``.

    .. math:: \beta_i = \beta_1 + \tfrac{i - 1}{T - 1} (\beta_T - \beta_1), \qquad
        \bar\alpha_i = \prod_{j \le i} (1 - \beta_j), \qquad
        \lambda = \log\frac{\bar\alpha_i}{1 - \bar\alpha_i}

    Args:
        steps: the number of betas, ``T``.
        first: :math:`\beta_1`.
        last: :math:`\beta_T`.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), section 4.

    >>> schedule = LinearBeta(1000)
    >>> schedule
    LinearBeta(log_snr 9.21 .. -10.12)
    >>> schedule.betas(1000)[[0, -1]]
    tensor([0.0001, 0.0200], dtype=torch.float64)
    """

    def __init__(self, steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> None:
        betas = torch.linspace(first, last, _counted(steps), dtype=torch.float64)
        super().__init__(Table.from_betas(betas).table)


class ScaledLinearBeta(Table):
    r"""The schedule of latent diffusion: :math:`\sqrt{\beta_i}` is linear in ``i``.

    Args:
        steps: the number of betas, ``T``.
        first: :math:`\beta_1`; that of Stable Diffusion by default.
        last: :math:`\beta_T`.

    Reference: Rombach, Blattmann, Lorenz, Esser, Ommer, "High-Resolution Image Synthesis with Latent
    Diffusion Models" (2022), in its code.

    >>> ScaledLinearBeta(1000)
    ScaledLinearBeta(log_snr 7.069 .. -5.364)
    """

    def __init__(self, steps: int = 1000, first: float = 8.5e-4, last: float = 0.012) -> None:
        if not first > 0:
            raise invalid(f"first={first}", "a beta inside (0, 1)", "its square root is taken")
        roots = torch.linspace(first**0.5, last**0.5, _counted(steps), dtype=torch.float64)
        super().__init__(Table.from_betas(roots.square()).table)


class SigmoidBeta(Table):
    r"""Betas that rise along a sigmoid: :math:`\beta_i = \beta_1' + (\beta_T' - \beta_1')\,
    \mathrm{sigmoid}(u_i)` with :math:`u_i` linear from -6 to 6.

    In :class:`Sigmoid`, :math:`\bar\alpha` is a sigmoid instead.

    Args:
        steps: the number of betas, ``T``.
        first: :math:`\beta_1'`, the lower limit of the sigmoid.
        last: :math:`\beta_T'`, the upper limit.

    Reference: Xu et al., "GeoDiff" (2022), in its code.
    """

    def __init__(self, steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> None:
        rise = torch.linspace(-6, 6, _counted(steps), dtype=torch.float64).sigmoid()
        super().__init__(Table.from_betas(first + (last - first) * rise).table)


class CosineBeta(Table):
    r"""The exact table of Improved DDPM: the cosine's betas, none above ``largest``.

    .. math:: \beta_i = \min\left(1 - \frac{f(i/T)}{f((i-1)/T)}, 0.999\right), \qquad
        f(u) = \cos^2\left(\frac{\pi}{2} \frac{u + o}{1 + o}\right)

    :class:`Cosine` is the same curve without a table, cut at log-SNRs instead of at a beta.

    Args:
        steps: the number of betas, ``T``.
        offset: the offset :math:`o`.
        largest: what a beta is clipped to.

    Reference: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 17.
    """

    def __init__(self, steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> None:
        check_at_least(offset, 0, "offset", "the paper's is 0.008")
        u = torch.linspace(0, 1, _counted(steps) + 1, dtype=torch.float64)
        # cos(a) as sin(pi/2 - a): at u = 1 the cosine would be 6e-17 by rounding, where it is 0.
        kept = (0.5 * math.pi * (1 - u) / (1 + offset)).sin().square()
        super().__init__(Table.from_betas((1 - kept[1:] / kept[:-1]).clamp(max=largest)).table)


class ZeroTerminalSNR(Table):
    r"""A table rescaled to zero terminal SNR: its last latent is noise only.

    .. math:: \sqrt{\bar\alpha_i}' = \frac{\sqrt{\bar\alpha_1}}{\sqrt{\bar\alpha_1} - \sqrt{\bar\alpha_T}}
        \left(\sqrt{\bar\alpha_i} - \sqrt{\bar\alpha_T}\right)

    The paper's last log-SNR is minus infinity. Here it is ``floor``: at -40, :math:`\alpha_T` is 2e-9. In
    float32 no signal is left beside a :math:`\sigma_T` of one, and no formula divides by zero. At that end
    the noise and the score contain no information about ``x``. So networks must predict velocity or data
    (a :class:`~genmod.diffusion.DiffusionPrior` refuses other targets).

    Use it with ``steps`` up to the table's own number, not in continuous time: its log-SNR falls more in
    the last interval than in all others together, and one level in a thousand would cover that interval.

    Args:
        table: the table to rescale.
        floor: the log-SNR of the last latent.

    Raises:
        ValueError: the latent before the last is noisier than ``floor`` already.

    Reference: Lin, Liu, Li, Yang, "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2024),
    algorithm 1.

    >>> schedule = ZeroTerminalSNR(LinearBeta(1000))
    >>> schedule
    ZeroTerminalSNR(log_snr 9.21 .. -40)
    >>> from genmod.models import Diffusion
    >>> model = Diffusion((1, 8, 8), schedule=schedule, steps=1000)  # predicts velocity by default
    """

    def __init__(self, table: Table, floor: float = -40.0) -> None:
        root = table.table.sigmoid().sqrt()
        lift = root[0] / (root[0] - root[-1])
        kept = 2 * (lift * (root[:-1] - root[-1])).log()
        log_snrs = kept - (-torch.expm1(kept)).log()
        if not floor < float(log_snrs[-1]):
            raise invalid(
                f"floor={floor:g} after a log-SNR of {float(log_snrs[-1]):.4g}",
                "a lower floor",
                "pass a lower floor=; a table that ends near -40 has zero terminal SNR already",
            )
        super().__init__(torch.cat([log_snrs, log_snrs.new_tensor([floor])]))
