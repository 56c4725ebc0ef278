"""Every target of a network, and every denoiser: a new one is added to its list."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

from genmod import denoisers
from genmod.denoisers import Denoiser, Target
from genmod.denoisers.calibrated import Calibrated
from genmod.denoisers.targets import scales_of
from genmod.nn import DenoisingMLP
from tests.contracts.common import (
    DEVICES,
    DTYPES,
    ROWS,
    check_copies,
    check_tensor,
    placed,
)

TARGETS: dict[str, Callable[[], Target]] = {
    "NoiseTarget": denoisers.NoiseTarget,
    "DataTarget": denoisers.DataTarget,
    "VelocityTarget": denoisers.VelocityTarget,
    "ScoreTarget": denoisers.ScoreTarget,
    "FlowVelocityTarget": denoisers.FlowVelocityTarget,
    "EDMTarget": denoisers.EDMTarget,
}
DENOISERS: dict[str, Callable[[], Denoiser]] = {
    "GaussianDenoiser": lambda: denoisers.GaussianDenoiser(
        torch.ones(3), torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    ),
    "EmpiricalDenoiser": lambda: denoisers.EmpiricalDenoiser(torch.linspace(-1, 1, 15).view(5, 3)),
    "EmpiricalDenoiser, spread": lambda: denoisers.EmpiricalDenoiser(
        torch.linspace(-1, 1, 15).view(5, 3), torch.arange(5.0), std=0.3
    ),
    "Calibrated": lambda: Calibrated(
        denoisers.Learned(DenoisingMLP((3,), width=8)),
        torch.tensor([-6.0, 0.0, 9.0]),
        torch.tensor([0.0, 0.5, 1.0]),
    ),
    "Learned, interpolation": lambda: denoisers.Learned(
        DenoisingMLP((3,), width=8, outputs=6), interpolation=True
    ),
} | {
    f"Learned, {name}": (
        lambda target=target: denoisers.Learned(DenoisingMLP((3,), width=8), target())
    )
    for name, target in TARGETS.items()
}
LOG_SNR = [13.3, 2.0, 0.0, -5.0]


def noisy(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Variance-preserving states and their log-SNR, one row a level."""
    torch.manual_seed(5)
    z = torch.randn(ROWS, 3, dtype=dtype, device=device)
    return z, torch.tensor(LOG_SNR, dtype=dtype, device=device)


@pytest.mark.parametrize("name", list(TARGETS))
def test_x_hat_and_output_are_inverse(name: str) -> None:
    """``x_hat`` of ``output(x)`` is ``x``, at every noise level, in any event shape."""
    target = TARGETS[name]()
    for event in ((3,), (2, 2, 2)):
        z, x = torch.randn(2, ROWS, *event, dtype=torch.float64)
        alpha, sigma = scales_of(torch.tensor(LOG_SNR, dtype=torch.float64), z)
        said = target.output(x, z, alpha, sigma)
        check_tensor(said, (ROWS, *event), z)
        torch.testing.assert_close(target.x_hat(said, z, alpha, sigma), x)


@pytest.mark.parametrize("name", list(TARGETS))
def test_x_hat_is_affine_in_the_output(name: str) -> None:
    """``x_hat`` is affine in the output: the mean of outputs is read as the mean of readings."""
    target = TARGETS[name]()
    z, a, b = torch.randn(3, ROWS, 3, dtype=torch.float64)
    alpha, sigma = scales_of(torch.tensor(LOG_SNR, dtype=torch.float64), z)
    middle = target.x_hat(0.3 * a + 0.7 * b, z, alpha, sigma)
    ends = 0.3 * target.x_hat(a, z, alpha, sigma) + 0.7 * target.x_hat(b, z, alpha, sigma)
    torch.testing.assert_close(middle, ends)


@pytest.mark.parametrize("name", list(TARGETS))
def test_a_target_has_a_repr_and_can_be_copied(name: str) -> None:
    target = TARGETS[name]()
    assert repr(target) == repr(copy.deepcopy(target))
    assert repr(target).startswith(f"{name}(")


@pytest.mark.parametrize("name", list(DENOISERS))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_denoiser_returns_one_event_a_row(
    name: str, dtype: torch.dtype, device: torch.device
) -> None:
    z, log_snr = noisy(dtype, device)
    denoised = placed(DENOISERS[name], dtype, device)(z, log_snr)
    check_tensor(denoised.x_hat, (ROWS, 3), z)
    if denoised.variance is not None:
        check_tensor(denoised.variance, (ROWS, 3), z)
        assert bool((denoised.variance >= 0).all())
    if denoised.interpolation is not None:
        check_tensor(denoised.interpolation, (ROWS, 3), z)


@pytest.mark.parametrize("name", list(DENOISERS))
def test_a_copied_denoiser_gives_the_same_numbers(name: str) -> None:
    def answer(denoiser: Denoiser) -> Iterable[Tensor]:
        return [denoiser(*noisy(torch.float64, DEVICES[0])).x_hat]

    check_copies(DENOISERS[name], answer)
