r"""What a posterior costs under a prior: :math:`\mathrm{KL}(q \| p)`, or its log-ratio at one draw.

A closed KL is exact in expectation; the sampled log-ratio cancels path by path (an exact posterior
pays exactly what the reconstruction gains, draw by draw). Both are offered, and a rate says which.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from genmod.distributions.base import Factorized
from genmod.elbo import Kind, Rate
from genmod.shapes import event_sum, units

_UNITS: dict[tuple[type[Distribution], type[Distribution]], Callable[..., Tensor]] = {}


def register_units(
    q: type[Distribution], p: type[Distribution]
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a closed KL in nats per dimension, ``(B, *event)``, for a pair of factorized types."""

    def keep(divergence: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _UNITS[q, p] = divergence
        return divergence

    return keep


def rate(q: Distribution, p: Distribution, z: Tensor) -> Rate:
    """The closed KL of ``q`` from ``p`` if one is registered, else the log-ratio at ``z``.

    Args:
        q: the posterior, a row a sample.
        p: the prior; its batch may be empty (the same for each row).
        z: a draw from ``q``, used where there is no closed form.

    Returns:
        A rate of one level, with its nats per dimension where both factorize.
    """
    closed = _UNITS.get((type(q), type(p)))
    if closed is not None:
        each = closed(q, p)
        return Rate.single(event_sum(each), Kind.ANALYTIC, units(each))
    try:
        nats = kl_divergence(q, p)
    except NotImplementedError:
        return log_ratio(q, p, z)
    return Rate.single(nats.expand(len(z)), Kind.ANALYTIC)


def log_ratio(q: Distribution, p: Distribution, z: Tensor) -> Rate:
    """``log q(z) - log p(z)`` at the draw ``z``, per dimension where both factorize."""
    if isinstance(q, Factorized) and isinstance(p, Factorized):
        each = q.elementwise(z) - p.elementwise(z)
        return Rate.single(event_sum(each), Kind.MONTE_CARLO, units(each))
    return Rate.single(q.log_prob(z) - p.log_prob(z), Kind.MONTE_CARLO)
