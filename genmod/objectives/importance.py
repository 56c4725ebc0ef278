r"""Importance-weighted training: the bound of ``K`` draws, and estimators of its gradient.

.. math:: L_K = \mathbb{E}\, \log \frac{1}{K} \sum_{k=1}^{K} w_k, \qquad
    w_k = \frac{p(x, z_k)}{q(z_k | x)}, \quad z_k \sim q(z | x)

Symbols: :math:`\tilde w_k = w_k / \sum_j w_j` are the normalized weights, :math:`\phi` all parameters that
the draws depend on, :math:`z_k(\phi)` a draw by reparameterization. The chain rule gives three parts,

.. math:: \nabla_\phi \log \tfrac{1}{K} \sum_k w_k = \sum_k \tilde w_k \Big(
    \partial_\phi \log p(x, z_k) - \partial_\phi \log q(z_k | x)
    + \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}\Big)

where :math:`\partial_\phi` holds the draws fixed. The middle part is a score function. It is not zero at
the optimum, and for large ``K`` its noise exceeds the gradient (Rainforth et al., 2018). Reparameterized a
second time, it joins the last part, and the weights of the sum are squared:

.. math:: \sum_k \tilde w_k\, \partial_\phi \log p(x, z_k)
    + \tilde w_k^2\, \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}

Here ``z_k`` are *all* latents of a draw together, and the derivative of :math:`\log w_k` includes what
later latents of a hierarchy are conditioned on. So the same formula holds for hierarchies of either order,
for features that q and p share, and for a prior with parameters of q (a VampPrior): these parameters also
get the first part. It is the estimator of Bauer and Mnih (2021) for the scores of q. Scores of p stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import torch
import torch._functorch.config as functorch
from torch import Tensor
from torch.distributions import Distribution

from genmod.checks import check_at_least, choice, invalid
from genmod.distributions import Normal
from genmod.distributions.base import Draws
from genmod.elbo import ELBO
from genmod.encoders import DiracEncoder
from genmod.model import LatentModel
from genmod.objectives.base import Batch, Objective
from genmod.objectives.requirements import encoders
from genmod.path import Path
from genmod.tensors import event_sum, expand_like


class GradientEstimator(StrEnum):
    """How the gradient of the importance-weighted bound is estimated; all have one mean."""

    AUTOGRAD = "autograd"
    """The derivative of the sampled bound."""
    DOUBLY_REPARAMETERIZED = "doubly-reparameterized"
    """DReG: without the score function of q, at any ``K``."""
    STICKING_THE_LANDING = "sticking-the-landing"
    """The same at ``K = 1``: the parameters of q are constants in ``log q``."""


class IWAE(Objective):
    r"""Minus the importance-weighted bound of ``K`` draws, in nats: importance-weighted training.

    .. math:: L = -\frac{1}{B} \sum_b \log \frac{1}{K} \sum_{k=1}^{K}
        \frac{p(x_b, z_{bk})}{q(z_{bk} | x_b)}

    Its mean rises with ``K`` from the bound to ``log p(x)``. A large ``K`` trains the decoder for a better
    likelihood, and asks less of the posterior. The bound that training logs is the plain one, a mean over
    the same draws. The best weights are those with the highest bound of ``K`` draws on the validation rows,
    which is printed beside the plain one. Each step decodes ``K`` draws of every row at once; data are
    encoded once.

    With a posterior that is exact, every weight is ``p(x)``. The doubly reparameterized gradient of q's
    parameters is then zero at each draw, and near the optimum its noise is small at every ``K``.

    A subclass that adds a term of its own to the loss needs ``gradient="autograd"``: the other estimators
    scale the gradients that flow through the draws, also those of other terms.

    Args:
        samples: ``K``, the number of draws of the latents for each row; 5 to 64 are common.
        gradient: the estimator of the gradient: ``"doubly-reparameterized"`` (DReG), ``"autograd"`` (the
            derivative of the sampled bound, as published), or ``"sticking-the-landing"``, which is right
            for ``samples=1`` alone. The loss is the same number, and the mean of the gradient as well.

    Raises:
        ValueError: no draws; sticking the landing with several draws, whose gradient would be biased.

    Reference: Burda, Grosse, Salakhutdinov, "Importance weighted autoencoders" (2016), eq. 8; Tucker,
    Lawson, Gu, Maddison, "Doubly reparameterized gradient estimators for Monte Carlo objectives" (2019),
    section 3; Roeder, Wu, Duvenaud, "Sticking the landing" (2017), eq. 6; Bauer, Mnih, "Generalized doubly
    reparameterized gradient estimators" (2021), section 4.

    >>> from genmod.models import VAE
    >>> loss, elbo = IWAE(8)(VAE(2, latents=1, width=8), Batch(torch.randn(4, 2)))
    >>> bool(loss <= -elbo.value.mean() + 1), elbo.value.shape
    (True, torch.Size([4]))
    """

    needs_path = True

    def __init__(
        self,
        samples: int = 50,
        gradient: GradientEstimator | str = GradientEstimator.DOUBLY_REPARAMETERIZED,
    ) -> None:
        super().__init__()
        check_at_least(samples, 1, "samples", "5 to 64 are common")
        self.samples = samples
        self.gradient = choice(GradientEstimator, gradient, "gradient")
        biased = self.gradient is GradientEstimator.STICKING_THE_LANDING and samples > 1
        if biased:
            raise invalid(
                f"gradient='sticking-the-landing' with samples={samples}",
                "one draw, because the gradient of several would be biased",
                "use gradient='doubly-reparameterized', which equals it at samples=1 and is right "
                "at any",
            )

    @property
    def validation_samples(self) -> int:
        """``K``: a validation is scored by the bound that training raises."""
        return self.samples

    def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
        """Minus the importance-weighted bound, a mean over rows; its gradient by the estimator."""
        if path is None:
            raise invalid(
                "no draws of the latents beside the bound",
                "a path, from which the weights are computed",
                "call the objective on a model and a batch: objective(model, batch)",
            )
        log_p, log_q = path.log_joint(), path.log_posterior()
        bound = importance_bound(log_p - log_q)
        if self.gradient is GradientEstimator.AUTOGRAD or not bound.requires_grad:
            return -bound.mean()
        surrogate = doubly_reparameterized(path, log_p, log_q)
        return -(bound.detach() + (surrogate - surrogate.detach())).mean()

    @contextmanager
    def around(self) -> Iterator[None]:
        """The forward pass: networks that are compiled in it allow two backward passes."""
        # Else inductor frees its buffers in the first one, and torch refuses the second.
        with functorch.patch(donated_buffer=False):
            yield

    def check(self, model: LatentModel) -> None:
        """Refuse a model without importance weights.

        Raises:
            ValueError: continuous time; a posterior that is a point, or no prior; a random log-density.
        """
        name, kind = type(self).__name__, type(model).__name__
        point = any(isinstance(encoder, DiracEncoder) for encoder in encoders(model))
        if not model.prior.proper or point:
            raise invalid(
                f"{name} on a {kind}, whose posterior is a point (Dirac) or whose prior is flat",
                "a posterior and a prior with a density, whose ratio is a weight",
                "use a VAE (encoders.GaussianEncoder), or objectives.Bound for an autoencoder",
            )
        if model.prior.stochastic_density:
            raise invalid(
                f"{name} on a {kind} whose prior's log-density is a random estimate (a stochastic "
                "trace)",
                "an exact log-density, because weights of an estimate are too large in the mean",
                "use the exact trace, with_probability_flow(model, probes=None), or "
                "objectives.Bound",
            )
        super().check(model)

    def extra_repr(self) -> str:
        """Its settings."""
        return f"samples={self.samples}, gradient={str(self.gradient)!r}"


def importance_bound(log_weight: Tensor, rows: Tensor | None = None) -> Tensor:
    r"""The importance-weighted bound of each row, :math:`m \log \frac{1}{K} \sum_k w_k`, ``(B,)`` nats.

    Args:
        log_weight: ``log w``, ``(K, B)``.
        rows: ``m``, ``(B,)``: which rows count, 0 or 1. Such a mask may stand outside or inside of the
            logarithm, since :math:`m \log \frac{1}{K} \sum w = \log \frac{1}{K} \sum w^m`. Any other
            number may not: for a scale above 1 the right side is larger, and no bound.

    Raises:
        ValueError: a scale in place of a mask.

    Reference: Burda, Grosse, Salakhutdinov (2016), eq. 8.
    """
    if rows is not None:
        scale = rows.to(log_weight.dtype)
        if not ((scale == 0) | (scale == 1)).all():
            raise invalid(
                f"a scale from {float(scale.min()):g} to {float(scale.max()):g} inside of "
                "importance weights",
                "a mask of rows, 0 or 1, because a scale inside of the logarithm gives no bound "
                "(Jensen)",
                "multiply the result: scale * importance_bound(log_weight)",
            )
        log_weight = torch.where(scale == 1, log_weight, torch.zeros_like(log_weight))
    return log_weight.logsumexp(0) - math.log(len(log_weight))


def doubly_reparameterized(path: Path, log_p: Tensor, log_q: Tensor) -> Tensor:
    """Per row, a number whose gradient is the doubly reparameterized one of the bound.

    Args:
        path: ``K`` draws of each row.
        log_p: its ``log p(x, z)``, ``(K, B)``.
        log_q: its ``log q(z | x)``, ``(K, B)``.

    Raises:
        ValueError: a posterior law whose support depends on its parameters.
    """
    draws = path.draws
    assert draws is not None
    for name, law in path.q.items():
        _check_support(name, law)
    weight = (log_p - log_q).detach().softmax(0)
    if len(path.q) == 1 and all(type(law) is Normal for law in path.q.values()):
        # One latent whose law has no tensors but its parameters: one backward pass is enough.
        draws.scale_gradients(weight.flatten())
        return (weight * (log_p - path.log_posterior(detached=True))).sum(0)
    return (weight * log_p).sum(0) + _through_draws(draws, log_p - log_q, weight.square())


def _through_draws(draws: Draws, log_weight: Tensor, factor: Tensor) -> Tensor:
    """Per row, a number with the gradient of the draws alone, each draw times its factor, ``(B,)``.

    Two passes: the total derivatives of ``log w`` by each draw, which include its later latents; then
    each draw's own dependence on parameters, with the draws before it held fixed.
    """
    names = [name for name, z in draws.first.items() if z.requires_grad]
    total = torch.zeros_like(factor[0])
    if names:
        with functorch.patch(donated_buffer=False):
            slopes = torch.autograd.grad(
                log_weight.sum(), [draws.later[name] for name in names], retain_graph=True
            )
        for name, slope in zip(names, slopes, strict=True):
            scaled = slope * expand_like(factor.flatten(), slope) * draws.first[name]
            total = total + event_sum(scaled).reshape(factor.shape).sum(0)
    draws.stop_gradients()
    return total


def _check_support(name: str, law: Distribution) -> None:
    """Require a support that no parameter moves: the second reparameterization has no term for its edge."""
    while isinstance(base := getattr(law, "base_dist", None), Distribution):
        law = base
    if type(law) is Normal:
        return
    try:
        edges = list(vars(law.support).values())
    except (NotImplementedError, TypeError):  # A law of one's own need not state its support.
        edges = []
    if any(isinstance(edge, Tensor) and edge.requires_grad for edge in edges):
        raise invalid(
            f"a posterior {type(law).__name__} of {name}, whose support depends on its parameters",
            "a support that is fixed, such as that of a Normal",
            "use IWAE(..., gradient='autograd')",
        )
