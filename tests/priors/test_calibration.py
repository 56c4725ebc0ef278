r"""The best reverse variance, in closed form and measured: exact chains, calibrated denoisers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genmod.denoisers import Denoised, Denoiser, EmpiricalDenoiser, calibrate
from genmod.denoisers.calibrated import Calibrated
from genmod.diffusion import Analytic, DiffusionPrior, FixedLarge, FixedSmall, NoisingEncoder
from genmod.diffusion.reverse import ReverseProcess
from genmod.diffusion.variances import ReverseVariance
from genmod.model import LatentModel
from genmod.models import Diffusion
from genmod.schedules import LinearBeta, LinearLogSNR
from genmod.schedules.base import Bridge
from tests.oracles import (
    F64,
    MILD,
    ExactDecoder,
    GaussianData,
    ancestral_law,
    constant_noise,
    correlated,
    over_signs,
    real,
)
from tests.priors.test_variances import AXES, SCHEDULE, steps_rate
from tests.statistics import assert_mean


def analytic_model(
    data: GaussianData, denoiser: Denoiser, steps: int, variance: ReverseVariance
) -> LatentModel:
    """The exact last step, so that only the steps' own law can be wrong."""
    prior = DiffusionPrior(denoiser, SCHEDULE, tuple(data.mean.shape), steps, variance)
    return LatentModel(NoisingEncoder(SCHEDULE), ExactDecoder(data, SCHEDULE), prior).double()


@pytest.mark.parametrize("steps", [2, 3, 10, 100])
def test_the_exact_variance_makes_the_chain_exact_at_every_number_of_steps(steps: int) -> None:
    """Uncorrelated Gaussian data under the optimal denoiser: ``p(z_s | z_t)`` is the true reverse step,

    so in the mean over data and noise (exact) only ``KL(q(z_1) || N(0, I))`` is lost, and from the true
    ``q(z_1)`` the last state has the true law.
    """
    model = analytic_model(AXES, AXES.denoiser(), steps, Analytic())
    lost = -float(AXES.law.entropy()) - AXES.mean_over_all(lambda x: model.elbo(x).value)
    assert lost == pytest.approx(AXES.mismatch(SCHEDULE), rel=1e-9)
    wide = LinearLogSNR(6.0, -40.0)
    mean, covariance = ancestral_law(AXES, wide, steps, Analytic())
    alpha, sigma = wide.scales(real(0.0))
    torch.testing.assert_close(mean, alpha * AXES.mean, rtol=0, atol=1e-7)
    exact = alpha.square() * AXES.covariance + sigma.square() * torch.eye(3, dtype=F64)
    torch.testing.assert_close(covariance, exact, rtol=1e-9, atol=1e-9)


def measured(data: GaussianData, levels: int) -> Calibrated:
    """A calibration without chance: two points of the data, two signs of the noise."""
    points, denoiser = data.axis_points(), data.denoiser()
    table = calibrate(denoiser, SCHEDULE, points, levels)
    error = over_signs(
        data.vectors.sum(1),
        lambda: calibrate(denoiser, SCHEDULE, points, levels).log_error.exp(),
    )
    return Calibrated(denoiser, table.log_snr, error)


def test_calibration_measures_the_closed_error() -> None:
    r""":math:`u = e^\lambda\,\mathrm{mmse}(\lambda) / D`, at its nodes exactly and between them closely;

    and for the optimal denoiser it is the paper's :math:`1 - E\|\hat\varepsilon\|^2 / D`.
    """
    data = correlated()
    table = measured(data, 33)
    nodes = table.log_snr
    u = nodes.exp() * data.mmse(nodes) / 3
    torch.testing.assert_close(table.error(nodes), u, rtol=1e-10, atol=0)
    between = (nodes[1:] + nodes[:-1]) / 2
    exact = between.exp() * data.mmse(between) / 3
    # Half-way on a chord of length h, log u (curved as a log-sigmoid, at most 1/4) is off by h^2 / 32.
    chord = float(nodes[1] - nodes[0])
    torch.testing.assert_close(table.error(between), exact, rtol=chord**2 / 32, atol=0)
    alpha2, sigma2 = nodes.sigmoid(), (-nodes).sigmoid()
    score = (sigma2[:, None] / (alpha2[:, None] * data.values + sigma2[:, None])).mean(-1)
    torch.testing.assert_close(table.error(nodes), 1 - score, rtol=1e-9, atol=0)
    assert torch.equal(table.error(real(-99.0, 99.0)), table.error(nodes[[0, -1]]))


def test_calibration_has_the_mean_error_of_draws() -> None:
    """Real data and noise, z-tested through independent replicates."""
    torch.manual_seed(1)
    data = correlated()
    found = [
        calibrate(data.denoiser(), SCHEDULE, data.law.sample((200,)), 2).error(real(-6.0, 6.0))
        for _ in range(30)
    ]
    ends = real(-6.0, 6.0)
    assert_mean(torch.stack(found), ends.exp() * data.mmse(ends) / 3)


@pytest.mark.parametrize("steps", [2, 4, 16, 64])
def test_the_measured_variance_is_the_best_shared_one(steps: int) -> None:
    r"""Each step costs :math:`\tfrac D2 \log(1 + \text{gap}\,u)`, less than under either fixed variance

    and less than under a variance a little larger or smaller (correlated data; exact means).
    """
    data = correlated()
    table = measured(data, steps)

    class Off(Analytic):
        """The optimum, times a factor."""

        def __init__(self, by: float) -> None:
            self.by = by

        def log_std_ratio(self, bridge: Bridge, denoised: Denoised) -> Tensor:
            """A constant more."""
            return super().log_std_ratio(bridge, denoised) + self.by

    def cost(variance: ReverseVariance) -> float:
        prior = DiffusionPrior(table, SCHEDULE, (3,), steps, variance).double()
        return data.mean_over_all(lambda x: steps_rate(prior, x).total)

    best = cost(Analytic())
    log_snr = SCHEDULE.log_snr(torch.linspace(0, 1, steps, dtype=F64))
    gap = torch.expm1(log_snr[:-1] - log_snr[1:])
    closed = 1.5 * float(torch.log1p(gap * table.error(log_snr[1:])).sum())
    assert best == pytest.approx(closed, rel=1e-9)
    assert best < min(cost(FixedSmall()), cost(FixedLarge()))
    assert best < min(cost(Off(0.01)), cost(Off(-0.01)))


def test_the_optimum_is_the_papers_formula() -> None:
    r"""Bao et al. (2022), theorem 1, in their symbols, with the moment of the score that they use:

    :math:`\sigma_n^{*2} = \lambda_n^2 + \Big(\sqrt{\bar\beta_n / \alpha_n} -
    \sqrt{\bar\beta_{n-1} - \lambda_n^2}\Big)^2 (1 - \bar\beta_n E\|\nabla\log q_n\|^2 / D)`.
    """
    data, schedule = GaussianData(real(0.0, 0.0), 0.3 * torch.eye(2, dtype=F64)), LinearBeta(1000)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
    alpha_bar = (1 - betas).cumprod(0)
    n = torch.tensor([1, 10, 500, 999])
    bar, before, beta = alpha_bar[n], alpha_bar[n - 1], betas[n]
    lambda2 = (1 - before) / (1 - bar) * beta
    score = (1 - bar) / (bar * 0.3 + 1 - bar)  # bar beta E|score|^2 / D
    inner = ((1 - bar) / (1 - beta)).sqrt() - (1 - before - lambda2).sqrt()
    paper = lambda2 + inner.square() * (1 - score)
    t = n.double() / 999
    s = (n.double() - 1) / 999
    law = ReverseProcess(data.denoiser(), schedule, Analytic()).law(
        torch.randn(4, 2, dtype=F64), t, s
    )
    torch.testing.assert_close(law.variance, paper[:, None].expand(4, 2), rtol=1e-8, atol=0)


def test_calibration_leaves_the_denoiser_as_it_was() -> None:
    """Evaluation mode inside (dropout off: two runs agree), its own mode after; no gradients kept."""
    model = Diffusion(2, steps=4, width=8, dropout=0.5)
    assert isinstance(model.prior, DiffusionPrior)
    denoiser, x = model.prior.denoiser.train(), torch.randn(6, 2)
    for parameter in denoiser.parameters():
        nn.init.normal_(parameter)
    with constant_noise(torch.tensor([0.3, -0.2])):
        tables = [calibrate(denoiser, model.prior.schedule, x, 3) for _ in range(2)]
    assert torch.equal(tables[0].log_error, tables[1].log_error)
    assert all(module.training for module in denoiser.modules())
    assert not tables[0].log_error.requires_grad


@pytest.mark.usefixtures("as_users_run")
def test_what_cannot_be_measured_is_refused() -> None:
    denoiser = EmpiricalDenoiser(real(0.7, -0.2)[None])
    with pytest.raises(ValueError, match=r"type torch.int64; .* model.encoder.real"):
        calibrate(denoiser, MILD, torch.zeros(3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="2 rows of context for 3"):
        calibrate(denoiser, MILD, torch.zeros(3, 2), context=torch.zeros(2))
