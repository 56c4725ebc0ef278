r"""The objective of a beta-TCVAE: the dependence between the dimensions of the latent has a weight.

Over data :math:`x_1 \dots x_N` with the aggregate posterior :math:`q(z) = \frac1N \sum_n q(z | x_n)`, and a
prior with independent dimensions, the rate has three parts:

.. math:: \frac1N \sum_n \mathrm{KL}(q(z|x_n) \,\|\, p(z)) = \underbrace{I(x; z)}_{\text{information}}
    + \underbrace{\mathrm{KL}\Big(q(z) \,\Big\|\, \prod_j q(z_j)\Big)}_{\text{total correlation}}
    + \underbrace{\sum_j \mathrm{KL}(q(z_j) \,\|\, p(z_j))}_{\text{of each dimension}}

A batch holds ``B`` of the ``N`` rows, so :math:`q(z)` at a draw for row ``n`` is estimated from these.
Reference: Chen, Li, Grosse, Duvenaud, "Isolating Sources of Disentanglement in Variational Autoencoders"
(2018).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from genmod.checks import invalid
from genmod.distributions.base import elementwise, is_factorized
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.objectives.base import Batch, Objective
from genmod.objectives.requirements import require_prior
from genmod.path import Path
from genmod.prior import DensityPrior


class BetaTC(Objective):
    r"""The objective of a beta-TCVAE: the bound, with a weight on the total correlation of the latent.

    .. math:: L = -\mathrm{ELBO} + (\beta - 1)\, \mathrm{KL}\Big(q(z) \,\Big\|\, \prod_j q(z_j)\Big)

    With a :math:`\beta` above 1 the dimensions of the latent become independent over the data, while
    (unlike in a beta-VAE) the information about each row keeps the weight 1. The total correlation is
    estimated from the rows of a batch, and needs the number of rows of the data (``Batch.rows``, which
    ``fit`` gives). The batch is compared with itself, row by row: memory for :math:`B^2` laws.

    Args:
        beta: the weight of the total correlation, at least 0.
        stratified: whether the batch's own row is weighted as the one row of ``N`` that it is, and
            the others for the rest. The estimate of :math:`q(z)` is then unbiased. By default all rows
            have the weight :math:`1/(NB)` (minibatch-weighted sampling), an estimate that is too small.

    Raises:
        ValueError: a negative weight; in training, a latent or a prior whose dimensions are not
            independent, data of unknown length, a batch of one row.

    Reference: Chen, Li, Grosse, Duvenaud, "Isolating Sources of Disentanglement in Variational
    Autoencoders" (2018), eqs. 2-4 and appendix C.

    >>> from genmod.models import VAE
    >>> x = torch.randn(8, 2)
    >>> loss, elbo = BetaTC(1.0)(VAE(2, latents=2, width=8), Batch(x, rows=100))
    >>> bool(torch.isclose(loss, -elbo.value.mean()))
    True
    """

    needs_path = True

    def __init__(self, beta: float, stratified: bool = False) -> None:
        super().__init__()
        if not 0 <= beta < math.inf:
            raise invalid(f"beta={beta}", "beta >= 0", "1 is the bound")
        self.beta, self.stratified = beta, stratified

    def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
        """Minus the mean bound, plus the weighted total correlation."""
        assert path is not None
        (name, q), *others = path.q.items()
        if others or not (_independent(q) and _independent(path.p[name])):
            raise invalid(
                f"BetaTC on {', '.join(path.q)} under {type(q).__name__} and "
                f"{type(path.p[name]).__name__}",
                *_ONE_LATENT,
            )
        if batch.rows is None:
            raise invalid(
                "BetaTC on data of unknown length",
                "the number of rows, by which a batch is weighted",
                "train on a data set or rows, or pass batches objectives.Batch(x, rows=...)",
            )
        found = total_correlation(q, path.z[name][0], batch.rows, self.stratified)
        return (self.beta - 1) * found - elbo.value.mean()

    def check(self, model: LatentModel) -> None:
        """Refuse a model without a rate, and one with more than one latent."""
        super().check(model)
        require_prior(model, type(self).__name__)
        kind = type(model.prior)
        if not issubclass(kind, DensityPrior):
            raise invalid(f"BetaTC on a model with a {kind.__name__}", *_ONE_LATENT)

    def extra_repr(self) -> str:
        """Its settings."""
        stratified = (f"stratified={self.stratified}",) if self.stratified else ()
        return ", ".join((f"beta={self.beta}", *stratified))


_ONE_LATENT = (
    "one latent whose dimensions are independent under q(z | x) and p(z), because only then the rate has "
    "a total correlation as one of its parts",
    "use VAE with its own encoder and prior, or objectives.Beta, which weights every rate",
)


def total_correlation(q: Distribution, z: Tensor, rows: int, stratified: bool) -> Tensor:
    r"""The total correlation of the aggregate posterior, estimated from a batch: a scalar in nats.

    .. math:: \frac1B \sum_i \Big(\log \hat q(z_i) - \sum_d \log \hat q_d(z_{id})\Big), \qquad
        \hat q(z_i) = \sum_j w_{ij}\, q(z_i | x_j)

    Stratified, :math:`w_{ii} = 1/N` and :math:`w_{ij} = (N - 1)/(N (B - 1))`. (The paper gives one of the
    other rows another weight. The mean over which one it is has these, and less noise.)

    Args:
        q: the posteriors of the ``B`` rows.
        z: a draw of each, ``(B, *event)``.
        rows: ``N``, the number of rows of the data.
        stratified: the weights; else all are :math:`1/(NB)`.

    Raises:
        ValueError: a batch of one row, or a batch larger than the data.
    """
    count = len(z)
    if not 2 <= count <= rows:
        raise invalid(
            f"BetaTC on a batch of {count} rows of {rows}",
            "at least two rows, and no more than the data have",
            "raise batch_size, or correct the rows of the Batch",
        )
    event = tuple(z.shape[1:])
    pairs = elementwise(q, z[:, None].expand(count, count, *event)).reshape(count, count, -1)
    log_weight = aggregate_weights(count, rows, stratified).log().to(pairs)
    joint = (pairs.sum(-1) + log_weight).logsumexp(1)
    each = (pairs + log_weight[..., None]).logsumexp(1)
    return (joint - each.sum(-1)).mean()


def aggregate_weights(count: int, rows: int, stratified: bool) -> Tensor:
    """The weight of row ``j`` of a batch in the aggregate posterior at a draw of row ``i``, ``(B, B)``."""
    if not stratified:
        return torch.full((count, count), 1 / (rows * count), dtype=torch.float64)
    other = (rows - 1) / (rows * (count - 1))
    return torch.full((count, count), other, dtype=torch.float64).fill_diagonal_(1 / rows)


def _independent(law: Distribution) -> bool:
    """Whether the dimensions of an event are independent."""
    base = law
    while isinstance(base, Independent) and type(base).log_prob is Independent.log_prob:
        base = base.base_dist
    return is_factorized(base) or not base.event_shape
