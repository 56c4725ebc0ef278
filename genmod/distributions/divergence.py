r"""The rate of a posterior under a prior: :math:`\mathrm{KL}(q \| p)`, or a log-ratio at a draw.

Both have the same mean. The closed form has no noise from the draw. With the log-ratio, the noise of rate
and reconstruction cancels at each draw if the posterior is exact. ``Rate.kind`` is the one that was used.

A closed form is valid for exactly the two laws it was derived for. ``torch.distributions.kl_divergence``
also accepts their subclasses. But a subclass may redefine ``rsample`` and ``log_prob``: a normalizing flow
written as a subclass of Normal would get the divergence of the Normal. Here it gets the log-ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence, register_kl

from genmod.checks import invalid
from genmod.distributions.base import Factorized, is_factorized
from genmod.elbo import Kind, Rate, Stamp
from genmod.tensors import event_sum

_PER_DIM: dict[tuple[type, type], Callable[..., Tensor]] = {}

_LAW = ("sample", "rsample", "log_prob", "elementwise")
"""The methods that define a law. A subclass that redefines one of them is another law."""

_LIBRARIES = ("torch.distributions.", "genmod.distributions.", "pyro.distributions.")
"""Modules whose classes the registered closed forms were derived for."""


def register_kl_per_dim(
    q: type[Distribution], p: type[Distribution]
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a closed KL in nats per dimension, ``(B, *event)``, for exactly this pair of types.

    Also registers its sum over the event with ``torch.distributions.kl_divergence``.
    """

    def keep(divergence: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _PER_DIM[q, p] = divergence
        register_kl(q, p)(lambda a, b: event_sum(divergence(a, b)))
        return divergence

    return keep


def closed_kl(q: Distribution, p: Distribution) -> Tensor:
    """``torch.distributions.kl_divergence``, for exactly the pairs of laws that it has a form for.

    Raises:
        NotImplementedError: no closed form, or a subclass with a law of its own.

    >>> from torch.distributions import Normal
    >>> closed_kl(Normal(1.0, 1.0), Normal(0.0, 1.0))
    tensor(0.5000)
    """
    if not _has_closed_kl(q, p):
        raise NotImplementedError(f"no closed KL of {type(q).__name__} from {type(p).__name__}")
    return kl_divergence(q, p)


def rate(q: Distribution, p: Distribution, z: Tensor, claim: Stamp = Stamp.BOUND) -> Rate:
    """The closed KL of ``q`` from ``p`` if this pair of laws has one, else the log-ratio at ``z``.

    Args:
        q: the posterior, one row a sample.
        p: the prior, one row a sample, or one law for all rows (batch shape ``()``).
        z: a draw from ``q``, ``(B, *event)``, used where there is no closed form.
        claim: the strongest stamp of a bound that contains this rate; the prior states it.

    Returns:
        A rate of one level, with its nats per dimension where both laws factorize.
    """
    closed = _PER_DIM.get((type(q), type(p)))
    if closed is None:
        closed = _PER_DIM.get((_law_type(q) or type(q), _law_type(p) or type(p)))
    if closed is not None:
        each = closed(q, p)
        return Rate.single(event_sum(each), Kind.ANALYTIC, claim, each.flatten(1))
    try:
        nats = closed_kl(q, p)
    except NotImplementedError:
        return log_ratio(q, p, z, claim)
    return Rate.single(nats.expand(len(z)), Kind.ANALYTIC, claim)


def log_ratio(q: Distribution, p: Distribution, z: Tensor, claim: Stamp = Stamp.BOUND) -> Rate:
    """``log q(z) - log p(z)`` at the draw ``z``, per dimension where both laws factorize.

    Raises:
        ValueError: in training, a prior whose log-density has no gradient with respect to ``z``. The
            encoder would then minimize ``log q`` alone, which has no minimum.
    """
    if is_factorized(q) and is_factorized(p):
        assert isinstance(q, Factorized) and isinstance(p, Factorized)  # noqa: PT018 - for the type checker
        log_q, log_p = q.elementwise(z), p.elementwise(z)
        _check_gradient(p, z, log_p)
        each = log_q - log_p
        return Rate.single(event_sum(each), Kind.MONTE_CARLO, claim, each.flatten(1))
    log_p = p.log_prob(z)
    _check_gradient(p, z, log_p)
    return Rate.single(q.log_prob(z) - log_p, Kind.MONTE_CARLO, claim)


def _check_gradient(p: Distribution, z: Tensor, log_prob: Tensor) -> None:
    if torch.is_grad_enabled() and z.requires_grad and not log_prob.requires_grad:
        raise invalid(
            f"a prior law {type(p).__name__} whose log_prob carries no gradient to z",
            "one with a gradient, because the encoder learns through it",
            "compute log_prob from z without no_grad() or detach(), or score the model without "
            "gradients (torch.no_grad())",
        )


def _law_type(law: Distribution) -> type[Distribution] | None:
    """The class of the library that defines this law; ``None`` for a law of the user's own.

    A subclass that redefines none of the methods has the law of its parent. The base of a composite law
    (``base_dist``) is looked at as well.
    """
    base = getattr(law, "base_dist", None)
    if isinstance(base, Distribution) and _law_type(base) is None:
        return None
    # mypy takes the hash of a class for that of its objects.
    return _library_class(cast("Hashable", type(law)))


@lru_cache(maxsize=256)
def _library_class(law: type) -> type[Distribution] | None:
    for kind in law.__mro__:
        if (kind.__module__ + ".").startswith(_LIBRARIES):
            return kind
        if any(name in vars(kind) for name in _LAW):
            return None
    return None


def _has_closed_kl(q: Distribution, p: Distribution) -> bool:
    """Whether torch's registry holds for this pair: known laws, or a form for exactly these types."""
    if _law_type(q) is not None and _law_type(p) is not None:
        return True
    if type(q) is Independent and type(p) is Independent:
        return _has_closed_kl(q.base_dist, p.base_dist)
    composite = any(isinstance(getattr(law, "base_dist", None), Distribution) for law in (q, p))
    return not composite and (type(q), type(p)) in torch.distributions.kl._KL_REGISTRY
