r"""What a posterior costs under a prior: :math:`\mathrm{KL}(q \| p)`, or its log-ratio at one draw.

A closed KL is exact in expectation; the sampled log-ratio cancels path by path (an exact posterior
pays exactly what the reconstruction gains, draw by draw). Both are offered, and a rate says which.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from genmod.distributions.base import Factorized
from genmod.elbo import Kind, Rate, Stamp
from genmod.shapes import event_sum

_UNITS: dict[tuple[type[Distribution], type[Distribution]], Callable[..., Tensor]] = {}


def register_units(
    q: type[Distribution], p: type[Distribution]
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a closed KL in nats per dimension, ``(B, *event)``, for a pair of factorized types."""

    def keep(divergence: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _UNITS[q, p] = divergence
        return divergence

    return keep


def rate(q: Distribution, p: Distribution, z: Tensor, claim: Stamp = Stamp.BOUND) -> Rate:
    """The closed KL of ``q`` from ``p`` if one is registered, else the log-ratio at ``z``.

    Args:
        q: the posterior, a row a sample.
        p: the prior; its batch may be empty (the same for each row).
        z: a draw from ``q``, used where there is no closed form.
        claim: what a bound with this rate in it may be called; the prior decides.

    Returns:
        A rate of one level, with its nats per dimension where both factorize.
    """
    closed = _UNITS.get((type(q), type(p)))
    if closed is not None:
        each = closed(q, p)
        return Rate.single(event_sum(each), Kind.ANALYTIC, claim, each.flatten(1))
    try:
        nats = kl_divergence(q, p)
    except NotImplementedError:
        return log_ratio(q, p, z, claim)
    return Rate.single(nats.expand(len(z)), Kind.ANALYTIC, claim)


def log_ratio(q: Distribution, p: Distribution, z: Tensor, claim: Stamp = Stamp.BOUND) -> Rate:
    """``log q(z) - log p(z)`` at the draw ``z``, per dimension where both factorize.

    Raises:
        ValueError: in training, a prior whose log-density carries no gradient to ``z``: the encoder would
            then be trained on ``log q`` alone, without limit.
    """
    if isinstance(q, Factorized) and isinstance(p, Factorized):
        paid, priced = q.elementwise(z), p.elementwise(z)
        _check_gradient(p, z, priced)
        each = paid - priced
        return Rate.single(event_sum(each), Kind.MONTE_CARLO, claim, each.flatten(1))
    priced = p.log_prob(z)
    _check_gradient(p, z, priced)
    return Rate.single(q.log_prob(z) - priced, Kind.MONTE_CARLO, claim)


def _check_gradient(p: Distribution, z: Tensor, log_prob: Tensor) -> None:
    if torch.is_grad_enabled() and z.requires_grad and not log_prob.requires_grad:
        raise ValueError(
            f"got a prior law {type(p).__name__} whose log_prob carries no gradient to z; expected one "
            "that does, because the encoder learns through it; compute log_prob from z without "
            "no_grad() or detach(), or score the model without gradients (torch.no_grad())"
        )
