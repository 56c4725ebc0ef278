"""The U-Net: any event, an output for every noise level, the same however it is computed."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from genmod.diffusion import NoisingEncoder
from genmod.distributions import Normal
from genmod.nn import UNet
from genmod.schedules import Cosine, LinearLogSNR, Schedule

FLIPS, TURNS = [("flip", 2), ("flip", 3)], [("turn", 1), ("turn", 2), ("turn", 3)]
EVENTS = [(1, 28, 28), (3, 17, 23), (3, 8, 8), (2, 50), (1, 5), (1, 5, 6, 7), (1, 1, 1)]


def opened(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with random numbers where it has zeros: blocks and output start closed."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("shape", EVENTS)
def test_any_event_comes_out_as_it_went_in(shape: tuple[int, ...], patch: int) -> None:
    """Odd sides, one or three channels, one to three sides, any batch; zero before training."""
    net = UNet(shape, width=16, patch=patch, fourier=(1,))
    for rows in (1, 3):
        out = net(torch.randn(rows, *shape), torch.zeros(rows))
        assert out.shape == (rows, *shape)
        assert not out.any()


@pytest.mark.parametrize("shape", EVENTS)
def test_rows_do_not_see_each_other(shape: tuple[int, ...]) -> None:
    net = opened(UNet(shape, width=16).double())
    z, log_snr = torch.randn(4, *shape).double(), torch.linspace(-5, 5, 4).double()
    alone = torch.cat([net(z[i : i + 1], log_snr[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(net(z, log_snr), alone)


def test_every_parameter_learns_and_every_place_sees_every_other() -> None:
    net = opened(UNet((1, 12, 12), width=16, context=2, fourier=(0,)))
    z = torch.randn(2, 1, 12, 12, requires_grad=True)
    out = net(z, torch.tensor([-1.0, 2.0]), torch.randn(2, 2))
    (slope,) = torch.autograd.grad(out[0, 0, 0, 0], z, retain_graph=True)
    assert slope[0].abs().amin() > 0
    assert not slope[1].any()
    out.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.any(), name


@pytest.mark.parametrize("schedule", [LinearLogSNR(), Cosine()], ids=["linear", "cosine"])
@pytest.mark.parametrize("count", [1000, 10_000, 100_000])
def test_the_embedding_differs_between_any_two_times(schedule: Schedule, count: int) -> None:
    """The embedding that the blocks take, float32: neighbors of a chain, and a thousand of all its times.

    In bfloat16, neighbors of up to 10,000.
    """
    log_snr = schedule.at(torch.linspace(0, 1, count, dtype=torch.float64)).log_snr.float()
    embed = UNet((1, 8, 8), width=16).level
    with torch.no_grad():
        told = embed(log_snr)
        with torch.autocast("cpu", torch.bfloat16):
            half = embed(log_snr)
    assert told.dtype is torch.float32
    assert half.dtype is torch.bfloat16
    gaps = (told[1:] - told[:-1]).norm(dim=1)
    assert gaps.min() > 3e-3 * 1000 / count
    some = told[:: count // 1000]
    assert torch.cdist(some, some).fill_diagonal_(9).min() > 3e-3
    if count <= 10_000:
        assert (half[1:] != half[:-1]).any(1).all()


def test_every_block_depends_on_the_noise_level() -> None:
    """With all other blocks deaf, one block alone still changes the answer."""
    films = [name for name, _ in UNet((1, 8, 8), width=16).named_modules() if "film" in name]
    assert len(films) == 4
    for heard in films:
        net = opened(UNet((1, 8, 8), width=16))
        for name, module in net.named_modules():
            if "film" in name and name != heard:
                nn.init.zeros_(module.weight)
        z = torch.randn(1, 1, 8, 8)
        near, far = (net(z, torch.tensor([value])) for value in (-1.0, 3.0))
        assert (near - far).abs().max() > 1e-5, heard


def answers(net: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """The network's input, its answer in float64, and in float32."""
    z, log_snr = torch.randn(4, 1, 14, 14), torch.tensor([-4.0, 0.0, 3.0, 9.0])
    with torch.no_grad():
        exact = net.double()(z.double(), log_snr.double())
        single = net.float()(z, log_snr)
    return z, exact, single


def test_half_precision_and_memory_formats_give_the_same_answer() -> None:
    """Relative to the answer's own size: 1e-5 in float32 however it lies in memory, 2 % in bfloat16."""
    net = opened(UNet((1, 14, 14), width=16))
    z, exact, single = answers(net)
    log_snr = torch.tensor([-4.0, 0.0, 3.0, 9.0])
    size = exact.square().mean().sqrt()
    with torch.no_grad():
        last = net(z.contiguous(memory_format=torch.channels_last), log_snr)
        packed = net.to(memory_format=torch.channels_last)(z, log_snr)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(z, log_snr)
    for answer, tolerance in ((single, 1e-5), (last, 1e-5), (packed, 1e-5), (half, 2e-2)):
        assert (answer.double() - exact).square().mean().sqrt() < tolerance * size


_COMPILED = """
import torch
from genmod.nn import UNet
torch.manual_seed(0)
net = UNet((1, 14, 13), width=16, multipliers=(1, 1), patch=2)
for parameter in net.parameters():
    if not parameter.any():
        torch.nn.init.normal_(parameter, std=0.1)
z, log_snr = torch.randn(4, 1, 14, 13), torch.tensor([-4.0, 0.0, 3.0, 9.0])


def answers(call, seen, level):
    seen = seen.clone().requires_grad_()
    said = call(seen, level)
    slopes = torch.autograd.grad(said.square().sum(), [seen, *net.parameters()])
    return [part.double() for part in (said.detach(), *slopes)]


def compare(found, expected, tolerance):
    for part, exact in zip(found, expected, strict=True):
        error = (part - exact).square().mean().sqrt() / exact.square().mean().sqrt()
        assert error < tolerance, (tuple(exact.shape), error)


compiled = answers(torch.compile(net, fullgraph=True), z, log_snr)
with torch.autocast("cpu", torch.bfloat16):
    traced = torch.compile(net, fullgraph=True, backend="eager")(z, log_snr)
    half = net(z, log_snr)
assert traced.dtype is half.dtype is torch.bfloat16
compare([traced.double()], [half.double()], 1e-2)
net.double()
compare(compiled, answers(net, z.double(), log_snr.double()), 1e-5)
"""


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_answer() -> None:
    """Forward and backward, with patches, skips and odd sides, in one graph, and so under autocast.

    In a process of its own: the compiler cannot see through the type checks of the tests.
    """
    run = subprocess.run([sys.executable, "-c", _COMPILED], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_forward_process_moves_with_the_data() -> None:
    """Any rotation of ``x`` rotates the mean of ``z_t`` and leaves its isotropic noise alone."""
    torch.manual_seed(0)
    x, t = torch.randn(5, 6).double(), torch.linspace(0, 1, 5).double()
    turn, _ = torch.linalg.qr(torch.randn(6, 6).double())
    noising = NoisingEncoder(LinearLogSNR())
    still, turned = noising(x).at(t), noising(x @ turn.T).at(t)
    torch.testing.assert_close(turned.mean, still.mean @ turn.T)
    torch.testing.assert_close(turned.variance, still.variance)
    cov = torch.diag_embed(still.variance.expand_as(still.mean))
    torch.testing.assert_close(turn @ cov @ turn.T, cov)


@pytest.mark.parametrize("schedule", [LinearLogSNR(), Cosine()], ids=["linear", "cosine"])
@pytest.mark.parametrize("move", [*FLIPS, *TURNS], ids=repr)
def test_every_path_of_the_forward_process_moves_with_its_image(
    schedule: Schedule, move: tuple[str, int]
) -> None:
    """``z_t(Rx, R eps) = R z_t(x, eps)`` for flips and quarter turns, and so ``z_s`` given ``z_t``."""
    torch.manual_seed(0)
    x, eps, more = torch.randn(3, 4, 2, 6, 6).double()
    t = torch.linspace(0.1, 1, 4).double()
    s = t / 2
    still, moved = (NoisingEncoder(schedule)(each) for each in (x, moving(x, move)))
    z_t = path(still.at(t), eps)
    torch.testing.assert_close(path(moved.at(t), moving(eps, move)), moving(z_t, move))
    z_s = path(still.given(s, t, z_t), more)
    found = path(moved.given(s, t, moving(z_t, move)), moving(more, move))
    torch.testing.assert_close(found, moving(z_s, move))
    assert (moving(z_s, move) - z_s).abs().max() > 0.1


def moving(x: Tensor, move: tuple[str, int]) -> Tensor:
    """Images mirrored along an axis, or turned by so many quarters."""
    kind, count = move
    return x.flip(count) if kind == "flip" else x.rot90(count, (2, 3))


def path(law: Normal, eps: Tensor) -> Tensor:
    """The draw that this noise makes."""
    return law.mean + law.stddev * eps


def test_bad_settings_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="an MLP for vectors"):
        UNet((5,))
    with pytest.raises(ValueError, match="attention for 1 of 2"):
        UNet((1, 8, 8), attention=[True])
    with pytest.raises(ValueError, match="no context"):
        UNet((1, 8, 8), width=16, context=2)(torch.randn(1, 1, 8, 8), torch.zeros(1))
    with pytest.raises(ValueError, match="none"):
        UNet((1, 8, 8), width=16)(torch.randn(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, 2))
