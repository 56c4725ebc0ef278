"""Every sampler: one path however it is asked for, on any schedule, up to its ends."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from genmod import random
from genmod.denoisers import Denoised, Denoiser
from genmod.diffusion import FixedLarge
from genmod.samplers import (
    DDIM,
    IPNDM,
    Ancestral,
    DPMSolver,
    Euler,
    Heun,
    Sampler,
    StochasticHeun,
    UniformLogSNR,
    UniformTime,
    UniPC,
)
from genmod.schedules import Cosine, LinearBeta, LinearLogSNR, Schedule
from tests.oracles import F64, Bent, RectifiedFlow, VarianceExploding, correlated, real
from tests.samplers.cases import CHAINS, EVERY, FLOWS, flowed

SCHEDULE = LinearLogSNR(6.0, -6.0)
DATA = correlated()
Z = torch.linspace(-1.5, 1.5, 6, dtype=F64).reshape(3, 2)


def states(sampler: Sampler, z: Tensor, times: Tensor, seed: int = 0) -> Tensor:
    """Every state of a path."""
    with random.keyed(seed), torch.no_grad():
        return torch.stack(list(sampler.path(z, times)))


@pytest.mark.parametrize("sampler", EVERY, ids=repr)
def test_a_path_yields_every_state_and_run_the_last(sampler: Sampler) -> None:
    """One state for each time after the first; none for a single time; a second path is no different."""
    bound, times = sampler.bind(Bent(), SCHEDULE), UniformTime().times(SCHEDULE, 5)
    found = states(bound, Z, times)
    assert len(found) == 5
    torch.testing.assert_close(states(bound, Z, times), found, rtol=0, atol=0)
    with random.keyed(0), torch.no_grad():
        assert torch.equal(bound.run(Z, times), found[-1])
    with random.keyed(0), torch.no_grad():
        steps = list(bound.states(Z, times))
    assert torch.equal(torch.stack([state.t for state in steps]), times[1:])
    assert torch.equal(torch.stack([state.z for state in steps]), found)
    first = Bent()(Z, SCHEDULE.log_snr(times[:1]).expand(3)).x_hat
    if not isinstance(sampler, StochasticHeun):
        torch.testing.assert_close(steps[0].x_hat, first)
    assert torch.equal(bound.run(Z, times[:1]), Z)


@pytest.mark.parametrize("sampler", EVERY, ids=repr)
def test_a_step_is_a_path_of_one(sampler: Sampler) -> None:
    """And where a row stands does not matter to the others: rows may go their own ways."""
    bound = sampler.bind(Bent(), SCHEDULE)
    t, s = real(0.9, 0.5, 0.3), real(0.6, 0.45, 0.0)
    with random.seeded([1, 2, 3]), torch.no_grad():
        together = bound.step(Z, t, s)
    for i in range(3):
        with random.seeded([i + 1]), torch.no_grad():
            alone = bound.run(Z[i : i + 1], torch.stack([t[i], s[i]]))
        torch.testing.assert_close(together[i : i + 1], alone)
    times = torch.stack([t, 0.5 * (s + t), s])
    with random.seeded([1, 2, 3]), torch.no_grad():
        together = bound.run(Z, times)
    with random.seeded([2]), torch.no_grad():
        torch.testing.assert_close(together[1:2], bound.run(Z[1:2], times[:, 1]))


@pytest.mark.parametrize("kind", [VarianceExploding, RectifiedFlow])
@pytest.mark.parametrize("sampler", EVERY, ids=repr)
def test_states_of_any_schedule_differ_by_their_length_alone(
    sampler: Sampler, kind: type[VarianceExploding]
) -> None:
    """Denoisers see log-SNR: the same draws give the same path, up to the scale of the state."""
    if isinstance(sampler, Ancestral) and isinstance(sampler.variance, FixedLarge):
        pytest.skip("the forward step's own variance is not one of log-SNR alone")
    times = UniformTime().times(SCHEDULE, 4)
    other = kind(SCHEDULE)
    ratio = torch.hypot(*other.scales(times))[:, None, None]
    plain = states(sampler.bind(Bent(), SCHEDULE), Z, times)
    scaled = states(sampler.bind(Bent(), other), Z * ratio[0], times)
    torch.testing.assert_close(scaled, plain * ratio[1:])


@pytest.mark.parametrize("sampler", FLOWS, ids=repr)
def test_a_path_to_noise_and_back_returns_the_state(sampler: Sampler) -> None:
    """Samplers without noise of their own also go from data to noise, and return."""
    flow = sampler.bind(DATA.denoiser(), SCHEDULE)
    steps = (
        400 if isinstance(sampler, Euler | DDIM) or repr(sampler) == "DPMSolver(order=1)" else 100
    )
    z, times = (
        DATA.mean + torch.linspace(-1, 1, 4, dtype=F64)[:, None],
        real(*range(steps + 1)) / steps,
    )
    noise = flow.run(z, times)
    exact = flowed(DATA, z, SCHEDULE, 0, 1)
    torch.testing.assert_close(noise, exact, rtol=0, atol=0.05)
    torch.testing.assert_close(flow.run(noise, times.flip(0)), z, rtol=0, atol=0.05)


# ---------------------------------------------------------------------- ends


@pytest.mark.parametrize("sampler", EVERY, ids=repr)
def test_float32_keeps_its_digits_from_almost_no_signal(sampler: Sampler) -> None:
    """From a log-SNR of -40, where ``z / alpha`` is 1e9, to 12: float32 against float64."""
    schedule = LinearLogSNR(12.0, -40.0)
    # Adams-Bashforth's steps are stable up to a rise of 0.6 only.
    times = UniformTime().times(schedule, 100 if isinstance(sampler, IPNDM) else 40)
    z = torch.linspace(-1.5, 1.5, 6, dtype=F64).reshape(2, 3)
    found = []
    for dtype in (torch.float64, torch.float32):
        noise = random.keyed(0)
        denoiser = DATA.denoiser().to(dtype)
        drawn = iter(torch.linspace(-1, 1, 500, dtype=F64))

        def normal_like(like: Tensor) -> Tensor:
            return next(drawn).to(like).expand_as(like)  # noqa: B023

        with pytest.MonkeyPatch.context() as patch, noise:
            patch.setattr(random, "normal_like", normal_like)
            found.append(sampler.bind(denoiser, schedule).run(z.to(dtype), times))
    assert bool(found[1].isfinite().all())
    torch.testing.assert_close(found[1].double(), found[0], rtol=0, atol=2e-5)


class Counting(Denoiser):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """A shrunken state."""
        self.count += 1
        return Denoised(0.5 * z)


@pytest.mark.parametrize("sampler", EVERY, ids=repr)
@pytest.mark.parametrize("schedule", [LinearBeta(1000), Cosine()], ids=repr)
def test_evaluations_are_counted(sampler: Sampler, schedule: Schedule) -> None:
    """``evaluations`` is the number of calls of the denoiser."""
    for steps in (1, 2, 7):
        denoiser = Counting()
        z = sampler.bind(denoiser, schedule).run(Z, UniformLogSNR().times(schedule, steps))
        assert denoiser.count == sampler.evaluations(steps)
        assert bool(z.isfinite().all())
    assert sampler.evaluations(0) == 0


# ---------------------------------------------------------------------- one sampler, many paths


def test_a_sampler_is_settings_until_it_is_bound() -> None:
    """Binding makes another; completing leaves what is bound."""
    sampler, denoiser, other = DPMSolver(order=3), Bent(), Bent()
    bound = sampler.bind(denoiser, SCHEDULE)
    assert (bound.denoiser, bound.schedule, bound.order) == (denoiser, SCHEDULE, 3)
    assert sampler.bind(other, SCHEDULE).denoiser is other
    half = DPMSolver(other, order=2).bind_missing(denoiser, SCHEDULE)
    assert (half.denoiser, half.schedule) == (other, SCHEDULE)
    with pytest.raises(ValueError, match=r"DPMSolver\(order=3\) without .* model.sample"):
        sampler.run(Z, real(1.0, 0.0))


def test_two_paths_of_one_sampler_are_independent() -> None:
    """A memory belongs to a path."""
    flow, times = UniPC(Bent(), SCHEDULE, order=3), UniformTime().times(SCHEDULE, 6)
    alone = states(flow, Z, times), states(flow, 2 * Z, times)
    with torch.no_grad():
        both = list(zip(flow.path(Z, times), flow.path(2 * Z, times), strict=True))
    torch.testing.assert_close(torch.stack([a for a, _ in both]), alone[0])
    torch.testing.assert_close(torch.stack([b for _, b in both]), alone[1])


def test_gradients_pass_through_a_path() -> None:
    """Through every step, to the first state: against differences."""
    times = UniformTime().times(SCHEDULE, 3)
    for sampler in FLOWS:
        bound = sampler.bind(Bent(), SCHEDULE)
        assert torch.autograd.gradcheck(
            lambda z, bound=bound: bound.run(z, times), Z.clone().requires_grad_()
        )


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (real(1.0, 0.5, 0.5, 0.0), "times that fall at every step"),
        (real(1.0, 0.2, 0.4, 0.0), "times that fall at every step"),
        (real(0.0, 1.0), "times that fall at every step"),
        (real(), "at least one time"),
        (torch.zeros(2, 3, 1, dtype=F64), "at least one time"),
        (real(1.5, 0.5, 0.0), "from 0 to 1.5; expected times in"),
        (real(1.0, 0.5, -0.2), "from -0.2 to 1; expected times in"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_times_that_are_no_path_are_refused(times: Tensor, words: str) -> None:
    """On the call, before the first step; noise cannot be drawn backwards."""
    for sampler in CHAINS:
        with pytest.raises(ValueError, match=words):
            sampler.bind(Bent(), SCHEDULE).states(Z, times)


@pytest.mark.usefixtures("as_users_run")
def test_integers_and_no_rows_are_no_state() -> None:
    with pytest.raises(ValueError, match=r"a state of type torch.int64; .* model.encoder.real"):
        DDIM(Bent(), SCHEDULE).run(torch.zeros(2, 3, dtype=torch.long), real(1.0, 0.0))
    for sampler in EVERY:
        for times in (real(1.0, 0.5, 0.0), torch.ones(3, 0, dtype=F64)):
            with pytest.raises(
                ValueError, match=r"states of shape \(0, 2\); expected at least one"
            ):
                sampler.bind(Bent(), SCHEDULE).run(Z[:0], times)


def test_rows_of_their_own_times_are_found_in_double_precision() -> None:
    """Times in float32, as a caller may have them: the factors are those of the same times in float64."""
    times = torch.linspace(1, 0, 5)
    columns = times[:, None].expand(5, len(Z))
    for sampler in FLOWS:
        found, exact = (
            sampler.bind(Bent(), SCHEDULE).run(Z, t) for t in (columns, columns.double())
        )
        torch.testing.assert_close(found, exact, rtol=0, atol=0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: DDIM(eta=-0.1),
        lambda: DPMSolver(order=4),
        lambda: DPMSolver(order=3, sde=True),
        lambda: UniPC(order=0),
        lambda: IPNDM(order=5),
        lambda: StochasticHeun(churn=-1),
        lambda: StochasticHeun(lowest=2, highest=1),
    ],
)
def test_settings_that_cannot_be_are_refused(build: object) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=r"got .*; expected .*; "):
        build()


def test_the_repr_of_a_sampler_shows_its_settings() -> None:
    """``repr`` is what one would type."""
    assert [repr(s) for s in (Euler(), Heun(), DDIM(eta=0.5))] == [
        "Euler()",
        "Heun()",
        "DDIM(eta=0.5)",
    ]
    assert repr(DPMSolver(order=2, sde=True)) == "DPMSolver(order=2, sde=True)"
    assert (
        repr(UniPC(lower_order_final=True)) == "UniPC(order=2, scale=bh2, lower_order_final=True)"
    )
    assert repr(Ancestral(variance=FixedLarge())) == "Ancestral(variance=FixedLarge())"
    for a, b in pairwise(map(repr, EVERY)):
        assert a != b
