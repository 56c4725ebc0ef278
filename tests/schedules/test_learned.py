"""Learned schedules: one bound whatever they are, and the variance of its estimate as what they learn."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genmod.decoders import GaussianDecoder, Identity
from genmod.denoisers import EmpiricalDenoiser
from genmod.diffusion import DiffusionPrior, NoisingEncoder
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.models import VAE, Diffusion
from genmod.objectives import Batch, Bound, LearnedSchedule, Objective, Simple, Weighted
from genmod.path import TimestepSampler
from genmod.schedules import (
    Cosine,
    LinearBeta,
    LinearLogSNR,
    Logistic,
    MonotoneNetwork,
    RectifiedFlow,
    Schedule,
    Sigmoid,
    Table,
)
from genmod.tensors import PerLevel
from genmod.training import training_loop
from tests.oracles import F64, bent, steps_of
from tests.statistics import assert_equal_means

CLEAN, NOISY, DIMS = 9.0, -6.0, 16
CENTERS = torch.randn(5, DIMS, dtype=F64, generator=torch.Generator().manual_seed(0))


class Independent(TimestepSampler):
    """Uniform times, each row its own: replicates that are independent, so that they have an error."""

    def forward(
        self, rows: int, dtype: torch.dtype, device: torch.device | str | None = None
    ) -> tuple[PerLevel, PerLevel]:
        """As they say."""
        u = torch.rand(rows, self.n, dtype=dtype, device=device)
        return u, torch.full_like(u, 1 / self.n)


def clusters(schedule: Schedule) -> LatentModel:
    """The optimal model of five narrow clusters, in continuous time."""
    prior = DiffusionPrior(EmpiricalDenoiser(CENTERS, std=0.1), schedule, (DIMS,), None)
    return LatentModel(
        NoisingEncoder(schedule), GaussianDecoder(Identity(), (DIMS,), 0.1), prior
    ).double()


def data(rows: int) -> Tensor:
    """Draws of the clusters."""
    return CENTERS[torch.randint(5, (rows,))] + 0.1 * torch.randn(rows, DIMS, dtype=F64)


def draws_of(schedule: Schedule, rows: int = 4_000) -> Tensor:
    """One-level estimates of what the steps cost, independent."""
    with torch.no_grad():
        return clusters(schedule).elbo(data(rows), Independent()).rates["steps"].total


def least_mean_square() -> float:
    r"""What no schedule can beat: :math:`(\int \sqrt{\mathbb{E}[f_\lambda^2]}\, d\lambda)^2`.

    ``f`` is the cost per unit of log-SNR; by Cauchy and Schwarz the best density of log-SNRs is in
    proportion to the root.
    """
    schedule = LinearLogSNR(CLEAN, NOISY)
    levels = torch.linspace(0, 1, 151, dtype=F64).expand(200, -1)

    class Grid(Independent):
        """Every row at the same times."""

        def forward(
            self, rows: int, dtype: torch.dtype, device: torch.device | str | None = None
        ) -> tuple[PerLevel, PerLevel]:
            """All of them."""
            return levels, torch.ones_like(levels)

    with torch.no_grad():
        cost = clusters(schedule).elbo(data(200), Grid()).rates["steps"].nats
    return float(torch.trapezoid(cost.square().mean(0).sqrt(), levels[0])) ** 2


def stretched(schedule: Schedule) -> Table:
    """A schedule's shape between the common ends, as the paper compares them."""
    clean, noisy = schedule.log_snr_range()
    with torch.no_grad():
        shape = (schedule.log_snr(torch.linspace(0, 1, 2000, dtype=F64)) - noisy) / (clean - noisy)
    return Table(NOISY + (CLEAN - NOISY) * shape)


def trained(steps: int = 80) -> MonotoneNetwork:
    """A schedule fit to the clusters, by the package's own training."""
    schedule = MonotoneNetwork(CLEAN, NOISY)
    run = training_loop(
        clusters(schedule),
        data(4096),
        LearnedSchedule(Bound()),
        steps=steps,
        learning_rate=5e-2,
        warmup=10,
        ema=0.9,
        device="cpu",
        progress=False,
    )
    for _ in run:
        pass
    return schedule


# ---------------------------------------------------------------------- one bound, many variances


def test_the_bound_knows_the_ends_alone_and_its_variance_the_rest() -> None:
    """Same ends, same bound, whatever lies between; the variances are ordered as VDM reports:

    learned below linear log-SNR, and that below the cosine's and linear beta's (0.53, 6.35, 31.1,
    31.6 in its figure 4, bits per dimension squared). The learned schedule's ends have not moved.
    """
    learned = trained()
    assert learned.log_snr_range() == pytest.approx((CLEAN, NOISY), rel=1e-14)
    learned.check()
    shapes = {
        "learned": learned,
        "linear": LinearLogSNR(CLEAN, NOISY),
        "cosine": Cosine(0.0, CLEAN, NOISY),
        "beta": stretched(LinearBeta(1000)),
        "sigmoid": Sigmoid(clean=CLEAN, noisy=NOISY),
        "logistic": RectifiedFlow(Logistic(0.0, 2.0, CLEAN, NOISY)),
    }
    costs = {name: draws_of(schedule) for name, schedule in shapes.items()}
    for name, cost in costs.items():
        assert_equal_means(cost, costs["linear"], name=name)
    variance = {name: float(cost.var()) for name, cost in costs.items()}
    assert variance["learned"] < 0.5 * variance["linear"]
    assert variance["linear"] < 0.5 * min(variance["cosine"], variance["beta"])
    square = float(costs["learned"].square().mean())
    assert square < 1.25 * least_mean_square()


# ---------------------------------------------------------------------- the gradient


def learnable(steps: int | None = None) -> LatentModel:
    """A bent denoiser under a bent schedule, in float64 throughout."""
    schedule = MonotoneNetwork(4.0, -4.0, features=5)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in schedule.parameters():
            parameter.data = parameter.double() + 0.5 * torch.randn_like(parameter)
    return bent(steps, schedule)


def gradients(model: LatentModel, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of each parameter, by its first name."""
    named = dict(model.named_parameters())
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in named.items() if p.grad is not None}


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize(
    "build", [Bound, lambda draws: Weighted(lambda log_snr: log_snr.sigmoid(), draws)]
)
def test_one_backward_pass_serves_two_losses(build: Callable[[int], Objective], draws: int) -> None:
    """The denoiser's gradient is the inner objective's, bit for bit; the schedule's is that of the

    mean square of what the steps cost, by automatic differentiation.
    """
    model, x = learnable(), torch.randn(6, 2, dtype=F64)
    inner = build(draws)
    both = LearnedSchedule(inner)

    def loss_of(objective: Objective) -> tuple[Tensor, ELBO]:
        torch.manual_seed(2)
        return objective(model, Batch(x))

    plain, _ = loss_of(inner)
    expected = gradients(model, plain)
    loss, _ = loss_of(both)
    assert torch.equal(loss, plain)
    got = gradients(model, loss)
    _, elbo = loss_of(inner)
    square = (both.spread(elbo) / 2).square().mean()
    of_square = gradients(model, square)
    assert got.keys() == expected.keys()
    for name, gradient in got.items():
        if "schedule" in name:
            torch.testing.assert_close(gradient, of_square[name], rtol=1e-9, atol=1e-12)
            assert not torch.allclose(gradient, expected[name], rtol=1e-2)
        else:
            assert torch.equal(gradient, expected[name])
    assert sum("schedule" in name for name in got) == 3
    assert len(got) > 3


def test_a_plain_bound_leaves_a_learnable_schedule_as_it_is() -> None:
    """In discrete time the bound itself depends on the schedule, and trains it without a gate."""
    model, x = learnable(4), torch.randn(6, 2, dtype=F64)
    weight = model.get_parameter("encoder.schedule.log_weight")

    def value() -> Tensor:
        torch.manual_seed(2)
        return steps_of(model, x).total.sum()

    (gradient,) = torch.autograd.grad(value(), weight)
    with torch.no_grad():
        before, h = weight.clone(), 1e-2
        weight[2] = before[2] + h
        up, moved = value(), float(weight[2])
        weight[2] = before[2] - h
        down, width = value(), moved - float(weight[2])
    assert float(gradient[2]) == pytest.approx(float((up - down) / width), rel=1e-3)


def test_a_learned_slope_has_a_gradient() -> None:
    """That of the log-SNR's central differences, in every parameter."""
    schedule = learnable().get_submodule("prior.schedule")
    assert isinstance(schedule, MonotoneNetwork)
    t, h = torch.linspace(0.05, 0.95, 7, dtype=F64), 1e-5
    numeric = (schedule.log_snr(t + h) - schedule.log_snr(t - h)) / (2 * h)
    torch.testing.assert_close(schedule.slope(t), numeric, rtol=1e-7, atol=0)
    parameters = list(schedule.parameters())
    ours = torch.autograd.grad(schedule.slope(t).square().sum(), parameters)
    expected = torch.autograd.grad(numeric.square().sum(), parameters)
    for gradient, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-6, atol=1e-6)


def test_a_cast_model_keeps_its_schedule_and_a_copy_its_own() -> None:
    """Half precision does not reach a learned schedule's parameters."""
    schedule = trained(3)
    t = torch.linspace(0, 1, 11, dtype=F64)
    before = schedule.log_snr(t).detach()
    twin = copy.deepcopy(schedule).half()
    assert torch.equal(twin.log_snr(t), before)
    assert all(p.dtype is torch.float32 for p in twin.parameters())
    single = schedule.slope(t.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(schedule.slope(t.float()), single)
    fresh = MonotoneNetwork(CLEAN, NOISY)
    fresh.load_state_dict(twin.state_dict())
    assert torch.equal(fresh.log_snr(t), before)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LearnedSchedule(Simple()), "the mean of other objectives depends on the schedule"),
        (lambda: LearnedSchedule().check(bent(None)), r"schedules.MonotoneNetwork\(\)"),
        (
            lambda: LearnedSchedule().check(VAE(2, latents=1, width=4)),
            "whose schedule has no parameters",
        ),
        (
            lambda: LearnedSchedule().check(Diffusion(2, schedule=MonotoneNetwork(), steps=9)),
            "in discrete time",
        ),
    ],
)
def test_what_has_no_schedule_to_learn_is_refused(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build()
