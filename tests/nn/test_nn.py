"""Networks: what they start as, what they read, how they are called."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from genmod.nn import MLP, DenoisingMLP
from genmod.nn.mlp import FourierFeatures, ResidualBlock, Sinusoidal
from genmod.nn.modules import call, outputs

pytestmark = pytest.mark.usefixtures("float64")


def open_blocks(network: nn.Module) -> None:
    """Let every residual block add something: they start closed."""
    for block in network.modules():
        if isinstance(block, ResidualBlock):
            nn.init.normal_(block.down.weight)


def test_a_residual_block_starts_as_the_identity() -> None:
    block, h = ResidualBlock(8, 0.0), torch.randn(3, 8)
    torch.testing.assert_close(block(h), h)
    torch.testing.assert_close(block(h, torch.randn(3, 16)), h)


def test_a_block_is_its_formula() -> None:
    """``h + W2 silu(W1 silu((1 + scale) norm(h) + shift))``."""
    block, h = ResidualBlock(4, 0.0), torch.randn(3, 4)
    nn.init.normal_(block.down.weight)
    shift, scale = torch.randn(3, 4), torch.randn(3, 4)
    silu = nn.functional.silu
    g = block.down(silu(block.up(silu((1 + scale) * block.norm(h) + shift))))
    torch.testing.assert_close(block(h, torch.cat([shift, scale], -1)), h + g)


def test_dropout_is_off_in_evaluation() -> None:
    network, x = MLP(4, 2, width=8, dropout=0.5), torch.randn(3, 4)
    open_blocks(network)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_a_perceptron_flattens_any_event_and_reads_its_context() -> None:
    x = torch.randn(5, 2, 3)
    assert MLP((2, 3), 4, width=8)(x).shape == (5, 4)
    torch.manual_seed(0)
    flat = MLP(6, 4, width=8)
    torch.manual_seed(0)
    torch.testing.assert_close(MLP((2, 3), 4, width=8)(x), flat(x.flatten(1)))
    told = MLP((2, 3), 4, width=8, context=2)
    one, two = (told(x, torch.full((5, 2), value)) for value in (0.0, 1.0))
    assert not torch.allclose(one, two)


def test_a_denoising_perceptron_starts_at_zero_and_learns_from_every_input() -> None:
    """Its first output is zero; after a step it depends on z, the noise level and the context."""
    network = DenoisingMLP((2, 3), width=8, fourier=(1, 2), context=2)
    z, log_snr, context = torch.randn(4, 2, 3), torch.randn(4), torch.randn(4, 2)
    assert network(z, log_snr, context).abs().max() == 0
    for layer in [*network.films, network.last[-1]]:
        nn.init.normal_(layer.weight)
    open_blocks(network)
    inputs = [part.requires_grad_() for part in (z, log_snr, context)]
    said = network(*inputs)
    assert said.shape == z.shape
    grads = torch.autograd.grad(said.sum(), inputs)
    assert all(bool((grad.reshape(4, -1).abs().sum(1) > 0).all()) for grad in grads)


def test_fourier_features_are_sines_and_cosines() -> None:
    z = torch.randn(3, 2, 4)
    features = FourierFeatures((0, 3))
    out = features(z)
    assert features.copies == 5
    expected = [z]
    expected += [torch.sin(2**n * math.pi * z) for n in (0, 3)]
    expected += [torch.cos(2**n * math.pi * z) for n in (0, 3)]
    torch.testing.assert_close(out, torch.cat(expected, 1))
    assert FourierFeatures(())(z) is not None
    torch.testing.assert_close(FourierFeatures(())(z), z)


def test_similarity_of_embeddings_falls_with_the_difference_of_log_snr() -> None:
    """Inner products of embeddings depend on the difference of log-SNR alone, and fall with it."""
    embed = Sinusoidal(64)
    assert embed(torch.zeros(3)).shape == (3, 64)
    near, far = (embed(torch.tensor([level, level + 0.3])) for level in (-4.0, 9.0))
    torch.testing.assert_close(near[0] @ near[1], far[0] @ far[1])
    levels = embed(torch.tensor([0.0, 0.05, 0.2, 1.0]))
    similar = levels @ levels[0]
    assert bool((similar.diff() < 0).all())
    with pytest.raises(ValueError, match="width=5"):
        Sinusoidal(5)


# ---------------------------------------------------------------------- calls


class Says(nn.Module):
    """A network with a fixed answer, and what it was given."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer
        self.given: list[tuple[Tensor, ...]] = []

    def forward(self, *inputs: Tensor) -> Tensor:
        self.given.append(inputs)
        return self.answer


def test_the_context_is_the_last_argument_where_there_is_one() -> None:
    network, a, b, c = Says(torch.zeros(2, 3)), *torch.randn(3, 2, 1)
    call(network, a, b, context=None)
    call(network, a, context=c)
    assert [len(given) for given in network.given] == [2, 2]
    assert network.given[0][1] is b
    assert network.given[1][1] is c


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_outputs_of_networks_under_autocast_are_float32(dtype: torch.dtype) -> None:
    said = outputs(Says(torch.ones(2, 6, dtype=dtype)), (2, 3), torch.zeros(2, 1), context=None)
    assert said.dtype is torch.float32
    assert said.shape == (2, 2, 3)
    double = outputs(Says(torch.ones(2, 6)), (6,), torch.zeros(2, 1), context=None)
    assert double.dtype is torch.float64


def test_a_wrong_number_of_outputs_is_refused_at_once() -> None:
    with pytest.raises(
        ValueError, match=r"got 5 outputs a row from Says; expected 6 \(for the shape \(2, 3\)\);"
    ):
        outputs(Says(torch.zeros(4, 5)), (2, 3), torch.zeros(4, 1), context=None)
