r"""Where a diffusion of some data should end: the log-SNR of its cleanest latent.

Up to the clean end the denoiser resolves detail; beyond it the decoder :math:`p(x | z_0)` does. For
integers the decoder is the cheaper one as soon as the noise is a few values wide.
"""

from __future__ import annotations

import math

from genmod.checks import require

NOMINAL = 13.3
"""The clean end of an unbound schedule, and for real data: where VDM's learned schedule ends."""


def clean_end(bins: int | None) -> float:
    r"""The log-SNR at which a diffusion of data with ``bins`` values should end.

    :math:`\log n - 1`, at least 1; 2.5 for bits, 13.3 for real numbers. Chosen on validation data after
    1,000 steps of training (``benchmarks/defaults.py``); longer runs gain from a cleaner end.

    >>> [round(clean_end(n), 1) for n in (2, 17, 256)], clean_end(None)
    ([2.5, 1.8, 4.5], 13.3)
    """
    if bins is None:
        return NOMINAL
    if bins == 2:
        return 2.5
    return max(1.0, math.log(bins) - 1)


def checked_ends(clean: float, noisy: float) -> tuple[float, float]:
    """Two ends in the right order.

    Raises:
        ValueError: ``clean <= noisy``, or an infinite end.
    """
    require(
        math.isfinite(clean) and math.isfinite(noisy) and clean > noisy,
        f"ends clean={clean:g}, noisy={noisy:g}",
        "a finite log-SNR at each end, clean > noisy",
        "clean is the log-SNR at t = 0, the larger one: 13.3 and -5 for example",
    )
    return clean, noisy
