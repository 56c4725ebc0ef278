"""Models in half precision, of every family: each entry point computes, with laws in float32."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from genmod import evaluation, random
from genmod.decoders import Decoder, GaussianDecoder
from genmod.encoders import TopDownEncoder
from genmod.export import export
from genmod.lab import write_lab
from genmod.models import VAE, LatentModel
from genmod.nn import Vectors
from genmod.priors import DensityPrior, TopDownBlock, TopDownPrior
from genmod.tensors import HALF
from genmod.training import fit
from tests.everywhere.families import FAMILIES, Case, case
from tests.everywhere.table import ENTRIES

USUAL = (
    "elbo", "path", "sample", "encode and decode", "reconstruct", "impute", "interpolate",
    "posterior and draw",
)  # fmt: skip
"""The entry points that are tried by default; all others are slow."""
REFUSED = ("fit", "amortization gap")
"""Those that need gradients of whole networks, which half precision loses or makes infinite."""
pytestmark = pytest.mark.usefixtures("as_users_run")


def half(family: str, kind: torch.dtype) -> Case:
    """The case of a family with a model in half precision."""
    given = case(family)
    return replace(given, model=given.copied().to(kind))


def _cases() -> Iterator[object]:
    for family in FAMILIES:
        for name, entry in ENTRIES.items():
            if name not in REFUSED and entry.wants(case(family)) is None:
                for kind in HALF:
                    usual = name in USUAL and kind is torch.bfloat16
                    marks = [] if usual else [pytest.mark.slow]
                    told = f"{family}, {name}, {kind}"
                    yield pytest.param(family, name, kind, marks=marks, id=told)


@pytest.mark.parametrize(("family", "name", "kind"), list(_cases()))
def test_an_entry_point_computes_in_half_precision(
    family: str, name: str, kind: torch.dtype
) -> None:
    found = ENTRIES[name](half(family, kind))
    expected = ENTRIES[name](case(family))
    assert found.rows.keys() == expected.rows.keys()
    for key, value in found.rows.items():
        assert value.shape == expected.rows[key].shape
        assert torch.equal(value.isfinite(), expected.rows[key].isfinite())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bound_in_half_precision_is_that_of_the_rounded_weights(family: str) -> None:
    """In float32, within 3 %, term by term: only what flows between layers is rounded."""
    given = half(family, torch.bfloat16)
    wide = replace(given, model=given.copied().float())
    with random.keyed(0, ids=given.ids):
        found = given.model.elbo(given.x, context=given.context)
    with random.keyed(0, ids=given.ids):
        expected = wide.model.elbo(given.x, context=given.context)
    assert found.value.dtype is torch.float32
    pairs = [(found.reconstruction, expected.reconstruction)]
    pairs += [(rate.total, expected.rates[name].total) for name, rate in found.rates.items()]
    for rounded, whole in pairs:
        assert rounded.dtype is torch.float32
        largest = max(1.0, float(whole.detach().abs().max()))
        torch.testing.assert_close(rounded, whole, rtol=0.03, atol=0.03 * largest)
    drawn = given.model.decode(given.model.encode(given.x, given.context), given.context)
    assert drawn.mean.dtype is torch.float32


class OwnLaw(Decoder):
    """A law of one's own, which calls its network by itself."""

    def __init__(self, inputs: int) -> None:
        super().__init__((2,))
        self.network = nn.Linear(inputs, 4)

    def forward(self, *given: Tensor | None) -> Distribution:
        inputs = torch.cat([each for each in given if each is not None], -1)
        mean, log_std = self.network(inputs).float().chunk(2, -1)
        return Independent(Normal(mean, log_std.exp()), 1)


class OwnPrior(DensityPrior):
    """A prior of one's own, given a context."""

    def __init__(self) -> None:
        super().__init__((2,))
        self.parameters_of = OwnLaw(3)

    def law(self, n: int, context: Tensor | None = None) -> Distribution:
        assert context is not None
        found: Distribution = self.parameters_of.forward(context)
        return found


class OwnDensity(nn.Module):
    """A density from another library."""

    def __init__(self) -> None:
        super().__init__()
        self.law = OwnLaw(1)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.law(torch.ones(len(value), 1)).log_prob(value)

    def sample(self, n: int) -> Tensor:
        return self.law(torch.ones(n, 1)).sample()


def _with_own_parts(name: str) -> LatentModel:
    if name == "prior":
        return VAE(3, latents=2, width=8, prior=OwnPrior(), condition=Vectors(3))
    if name == "density":
        return VAE(3, latents=2, width=8, prior=OwnDensity())
    encoder = TopDownEncoder([nn.Linear(3, 4), nn.Linear(4, 4)], [OwnLaw(6), OwnLaw(6)], 3)
    prior = TopDownPrior([TopDownBlock(OwnLaw(2)), TopDownBlock(OwnLaw(2))], torch.zeros(2))
    return LatentModel(encoder, GaussianDecoder(nn.Linear(2, 3), 3), prior)


@pytest.mark.parametrize("name", ["prior", "density", "levels"])
def test_parts_of_ones_own_compute_in_half_precision(name: str) -> None:
    """They may call their networks by themselves; the numbers are those of the rounded weights."""
    torch.manual_seed(0)
    model, x = _with_own_parts(name).bfloat16(), torch.randn(8, 3)
    context = torch.randn(8, 3) if name == "prior" else None
    with random.keyed(0):
        found = model.elbo(x, context=context).value
    with random.keyed(0):
        expected = copy.deepcopy(model).float().elbo(x, context=context).value
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.1)
    assert model.sample(8, context).shape == (8, 3)
    assert model.reconstruct(x, context).isfinite().all()


@pytest.mark.parametrize("kind", HALF, ids=str)
def test_a_model_in_half_precision_is_neither_trained_nor_refined_nor_exported(
    kind: torch.dtype, tmp_path: Path
) -> None:
    given = half("vae of reals", kind)
    refused: dict[str, Callable[[], object]] = {
        "train": lambda: fit(given.model, given.x, steps=1, progress=False),
        "refine": lambda: evaluation.amortization_gap(given.model, given.x, steps=1),
        "export": lambda: export(given.model, tmp_path),
        "write": lambda: write_lab(given.model, torch.randn(40, 3), tmp_path),
    }
    for what, call in refused.items():
        with pytest.raises(ValueError, match=rf"^got a VAE in .* to {what}; expected .*; call "):
            call()
