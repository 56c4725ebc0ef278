"""Contexts of networks: one null context for all, and each row's output depends on its own context."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from genmod import random
from genmod.checks import trusted
from genmod.nn import (
    MLP,
    NULL_LABEL,
    DenoisingMLP,
    DiT,
    Ignored,
    Labels,
    MLPs,
    UNet,
    Vectors,
    null_context,
)
from genmod.nn.conditioning import Condition, drop_context, is_null_context
from genmod.nn.mlp import ContextEmbedding, check_context
from genmod.nn.networks import Conditional
from genmod.nn.residual import ConvDecoder, ConvEncoder, ConvNet
from tests.nn.test_unet import opened
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")

LABELS, NUMBERS = (
    torch.tensor([2, 0, NULL_LABEL]),
    torch.tensor([[0.3, -1.0], [2.0, 0.0], [0.1, 0.2]]),
)

Build = Callable[[Condition], nn.Module]
IMAGE = (1, 6, 6)
ENCODERS: dict[str, Build] = {
    "mlp": lambda c: MLP(IMAGE, 4, width=16, depth=1, context=c),
    "encoder": lambda c: ConvEncoder(IMAGE, (4,), width=16, context=c),
    "decoder": lambda c: ConvDecoder((36,), IMAGE, width=16, context=c),
    "same places": lambda c: ConvNet(IMAGE, (2, 6, 6), width=16, depth=1, context=c),
}
DENOISERS: dict[str, Build] = {
    "mlp": lambda c: DenoisingMLP(IMAGE, width=16, depth=1, context=c),
    "unet": lambda c: UNet(IMAGE, width=16, context=c),
    "dit": lambda c: DiT(IMAGE, width=16, head=8, depth=1, context=c),
}


def answering(name: str, condition: Condition) -> Callable[[Tensor | None], Tensor]:
    """A network of either kind, with blocks open, as a function of its context alone."""
    torch.manual_seed(0)
    if name in ENCODERS:
        net = opened(ENCODERS[name](condition))
        x = torch.randn(1, 36).expand(3, 36)
        x = x if name == "decoder" else x.reshape(3, *IMAGE)
        return lambda context: net(x, context)
    net = opened(DENOISERS[name.removeprefix("denoising ")](condition))
    z = torch.randn(1, *IMAGE).expand(3, *IMAGE)
    return lambda context: net(z, torch.ones(3), context)


EVERY = [*ENCODERS, *(f"denoising {name}" for name in DENOISERS)]


@pytest.mark.parametrize("context", [LABELS, null_context(NUMBERS), NUMBERS], ids=str)
def test_a_null_context_is_recognized(context: Tensor) -> None:
    """Whatever the kind of context it replaces."""
    blank = null_context(context)
    assert blank.shape == context.shape
    assert blank.dtype == context.dtype
    assert is_null_context(blank).all()
    assert int(is_null_context(LABELS).sum()) == 1
    assert not is_null_context(NUMBERS).any()


def test_a_linear_layer_on_labels_is_an_embedding() -> None:
    """Each class and nothing have a direction of their own; features have mean square one."""
    layer = ContextEmbedding(Labels(4), 8)
    assert layer.linear is not None
    embedded = layer(LABELS, 3)
    assert embedded is not None
    rows = layer.linear.weight.T[torch.tensor([2, 0, 4])] * math.sqrt(5) + layer.linear.bias
    torch.testing.assert_close(embedded, rows)
    features = Labels(4).features(LABELS, torch.float64)
    torch.testing.assert_close(features.square().mean(1), torch.ones(3, dtype=torch.float64))


def test_vectors_are_features_and_a_null_context_has_a_flag() -> None:
    features = Vectors(2).features(torch.cat([NUMBERS, torch.zeros(1, 2)]), torch.float64)
    torch.testing.assert_close(features[:3], nn.functional.pad(NUMBERS.double(), (0, 1)))
    blank = Vectors(2).features(null_context(NUMBERS), torch.float64)
    torch.testing.assert_close(blank, torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3))


@pytest.mark.parametrize("name", EVERY)
def test_every_network_uses_each_row_of_its_context(name: str) -> None:
    """Same input: rows of one context have one output, all others differ, the null context included."""
    say = answering(name, Labels(3))
    said = say(torch.tensor([0, 1, 0]))
    torch.testing.assert_close(said[0], said[2])
    gaps = (said[:, None] - say(LABELS)[None]).flatten(2).abs().amax(-1)
    assert bool((gaps > 1e-4).sum(1).eq(torch.tensor([2, 3, 2])).all()), gaps
    say = answering(name, Vectors(2))
    told = torch.stack([NUMBERS[0], torch.zeros(2), torch.full((2,), math.nan)])
    said = say(told)
    assert said.isfinite().all()
    gaps = (said[:, None] - said[None]).flatten(2).abs().amax(-1)
    assert bool((gaps + torch.eye(3) > 1e-4).all()), gaps


@pytest.mark.parametrize("name", EVERY)
def test_an_ignored_context_changes_nothing(name: str) -> None:
    say = answering(name, Ignored())
    for context in (LABELS, NUMBERS):
        torch.testing.assert_close(say(context), say(None))


def test_the_null_context_leaves_no_nan_in_a_gradient() -> None:
    """Where the numbers are NaN the layer's weights still get a finite slope."""
    layer = ContextEmbedding(Vectors(2), 4)
    told = layer(torch.cat([NUMBERS, null_context(NUMBERS)]), 6)
    assert told is not None
    told.square().sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize(
    "context", [torch.arange(20_000), torch.randn(20_000, 2)], ids=["int", "real"]
)
def test_rows_are_dropped_at_the_rate_asked_for_whole_and_by_the_key(
    context: Tensor, rate: float
) -> None:
    """A z-test of the rate; kept rows are untouched; equal keys, equal rows."""
    with random.keyed(3):
        dropped = drop_context(context, rate)
    with random.keyed(3):
        again = drop_context(context, rate)
    gone = is_null_context(dropped)
    assert_mean(gone.double(), rate)
    assert torch.equal(is_null_context(again), gone)
    assert torch.equal(dropped[~gone], context[~gone])
    with random.keyed(4):
        assert not torch.equal(is_null_context(drop_context(context, rate)), gone)
    assert torch.equal(drop_context(context, 0.0), context)


def test_a_family_of_networks_takes_a_condition() -> None:
    """Every network of it listens, and the kind itself is as before."""
    kind = Conditional(MLPs(width=8, depth=1), Labels(3))
    assert kind.features == 8
    x = torch.randn(3, *IMAGE)
    assert kind.build(IMAGE, (4,))(x, LABELS).shape == (3, 4)
    assert kind.denoiser(IMAGE)(x, torch.zeros(3), LABELS).shape == x.shape
    with pytest.raises(ValueError, match="got no context"):
        check_context(kind.build(IMAGE, (4,)), None)
    with pytest.raises(ValueError, match="got no context; expected one for Labels"):
        kind.denoiser(IMAGE)(x, torch.zeros(3))


@pytest.mark.parametrize(
    ("condition", "context", "message"),
    [
        (Labels(3), torch.tensor([0, 3]), r"labels from 0 to 3; expected 0\.\.2, or NULL_LABEL"),
        (Labels(3), torch.tensor([0, -2]), "labels from -2 to 0"),
        (Labels(2), torch.tensor([-1, 1]), "labels from -1 to 1; .* number the classes from 0"),
        (Labels(3), torch.zeros(2), "integer labels"),
        (Labels(3), torch.zeros(2, 3, dtype=torch.long), "integer labels"),
        (Labels(3), torch.tensor([0, 1, 2]), "a context of 3 rows for 2 samples"),
        (
            Vectors(2),
            torch.tensor([[0.0, math.nan], [0.0, 1.0]]),
            "1 rows of context with some NaN",
        ),
        (
            Vectors(2),
            torch.tensor([[0.0, math.inf], [0.0, 1.0]]),
            "1 rows of context with some NaN",
        ),
        (Vectors(2), torch.zeros(2, 3), r"real numbers of shape \(B, 2\)"),
        (Vectors(2), torch.zeros(2, 2, dtype=torch.long), r"context\.float\(\)"),
        (
            0,
            torch.zeros(2, 2),
            "got a context; expected none; build the network with context=Labels",
        ),
        (2, None, "got no context; expected one for Vectors"),
    ],
    ids=str,
)
def test_contexts_that_do_not_fit_the_condition_are_refused(
    condition: Condition | int, context: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ContextEmbedding(condition, 4)(context, 2)


def test_values_that_are_trusted_are_not_read() -> None:
    """Shapes are checked all the same."""
    broken = torch.tensor([[0.0, math.nan]])
    with trusted():
        Vectors(2).check(broken)
        with pytest.raises(ValueError, match="real numbers of shape"):
            Vectors(3).check(broken)


@pytest.mark.parametrize("build", [lambda: Labels(0), lambda: Vectors(0)])
def test_a_context_without_a_class_or_number_is_refused(build: Callable[[], Condition]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        build()
    with pytest.raises(ValueError, match="a rate in"):
        drop_context(LABELS, 1.5)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("condition", "context"), [(Labels(3), LABELS), (Vectors(2), NUMBERS)], ids=str
)
def test_a_conditional_network_compiles_to_one_graph_and_maps(
    condition: Condition, context: Tensor
) -> None:
    """Checks of values would need the values: they are left out there, and results are the same."""
    net, z = (
        opened(DenoisingMLP(IMAGE, width=8, depth=1, context=condition)),
        torch.randn(3, *IMAGE),
    )
    expected = net(z, torch.ones(3), context)
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(z, torch.ones(3), context), expected)

    def row(z: Tensor, context: Tensor) -> Tensor:
        return net(z[None], torch.ones(1), context[None])[0]

    torch.testing.assert_close(torch.vmap(row)(z, context), expected)
