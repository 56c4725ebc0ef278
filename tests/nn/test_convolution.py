"""Convolutional pieces: what they start as, and that they move what they should and nothing else."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from genmod.nn.convolution import Attention, ConvBlock, attend, convolution, patches, pixels
from genmod.nn.residual import ConvDecoder, ConvEncoder, ConvNet, descent, resolutions

pytestmark = pytest.mark.usefixtures("float64")

SPACES = st.lists(st.integers(1, 7), min_size=1, max_size=3)


def opened(network: nn.Module) -> nn.Module:
    """The network with random numbers where it has zeros: blocks start closed."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return network


@given(space=SPACES, side=st.integers(1, 4), channels=st.integers(1, 3))
def test_pixels_undo_patches(space: list[int], side: int, channels: int) -> None:
    """For any space, whether or not patches fill it."""
    x = torch.randn(2, channels, *space)
    packed = patches(x, side)
    assert packed.shape[2:] == tuple(-(-length // side) for length in space)
    assert torch.equal(pixels(packed, side, space), x)


def test_a_patch_holds_its_own_pixels() -> None:
    """One pixel moves numbers of one patch alone, and its square sum is kept."""
    x = torch.zeros(1, 1, 6, 6)
    x[0, 0, 3, 4] = 2.0
    packed = patches(x, 2)
    assert packed.nonzero()[:, 2:].tolist() == [[1, 2]]
    assert packed.square().sum() == 4


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_convolution_keeps_sides_and_its_stride_halves_them_upwards(dims: int) -> None:
    x = torch.randn(1, 2, *[7] * dims)
    assert convolution(dims, 2, 3)(x).shape[2:] == (7,) * dims
    assert convolution(dims, 2, 3, stride=2)(x).shape[2:] == (4,) * dims


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_block_starts_as_the_identity(dims: int) -> None:
    h, told = torch.randn(2, 16, *[5] * dims), torch.randn(2, 8)
    torch.testing.assert_close(ConvBlock(dims, 16, 16, 8)(h, told), h)
    torch.testing.assert_close(Attention(dims, 16)(h), h)


def test_a_block_is_its_formula() -> None:
    block, h, told = ConvBlock(2, 4, 6, embedding=3), torch.randn(2, 4, 5, 5), torch.randn(2, 3)
    opened(block)
    silu = nn.functional.silu
    assert block.film is not None
    shift, scale = block.film(told)[:, :, None, None].split(6, 1)
    g = block.norm_out(block.up(silu(block.norm(h))))
    expected = block.shortcut(h) + block.down(silu((1 + scale) * g + shift))
    torch.testing.assert_close(block(h, told), expected)


@pytest.mark.parametrize("places", [49, 100])
def test_attention_is_its_formula(places: int) -> None:
    """Both routes, short and long: a softmax over places, weighting values."""
    query, key, value = torch.randn(3, 2, 4, places, 8).unbind(0)
    weights = torch.einsum("bhqd,bhkd->bhqk", query, key).div(math.sqrt(8)).softmax(-1)
    expected = torch.einsum("bhqk,bhkd->bhqd", weights, value)
    torch.testing.assert_close(attend(query, key, value), expected)


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="a multiple of the number of heads"):
        Attention(2, 208)


def test_attention_commutes_with_permutations() -> None:
    """Self-attention commutes with any permutation of places."""
    attend, h = opened(Attention(2, 32)), torch.randn(2, 32, 4, 5)
    order = torch.randperm(20)
    moved = h.flatten(2)[..., order].reshape(h.shape)
    torch.testing.assert_close(attend(moved), attend(h).flatten(2)[..., order].reshape(h.shape))


def test_a_convolutional_network_moves_with_its_input() -> None:
    """Away from borders: group norm looks at all places, so nothing may reach one."""
    net = opened(ConvNet((1, 40, 40), (2, 40, 40), width=16, depth=1, patch=2))
    x = torch.zeros(1, 1, 40, 40)
    x[..., 18:22, 16:20] = torch.randn(4, 4)
    moved = x.roll((2, 4), (2, 3))
    inner = (..., slice(12, 28), slice(12, 28))
    torch.testing.assert_close(net(moved).roll((-2, -4), (2, 3))[inner], net(x)[inner])
    assert not torch.allclose(net(x), net(moved))


@pytest.mark.parametrize("code", [(6,), (3, 7, 7), (3, 4, 4)])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 27, 25)])
def test_encoders_and_decoders_meet_at_any_code_that_halving_reaches(
    shape: tuple[int, int, int], code: tuple[int, ...]
) -> None:
    """Every output depends on every input, and gradients reach every parameter."""
    encoder = opened(ConvEncoder(shape, code, width=16))
    decoder = opened(ConvDecoder(code, (2, *shape[1:]), width=16))
    x = torch.randn(2, *shape, requires_grad=True)
    z = encoder(x)
    assert z.shape == (2, *code)
    y = decoder(z)
    assert y.shape == (2, 2, *shape[1:])
    (slope,) = torch.autograd.grad(z[0].flatten()[0], x, retain_graph=True)
    assert slope[0].abs().amin() > 0
    assert not slope[1].any()
    y.square().sum().backward()
    for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert parameter.grad is not None
        assert parameter.grad.any(), name


def test_a_code_that_halving_misses_is_refused_with_those_it_reaches() -> None:
    with pytest.raises(ValueError, match=r"\(14, 14\), \(7, 7\)"):
        ConvEncoder((1, 28, 28), (4, 5, 5))
    with pytest.raises(ValueError, match="the same size"):
        ConvNet((1, 8, 8), (1, 4, 4))
    with pytest.raises(ValueError, match="an MLP for vectors"):
        ConvEncoder((5,), (2,))


@given(space=SPACES, patch=st.integers(1, 3))
def test_resolutions_halve_upwards_to_one_place(space: list[int], patch: int) -> None:
    sides = list(resolutions(tuple(space), patch))
    assert sides[-1] == (1,) * len(space)
    for above, below in pairwise(sides):
        assert below == tuple(math.ceil(side / 2) for side in above)
    assert descent(tuple(space), patch, (4, *sides[-1])) == sides


@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder])
def test_a_context_changes_the_output(network: type[ConvEncoder | ConvDecoder]) -> None:
    shapes = ((1, 8, 8), (4,)) if network is ConvEncoder else ((4,), (1, 8, 8))
    net = opened(network(*shapes, width=16, context=2))
    x = torch.randn(3, *shapes[0])
    one, two = (net(x, torch.full((3, 2), value)) for value in (0.0, 1.0))
    assert not torch.allclose(one, two)
