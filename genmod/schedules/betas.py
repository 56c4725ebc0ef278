r"""Published tables of betas, entry by entry, and a rescaling to zero terminal SNR.

A table's :math:`\beta_i` and :math:`\bar\alpha_i` are those of its paper, for ``i = 1 .. T``; the
latent :math:`x_i` lies at ``t = (i - 1) / (T - 1)``.
"""

from __future__ import annotations

import math

import torch

from genmod.checks import require
from genmod.schedules.table import Table


class LinearBeta(Table):
    r"""The exact table of DDPM: :math:`\beta_i` linear from ``first`` to ``last``.

    Args:
        steps: the number of betas, ``T``.
        first: :math:`\beta_1`.
        last: :math:`\beta_T`.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), section 4.

    >>> LinearBeta(1000).log_snr_range()[0] > 9
    True
    """

    def __init__(self, steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> None:
        betas = torch.linspace(first, last, steps, dtype=torch.float64)
        super().__init__(Table.from_betas(betas).table)


class ScaledLinearBeta(Table):
    r"""The table of latent diffusion: :math:`\sqrt{\beta_i}` linear.

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
        require(first > 0, f"first={first}", "a beta inside (0, 1)", "its square root is taken")
        roots = torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64)
        super().__init__(Table.from_betas(roots.square()).table)


class SigmoidBeta(Table):
    r"""Betas that rise along a sigmoid: :math:`\beta_i = \beta_1' + (\beta_T' - \beta_1')\,
    \mathrm{sigmoid}(u_i)` with :math:`u_i` linear from -6 to 6.

    Not to be mixed up with :class:`Sigmoid`, whose :math:`\bar\alpha` is one.

    Args:
        steps: the number of betas, ``T``.
        first: the beta that the foot of the sigmoid tends to.
        last: the beta that its top tends to.

    Reference: Xu et al., "GeoDiff" (2022), in its code.
    """

    def __init__(self, steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> None:
        rise = torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid()
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
        require(offset >= 0, f"offset={offset}", "offset >= 0", "the paper's is 0.008")
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        # From the sine of what is left: the cosine is nothing but rounding at the end.
        kept = (0.5 * math.pi * (1 - u) / (1 + offset)).sin().square()
        super().__init__(Table.from_betas((1 - kept[1:] / kept[:-1]).clamp(max=largest)).table)


class ZeroTerminalSNR(Table):
    r"""A table stretched so that its last latent is noise alone.

    .. math:: \sqrt{\bar\alpha_i}' = \frac{\sqrt{\bar\alpha_1}}{\sqrt{\bar\alpha_1} - \sqrt{\bar\alpha_T}}
        \left(\sqrt{\bar\alpha_i} - \sqrt{\bar\alpha_T}\right)

    The paper's last log-SNR is minus infinity. Here it is ``floor``: at -40, :math:`\alpha_T` is
    2e-9, which float32 cannot add to a :math:`\sigma_T` of one. No signal is left there either, and no
    formula divides by zero. The noise and the score contain no information about ``x`` at that end, so
    networks must predict velocity or data (a :class:`~genmod.diffusion.DiffusionPrior` refuses others).

    Made for ``steps`` up to the table's own number. Its log-SNR falls further in the last interval than
    in all others together. In continuous time one level in a thousand would cover all of that fall.

    Args:
        table: the table to stretch.
        floor: the log-SNR of the last latent.

    Raises:
        ValueError: the latent before the last is noisier than ``floor`` already.

    Reference: Lin, Liu, Li, Yang, "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2024),
    algorithm 1.

    >>> ZeroTerminalSNR(LinearBeta(1000))
    ZeroTerminalSNR(log_snr 9.21 .. -40)
    """

    def __init__(self, table: Table, floor: float = -40.0) -> None:
        root = table.table.sigmoid().sqrt()
        lift = root[0] / (root[0] - root[-1])
        kept = 2 * (lift * (root[:-1] - root[-1])).log()
        log_snrs = kept - (-torch.expm1(kept)).log()
        require(
            floor < float(log_snrs[-1]),
            f"floor={floor:g} after a last but one log-SNR of {float(log_snrs[-1]):.4g}",
            "a floor that is noisier",
            "lower it; a table that ends near -40 has no signal left to take away",
        )
        super().__init__(torch.cat([log_snrs, log_snrs.new_tensor([floor])]))
