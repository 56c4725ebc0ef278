r"""Posterior denoisers against Gaussian posteriors that are known exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genmod import random
from genmod.denoisers import Guided
from genmod.diffusion import FixedSmall
from genmod.inverse import MMPS, Blur, Mask, Matrix, PiGDM, PosteriorDenoiser
from genmod.inverse.posterior import conjugate_gradients
from genmod.models import Diffusion, with_denoiser
from genmod.nn.jacobian import Linear
from genmod.samplers import Ancestral, Heun
from genmod.schedules import LinearLogSNR
from tests.inverse.cases import Problem, affine_law, mixing, nats_off
from tests.oracles import (
    F64,
    Bent,
    GaussianData,
    RectifiedFlow,
    ancestral_law,
    correlated,
    real,
    standard,
)
from tests.statistics import assert_mean

SCHEDULE = LinearLogSNR(8.0, -10.0)
LOG_SNR = torch.linspace(-10, 10, 9, dtype=F64)


def told(problem: Problem, iterations: int = 8) -> MMPS:
    """The moment-matching posterior denoiser of a problem."""
    return MMPS(
        problem.data.denoiser(), problem.operator, problem.y, problem.std, iterations=iterations
    )


def problems() -> list[Problem]:
    """A noisy matrix, a noiseless mask, a circular blur, one measurement of everything."""
    data = correlated()
    mask = Mask(torch.tensor([True, False, True]))
    return [
        mixing(),
        Problem(data, mask, real(0.7, -1.2)[None], 0.0),
        Problem(data, mask, real(0.7, -1.2)[None], 0.5),
        Problem(data, Matrix(torch.ones(1, 3, dtype=F64)), real(2.0)[None], 0.1),
        Problem(data, Matrix(torch.eye(3, dtype=F64)), real(2.0, 0.0, 1.0)[None], 1.0),
    ]


@pytest.mark.parametrize("index", range(5))
def test_mmps_is_exact_for_gaussian_data(index: int) -> None:
    """``E[x | z, y]`` is the Gaussian denoiser of ``p(x | y)``, at every noise level, to 1e-8."""
    problem = problems()[index]
    z = torch.randn(len(LOG_SNR), 3, dtype=F64)
    exact = problem.posterior().denoiser()(z, LOG_SNR).x_hat
    torch.testing.assert_close(told(problem)(z, LOG_SNR).x_hat, exact, rtol=1e-8, atol=1e-8)


def test_few_iterations_come_close() -> None:
    """One product is not exact for two measurements, two are: the dimension of ``y``."""
    problem, z = mixing(), torch.randn(len(LOG_SNR), 3, dtype=F64)
    exact = problem.posterior().denoiser()(z, LOG_SNR).x_hat
    errors = [
        float((told(problem, count)(z, LOG_SNR).x_hat - exact).abs().max()) for count in (1, 2)
    ]
    assert errors[0] > 1e-3
    assert errors[1] < 1e-10


def test_ancestral_samples_follow_the_exact_posteriors_own_chain() -> None:
    """Mean and second moments, at few steps, where the chain's own law is far from its limit."""
    problem, steps = mixing(), 6
    times = torch.linspace(1, 0, steps, dtype=F64)
    with torch.no_grad():
        z = Ancestral(told(problem), SCHEDULE).run(torch.randn(20_000, 3, dtype=F64), times)
    mean, covariance = ancestral_law(problem.posterior(), SCHEDULE, steps, FixedSmall())
    assert_mean(z, mean)
    off = z - mean
    assert_mean(off[:, :, None] * off[:, None, :], covariance)


def test_the_probability_flow_ends_in_the_posterior() -> None:
    """With Heun's method from noise to the clean end: the posterior's mean and covariance."""
    problem, schedule = mixing(), LinearLogSNR(10.0, -10.0)
    posterior = problem.posterior()
    times = torch.linspace(1, 0, 61, dtype=F64)
    z = Heun(told(problem), schedule).run(torch.randn(4_000, 3, dtype=F64), times)
    assert_mean(z, posterior.mean)
    off = z - posterior.mean
    assert_mean(off[:, :, None] * off[:, None, :], posterior.covariance)


def test_pigdm_is_exact_where_it_assumes_the_truth() -> None:
    """``N(m, d^2 I)`` with ``data_std = d``: exact; so is any data whose measured entries are such."""
    z = torch.randn(len(LOG_SNR), 3, dtype=F64)
    for d in (1.0, 0.4):
        data = GaussianData(real(0.3, -1.0, 0.5), d**2 * torch.eye(3, dtype=F64))
        problem = mixing(data)
        found = PiGDM(data.denoiser(), problem.operator, problem.y, 0.3, data_std=d)
        exact = problem.posterior().denoiser()(z, LOG_SNR).x_hat
        torch.testing.assert_close(found(z, LOG_SNR).x_hat, exact, rtol=1e-8, atol=1e-8)
    # Independent entries: what the mask hides may have any spread.
    data = GaussianData(real(0.3, -1.0, 0.5), real(1.0, 5.0, 1.0).diag())
    problem = Problem(data, Mask(torch.tensor([True, False, True])), real(1.0, 2.0)[None], 0.2)
    found = PiGDM(data.denoiser(), problem.operator, problem.y, 0.2)
    exact = problem.posterior().denoiser()(z, LOG_SNR).x_hat
    torch.testing.assert_close(found(z, LOG_SNR).x_hat, exact, rtol=1e-8, atol=1e-8)


class NoCovariance(PosteriorDenoiser):
    """``p(y | z) = p(y | x = x_hat(z))``: the approximation that DPS starts from."""

    def assumed(self, u: Tensor, covariance: Linear, variance: Tensor) -> Tensor:
        """Nothing."""
        return torch.zeros_like(u)


def test_the_bias_of_the_assumed_covariances() -> None:
    """Correlated data: nats between the chain's law and the exact posterior's own chain, both exact,
    because the denoisers are affine. MMPS loses nothing, Pi-GDM some, a point estimate more.
    """
    problem, schedule, steps = mixing(std=0.5), LinearLogSNR(6.0, -6.0), 50
    args = problem.data.denoiser(), problem.operator, problem.y, problem.std
    exact = GaussianData(*affine_law(problem.posterior().denoiser(), schedule, steps, 3))
    found = [
        nats_off(*affine_law(method(*args), schedule, steps, 3), exact)
        for method in (MMPS, PiGDM, NoCovariance)
    ]
    assert found[0] == pytest.approx(0, abs=1e-10)
    assert 0.01 < found[1] < found[2]


def test_the_measurement_is_met_where_it_has_no_noise() -> None:
    """``A x_hat = y``, even for a denoiser that is no posterior mean, once the equations are solved."""
    mask = Mask(torch.tensor([True, False]))
    denoiser = MMPS(Bent().double(), mask, real(0.4)[None], 0.0)
    z = torch.randn(5, 2, dtype=F64)
    x_hat = denoiser(z, torch.linspace(-3, 3, 5, dtype=F64)).x_hat
    torch.testing.assert_close(mask(x_hat), torch.full((5, 1), 0.4, dtype=F64))


def test_gradients_are_taken_in_any_mode_and_none_flows_out() -> None:
    """The same numbers in training, without gradients and in inference mode."""
    problem = mixing()
    denoiser, z, log_snr = told(problem), torch.randn(4, 3, dtype=F64), LOG_SNR[2:6]
    plain = denoiser(z.clone().requires_grad_(), log_snr).x_hat
    assert not plain.requires_grad
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            other = denoiser(z * 1.0, log_snr * 1.0).x_hat
        assert torch.equal(plain, other)


def test_each_row_has_its_own_measurement() -> None:
    """One for each row, or one for all."""
    problem, z = mixing(), torch.randn(4, 3, dtype=F64)
    ys, log_snr = torch.randn(4, 2, dtype=F64), LOG_SNR[2:6]
    args = problem.data.denoiser(), problem.operator
    together = MMPS(*args, ys, 0.3)(z, log_snr).x_hat
    for row in range(4):
        one = slice(row, row + 1)
        alone = MMPS(*args, ys[one], 0.3)(z[one], log_snr[one]).x_hat
        torch.testing.assert_close(together[one], alone)
    with pytest.raises(ValueError, match="3 measurements for 4 rows"):
        MMPS(*args, ys[:3], 0.3)(z, log_snr)


def test_a_guided_denoiser_accepts_a_measurement() -> None:
    """The prior of a mixture of contexts' Gaussians, guided: still affine, so still solved exactly."""
    good, bad = correlated(0).denoiser(), correlated(1).denoiser()
    problem = mixing()
    guided = Guided(good, 1.0, worse=bad)
    z = torch.randn(4, 3, dtype=F64)
    found = MMPS(guided, problem.operator, problem.y, problem.std)(z, LOG_SNR[2:6]).x_hat
    torch.testing.assert_close(found, told(problem)(z, LOG_SNR[2:6]).x_hat)


def test_samples_given_a_measurement_agree_with_it() -> None:
    """``with_denoiser``: the chain and the decoder's last step both know ``y``."""
    data = standard(3)
    model = Diffusion(3, denoiser=data.denoiser(), steps=40, schedule=SCHEDULE).double()
    mask = Mask(torch.tensor([True, False, True]))
    y = real(1.5, -2.0)[None]
    sampled = with_denoiser(model, lambda d: MMPS(d, mask, y, 0.0)).sample(2000)
    assert float((mask(sampled) - y).abs().max()) < 0.15
    assert_mean(sampled[:, 1], 0.0)


def test_conjugate_gradients_solve_row_by_row() -> None:
    """Against a direct solution; rows that are done, or have a zero right side, stay as they are."""
    root = torch.randn(5, 4, 4, dtype=F64)
    matrices, b = root @ root.mT + 0.5 * torch.eye(4, dtype=F64), torch.randn(5, 4, dtype=F64)
    b[2] = 0
    found = conjugate_gradients(lambda v: (matrices @ v[..., None])[..., 0], b, 12)
    torch.testing.assert_close(found, torch.linalg.solve(matrices, b), rtol=1e-8, atol=1e-10)
    assert torch.equal(found[2], torch.zeros(4, dtype=F64))


@pytest.mark.parametrize("log_condition", [2, 4, 6])
def test_as_many_iterations_as_entries_solve(log_condition: int) -> None:
    """Ill-conditioned equations, too, up to the rounding that their condition allows."""
    count = 40
    basis = torch.linalg.qr(torch.randn(3, count, count, dtype=F64)).Q
    values = torch.logspace(-log_condition, 0, count, dtype=F64)
    matrices, exact = (basis * values) @ basis.mT, torch.randn(3, count, dtype=F64)
    b = (matrices @ exact[..., None])[..., 0]
    found = conjugate_gradients(lambda v: (matrices @ v[..., None])[..., 0], b, count)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-12 * 10**log_condition)


def test_the_default_number_of_iterations_deblurs() -> None:
    """A blur of 1.5 entries and little noise, against the exact posterior mean of a signal of 32.

    What is left of the correction at the default is at most a fifth of what 3 iterations leave.
    """
    side, std = 32, 0.05
    lag = torch.arange(side, dtype=F64)
    covariance = torch.exp(-(lag[:, None] - lag).abs() / 3)
    data = GaussianData(torch.zeros(side, dtype=F64), covariance)
    blur = Blur((1, side), 1.5)
    flat = Matrix(blur(torch.eye(side, dtype=F64)[:, None])[:, 0].T)
    x = torch.linalg.cholesky(covariance) @ torch.randn(side, dtype=F64)
    problem = Problem(data, flat, flat(x[None]) + std * torch.randn(1, side, dtype=F64), std)
    z, log_snr = torch.randn(4, side, dtype=F64), real(-6.0, -2.0, 1.0, 4.0)
    exact = problem.posterior().denoiser()(z, log_snr).x_hat
    args = data.denoiser(), flat, problem.y, std
    off = [
        float((solver(z, log_snr).x_hat - exact).square().mean().sqrt())
        for solver in (MMPS(*args), MMPS(*args, iterations=3))
    ]
    assert off[0] < 0.2 * off[1]
    assert off[0] < 0.02


@pytest.mark.parametrize("timesteps", [None, 1, 3])
def test_one_measurement_a_row_has_a_bound(timesteps: int | None) -> None:
    """The bound of each row is the one that the row has alone, whatever levels it visits."""
    problem = mixing()
    model = Diffusion(3, denoiser=problem.data.denoiser(), steps=6, schedule=SCHEDULE).double()
    ys, x = torch.randn(4, 2, dtype=F64), torch.randn(4, 3, dtype=F64)
    operator = problem.operator

    def value(rows: slice) -> Tensor:
        conditioned = with_denoiser(model, lambda d: MMPS(d, operator, ys[rows], 0.3))
        with random.keyed(0, start=rows.start, block=4), torch.no_grad():
            return conditioned.elbo(x[rows], timesteps=timesteps).value

    together = value(slice(0, 4))
    alone = torch.cat([value(slice(i, i + 1)) for i in range(4)])
    if timesteps is None:  # otherwise strata are shared over the batch
        torch.testing.assert_close(together, alone)
    assert bool(together.isfinite().all())


def test_measurements_are_repeated_in_place_for_the_levels_of_a_row() -> None:
    """Rows of one noise level may also be joint draws, batch after batch: they are refused.

    A diffusion of two steps visits one level twice, and a batch drawn twice looks the same.
    """
    problem, ys = mixing(), torch.randn(4, 2, dtype=F64)
    denoiser = MMPS(problem.data.denoiser(), problem.operator, ys, 0.3)
    z, levels = torch.randn(4, 3, dtype=F64), real(-1.0, 0.0, 1.0)
    each = torch.stack([denoiser(z, level.expand(4)).x_hat for level in levels], 1).flatten(0, 1)
    both = denoiser(z.repeat_interleave(3, 0), levels.repeat(4)).x_hat
    torch.testing.assert_close(both, each)
    with pytest.raises(ValueError, match=r"12 rows at one noise level for 4 .* y\.repeat\(3"):
        denoiser(z.repeat(3, 1), torch.zeros(12, dtype=F64))
    for repeated in (lambda y: y.repeat(3, 1), lambda y: y.repeat_interleave(3, 0)):
        draws = MMPS(problem.data.denoiser(), problem.operator, repeated(ys), 0.3)
        once = denoiser(z, torch.zeros(4, dtype=F64)).x_hat
        found = draws(repeated(z), torch.zeros(12, dtype=F64)).x_hat
        torch.testing.assert_close(found, repeated(once))


def test_conjugate_gradients_survive_a_matrix_that_is_not_symmetric() -> None:
    """As the Jacobian of a network: iterates diverged, to NaN in single precision."""
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(200, 16, 16, generator=generator, dtype=torch.float64) / 4
    matrices = matrices + 0.3 * torch.eye(16)
    b = torch.randn(200, 16, generator=generator, dtype=torch.float64)

    def product(v: Tensor) -> Tensor:
        return (matrices @ v[..., None])[..., 0]

    found = conjugate_gradients(product, b, 20, least=0.01)
    assert bool(((b - product(found)).norm(dim=-1) <= 2.001 * b.norm(dim=-1)).all())


def test_conjugate_gradients_stop_without_curvature() -> None:
    """A matrix that is not positive definite gives no NaN, and no step uphill."""
    b = real(1.0, 2.0)[None]
    for matrix in (torch.neg, torch.zeros_like):
        assert torch.equal(conjugate_gradients(matrix, b, 3), torch.zeros_like(b))


def test_a_direction_of_less_curvature_than_there_can_be_is_left_out() -> None:
    """``s^2 I + C`` with a ``C`` that is no covariance: nearly singular, and the step is not taken; the
    bound itself is enough curvature, down to rounding.
    """
    b, s = real(1.0, 0.0)[None], 0.3
    wrong = torch.tensor([-(s**2) + 1e-6, 0.0], dtype=F64)
    found = conjugate_gradients(lambda v: s**2 * v + wrong * v, b, 3, s**2)
    assert torch.equal(found, torch.zeros_like(b))
    found = conjugate_gradients(lambda v: s**2 * v * (1 - 1e-15), b, 3, s**2)
    torch.testing.assert_close(found, b / s**2)


def test_schedules_of_other_scales_give_the_same_posterior() -> None:
    """Rectified flow: the exact posterior's flow, as in the variance-preserving case."""
    problem, schedule = mixing(), RectifiedFlow(LinearLogSNR(8.0, -8.0))
    z = torch.randn(64, 3, dtype=F64)
    times = torch.linspace(1, 0, 21, dtype=F64)
    found, exact = (
        Heun(d, schedule).run(z, times) for d in (told(problem), problem.posterior().denoiser())
    )
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-7)


def test_bad_measurements_are_refused() -> None:
    denoiser, blur = standard(3).denoiser(), Blur((1, 3), 1.0)
    with pytest.raises(ValueError, match="real scale"):
        MMPS(denoiser, blur, torch.zeros(1, 1, 3, dtype=torch.long), 0.1)
    with pytest.raises(ValueError, match=r"real numbers, \(B, 1, 3\)"):
        MMPS(denoiser, blur, torch.zeros(1, 3), 0.1)
    with pytest.raises(ValueError, match="NaN"):
        MMPS(denoiser, blur, torch.full((1, 1, 3), torch.nan), 0.1)
    with pytest.raises(ValueError, match=r"states of shape \(1, 4\)"):
        MMPS(denoiser, blur, torch.zeros(1, 1, 3), 0.1)(torch.zeros(2, 1, 4), torch.zeros(2))
    with pytest.raises(ValueError, match="std >= 0"):
        MMPS(denoiser, blur, torch.zeros(1, 1, 3), -1.0)
    with pytest.raises(ValueError, match="at least 1"):
        MMPS(denoiser, blur, torch.zeros(1, 1, 3), 0.1, iterations=0)
    with pytest.raises(ValueError, match="data_std"):
        PiGDM(denoiser, blur, torch.zeros(1, 1, 3), 0.1, data_std=0.0)


def test_measurements_and_operators_are_taken_from_arrays() -> None:
    """The same numbers as of tensors, also of a measurement that was made in inference mode."""
    data, z, log_snr = correlated(), torch.randn(4, 3, dtype=F64), torch.zeros(4, dtype=F64)
    matrix, observed, y = (
        torch.ones(1, 3, dtype=F64),
        torch.tensor([True, False, True]),
        real(0.7)[None],
    )
    with torch.inference_mode():
        late = real(0.7)[None]
    expected = MMPS(data.denoiser(), Matrix(matrix), y, 0.1)(z, log_snr).x_hat
    for seen in (y.numpy(), late, [[0.7]]):
        found = MMPS(data.denoiser(), Matrix(matrix.numpy()), seen, 0.1)(z, log_snr).x_hat
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert torch.equal(Mask(observed.numpy()).observed, observed)
    with pytest.raises(ValueError, match="1 values of matrix that are NaN"):
        Matrix(real(1.0, torch.nan, 0.0)[None])
    with pytest.raises(ValueError, match=r"got y .*shape \(0, 1\)"):
        MMPS(data.denoiser(), Matrix(matrix), y[:0], 0.1)
    with pytest.raises(ValueError, match=r"got 0 states .* at least one row"):
        MMPS(data.denoiser(), Matrix(matrix), y, 0.1)(z[:0], log_snr[:0])
