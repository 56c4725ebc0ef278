"""The lecture's equations: the table names functions and tests that exist; the slides' own formulas."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from torch import Tensor

from genmod import gaussian
from genmod.denoisers import DataTarget, EmpiricalDenoiser, NoiseTarget, convert
from genmod.diffusion import FixedLarge, FixedSmall, NoisingEncoder
from genmod.diffusion.reverse import ReverseProcess
from genmod.schedules import LinearBeta

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "lecture" / "equations.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (.+) \| `([\w.]+)` \| `([\w./]+)::(\w+)` \|$", TABLE, re.M)

T, STEP = 50, 21
"""The slides' number of steps, and a step in the middle."""
SCHEDULE = LinearBeta(T)
BETA, ALPHA_BAR = SCHEDULE.betas(T)[STEP - 1], SCHEDULE.alpha_bars(T)[STEP - 1]
BEFORE = SCHEDULE.alpha_bars(T)[STEP - 2]


@cache
def names_in(path: str) -> set[str]:
    """The names of the test functions of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_of_the_table_is_read() -> None:
    """Rows are numbered from 1 on, and none has another form."""
    assert [int(row[0]) for row in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) == sum(line.startswith("| ") for line in TABLE.splitlines()) - 1
    assert len(ROWS) >= 45


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_functions_and_tests_of_the_table_exist(row: tuple[str, ...]) -> None:
    """The function is importable and public, and the test is in its file."""
    _, _, function, path, name = row
    assert not any(part.startswith("_") for part in function.split("."))
    found = resolve_name(function)
    assert callable(found) or isinstance(found, property)
    assert name.startswith("test_")
    assert name in names_in(path)


def times() -> tuple[Tensor, Tensor]:
    """The times of the slides' steps ``STEP`` and ``STEP - 1``."""
    t, s = (torch.full((4,), k / (T - 1), dtype=torch.float64) for k in (STEP - 1, STEP - 2))
    return t, s


def states() -> tuple[Tensor, Tensor, Tensor]:
    """Data, the merged noise, and the state at step ``STEP``."""
    torch.manual_seed(0)
    x, eps = torch.randn(2, 4, 3, dtype=torch.float64)
    return x, eps, ALPHA_BAR.sqrt() * x + (1 - ALPHA_BAR).sqrt() * eps


def slide_mean(x_t: Tensor, eps: Tensor) -> Tensor:
    """The mean of the step, in terms of the noise, as on the slide."""
    return (x_t - BETA / (1 - ALPHA_BAR).sqrt() * eps) / (1 - BETA).sqrt()


def reverse(variance: FixedSmall | FixedLarge) -> tuple[ReverseProcess, Tensor]:
    """A reverse process with a denoiser that is not exact, and its noise at the state."""
    _, _, x_t = states()
    process = ReverseProcess(EmpiricalDenoiser(torch.randn(9, 3).double()), SCHEDULE, variance)
    level = SCHEDULE.log_snr(times()[0])
    x_hat = process.denoiser(x_t, level).x_hat
    return process, convert(x_hat, DataTarget(), NoiseTarget(), x_t, level)


def test_two_forward_steps_merge_into_one() -> None:
    """The variance of both noises is ``1 - alpha_t alpha_{t-1}``."""
    first, second = (1 - SCHEDULE.betas(T)[k].reshape(1, 1) for k in (STEP - 2, STEP - 1))
    zero, x = torch.zeros(1, dtype=torch.float64), torch.full((1,), 0.8, dtype=torch.float64)
    step = gaussian.LinearGaussian(
        first[0].sqrt() * x, (1 - first).sqrt(), second.sqrt(), zero, (1 - second).sqrt()
    )
    mean, std = step.marginal()
    torch.testing.assert_close(mean, (first * second).sqrt()[0] * x)
    torch.testing.assert_close(std.square(), 1 - first * second)


def test_a_draw_of_the_marginal_is_the_slides() -> None:
    x, eps, x_t = states()
    alpha, sigma = SCHEDULE.scales(times()[0][:1])
    torch.testing.assert_close(alpha * x + sigma * eps, x_t)


def test_the_log_snr_is_that_of_alpha_bar() -> None:
    found = SCHEDULE.log_snr(times()[0][:1]).exp()[0]
    torch.testing.assert_close(found, ALPHA_BAR / (1 - ALPHA_BAR))


def test_the_posterior_mean_is_the_slides() -> None:
    x, eps, x_t = states()
    bridge = SCHEDULE.bridge(*reversed(times()))
    ours = bridge.coef_z[:, None] * x_t + bridge.coef_x[:, None] * x
    torch.testing.assert_close(ours, slide_mean(x_t, eps))


def test_the_posterior_variance_is_the_slides() -> None:
    x, _, x_t = states()
    law = NoisingEncoder(SCHEDULE)(x).given(*reversed(times()), x_t)
    slide = (1 - BEFORE) / (1 - ALPHA_BAR) * BETA
    torch.testing.assert_close(law.variance, slide.expand_as(law.variance))
    small, _ = reverse(FixedSmall())
    t, s = times()
    torch.testing.assert_close(small.law(x_t, t, s).variance, slide.expand(4, 3))


@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge()], ids=repr)
def test_a_step_is_a_difference_of_means_and_a_constant(
    variance: FixedSmall | FixedLarge,
) -> None:
    """``C`` is zero for the posterior's own variance, and no number of the network is in it."""
    x, _, x_t = states()
    process, _ = reverse(variance)
    t, s = times()
    q, p = NoisingEncoder(SCHEDULE)(x).given(s, t, x_t), process.law(x_t, t, s)
    nats = gaussian.kl(q.mean, q.stddev.expand(4, 3), p.mean, p.stddev.expand(4, 3)).sum(1)
    sigma = BETA if isinstance(variance, FixedLarge) else (1 - BEFORE) / (1 - ALPHA_BAR) * BETA
    ratio = (1 - BEFORE) / (1 - ALPHA_BAR) * BETA / sigma
    constant = 1.5 * (ratio - 1 - ratio.log())
    apart = (q.mean - p.mean).square().sum(1) / (2 * sigma)
    torch.testing.assert_close(nats, apart + constant)
    assert bool(constant == 0) is isinstance(variance, FixedSmall)


def test_a_reverse_step_is_the_slides() -> None:
    _, _, x_t = states()
    process, eps_hat = reverse(FixedLarge())
    law = process.law(x_t, *times())
    torch.testing.assert_close(law.mean, slide_mean(x_t, eps_hat))
    torch.testing.assert_close(law.variance, BETA.expand_as(law.variance))


def test_a_reverse_step_is_q_with_the_estimate() -> None:
    """The second argument of ``q`` is data: the estimate that follows from the noise."""
    _, _, x_t = states()
    process, eps_hat = reverse(FixedSmall())
    t, s = times()
    x_hat = convert(eps_hat, NoiseTarget(), DataTarget(), x_t, SCHEDULE.log_snr(t))
    q = NoisingEncoder(SCHEDULE)(x_hat).given(s, t, x_t)
    p = process.law(x_t, t, s)
    torch.testing.assert_close(p.mean, q.mean)
    torch.testing.assert_close(p.variance, q.variance)
