"""Training through Pyro, distributions in Pyro's terms, and what a pair refuses."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import ClassVar

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions import Normal as TorchNormal
from torch.testing import assert_close

from genmod import distributions, priors
from genmod.distributions.discretized_normal import DiscretizedNormal
from genmod.distributions.normal import StandardNormal
from genmod.interop.pyro import Adapted, as_pyro, to_pyro
from genmod.models import VAE, Autoencoder, Diffusion
from genmod.spec import Bins
from tests.interop.cases import build

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "pyro.md"


# ---------------------------------------------------------------------------- training


@pytest.mark.parametrize("name", ["vae-real", "hvae-bottom-up", "hvae-top-down", "diffusion"])
def test_svi_trains_the_model_itself(name: str) -> None:
    """The bound of the module, by its own ``elbo``, rises; every parameter has moved."""
    case = build(name)
    pair = to_pyro(case.model)
    before = {key: value.detach().clone() for key, value in case.model.named_parameters()}

    def bound() -> float:
        torch.manual_seed(5)
        with torch.no_grad():
            return float(torch.stack([case.model.elbo(case.x).value for _ in range(10)]).mean())

    start = bound()
    svi = SVI(pair.model, pair.guide, Adam({"lr": 0.03}), Trace_ELBO())
    for _ in range(20):
        svi.step(case.x)
    assert bound() > start + 0.5
    for key, value in case.model.named_parameters():
        assert not torch.equal(value, before[key]), key


def test_a_frozen_part_stays_as_it_is() -> None:
    """The second stage of a latent diffusion: no warning of it, and no step for the first stage."""
    case = build("latent-diffusion")
    for part in (case.model.encoder, case.model.decoder):
        part.requires_grad_(False)
    frozen = [value.clone() for value in case.model.encoder.parameters()]
    pair = to_pyro(case.model)
    svi = SVI(pair.model, pair.guide, Adam({"lr": 0.01}), Trace_ELBO())
    svi.step(case.x)
    assert_close([*case.model.encoder.parameters()], frozen, rtol=0, atol=0)
    assert not any("encoder.network" in key.split("$$$")[1][:15] for key in pyro.get_param_store())


def test_parameters_have_the_names_of_pyro_module() -> None:
    """A store saved here loads where ``pyro.module`` is used, and the reverse."""
    case = build("vae-real")
    to_pyro(case.model, name="mine").guide(case.x)
    ours = set(pyro.get_param_store().keys())
    pyro.clear_param_store()
    pyro.module("mine", case.model)
    assert ours == set(pyro.get_param_store().keys())


def test_two_models_with_one_name_are_refused() -> None:
    """Pyro's store would go on training the first model while the second is run."""
    first, second = build("vae-real"), build("vae-real")
    to_pyro(first.model).guide(first.x)
    with pytest.raises(ValueError, match=r"not this model's own.*name=.*clear_param_store"):
        to_pyro(second.model).guide(second.x)
    to_pyro(second.model, name="second").guide(second.x)


# ---------------------------------------------------------------------------- distributions


class Bare(Distribution):
    """A user's distribution with the required methods alone: no ``expand``."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector

    def __init__(self) -> None:
        super().__init__(torch.Size(), torch.Size([2]), validate_args=False)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Uniform draws."""
        return torch.rand(*sample_shape, 2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Zero: uniform."""
        return torch.zeros(value.shape[:-1])


def _ours() -> list[tuple[Distribution, type]]:
    torch.manual_seed(0)
    wide, logits = torch.randn(4, 2, 3), torch.randn(4, 2, 3, 5)
    return [
        (distributions.Normal(wide, 0.3 * wide.flip(0)), dist.Independent),
        (StandardNormal((4, 2, 3)), dist.Independent),
        (distributions.Bernoulli(wide), dist.Independent),
        (distributions.Categorical(logits), dist.Independent),
        (distributions.DiscretizedLogistic(wide, 0.3 * wide, Bins(7)), Adapted),
        (DiscretizedNormal(wide, 0.3 * wide, Bins(7)), Adapted),
    ]


@pytest.mark.parametrize("index", range(6))
def test_a_distribution_has_the_same_numbers_in_pyro(index: int) -> None:
    """Log-probabilities of its own draws, shapes and (by one seed) draws of the normal ones."""
    ours, kind = _ours()[index]
    theirs = as_pyro(ours)
    assert isinstance(theirs, kind)
    assert (theirs.batch_shape, theirs.event_shape) == (ours.batch_shape, ours.event_shape)
    for x in (ours.sample(), theirs.sample()):
        assert_close(theirs.log_prob(x), ours.log_prob(x), rtol=1e-12, atol=1e-12)


def test_a_law_without_a_batch_is_expanded_by_the_plate() -> None:
    """Torch's own expansion where it has one, else Pyro's; Pyro's distributions pass through."""
    for law in (
        Bare(),
        as_pyro(Bare()),
        torch.distributions.Independent(TorchNormal(torch.zeros(2), 1.0), 1),
    ):
        with pyro.plate("data", 3):
            z = pyro.sample("z", as_pyro(law))
        assert z.shape == (3, 2)
        assert len(set(z[:, 0].tolist())) == 3, "rows must be drawn apart"
    assert as_pyro(as_pyro(Bare())).log_prob(torch.zeros(3, 2)).shape == (3,)
    native = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    assert as_pyro(native) is native


def test_a_family_of_one_s_own_joins() -> None:
    """A registered conversion is used in place of the adapter."""

    class Mine(Bare):
        """Standard normal, in truth."""

    native = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    as_pyro.register(Mine, lambda law: native)
    assert as_pyro(Mine()) is native


# ---------------------------------------------------------------------------- refusals


def test_models_without_a_generative_program_are_refused() -> None:
    """An autoencoder at once; a diffusion in continuous time when its path is asked for."""
    with pytest.raises(ValueError, match="bounds nothing"):
        to_pyro(Autoencoder(3, latents=2))
    with pytest.raises(ValueError, match="continuous time"):
        to_pyro(Diffusion(3)).guide(torch.zeros(2, 3))


def test_names_that_collide_are_refused() -> None:
    """A latent that takes the name of the data or of the plate."""
    x = torch.zeros(2, 3)
    for taken in ("x", "data"):
        pair = to_pyro(VAE(3, latents=2, prior=priors.NormalPrior((2,), name=taken)), name=taken)
        for program in pair:
            with pytest.raises(ValueError, match=f"second site named '{taken}'"):
                program(x)


def test_bad_data_are_refused_by_both_programs() -> None:
    """The decoder's own check, before anything is drawn."""
    for program in to_pyro(VAE(3, bins=2, latents=2)):
        with pytest.raises(ValueError, match=r"integers in 0\.\.1"):
            program(torch.full((2, 3), 2))
        with pytest.raises(ValueError, match="a batch of shape"):
            program(torch.zeros(2, 4, dtype=torch.long))


def test_vectorized_particles_are_refused() -> None:
    """They would put a second batch dimension before the rows, which networks take for rows."""
    case = build("vae-real")
    pair = to_pyro(case.model)
    vectorized = Trace_ELBO(num_particles=2, vectorize_particles=True)
    with pytest.raises(ValueError, match="rows are the only batch"):
        vectorized.loss(pair.model, pair.guide, case.x)
    looped = Trace_ELBO(num_particles=2)
    assert looped.loss(pair.model, pair.guide, case.x) > 0


def test_importing_interop_without_pyro_names_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only this module needs Pyro: its package, and the core, import without."""
    monkeypatch.setitem(sys.modules, "pyro", None)
    monkeypatch.delitem(sys.modules, "genmod.interop.pyro")
    importlib.import_module("genmod.interop")
    with pytest.raises(ImportError, match=r"pip install 'genmod-torch\[pyro\]'"):
        importlib.import_module("genmod.interop.pyro")


def test_the_guide_s_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Its blocks of code, one after another, as a reader would run them."""
    torch.set_default_dtype(torch.float32)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 3
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {"__name__": "page"})
    assert "nats" in capsys.readouterr().out
