"""``compile=True``: the same training, and a plain model before and after."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from genmod.models import Diffusion
from genmod.training import compiled, fit, run, training_loop
from genmod.training.compiled import compile_networks, explained, networks, plain_networks
from tests.training.cases import data, diffusion, flat, split, vae

pytestmark = pytest.mark.usefixtures("as_users_run")  # no type checker inside compiled networks

SETTINGS: dict[str, Any] = {"steps": 4, "batch_size": 16, "validate_every": 2, "progress": False}


def test_networks_are_the_modules_that_are_no_parts() -> None:
    assert [type(n).__name__ for n in networks(vae())] == ["MLP", "MLP"]
    assert [type(n).__name__ for n in networks(diffusion())] == ["DenoisingMLP"]
    inside = [id(p) for network in networks(diffusion()) for p in network.parameters()]
    assert len(inside) == len(set(inside)), "a denoiser in two parts is compiled once"


def test_a_compiled_model_has_the_same_names_copies_and_outputs() -> None:
    model = vae()
    x = data()
    names, before = list(model.state_dict()), model.encode(x)
    compile_networks(model, backend="eager")
    assert list(model.state_dict()) == names
    assert all(n._compiled_call_impl is not None for n in networks(model))
    torch.testing.assert_close(model.encode(x), before)
    assert all(n._compiled_call_impl is None for n in networks(copy.deepcopy(model)))
    plain_networks(model)
    assert all(n._compiled_call_impl is None for n in networks(model))


@pytest.mark.parametrize("build", [vae, diffusion])
def test_training_is_the_same_and_leaves_a_plain_model(
    build: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the backend that runs the traced graph as it is. Stopped, looked at, and continued."""
    monkeypatch.setattr(run, "compile_networks", partial(compile_networks, backend="eager"))
    one, other = build(), build()
    plain = fit(one, split(), **SETTINGS)
    loop = training_loop(other, split(), compile=True, checkpoint=tmp_path / "run", **SETTINGS)
    for step in loop:
        if step.number == 2:
            assert step.averaged.elbo(data()[:3]).value.shape == (3,)
            break
    assert all(n._compiled_call_impl is None for n in networks(other))
    assert [step.number for step in loop] == [3, 4]
    assert loop.history.losses == pytest.approx(plain.losses, rel=1e-5)
    torch.testing.assert_close(flat(other), flat(one), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="compile"):
        fit(build(), split(), checkpoint=tmp_path / "run", **SETTINGS)


@pytest.mark.slow
def test_training_with_the_default_compiler() -> None:
    one, other = diffusion(), diffusion()
    plain = fit(one, split(), **SETTINGS)
    found = fit(other, split(), compile=True, **SETTINGS)
    assert found.losses == pytest.approx(plain.losses, rel=1e-4)
    torch.testing.assert_close(flat(other), flat(one), rtol=1e-3, atol=1e-5)


def test_a_compiler_that_fails_is_refused_before_a_weight_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no compiler here")

    # Else a graph that an earlier test compiled, or a limit that it reached, would be used.
    torch.compiler.reset()
    monkeypatch.setattr(run, "compile_networks", partial(compile_networks, backend=broken))
    model = vae()
    before = flat(model)
    with pytest.raises(ValueError, match=r"torch\.compile failed .*leave compile out"):
        fit(model, data(), compile=True, **SETTINGS)
    assert torch.equal(flat(model), before)


def test_labels_of_a_loader_are_checked_although_compiled_networks_do_not_read_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from genmod.nn import Labels

    monkeypatch.setattr(run, "compile_networks", partial(compile_networks, backend="eager"))
    model = Diffusion(3, condition=Labels(2), width=8)
    loader = [(data()[:4], torch.tensor([0, 1, 2, 1]))]
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        fit(model, loader, compile=True, steps=1, progress=False)


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(KeyError), explained():
        raise KeyError("x")
    assert compiled.__doc__ is not None
