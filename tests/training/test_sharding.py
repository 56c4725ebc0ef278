"""A model in shards, in a process group of one process; what cannot be spread is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.tensor import DTensor

from genmod.models import HVAE, VAE, Diffusion
from genmod.nn.modules import weights
from genmod.objectives import Batch, Bound, Objective
from genmod.random import keyed
from genmod.training import fit
from genmod.training.devices import Devices
from genmod.training.optimizer import Average
from genmod.training.sharding import Shards
from tests.training.processes import TINY


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devices]:
    """A process group of this process alone, in which everything that is spread is whole."""
    file = tmp_path_factory.mktemp("group") / "file"
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield Devices(torch.device("cpu"))
    distributed.destroy_process_group()


def batch() -> Batch:
    return Batch(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)))


# ------------------------------------------------------------------ shards of one process


@pytest.mark.parametrize("build", [VAE, Diffusion, HVAE], ids=lambda build: build.__name__)
def test_gradients_and_norm_are_those_of_the_plain_model(build: Any, group: Devices) -> None:
    model = build(4, **TINY)
    with keyed(3):
        Bound()(model, batch())[0].backward()
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    shards = Shards(model, Bound(), group)
    with keyed(3):
        shards.loss(batch())[0].backward()
    shards.take_gradients()
    found = {n: p.grad for n, p in shards.trained.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert not isinstance(gradient, DTensor)
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6)
    norms = torch.stack([gradient.norm() for gradient in found.values()])
    given = [p for p in shards.trained.parameters() if p.grad is not None]
    torch.testing.assert_close(shards.norm(given, norms), norms.norm())


def test_networks_are_spread_and_single_numbers_are_whole(group: Devices) -> None:
    """``fully_shard`` takes no parameter that is one number, such as a decoder's learned scale."""
    shards = Shards(VAE(4, **TINY), Bound(), group)
    spread = {n for n, p in shards.whole.named_parameters() if isinstance(p, DTensor)}
    assert {n for n, _ in shards.whole.named_parameters()} - spread == {"decoder.scale.log_scale"}


def test_the_plain_model_gets_what_the_parts_hold(group: Devices) -> None:
    model = VAE(4, **TINY)
    shards = Shards(model, Bound(), group)
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    with torch.no_grad():
        for part in shards.trained.parameters():
            part.add_(1)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
    shards.finish()
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
    shards.loss(batch())
    shards.finish()
    for name, tensor in weights(model).items():
        torch.testing.assert_close(tensor, before[name] + 1)
    assert not model.training


def test_an_error_in_one_process_gathers_nothing(group: Devices) -> None:
    """The other processes do not come to the collective operation, which would wait forever."""
    shards = Shards(VAE(4, **TINY), Bound(), group)
    for error, stale in ((FloatingPointError, True), (KeyboardInterrupt, False)):
        shards.loss(batch())
        with pytest.raises(error), shards:
            raise error
        assert shards.stale == stale


# ------------------------------------------------------------------ fit


def test_alone_a_process_holds_the_whole_model() -> None:
    found = []
    for shard in (False, True):
        torch.manual_seed(0)
        model = VAE(4, **TINY)
        fit(model, batch().x, steps=3, shard=shard, progress=False)
        found.append(weights(model))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_run_goes_on_with_and_without_shards(tmp_path: Path) -> None:
    model = VAE(4, **TINY)
    given: dict[str, Any] = {"checkpoint": tmp_path / "run.safetensors", "progress": False}
    fit(model, batch().x, steps=2, **given)
    assert len(fit(model, batch().x, steps=4, shard=True, **given).losses) == 4


class _Tied(Bound):
    """An objective that holds a parameter of the model."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part


def test_what_cannot_be_spread_is_refused() -> None:
    model, x = VAE(4, **TINY), batch().x
    adam = torch.optim.Adam(model.parameters())
    refused: list[tuple[dict[str, Any], str]] = [
        ({"optimizer": adam}, r"shard=True with an optimizer of type Adam"),
        ({"objective": [(Bound(), model)]}, r"shard=True with pairs of objectives"),
        ({"objective": _Tied(model.encoder)}, r"shard=True with an objective _Tied"),
        ({"compile": True}, r"shard=True with compile=True"),
    ]
    for given, message in refused:
        with pytest.raises(ValueError, match=message):
            fit(model, x, steps=1, shard=True, progress=False, **given)


def test_averages_that_are_spread_are_no_model(group: Devices) -> None:
    shards = Shards(VAE(4, **TINY), Bound(), group)
    average = Average(shards.trained, list(shards.trained.parameters()), 0.9)
    with pytest.raises(ValueError, match=r"got a run with shard=True.*after the loop"):
        shards.averaged(average)


def test_an_objective_is_not_copied(group: Devices) -> None:
    """Its state, such as a warm-up, is looked at after the run."""
    objective: Objective = Bound()
    shards = Shards(VAE(4, **TINY), objective, group)
    assert any(module is objective for module in shards._loss.modules())
