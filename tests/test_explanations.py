r"""``explain``: what a weighted loss bounds, in numbers and in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genmod import ELBO, plots
from genmod.objectives import (
    P2,
    Batch,
    Beta,
    Bound,
    EDMWeight,
    Hybrid,
    MinSNR,
    Objective,
    SigmoidWeight,
    Simple,
    TruncatedSNR,
    WarmUp,
    Weighted,
    explain,
)
from genmod.objectives.weighted import NoiseWeighted
from genmod.schedules import Cosine, LinearLogSNR, Schedule
from tests.oracles import bent

pytestmark = pytest.mark.usefixtures("float64")

MIDDLE = Cosine(clean=8.0, noisy=-6.0)


def table() -> dict[str, tuple[Objective, Schedule, Callable[[Tensor], Tensor], bool]]:
    """Kingma and Gao's table 1: the weight up to a constant, and whether it never rises."""
    cosine, flat = Cosine(clean=10.0, noisy=-10.0), LinearLogSNR(10.0, -10.0)
    sech = lambda v: 1 / torch.cosh(v / 2)  # noqa: E731
    return {
        "bound": (Bound(), cosine, torch.ones_like, True),
        "beta": (Beta(3.0), cosine, torch.ones_like, True),
        "cosine": (Simple(), cosine, sech, False),
        "flat": (Simple(), flat, torch.ones_like, True),
        "min-SNR": (MinSNR(5.0), cosine, lambda v: sech(v) * (5 * (-v).exp()).clamp(max=1), False),
        "min-SNR flat": (MinSNR(5.0), flat, lambda v: (5 * (-v).exp()).clamp(max=1), True),
        "P2": (P2(), cosine, lambda v: sech(v) / (1 + v.exp()), False),
        "truncated": (TruncatedSNR(), cosine, lambda v: sech(v) * (-v).exp().clamp(min=1), True),
        "SNR + 1": (VelocityError(), cosine, lambda v: (-v / 2).exp(), True),
        "EDM": (
            EDMWeight(), flat, lambda v: (-0.5 * ((v - 2.4) / 2.4) ** 2).exp() * ((-v).exp() + 0.25), False,
        ),
        "sigmoid": (SigmoidWeight(2.0), cosine, lambda v: (2 - v).sigmoid(), True),
    }  # fmt: skip


class VelocityError(NoiseWeighted):
    """The squared error of the velocity: a researcher's own, in one line."""

    def weight(self, log_snr: Tensor) -> Tensor:
        """Salimans and Ho's SNR + 1, of the error of ``x``."""
        return 1 + (-log_snr).exp()


@pytest.mark.parametrize("name", table())
def test_the_table_of_kingma_and_gao(name: str) -> None:
    """Each weight up to a constant, and its shape."""
    objective, schedule, stated, falls = table()[name]
    found = explain(objective, schedule)
    ratio = found.weight / stated(found.log_snr)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-9, atol=0)
    assert found.monotone is falls
    assert found.bounded.startswith("nothing") is not falls


@pytest.mark.parametrize("objective", [SigmoidWeight(1.0), MinSNR(3.0), Bound()], ids=repr)
def test_a_falling_weight_is_a_mixture_of_bounds_on_noised_data(objective: Objective) -> None:
    r"""Whatever the errors: ``L / w(noisy)`` is the mean of the bounds :math:`\mathcal{L}(\tau)` over the
    noise :math:`P(\lambda_\tau \ge \lambda) = w(\lambda) / w(\text{noisy})`.
    """
    found = explain(objective, LinearLogSNR(7.0, -7.0), points=4001)
    error = 2 + torch.sin(found.log_snr) + found.log_snr.tanh()
    weighted = 0.5 * torch.trapezoid(found.weight * error, found.log_snr)
    # The bound of data at each noise level: what the levels above it cost.
    inner = 0.5 * torch.cumulative_trapezoid(error, found.log_snr)
    mass = (found.weight[:-1] - found.weight[1:]) / found.weight[0]
    bounds = torch.cat([torch.zeros(1), inner])
    mixture = (mass * (bounds[1:] + bounds[:-1]) / 2).sum() + found.clean * bounds[-1]
    torch.testing.assert_close(weighted / found.weight[0], mixture, rtol=1e-6, atol=0)
    above = float(mass[found.log_snr[:-1] >= found.median].sum()) + found.clean
    assert above == pytest.approx(0.5 if found.clean < 0.5 else 1.0, abs=3e-3)


def test_what_is_bounded_in_words() -> None:
    """Each case has a sentence of its own, with computed numbers."""
    flat = LinearLogSNR(10.0, -8.0)
    assert explain(Bound(), flat).bounded == "the likelihood of the data: it is the bound"
    half = explain(Beta(0.5), flat)
    assert "likelihood of z_0" in half.bounded
    assert half.reconstruction == 1
    assert "reconstruction is left out" in explain(Simple(), flat).bounded
    assert "half below a log-SNR of -1.0" in explain(SigmoidWeight(-1.0), flat).bounded
    twice = Weighted(lambda v: torch.full_like(v, -2.0))
    assert explain(twice, flat).bounded == "nothing: some weights are negative"
    assert explain(WarmUp(3), flat).bounded == "nothing: no level has a weight"
    bump = explain(Simple(), Cosine(clean=10.0, noisy=-8.0))
    assert bump.rises is not None
    assert bump.rises == pytest.approx((-8.0, 0.0), abs=0.02)
    assert "rises with the log-SNR between -8.0 and 0.0" in str(bump)
    assert "Simple() under Cosine" in str(bump)


def test_a_warm_up_is_explained_at_its_current_weight() -> None:
    """Half of the way up, each level counts half."""
    warm = WarmUp(4)
    model, batch = bent(None), Batch(torch.randn(2, 2))
    for _ in range(2):
        warm.update(warm(model, batch)[1].detach(), batch)
    found = explain(warm, LinearLogSNR())
    torch.testing.assert_close(found.weight, torch.full_like(found.weight, 0.5))


def test_an_objective_that_is_no_weighted_sum_is_not_explained() -> None:
    """A root of the bound has no weight on its integrand."""

    class Robust(Objective):
        """Samples count less the worse they are explained."""

        def loss(self, elbo: ELBO, path: object, batch: Batch) -> Tensor:
            return (1 - elbo.value).sqrt().mean()

    with pytest.raises(ValueError, match="Robust, whose loss is not linear"):
        explain(Robust(), LinearLogSNR())


def test_a_hybrid_is_not_explained_but_its_mean_is() -> None:
    """Whatever the model, a learned variance or not."""
    with pytest.raises(
        ValueError, match=r"Hybrid, .*mean is trained as by Simple.*explain\(Simple\(\)"
    ):
        explain(Hybrid(), LinearLogSNR())


def test_weights_are_drawn_of_one_area_dashed_where_they_rise() -> None:
    """What is drawn is what was explained."""
    shown = {"simple": explain(Simple(), MIDDLE), "sigmoid": explain(SigmoidWeight(0.0), MIDDLE)}
    simple, sigmoid = plots.level_weights(shown).axes[0].lines[:2]
    assert (simple.is_dashed(), sigmoid.is_dashed()) == (True, False)
    drawn = torch.as_tensor(sigmoid.get_ydata())
    assert float(torch.trapezoid(drawn, shown["sigmoid"].log_snr)) == pytest.approx(1.0)
    torch.testing.assert_close(
        drawn / drawn[0], shown["sigmoid"].weight / shown["sigmoid"].weight[0]
    )
    with pytest.raises(ValueError, match="no objectives"):
        plots.level_weights({})
    with pytest.raises(ValueError, match="new with weight 0"):
        plots.level_weights({"new": explain(WarmUp(3), MIDDLE)})
