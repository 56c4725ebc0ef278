r"""Objectives with a constraint: free bits, a least rate for each group, and GECO, a least reconstruction.

Both trade the terms of the bound against each other until a constraint holds. Neither needs a weight to be
tuned. The bound that training logs beside the loss is the plain one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, distributed

from genmod.checks import check_positive, invalid
from genmod.elbo import ELBO, Kind, Rate
from genmod.model import LatentModel
from genmod.objectives.base import Batch, Objective
from genmod.objectives.requirements import require_prior
from genmod.path import AutoTimesteps, Path, Timesteps
from genmod.priors import NestedPrior

_MOST = math.log(1e6)
"""The largest absolute value of the logarithm of GECO's multiplier."""
_DOWN = -10
"""How much faster it may fall than rise."""


class FreeBits(Objective):
    r"""Free bits: a rate below ``nats`` has no gradient, so that no group of latents is switched off.

    .. math:: L = -\log p(x|z) + \sum_j \max\Big(\text{nats},\;
        \frac{1}{B} \sum_b \mathrm{KL}\big(q(z_j | x_b) \,\|\, p(z_j)\big)\Big)

    A group ``j`` is a latent: one of a VAE, each level of a hierarchy; or each dimension of them. The
    maximum is taken of the mean over the batch. So a group may carry up to ``nats`` for free, and the
    optimum of the bound with few nats in a group is not a place where training gets stuck.

    Only a KL in closed form can be compared with a number of nats: the maximum of ``nats`` and a log-ratio
    at a draw is too large in the mean, and its gradient follows the noise. So nested levels (bottom-up
    inference) are refused, and so are sampled rates of other priors.

    Args:
        nats: the nats that each group has for free, above 0. 0.25 to 2 for a level are common; less for
            a dimension.
        per_dimension: whether each dimension of a latent is a group of its own.

    Raises:
        ValueError: ``nats`` out of range; in training, a rate that is not a closed KL, or one whose
            dimensions are not known.

    Reference: Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow" (2016),
    appendix C.8, eq. 15.

    >>> from genmod.models import VAE
    >>> model = VAE(2, latents=3, width=8)
    >>> loss, elbo = FreeBits(100.0)(model, Batch(torch.zeros(4, 2)))
    >>> bool(torch.isclose(loss, 100 - elbo.reconstruction.mean()))
    True
    """

    def __init__(self, nats: float, per_dimension: bool = False) -> None:
        super().__init__()
        check_positive(nats, "nats")
        self.nats, self.per_dimension = nats, per_dimension

    def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
        """Minus the mean reconstruction, plus the larger of ``nats`` and the mean KL of each group."""
        loss = -elbo.reconstruction.mean()
        for name, rate in elbo.rates.items():
            _require_closed(name, rate)
            groups = self._dimensions(name, rate) if self.per_dimension else (rate.nats,)
            for each in groups:
                loss = loss + each.mean(0).clamp(min=self.nats).sum()
        return loss

    def _dimensions(self, name: str, rate: Rate) -> tuple[Tensor, ...]:
        if rate.per_dim is None:
            raise invalid(
                f"the rate {name!r} without nats for each dimension",
                "a posterior and a prior with independent dimensions",
                "use FreeBits(nats), a group for each latent",
            )
        return rate.per_dim

    def check(self, model: LatentModel) -> None:
        """Refuse a model without a rate, and one with nested levels."""
        super().check(model)
        require_prior(model, type(self).__name__)
        nested = [part.name for part in model.modules() if isinstance(part, NestedPrior)]
        if nested:
            raise invalid(
                f"FreeBits on nested latents ({', '.join(nested)}), whose rates are log-ratios at "
                "a draw",
                *_CLOSED,
            )

    def extra_repr(self) -> str:
        """Its settings."""
        per = (f"per_dimension={self.per_dimension}",) if self.per_dimension else ()
        return ", ".join((f"nats={self.nats}", *per))


_CLOSED = (
    "a KL in closed form, because the maximum of free bits and a noisy number is biased",
    'use objectives.WarmUp, or a hierarchy with inference="top-down"',
)


def _require_closed(name: str, rate: Rate) -> None:
    if rate.kind is not Kind.ANALYTIC:
        raise invalid(
            f"FreeBits on the rate {name!r}, which is sampled: a log-ratio at a draw", *_CLOSED
        )
    if rate.noise is not None:
        raise invalid(
            f"FreeBits on the noise levels {name!r} of a diffusion",
            "latents of an encoder that learns",
            "use objectives.Bound: the posterior of a diffusion is fixed and cannot collapse",
        )


class GECO(Objective):
    r"""GECO: the least rate at which the reconstruction reaches a target.

    .. math::
        \begin{gathered}
        \min \mathrm{KL} \quad\text{so that}\quad \mathbb{E}\log p(x|z) \ge \kappa, \\
        L = R + \lambda\, C, \qquad C = \kappa - \log p(x|z), \qquad R = \textstyle\sum \text{rates}
        \end{gathered}

    :math:`\lambda` is a multiplier that training learns. After each step, with the moving average
    :math:`\bar C` of the constraint ``C``,

    .. math:: \log \lambda \leftarrow \log \lambda + \eta\, \mathrm{clip}(\bar C, -10, 1).

    While the target is not reached, the reconstruction gains weight; beyond the target it loses weight. The
    result is a beta-VAE with :math:`\beta = 1/\lambda`, in which the reconstruction was chosen instead of
    :math:`\beta`. The clip is ours: without it the speed would depend on the number of entries of ``x``.
    It allows faster steps down, because the weight that was gathered before the decoder had learned
    anything is too large. A target that the model cannot reach drives :math:`\lambda` to its limit of 1e6.

    With validation data ``fit`` keeps the weights of the best bound, which may be those of an earlier step.
    To keep the last ones, train on rows without a validation part.

    Args:
        reconstruction: :math:`\kappa`, the mean ``log p(x | z)`` to reach, in nats per sample. For a
            Gaussian of fixed std ``s`` and ``D`` entries, a root mean square error ``e`` is
            :math:`-\tfrac{D}{2} (\log 2 \pi s^2 + e^2 / s^2)`.
        step_size: :math:`\eta`, the largest rise of :math:`\log\lambda` in a step.
        decay: the decay of the moving average of the constraint, in [0, 1).
        timesteps: which levels of a diffusion each row visits.

    Raises:
        ValueError: a setting out of range.

    Reference: Rezende, Viola, "Taming VAEs" (2018), algorithm 1.

    >>> from genmod.models import VAE
    >>> geco = GECO(reconstruction=-2.0)
    >>> loss, elbo = geco(VAE(2, latents=1, width=8), Batch(torch.zeros(4, 2)))
    >>> expected = elbo.rates["prior"].total - 2.0 - elbo.reconstruction
    >>> float(geco.multiplier), bool(torch.isclose(loss, expected.mean()))
    (1.0, True)
    """

    log_multiplier: Tensor
    """The logarithm of the multiplier: part of a checkpoint."""
    average: Tensor
    """The moving average of the constraint, NaN before the first step: part of a checkpoint."""

    def __init__(
        self,
        reconstruction: float,
        step_size: float = 0.005,
        decay: float = 0.95,
        timesteps: Timesteps = AutoTimesteps.TRAINING,
    ) -> None:
        super().__init__(timesteps)
        if not math.isfinite(reconstruction):
            raise invalid(
                f"reconstruction={reconstruction}",
                "a finite number of nats per sample",
                "take the reconstruction of a trained model as a start: evaluate(model, "
                "data).terms",
            )
        check_positive(step_size, "step_size")
        if not 0 <= decay < 1:
            raise invalid(f"decay={decay}", "a decay in [0, 1)", "0.95 is the default")
        self.reconstruction, self.step_size, self.decay = reconstruction, step_size, decay
        self.register_buffer("log_multiplier", torch.zeros(()))
        self.register_buffer("average", torch.full((), math.nan))

    @property
    def multiplier(self) -> Tensor:
        r""":math:`\lambda`, the weight of the reconstruction."""
        return self.log_multiplier.exp()

    def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
        """The mean rate, plus the weighted constraint."""
        rate = (elbo.reconstruction - elbo.value).mean()
        constraint = self.reconstruction - elbo.reconstruction.mean()
        return rate + self.multiplier.to(rate) * constraint

    @torch.no_grad()
    def update(self, elbo: ELBO, batch: Batch) -> None:
        """Change the multiplier, by the rows of all processes."""
        super().update(elbo, batch)
        rows = elbo.reconstruction.to(self.average)
        sums = torch.stack([rows.sum(), rows.new_tensor(len(rows))])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums)
        constraint = self.reconstruction - sums[0] / sums[1]
        moved = torch.lerp(constraint, self.average, self.decay)
        self.average.copy_(torch.where(self.average.isnan(), constraint, moved))
        change = self.step_size * self.average.clamp(_DOWN, 1)
        self.log_multiplier.add_(change).clamp_(-_MOST, _MOST)

    def check(self, model: LatentModel) -> None:
        """Refuse a model without a rate."""
        super().check(model)
        require_prior(model, type(self).__name__)

    def extra_repr(self) -> str:
        """Its settings."""
        return self._with_timesteps(
            f"reconstruction={self.reconstruction}",
            f"step_size={self.step_size}",
            f"decay={self.decay}",
        )
