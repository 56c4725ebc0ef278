"""Very deep hierarchies: stable at any depth, on vectors and images, with recomputed activations."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genmod import HVAE, evaluate, random, training_loop
from genmod.data import Dataset
from genmod.data.downloads import ROOT
from genmod.data.images import digits, mnist
from genmod.encoders.topdown import PyramidEncoder, TopDownPosterior
from genmod.nn import ConvNets, DiTs, Labels, MLPs, Networks
from genmod.nn.cells import Cell, Pyramid, level_shapes, resized
from genmod.objectives import WarmUp
from genmod.priors import TopDownPrior
from genmod.priors.deep import VeryDeepBlock
from genmod.spec import DataSpec
from tests.statistics import assert_mean

BESIDE = Path(__file__).parents[3] / "shared" / "data"
IMAGES = ((1, 6, 5), ConvNets(width=8))
"""Odd sides: 6 by 5, 3 by 3, 2 by 2, 1 by 1."""
KINDS: dict[str, tuple[tuple[int, ...], Networks]] = {
    "vectors": ((5,), MLPs(width=8)),
    "sequences": ((2, 7), ConvNets(width=8)),
    "images": IMAGES,
    "patches": ((1, 6, 5), ConvNets(width=8, patch=2)),
    "volumes": ((1, 3, 2, 2), ConvNets(width=8)),
}

each_kind = pytest.mark.parametrize(("shape", "networks"), KINDS.values(), ids=KINDS)


def build(shape: tuple[int, ...], networks: Networks, levels: int, recompute: bool = False) -> HVAE:
    """A very deep hierarchy of integers, always with the same weights."""
    torch.manual_seed(0)
    return HVAE(
        shape, 5, levels=levels, latents=2, networks=networks, checkpoint_activations=recompute
    )


def shaken(model: HVAE) -> HVAE:
    """The model with no weight left at zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@each_kind
@pytest.mark.parametrize("levels", [1, 2, 7])
@pytest.mark.usefixtures("float64")
def test_any_depth_on_any_event(shape: tuple[int, ...], networks: Networks, levels: int) -> None:
    """Each level has a rate and learns; the sampled form of the bound has the bound's mean."""
    model = shaken(build(shape, networks, levels))
    x = torch.randint(5, (3, *shape))
    bound = model.elbo(x)
    assert [level.name for level in bound.levels()] == [f"z{i}" for i in range(levels, 0, -1)]
    bound.value.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    many = x[:1].expand(600, *shape)
    with torch.no_grad():
        assert_mean(model.log_weight(many) - model.elbo(many).value, 0.0, name="two forms")
        codes = model.encode(x)
        assert isinstance(codes, tuple) == (levels > 1)
        torch.testing.assert_close(model.decode(codes).mean, model.reconstruct(x))


@each_kind
@pytest.mark.usefixtures("float64")
def test_recomputed_activations_change_no_number(
    shape: tuple[int, ...], networks: Networks
) -> None:
    """The bound and every gradient, with keyed noise and with dropout, bit for bit."""
    found = []
    for recompute in (False, True):
        model = shaken(build(shape, networks, 4, recompute)).train()
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.3
        x = torch.randint(5, (3, *shape), generator=torch.Generator().manual_seed(1))
        with random.keyed(3, step=5):
            value = model.elbo(x).value
        value.sum().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((value.detach(), torch.cat(gradients)))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-12, atol=1e-12)


def test_recomputing_keeps_the_states_of_the_levels_alone() -> None:
    """Bytes that autograd keeps for the backward pass: a few times less at 24 levels."""

    def kept(recompute: bool) -> int:
        model = build((16,), MLPs(width=32), 24, recompute).train()
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            value = model.elbo(torch.zeros(64, 16, dtype=torch.long)).value
        assert value.requires_grad
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        return sum(size for place, size in sizes.items() if place not in weights)

    assert kept(True) < kept(False) / 3


@pytest.mark.parametrize("levels", [2, 50])
@pytest.mark.parametrize("kind", ["vectors", "images"])
def test_the_start_is_stable_at_any_depth(kind: str, levels: int) -> None:
    """The prior of every level starts as N(0, I), and the state below all levels does not grow."""
    shape, networks = KINDS[kind]
    model = build(shape, networks, levels)
    assert isinstance(model.prior, TopDownPrior)
    with torch.no_grad():
        for _, p in _laws(model.prior):
            assert bool((p.mean == 0).all())
            assert bool((p.stddev == 1).all())
        assert 0.05 < float(model.prior.sample(500).std()) < 3
        bound = model.elbo(torch.randint(5, (64, *shape)))
    assert bool(bound.value.isfinite().all())
    assert float(-bound.reconstruction.mean()) < 4 * math.prod(shape) * math.log(5)
    # Two latents a position: a level starts with a few nats, also one of many positions.
    nats = bound.rates["levels"].nats.mean(0)
    assert float(nats.min()) > 0.5
    assert float(nats.max()) < 12


def _laws(prior: TopDownPrior) -> list[tuple[str, torch.distributions.Distribution]]:
    path, found = prior.generate(10), []
    try:
        step = next(path)
        while True:
            found.append(step)
            step = path.send(step[1].sample())
    except StopIteration:
        return found


@pytest.mark.usefixtures("float64")
def test_the_posterior_is_relative_to_the_prior() -> None:
    r"""``KL = 1/2 (d^2 + e^{2g} - 1) - g`` summed, whatever the prior's mean and std are."""
    block = VeryDeepBlock((6,), 3, levels=4, hidden=5)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.4)
    model = build((5,), MLPs(width=6), 1)
    given = model.posterior(torch.randint(5, (7, 5)))
    assert isinstance(given, TopDownPosterior)
    p, state = block.prior(torch.randn(7, 6), None)
    q = block.posterior(given, 0, state, p)
    d, g = block.posterior_head(torch.cat([state, given.features[0]], 1)).chunk(2, 1)
    expected = (0.5 * (d.square() + (2 * g).exp() - 1) - g).sum(1)
    torch.testing.assert_close(torch.distributions.kl_divergence(q, p), expected)


def test_levels_are_spread_over_all_resolutions() -> None:
    """From one position to that of the patches, finer ones next to the data."""
    shapes = level_shapes(50, 4, (28, 28), 2)
    sides = [shape[1] for shape in shapes]
    assert sides == sorted(sides, reverse=True)
    assert [sides.count(side) for side in (14, 7, 4, 2, 1)] == [10] * 5
    assert [s[1:] for s in level_shapes(3, 4, (28, 28), 2)] == [(14, 14), (4, 4), (1, 1)]


def test_a_state_is_halved_by_means_and_enlarged_by_copies() -> None:
    h = torch.arange(30.0).reshape(1, 1, 6, 5)
    small = resized(h, (3, 3))
    assert float(small[0, 0, 0, 0]) == float(h[0, 0, :2, :2].mean())
    assert float(small[0, 0, 2, 2]) == float(h[0, 0, 4:, 4:].mean())
    assert torch.equal(resized(torch.ones(1, 1, 1, 1), (6, 5)), torch.ones(1, 1, 6, 5))
    assert resized(h, (6, 5)) is h


def test_a_cell_starts_at_its_scale() -> None:
    """Zero at scale 0; at scale s it is s times the cell of scale 1."""
    h, found = torch.randn(3, 8, 4, 4), {}
    for scale in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        found[scale] = Cell((8, 4, 4), 6, hidden=4, scale=scale)(h)
    assert not found[0.0].any()
    torch.testing.assert_close(found[0.5], 0.5 * found[1.0])


def test_conditional_and_incomplete_data() -> None:
    """Each level sees the context; a missing entry changes nothing."""
    spec = DataSpec((1, 4, 4), 5, missing=True)
    model = shaken(HVAE(spec, levels=3, latents=2, networks=ConvNets(width=8), condition=Labels(3)))
    x, labels = torch.randint(5, (6, 1, 4, 4)), torch.arange(6) % 3
    assert model.sample(6, context=labels, seeds=range(6)).shape == x.shape
    one, other = (model.sample(40, context=label, seeds=range(40)) for label in (0, 1))
    assert not torch.equal(one, other)
    seen = torch.rand(6, 1, 4, 4) < 0.6
    hidden = torch.where(seen, x, (x + 1) % 5)
    values = []
    for each in (x, hidden):
        with random.keyed(0):
            values.append(model.elbo(each, context=labels, observed=seen).value)
    assert torch.equal(*values)
    filled = model.impute(x, seen, n=2, importance_samples=4, context=labels, seeds=range(6))
    assert torch.equal(filled.draws[0][seen], x[seen])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"levels": 0}, r"got levels=0; expected at least 1"),
        ({"levels": 3, "latents": (4, 2)}, r"got latents=\(4, 2\) beside levels=3"),
        ({"levels": 3, "inference": "bottom-up"}, r"got levels=3 beside another inference"),
        ({"levels": 3, "inference": "ladder"}, r"got levels=3 beside another inference"),
        ({"levels": 3, "networks": DiTs()}, r"got networks=DiTs.*expected MLPs or ConvNets"),
        ({"latents": 3}, r"got latents=3; expected a positive size for each level"),
        ({"checkpoint_activations": True}, r"got checkpoint_activations=True for bottom-up"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        HVAE((4,), **given)


# ---------------------------------------------------------------------- fifty levels on real data


class Spoiler:
    """Turns the features of the data into NaN while it is on."""

    def __init__(self, model: HVAE) -> None:
        assert isinstance(model.encoder, PyramidEncoder)
        assert isinstance(model.encoder.pyramid, Pyramid)
        self.on = False
        model.encoder.pyramid.first.register_forward_hook(self)

    def __call__(self, layer: nn.Module, given: object, output: Tensor) -> Tensor:
        return output * math.nan if self.on else output


def train_deep(model: HVAE, data: Dataset, steps: int, batch_size: int, at: int) -> None:
    """Train with one spoiled batch: every other loss is finite, and all weights are."""
    spoiler, losses = Spoiler(model), []
    loop = training_loop(
        model,
        data,
        WarmUp(steps // 2),
        steps=steps,
        batch_size=batch_size,
        skip_nonfinite=1,
        progress=False,
    )
    for step in loop:
        losses.append(step.loss)
        spoiler.on = step.number + 1 == at
    assert [n for n, loss in enumerate(losses, 1) if not math.isfinite(loss)] == [at]
    assert loop.history.skipped == (at,)
    assert len(losses) == steps
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.slow
def test_fifty_levels_train_on_the_digits_and_go_on_after_a_spoiled_batch() -> None:
    """500 steps without a non-finite value, then a bound below the histogram's 2.42 bits/dim."""
    data = digits()
    torch.manual_seed(0)
    model = HVAE(data, levels=50, latents=8, width=32, checkpoint_activations=True)
    few = replace(data, validation=data.validation[:100], labels=None)
    train_deep(model, few, 500, 32, at=251)
    report = evaluate(model, data.test)
    assert report.bits_per_dim is not None
    assert report.bits_per_dim.mean < 2.42


@pytest.mark.slow
@pytest.mark.data
def test_fifty_levels_train_on_mnist_and_go_on_after_a_spoiled_batch() -> None:
    """200 steps of convolutions on 28 by 28 pixels, over five resolutions."""
    try:
        data = mnist(Path(os.environ.get(ROOT) or BESIDE), download=False)
    except ValueError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    model = HVAE(data, levels=50, latents=4, networks=ConvNets(width=16))
    few = replace(data, validation=data.validation[:100], labels=None)
    train_deep(model, few, 200, 32, at=101)
    assert evaluate(model, data.test[:50]).value.mean > -2500
