"""Muon: its step is that of the formula, torch's own agrees, and a resumed run is not a stopped one."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from genmod import fit, training_loop
from genmod.data import load
from genmod.models import VAE, Diffusion
from genmod.nn import ConvNets
from genmod.training import Muon
from genmod.training.muon import orthogonal
from tests.training.cases import data, flat, vae

pytestmark = pytest.mark.usefixtures("float64")


def curve(values: Tensor) -> Tensor:
    """The polynomial of the iteration, five times."""
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return values


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (2, 4, 4)], ids=str)
def test_singular_vectors_stay_and_singular_values_become_about_one(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(shape)
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    norm = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    expected = u * curve(values / norm)[..., None, :] @ v
    torch.testing.assert_close(orthogonal(matrix), expected)
    found = torch.linalg.svdvals(orthogonal(matrix))
    assert found.min() > 0.6
    assert found.max() < 1.2
    # Neither the size of a gradient nor the number of them at once matters.
    torch.testing.assert_close(orthogonal(1e-6 * matrix), orthogonal(matrix))


def test_a_gradient_of_zero_makes_no_step() -> None:
    assert (orthogonal(torch.zeros(3, 2)) == 0).all()


def test_the_steps_are_those_of_the_formula() -> None:
    layer = nn.Linear(4, 3, bias=False)
    weight, momentum = layer.weight.detach().clone(), torch.zeros(3, 4)
    optimizer = Muon(layer, learning_rate=0.1, weight_decay=0.3, momentum=0.9)
    for _ in range(3):
        gradient = torch.randn(3, 4)
        layer.weight.grad = gradient.clone()
        optimizer.step()
        momentum = 0.9 * momentum + gradient
        step = 0.2 * 0.1 * 4**0.5 * orthogonal(gradient + 0.9 * momentum)
        weight = (1 - 0.1 * 0.3) * weight - step
    torch.testing.assert_close(layer.weight.detach(), weight)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has a Muon from 2.9 on")
def test_a_matrix_moves_as_by_torch_own_muon() -> None:
    ours = nn.Linear(16, 8, bias=False)
    theirs = copy.deepcopy(ours)
    optimizers = (
        Muon(ours, learning_rate=0.02, weight_decay=0.1),
        torch.optim.Muon(
            theirs.parameters(), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
        ),
    )
    start = ours.weight.detach().clone()
    for _ in range(4):
        gradient = torch.randn(8, 16)
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            layer.weight.grad = gradient.clone()
            optimizer.step()
    moved, other = ours.weight - start, theirs.weight - start
    # Theirs iterates in bfloat16, whose numbers have eight bits.
    assert (moved - other).norm() < 0.02 * moved.norm()


def test_everything_but_matrices_moves_as_by_torch_own_adamw() -> None:
    ours = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Embedding(4, 3))
    theirs = copy.deepcopy(ours)
    muon = Muon(ours, learning_rate=0.02, weight_decay=0.1, betas=(0.8, 0.95))
    adamw = torch.optim.AdamW(theirs.parameters(), 0.02, betas=(0.8, 0.95), weight_decay=0.1)
    for _ in range(3):
        for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            own.grad = torch.randn_like(own)
            other.grad = own.grad.clone()
        muon.step()
        adamw.step()
    for (name, own), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        same = torch.allclose(own, other, atol=1e-12)
        assert same == (name != "0.weight"), name


def test_a_kernel_is_a_matrix_with_one_row_an_output_channel() -> None:
    kernel, layer = nn.Conv2d(2, 5, 3, bias=False), nn.Linear(18, 5, bias=False)
    with torch.no_grad():
        layer.weight.copy_(kernel.weight.flatten(1))
    gradient = torch.randn(5, 2, 3, 3)
    kernel.weight.grad, layer.weight.grad = gradient, gradient.flatten(1)
    for each in (kernel, layer):
        Muon(each).step()
    torch.testing.assert_close(kernel.weight.flatten(1), layer.weight)


def test_a_parameter_without_a_gradient_stays() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = flat(model[1])
    model[0](torch.randn(3, 2)).sum().backward()
    Muon(model).step()
    torch.testing.assert_close(flat(model[1]), before, rtol=0, atol=0)


def test_a_loaded_state_is_on_the_device_of_the_weights() -> None:
    """Step counts too, in float32: the fused kernel of a GPU reads them there, as such."""
    given = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    given(torch.randn(3, 2)).square().sum().backward()
    saved = Muon(given)
    saved.step()
    elsewhere = Muon(copy.deepcopy(given).to("meta"))
    elsewhere.load_state_dict(saved.state_dict())
    states = elsewhere.state.values()
    assert len(states) == 4
    assert {value.device.type for state in states for value in state.values()} == {"meta"}
    for optimizer in (saved, elsewhere):
        counts = [state["step"] for state in optimizer.state.values() if "step" in state]
        assert [count.dtype for count in counts] == 3 * [torch.float32]


def test_a_weight_of_two_layers_moves_once() -> None:
    layer, shared = nn.Linear(3, 3), nn.Linear(3, 3)
    shared.weight = layer.weight
    optimizer = Muon(nn.Sequential(layer, shared), learning_rate=0.1, weight_decay=0)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(3, 3)
    optimizer.step()
    step = 0.2 * 0.1 * 3**0.5 * orthogonal(layer.weight.grad)
    torch.testing.assert_close(layer.weight.detach(), before - step)


def images() -> Diffusion:
    """A small diffusion of images, with convolutions; always with the same weights."""
    torch.manual_seed(3)
    return Diffusion((1, 4, 4), 5, networks=ConvNets(width=16, patch=1, multipliers=(1,)))


@pytest.mark.parametrize("build", [vae, images], ids=["vae", "images"])
def test_a_resumed_run_equals_one_that_did_not_stop(
    build: type[VAE] | type[Diffusion], tmp_path: Path
) -> None:
    x = data(40) if build is vae else torch.randint(0, 5, (40, 1, 4, 4))

    def run(path: Path, stop: int) -> Tensor:
        model = build()
        with training_loop(
            model,
            x,
            steps=8,
            batch_size=8,
            optimizer=Muon(model, learning_rate=1e-2),
            checkpoint=path,
            checkpoint_every=stop,
        ) as steps:
            for step in steps:
                if step.number == stop:
                    break
        return flat(model)

    whole = run(tmp_path / "whole.safetensors", 8)
    run(tmp_path / "cut.safetensors", 5)
    resumed = run(tmp_path / "cut.safetensors", 8)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def test_it_needs_fewer_steps_than_adamw() -> None:
    """On the digits, with convolutions, each with a learning rate that suits it."""
    bounds, digits = [], load("digits").cut("validation", 100)
    networks = ConvNets(width=16, patch=2, multipliers=(1,))
    for rate in (1.6e-2, None):
        torch.manual_seed(0)
        model = Diffusion(digits, networks=networks)
        chosen = Muon(model, learning_rate=rate) if rate else None
        history = fit(
            model,
            digits,
            steps=150,
            learning_rate=4e-3,
            ema=0,
            optimizer=chosen,
            seed=1,
            progress=False,
        )
        assert history.best is not None
        bounds.append(history.best.nats)
    assert bounds[0] > bounds[1] + 3


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Muon(nn.Linear(2, 2), learning_rate=0), "learning_rate"),
        (lambda: Muon(nn.Linear(2, 2), weight_decay=-1), "weight_decay"),
        (lambda: Muon(nn.Linear(2, 2), momentum=1), "momentum"),
        (lambda: Muon(nn.Linear(2, 2), betas=(0.9, 1.5)), "betas"),
        (lambda: Muon(nn.Linear(2, 2).requires_grad_(False)), "unfreeze"),
        (lambda: Muon(nn.Linear(2, 2), learning_rate=None), "learning_rate"),  # type: ignore[arg-type]
        (lambda: Muon([nn.Linear(2, 2)]), "pass the model"),  # type: ignore[arg-type]
        (lambda: Muon(nn.Linear(2, 2).parameters()), "pass the model"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_refused(build: object, text: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=text):
        build()
