r"""Explain a weighted objective: its weight on the bound at each log-SNR, and what it bounds.

In continuous time every objective that is linear in the errors of the noise is

.. math:: L = \tfrac{1}{2} \int w(\lambda)\, \mathbb{E}\|\varepsilon - \hat\varepsilon\|^2\, d\lambda
    + \text{other terms}

If ``w`` never increases with the log-SNR (never decreases with time), integrate by parts. The integral is
then a mixture of bounds on noised data, one for each noise level:

.. math:: \frac{L}{w(\lambda_1)} = \mathbb{E}_{\tau} \left[ \mathcal{L}(\tau) \right] + \text{constant},
    \qquad P(\lambda_\tau \ge \lambda) = \frac{w(\lambda)}{w(\lambda_1)}

where :math:`\lambda_1` is the noisy end and :math:`\mathcal{L}(\tau)` the bound on
:math:`-\log p(z_\tau)`. The probability of the clean end is :math:`w(\lambda_0) / w(\lambda_1)`.

Reference: Kingma, Gao, "Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation"
(2023), eqs. 8-13 and table 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genmod.checks import check_at_least, invalid
from genmod.diffusion import DiffusionPrior
from genmod.elbo import ELBO, Kind, Measure, NoiseLevels, Rate
from genmod.model import LatentModel
from genmod.objectives.base import Batch, Objective
from genmod.objectives.learned import Hybrid
from genmod.schedules import Schedule
from genmod.signatures import checked
from genmod.stamps import Stamp

_ROUNDING = 1e-9
"""The largest rise of a weight, relative to its largest value, that counts as rounding."""


@dataclass(frozen=True, eq=False)
class Explanation:
    r"""The result of :func:`explain`: an objective under a schedule, as a weighted bound.

    Args:
        objective: the ``repr`` of the objective.
        schedule: the ``repr`` of the schedule.
        log_snr: ``(n,)``, from the noisy end to the clean end.
        weight: ``w`` at each log-SNR, ``(n,)``: the weight of the bound's integrand.
        reconstruction: the weight of :math:`-\log p(x|z_0)`.
    """

    objective: str
    schedule: str
    log_snr: Tensor
    weight: Tensor
    reconstruction: float

    @property
    def rises(self) -> tuple[float, float] | None:
        """The log-SNRs of its largest rise, noisy to clean; ``None`` if the weight never rises."""
        rise = self.weight - self.weight.cummin(0).values
        top = int(rise.argmax())
        if rise[top] <= _ROUNDING * self.weight.abs().max():
            return None
        bottom = int(self.weight[: top + 1].argmin())
        return float(self.log_snr[bottom]), float(self.log_snr[top])

    @property
    def monotone(self) -> bool:
        """Whether the weight never rises with the log-SNR, and is never negative."""
        return self.rises is None and bool((self.weight >= 0).all())

    @property
    def clean(self) -> float:
        """For a monotone weight, the probability of the clean end in the mixture."""
        return float(self.weight[-1] / self.weight[0])

    @property
    def median(self) -> float:
        """For a monotone weight, the median log-SNR of the mixture."""
        return float(self.log_snr[int((self.weight > 0.5 * self.weight[0]).sum()) - 1])

    @property
    def bounded(self) -> str:
        """What the loss bounds, in words."""
        if not bool(self.weight.any()):
            return "nothing: no level has a weight"
        if self.rises is not None:
            low, high = self.rises
            return (
                f"nothing: the weight rises with the log-SNR between {low:z.1f} and {high:z.1f}, so some "
                "bounds would have negative weights"
            )
        if not self.monotone:
            return "nothing: some weights are negative"
        top = float(self.log_snr[-1])
        if self.clean < 1 - _ROUNDING:
            return (
                f"the likelihood of noised data (half below a log-SNR of {self.median:z.1f}, "
                f"{100 * self.clean:.2g} % at the clean end)"
            )
        level_weight = float(self.weight[0])
        if abs(self.reconstruction - level_weight) <= _ROUNDING * level_weight:
            return "the likelihood of the data: it is the bound" + (
                "" if abs(level_weight - 1) <= _ROUNDING else f", times {level_weight:.4g}"
            )
        rest = f"counts {self.reconstruction:.4g}" if self.reconstruction else "is left out"
        return (
            f"the likelihood of z_0, the data at the clean end (log-SNR {top:.1f}): every level counts "
            f"{level_weight:.4g}, the reconstruction {rest}"
        )

    def __str__(self) -> str:
        """A few lines: the weight at five log-SNRs, whether it is monotone, what the loss bounds."""
        places = torch.linspace(0, len(self.weight) - 1, 5).round().long()
        weights = "   ".join(
            f"{float(self.weight[i]):.3g} at {float(self.log_snr[i]):z.1f}" for i in places
        )
        shape = "never rises with the log-SNR" if self.rises is None else "is not monotone"
        return (
            f"{self.objective} under {self.schedule}\n"
            f"  w(log-SNR)  {weights}\n"
            f"  w           {shape}\n"
            f"  bounded     {self.bounded}"
        )


@torch.inference_mode(mode=False)
@checked
def explain(
    objective: Objective, schedule: Schedule | LatentModel, points: int = 1001
) -> Explanation:
    r"""Explain an objective: its weight on the bound at each log-SNR (in continuous time), what it bounds.

    .. math:: w(\lambda) = \frac{\partial\, \text{cost}}{\partial\, \|\varepsilon-\hat\varepsilon\|^2}
        \Big/ \tfrac{1}{2}\,\text{gap}, \qquad \text{gap} = -\frac{d\lambda}{dt}

    The loss of the objective is differentiated, so this also works for objectives of your own. To plot
    several, see :func:`genmod.plots.level_weights`.

    Args:
        objective: any objective that is a weighted sum of the bound's terms.
        schedule: the schedule, or a model with one diffusion in it. The objective is then also checked
            against the model, as ``fit`` does.
        points: the number of log-SNRs, evenly spaced between the schedule's ends.

    Raises:
        ValueError: an objective that is not linear in the errors of the noise; a model that the
            objective cannot train.

    >>> from genmod.objectives import Bound, MinSNR
    >>> from genmod.schedules import LinearLogSNR
    >>> print(explain(MinSNR(5.0), LinearLogSNR(13.3)))
    MinSNR(gamma=5.0) under LinearLogSNR(log_snr 13.3 .. -5)
      w(log-SNR)  0.109 at -5.0   0.109 at -0.4   0.00861 at 4.2   8.88e-05 at 8.7   9.15e-07 at 13.3
      w           never rises with the log-SNR
      bounded     the likelihood of noised data (half below a log-SNR of 2.3, 0.00084 % at the clean end)
    >>> explain(Bound(), LinearLogSNR()).bounded
    'the likelihood of the data: it is the bound'
    """
    if isinstance(objective, Hybrid):
        raise invalid(
            f"{type(objective).__name__}, which trains a variance beside the mean",
            "a weighted sum of the bound's terms",
            "its mean is trained as by Simple, so call explain(Simple(), schedule); its variance "
            "is trained by the bound",
        )
    check_at_least(points, 2, "points", "the default draws a smooth curve")
    if isinstance(schedule, LatentModel):
        objective.check(schedule)
        schedule = _schedule(schedule)
    clean, noisy = schedule.log_snr_range()
    with torch.no_grad():
        t = schedule.time(torch.linspace(noisy, clean, points, dtype=torch.float64))
        log_snr, gap = schedule.log_snr(t).detach(), -schedule.slope(t).detach()
    weight, reconstruction = _slopes(objective, t, log_snr, gap, 1.0)
    again, _ = _slopes(objective, t, log_snr, gap, 4.0)
    if not torch.allclose(weight, again, rtol=1e-6, atol=0) or reconstruction.diff().any():
        raise invalid(
            f"{type(objective).__name__}, whose loss is not linear in the errors of the noise",
            "a weighted sum of the bound's terms",
            "explain only such objectives: others have no weight at a log-SNR",
        )
    return Explanation(
        objective=repr(objective),
        schedule=repr(schedule),
        log_snr=log_snr,
        weight=weight / (0.5 * gap),
        reconstruction=float(reconstruction[0]),
    )


def _schedule(model: LatentModel) -> Schedule:
    """The schedule of the one diffusion in a model."""
    schedules = {
        id(part.schedule): part.schedule
        for part in model.modules()
        if isinstance(part, DiffusionPrior)
    }
    if len(schedules) != 1:
        raise invalid(
            f"a {type(model).__name__} with {len(schedules)} diffusions",
            "one whose levels the objective weights",
            "pass a Diffusion or a LatentDiffusion, or a schedule",
        )
    return next(iter(schedules.values()))


def _slopes(
    objective: Objective, t: Tensor, log_snr: Tensor, gap: Tensor, size: float
) -> tuple[Tensor, Tensor]:
    """The derivatives of the loss of a row at one level, by its error and by its reconstruction."""
    error = torch.full_like(t, size).requires_grad_()
    reconstruction = torch.zeros_like(t).requires_grad_()
    one = torch.ones_like(t)[:, None]
    noise = NoiseLevels(log_snr[:, None], gap[:, None], error[:, None], one)
    nats = (0.5 * gap * error)[:, None]
    steps = Rate(nats, one, t[:, None], Kind.ANALYTIC, Stamp.BOUND, noise=noise)
    prior = Rate.single(torch.zeros_like(t), Kind.ANALYTIC, Stamp.BOUND)
    was = objective.training
    objective.eval()
    with torch.enable_grad():
        elbo = ELBO(reconstruction, {"prior": prior, "steps": steps}, Measure.MASS)
        cost = len(t) * objective.loss(elbo, None, Batch(one))
    objective.train(was)
    # The loss of an objective whose weights are all zero may have no gradient.
    if not cost.requires_grad:
        return torch.zeros_like(t), torch.zeros_like(t)
    slopes = torch.autograd.grad(
        cost, (error, reconstruction), allow_unused=True, materialize_grads=True
    )
    return slopes[0].detach(), -slopes[1].detach()
