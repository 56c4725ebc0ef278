"""The diffusion transformer: any event, zero output at first, attention between tokens."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from genmod.nn import ConvNets, DiT, DiTs, Labels, MLPs, Networks
from genmod.nn.mlp import MLP
from genmod.nn.residual import ConvEncoder
from genmod.nn.transformer import DiTBlock, positions
from tests.nn.test_unet import EVENTS, opened

pytestmark = pytest.mark.usefixtures("float64")


def small(shape: tuple[int, ...], patch: int = 2, fourier: tuple[int, ...] = ()) -> DiT:
    """A transformer of one block and two heads."""
    torch.manual_seed(0)
    return DiT(shape, width=16, head=8, depth=1, patch=patch, fourier=fourier)


def open_dit(shape: tuple[int, ...], patch: int = 1) -> DiT:
    """The same with random numbers where it has zeros, and deaf to where a word stands."""
    net = opened(small(shape, patch))
    assert isinstance(net, DiT)
    net.positions.zero_()
    return net


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("shape", EVENTS)
def test_any_event_comes_out_as_it_went_in(shape: tuple[int, ...], patch: int) -> None:
    """Odd sides, one or three channels, one to three sides, any batch; zero before training."""
    net = small(shape, patch, fourier=(1,))
    for rows in (1, 3):
        out = net(torch.randn(rows, *shape), torch.zeros(rows))
        assert out.shape == (rows, *shape)
        assert not out.any()


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 9), (1, 3, 4, 5)])
def test_rows_do_not_see_each_other(shape: tuple[int, ...]) -> None:
    net = opened(small(shape))
    z, log_snr = torch.randn(4, *shape), torch.linspace(-5, 5, 4)
    alone = torch.cat([net(z[i : i + 1], log_snr[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(net(z, log_snr), alone)


def test_every_parameter_learns_and_every_place_sees_every_other() -> None:
    net = opened(DiT((1, 6, 6), width=16, head=8, depth=2, context=Labels(3), fourier=(0,)))
    z = torch.randn(2, 1, 6, 6, requires_grad=True)
    out = net(z, torch.tensor([-1.0, 2.0]), torch.tensor([0, 2]))
    (slope,) = torch.autograd.grad(out[0, 0, 0, 0], z, retain_graph=True)
    assert slope[0].abs().amin() > 0
    assert not slope[1].any()
    out.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.any(), name


def test_a_block_starts_as_the_identity_and_depends_on_the_level_once_trained() -> None:
    """adaLN-zero: both gates are closed at first."""
    block, h, told = DiTBlock(16, 8, 0.0), torch.randn(2, 5, 16), torch.randn(2, 16)
    assert torch.equal(block(h, told), h)
    opened(block)
    assert (block(h, told) - block(h, -told)).abs().amax() > 1e-3
    net, z = opened(small((1, 6, 6))), torch.randn(1, 1, 6, 6)
    near, far = (net(z, torch.tensor([value])) for value in (-1.0, 3.0))
    assert (near - far).abs().amax() > 1e-3


def test_a_block_is_its_formula() -> None:
    """Figure 3 of the paper, head by head, with softmax written out."""
    block, h, told = DiTBlock(8, 4, 0.0), torch.randn(2, 5, 8), torch.randn(2, 8)
    opened(block)
    film = block.film(told)[:, None].chunk(6, -1)

    def norm(h: Tensor) -> Tensor:
        centered = h - h.mean(-1, keepdim=True)
        return centered / (centered.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    seen = (1 + film[1]) * norm(h) + film[0]
    query, key, value = (seen @ w.T + b for w, b in _thirds(block.qkv))
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = query[..., part] @ key[..., part].transpose(1, 2) / 2.0
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        heads.append(weights @ value[..., part])
    after = h + film[2] * block.project(torch.cat(heads, -1))
    seen = (1 + film[4]) * norm(after) + film[3]
    torch.testing.assert_close(block(h, told), after + film[5] * block.mlp(seen))


def _thirds(layer: nn.Linear) -> list[tuple[Tensor, Tensor]]:
    return list(zip(layer.weight.chunk(3), layer.bias.chunk(3), strict=True))


def test_short_and_long_sequences_attend_alike() -> None:
    """Above 64 words the fused kernel takes over: rows doubled to 66 words answer as 33 do."""
    block, h, told = DiTBlock(16, 8, 0.0), torch.randn(1, 33, 16), torch.randn(1, 16)
    opened(block)
    twice = torch.cat([h, h], 1)
    torch.testing.assert_close(block(twice, told)[:, :33], block(h, told))


def test_without_positions_the_transformer_commutes_with_permutations() -> None:
    """Without positions a permutation of the patches goes through; with them it does not."""
    net = open_dit((2, 10))
    z, log_snr, order = torch.randn(3, 2, 10), torch.zeros(3), torch.randperm(10)
    torch.testing.assert_close(net(z[..., order], log_snr), net(z, log_snr)[..., order])
    net = open_dit((1, 4, 6), patch=2)
    z = torch.randn(3, 1, 4, 6)
    moved = z.roll((2, -2), (2, 3))
    torch.testing.assert_close(net(moved, log_snr), net(z, log_snr).roll((2, -2), (2, 3)))
    net.positions.copy_(positions((2, 3), 16))
    assert (net(moved, log_snr) - net(z, log_snr).roll((2, -2), (2, 3))).abs().amax() > 1e-3


def test_inner_products_of_position_embeddings_depend_on_distance_alone() -> None:
    """Inner products depend on the offset along each side; no two places are alike."""
    there = positions((5, 7), 32)
    products = (there @ there.T).reshape(5, 7, 5, 7)
    torch.testing.assert_close(products[:4, :6, 1, 2][1, 2], products[3, 4, 3, 4])
    torch.testing.assert_close(products[0, 1, 2, 4], products[2, 3, 4, 6])
    assert torch.cdist(there, there).fill_diagonal_(9).min() > 0.1
    assert positions((3, 3, 3), 16).shape == (27, 16)
    torch.testing.assert_close(positions((4,), 2)[:, 0], torch.arange(4.0).sin())


def test_half_precision_gives_the_same_answer() -> None:
    """Relative to the answer's own size: 2 % in bfloat16."""
    net = opened(small((1, 14, 14))).float()
    z, log_snr = torch.randn(4, 1, 14, 14).float(), torch.tensor([-4.0, 0.0, 3.0, 9.0]).float()
    with torch.no_grad():
        exact = net(z, log_snr)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(z, log_snr)
    assert (half - exact).square().mean().sqrt() < 2e-2 * exact.square().mean().sqrt()


def test_the_default_patch_gives_at_most_256_tokens() -> None:
    """Other networks are the defaults."""
    kind = DiTs(width=32)
    for shape, patch in (((1, 8, 8), 1), ((1, 28, 28), 2), ((3, 64, 64), 4), ((1, 8, 12, 12), 2)):
        net = kind.denoiser(shape)
        assert isinstance(net, DiT)
        assert net.patch == patch
        assert math.prod(net.grid) <= 256
    assert isinstance(kind.build((1, 28, 28), (4,)), ConvEncoder)
    assert isinstance(kind.build((6,), (4,)), MLP)
    assert kind.features == 32
    assert DiTs(dropout=0.1).build((6,), (4,)).train()(torch.randn(2, 6)).shape == (2, 4)
    assert isinstance(ConvNets().build((6,), (4,)), type(MLPs().build((6,), (4,))))


def test_bad_settings_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="an MLP for vectors"):
        DiT((5,))
    with pytest.raises(ValueError, match="width=48 for heads of 32"):
        DiT((1, 8, 8), width=48)
    with pytest.raises(ValueError, match="at least 1 each"):
        DiT((1, 8, 8), depth=0)
    with pytest.raises(ValueError, match=r"expected shape \(1, 8, 8\)"):
        small((1, 8, 8))(torch.randn(1, 1, 8, 6), torch.zeros(1))


@pytest.mark.parametrize("kind", [ConvNets(), DiTs()])
def test_a_vector_has_no_sides_for_a_denoiser_of_images(kind: Networks) -> None:
    with pytest.raises(ValueError, match=r"vectors of shape \(5,\); .* use networks=MLPs"):
        kind.denoiser((5,))
