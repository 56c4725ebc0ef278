r"""Decoders of real numbers beside the Gaussian: its best variance, values in [0, 1], and outliers.

**The analytic optimum.** Of a Gaussian decoder with one variance, the best one for a batch is its mean
squared error (of ``D`` entries and ``B`` rows),

.. math:: \sigma^2_* = \frac{1}{BD} \sum_{b, i} (x_{bi} - \mu_i(z_b))^2, \qquad
    \frac1B \sum_b \log p(x_b | z_b) = -\tfrac{D}{2} \left(\log 2 \pi \sigma^2_* + 1\right)

so the reconstruction is the logarithm of the error, and no weight between reconstruction and rate has to
be chosen. Its gradient with respect to :math:`\sigma` is zero there, so the variance is a constant in
training.

Reference: Rybkin, Daniilidis, Levine, "Simple and Effective VAE Training with Calibrated Decoders" (2021),
section 4.2, eqs. 7-8.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genmod.checks import can_read, check_positive, invalid
from genmod.decoders.base import Decoder
from genmod.decoders.likelihoods import GlobalScale, LocationScaleDecoder, Scale
from genmod.distributions import Normal
from genmod.distributions.reals import ContinuousBernoulli, LaplaceDensity, StudentT
from genmod.gaussian.kernels import log_prob_log_std
from genmod.nn.modules import outputs
from genmod.spec import DataSpec, SpecLike


class CalibratedGaussianDecoder(Decoder):
    r"""Real numbers: ``N(d(z), s^2)``, in training with the best ``s`` for each batch (sigma-VAE).

    In training ``log p(x | z)`` is that of the best variance for the batch. In evaluation the variance is
    fixed: a running mean of the batches' errors, which is saved with the model. So the bound of an
    evaluation is one of a fixed model. It needs no learning rate, unlike
    :class:`~genmod.decoders.GlobalScale`, and ends at the same variance.

    Args:
        network: the location of each entry of ``x``.
        spec: the event shape of ``x``; without missing entries, which would count in the error.
        per_dimension: whether each entry has a variance of its own, the same for all samples.
        decay: of the running mean, in [0, 1): 0.99 is a mean over about 100 batches.

    Raises:
        ValueError: integer data, columns or missing entries; a decay out of range.

    Reference: Rybkin, Daniilidis, Levine, "Simple and Effective VAE Training with Calibrated Decoders"
    (2021), eqs. 7-8.

    >>> decoder = CalibratedGaussianDecoder(nn.Linear(2, 3), (3,))
    >>> x, z = torch.randn(8, 3), torch.randn(8, 2)
    >>> law = decoder(z)
    >>> error = (x - law.mean).square().mean()
    >>> bool(torch.isclose(law.log_prob(x).mean(), -1.5 * ((2 * torch.pi * error).log() + 1)))
    True
    """

    mean_square: Tensor
    """The running mean of the squared error: the variance in evaluation."""
    batches: Tensor
    """How many batches it has taken."""

    def __init__(
        self,
        network: nn.Module,
        spec: SpecLike,
        per_dimension: bool = False,
        decay: float = 0.99,
    ) -> None:
        super().__init__(_reals(spec))
        if not 0 <= decay < 1:
            raise invalid(f"decay={decay}", "a decay in [0, 1)", "0.99 is the default")
        self.network, self.decay, self.per_dimension = network, decay, per_dimension
        self.outputs = self.spec.size
        self.register_buffer("mean_square", torch.ones(self.shape if per_dimension else ()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, state: Tensor, context: Tensor | None = None) -> Normal:
        mean = outputs(self.network, self.shape, state, context=context)
        log_std = 0.5 * self.mean_square.to(mean).log()
        if self.training:
            return _BestNormal(mean, log_std, self)
        return Normal(mean, log_std[None] if self.per_dimension else log_std)

    @torch.no_grad()
    def measure_error(self, square: Tensor) -> Tensor:
        """The mean of the squared errors of a batch, ``(B, *event)``, which the running mean follows."""
        found = square.mean(0) if self.per_dimension else square.mean()
        self.batches += 1
        share = torch.clamp(1 / self.batches, min=1 - self.decay).to(self.mean_square)
        new = torch.lerp(self.mean_square, found.to(self.mean_square), share)
        # A batch that is not finite stops the training, and the model must keep its last good numbers.
        self.mean_square.copy_(torch.where(found.isfinite().all(), new, self.mean_square))
        return found

    def formula(self) -> str:
        return f"p(x | z) = N(x; d(z), {'s_i' if self.per_dimension else 's'})"


class _BestNormal(Normal):
    """A Gaussian that scores a batch by the variance that is the best for it."""

    def __init__(self, mean: Tensor, log_std: Tensor, decoder: CalibratedGaussianDecoder) -> None:
        super().__init__(mean, log_std.expand(mean.shape))
        self.decoder = decoder

    def elementwise(self, x: Tensor) -> Tensor:
        """The log density of each entry."""
        best = self.decoder.measure_error((x - self.loc).detach().square())
        return log_prob_log_std(x, self.loc, 0.5 * best.log())


class ContinuousBernoulliDecoder(Decoder):
    """Real numbers in [0, 1], such as gray values: the network gives the log-odds of each.

    Args:
        network: one output for each entry of ``x``.
        spec: the event shape of ``x``.

    Raises:
        ValueError: integer data.

    Reference: Loaiza-Ganem, Cunningham, "The continuous Bernoulli: fixing a pervasive error in variational
    autoencoders" (2019).

    >>> decoder = ContinuousBernoulliDecoder(nn.Linear(2, 3), (3,))
    >>> decoder(torch.randn(8, 2)).log_prob(torch.rand(8, 3)).shape
    torch.Size([8])
    """

    def __init__(self, network: nn.Module, spec: SpecLike) -> None:
        super().__init__(_reals(spec, missing=True))
        self.network = network
        self.outputs = self.spec.size

    def forward(self, state: Tensor, context: Tensor | None = None) -> ContinuousBernoulli:
        logits = outputs(self.network, self.shape, state, context=context)
        return ContinuousBernoulli(logits)

    def check(self, x: Tensor, observed: Tensor | None = None) -> None:
        """Require real numbers from 0 to 1.

        Raises:
            ValueError: a wrong shape, or values that are not finite or outside [0, 1].
        """
        super().check(x, observed)
        if not can_read(x):
            return
        outside = (x < 0) | (x > 1)
        count = int((outside if observed is None else outside & observed).sum())
        if count > 0:
            raise invalid(
                f"{count} values of x outside [0, 1]",
                "numbers from 0 to 1, on which the continuous Bernoulli is a density",
                "divide 8-bit gray values by 255, or use decoders.GaussianDecoder",
            )

    def formula(self) -> str:
        return "p(x | z) = ContinuousBernoulli(x; sigmoid(d(z)))"


def _reals(spec: SpecLike, missing: bool = False) -> DataSpec:
    """The description of real data.

    Raises:
        ValueError: integers, columns, or missing entries where they are not allowed.
    """
    found = DataSpec.of(spec)
    if found.bins is not None or found.is_mixed:
        raise invalid(
            f"{found} for a decoder of real numbers",
            "real data",
            "pass real data to it (load(x / 255) instead of integers), or use a decoder of "
            "integers",
        )
    if not missing and found.missing:
        raise invalid(
            "data with missing entries for a decoder whose variance is the error of whole rows",
            "complete rows",
            "use decoders.GaussianDecoder, whose variance is learned",
        )
    return found


class LaplaceDecoder(LocationScaleDecoder):
    """Real numbers: a Laplace density around ``d(z)``, whose best location is a median.

    Args:
        network: the location of each entry of ``x``, and its log-scale after that, with
            :class:`~genmod.decoders.PredictedScale`.
        spec: the event shape of ``x``.
        scale: a ``Scale``, or a number that is never learned; one learned number by
            default.
    """

    name = "Laplace"

    def __init__(
        self, network: nn.Module, spec: SpecLike, scale: Scale | float | None = None
    ) -> None:
        super().__init__(network, spec, GlobalScale() if scale is None else scale)

    def forward(self, state: Tensor, context: Tensor | None = None) -> LaplaceDensity:
        return LaplaceDensity(*self.both(state, context))


class StudentTDecoder(LocationScaleDecoder):
    """Real numbers with outliers: Student's t density around ``d(z)``.

    Args:
        network: the location of each entry of ``x``, and its log-scale after that, with
            :class:`~genmod.decoders.PredictedScale`.
        spec: the event shape of ``x``.
        scale: a ``Scale``, or a number that is never learned; one learned number by
            default.
        df: the degrees of freedom that the learned ones of each entry start from. The smaller, the heavier
            the tails.

    Reference: Lange, Little, Taylor, "Robust Statistical Modeling Using the t Distribution" (1989).

    >>> decoder = StudentTDecoder(nn.Linear(2, 3), 3)
    >>> decoder(torch.zeros(5, 2)).log_prob(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    name = "t"

    def __init__(
        self,
        network: nn.Module,
        spec: SpecLike,
        scale: Scale | float | None = None,
        df: float = 5.0,
    ) -> None:
        super().__init__(network, spec, GlobalScale() if scale is None else scale)
        check_positive(df, "df")
        # A tenth of log df: Adam moves a parameter by its learning rate a step, and log df has far to go.
        self.log_df = nn.Parameter(torch.full(self.shape, math.log(df) / 10))

    def forward(self, state: Tensor, context: Tensor | None = None) -> StudentT:
        return StudentT(*self.both(state, context), 10 * self.log_df)
