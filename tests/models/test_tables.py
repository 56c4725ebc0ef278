"""Models of tables: own units, every kind of column, missing entries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genmod import Measure, load, random
from genmod.decoders import Columns, LaplaceDecoder, PoissonDecoder, StudentTDecoder
from genmod.distributions import Normal
from genmod.encoders import Encoder, GaussianEncoder
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.nn import MLP
from genmod.priors import NormalPrior
from genmod.spec import Column, DataSpec

pytestmark = pytest.mark.usefixtures("float64")

REALS = (Column("a", mean=170.0, std=10.0), Column("b", mean=-3.0, std=0.02), Column("c", std=1e4))
TINY: dict[str, Any] = {"width": 8, "depth": 1}
FAMILIES: dict[str, Callable[[DataSpec], LatentModel]] = {
    "autoencoder": lambda spec: Autoencoder(spec, latents=2, **TINY),
    "vae": lambda spec: VAE(spec, latents=2, **TINY),
    "bottom-up": lambda spec: HVAE(spec, latents=(2, 2), **TINY),
    "top-down": lambda spec: HVAE(spec, latents=(2, 2), inference="top-down", **TINY),
    "diffusion": lambda spec: Diffusion(spec, steps=4, **TINY),
    "continuous diffusion": lambda spec: Diffusion(spec, **TINY),
    "latent diffusion": lambda spec: LatentDiffusion(
        vae=VAE(spec, latents=2, **TINY), diffusion=Diffusion(2, steps=4, **TINY)
    ),
    "heavy tails": lambda spec: VAE(
        spec, latents=2, decoder=StudentTDecoder(MLP(2, 3, width=8), spec), **TINY
    ),
    "Laplace": lambda spec: VAE(
        spec, latents=2, decoder=LaplaceDecoder(MLP(2, 3, width=8), spec), **TINY
    ),
}


def pair(name: str) -> tuple[LatentModel, LatentModel]:
    """The same model of data in their own units, and of standardized data."""
    own = DataSpec((3,), columns=REALS)
    plain = DataSpec((3,), columns=[Column(c.name) for c in REALS])
    models = []
    for spec in (own, plain):
        torch.manual_seed(0)
        model = FAMILIES[name](spec)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3 if parameter.dim() else 0.03)  # one scale: times 10
        models.append(model.eval())
    return models[0], models[1]


MEAN = torch.tensor([column.mean for column in REALS], dtype=torch.float64)
STD = torch.tensor([column.std for column in REALS], dtype=torch.float64)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_bound_in_own_units_differs_by_the_log_determinant(name: str) -> None:
    """Standardize by hand, or let the model do it: value, weight, codes and draws say the same."""
    own, plain = pair(name)
    y = torch.randn(6, 3)
    x = MEAN + STD * y
    with random.keyed(0):
        a = own.elbo(x, context=None)
    with random.keyed(0):
        b = plain.elbo(y, context=None)
    change = -STD.log().sum()
    torch.testing.assert_close(a.value, b.value + change, rtol=0, atol=1e-8)
    torch.testing.assert_close(a.reconstruction, b.reconstruction + change, rtol=0, atol=1e-8)
    seen = torch.rand(6, 3) < 0.5
    with random.keyed(0):
        a = own.elbo(x, observed=seen)
    with random.keyed(0):
        b = plain.elbo(y, observed=seen)
    change = -(seen * STD.log()).sum(1)
    torch.testing.assert_close(a.value, b.value + change, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_what_comes_out_is_in_own_units(name: str) -> None:
    own, plain = pair(name)
    y = torch.randn(4, 3)
    x = MEAN + STD * y

    def back(found: Tensor) -> Tensor:
        return (found - MEAN) / STD

    with random.keyed(0):
        restored = own.reconstruct(x)
    with random.keyed(0):
        torch.testing.assert_close(back(restored), plain.reconstruct(y), rtol=0, atol=1e-8)
    z = own.encode(x)
    law, other = own.decode(z), plain.decode(plain.encode(y))
    torch.testing.assert_close(back(law.mean), other.mean, rtol=0, atol=1e-8)
    change = -STD.log().sum()
    torch.testing.assert_close(law.log_prob(x), other.log_prob(y) + change, rtol=0, atol=1e-8)
    if own.prior.proper:
        torch.testing.assert_close(
            back(own.sample(4, seeds=range(4))), plain.sample(4, seeds=range(4)), rtol=0, atol=1e-8
        )


def test_float64_data_far_from_zero_keep_their_digits_in_a_float32_model() -> None:
    """A column of mean 1e9 and std 1 has none left in float32: it is standardized before it is cast."""
    spec = DataSpec((1,), columns=[Column("a", mean=1e9)])
    model = VAE(spec, latents=1, **TINY).float()
    y = torch.randn(5, 1)
    plain = VAE(DataSpec((1,), columns=[Column("a")]), latents=1, **TINY).float()
    plain.load_state_dict(model.state_dict())
    with random.keyed(0):
        a = model.elbo(1e9 + y).value
    with random.keyed(0):
        b = plain.elbo(y).value
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ columns of every kind

TABLE = (
    Column("height", "real", mean=170.0, std=10.0),
    Column("color", "category", ("red", "green", "blue")),
    Column("year", "integer", mean=2000.0, std=5.0, low=1980),
    Column("visits", "count", mean=3.0),
    Column("grade", "ordinal", (1, 2, 3, 4, 5)),
    Column("answer", "category", ("no", "yes")),
    Column("weight", "real", mean=70.0, std=5.0),
)
SPEC = DataSpec((7,), columns=TABLE, missing=True)


def table(rows: int) -> Tensor:
    """A table of every kind of column, all of which depend on one number."""
    h = torch.randn(rows)
    columns = [
        170 + 10 * h, (h > -0.5).double() + (h > 0.5).double(),
        (2000 + 4 * h).round().clamp(min=1980), torch.poisson(h.exp()), (h.clamp(-2, 2) + 2).round(),
        (h > 0).double(), 70 + 5 * h + torch.randn(rows),
    ]  # fmt: skip
    return torch.stack(columns, 1)


MIXED: dict[str, Callable[[], LatentModel]] = {
    "vae": lambda: VAE(SPEC, latents=3, **TINY),
    "bottom-up": lambda: HVAE(SPEC, latents=(3, 2), **TINY),
    "top-down": lambda: HVAE(SPEC, latents=(3, 2), inference="top-down", **TINY),
    "latent diffusion": lambda: LatentDiffusion(
        vae=VAE(SPEC, latents=2, **TINY), diffusion=Diffusion(2, steps=4, **TINY)
    ),
    "autoencoder": lambda: Autoencoder(SPEC, latents=2, **TINY),
}


@pytest.mark.parametrize("name", list(MIXED))
def test_every_kind_of_column_is_scored_drawn_and_restored(name: str) -> None:
    model, x = MIXED[name](), table(8)
    assert model.elbo(x).value.isfinite().all()
    assert model.measure is (Measure.DENSITY if model.prior.proper else Measure.NONE)
    assert model.reconstruct(x).shape == x.shape
    if model.prior.proper:
        drawn = model.sample(20)
        model.spec.check(drawn)
        assert drawn.dtype is torch.float64


def test_counts_alone_are_drawn_as_rows_of_a_table() -> None:
    """A law of counts draws integers; rows of a table are floating point numbers."""
    spec = DataSpec((2,), columns=[Column("cats", "count"), Column("dogs", "count")])
    decoder = PoissonDecoder(MLP(1, 2, width=8), spec)
    drawn = VAE(spec, latents=1, decoder=decoder, width=8).sample(5)
    spec.check(drawn)
    assert drawn.dtype is torch.float64


@pytest.mark.parametrize("name", list(MIXED))
def test_what_stands_under_the_mask_changes_no_bit(name: str) -> None:
    model, x = MIXED[name](), table(8)
    seen = torch.rand(8, 7) < 0.6
    results = []
    for filling in (0.0, 77.5, math.nan):
        model.zero_grad()
        with random.keyed(0):
            elbo = model.elbo(torch.where(seen, x, filling), observed=seen)
        elbo.value.sum().backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        results.append([elbo.value.detach(), *grads])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("name", list(MIXED))
def test_the_encoder_gets_the_mask(name: str) -> None:
    """A missing entry is not the same as one that is observed at the mean."""
    model = MIXED[name]()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = table(4)
    x[:, 0] = 170.0  # standardized it is 0, as a missing entry is
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[:, 0] = False
    a, b = model.encode(x), model.encode(x, observed=seen)
    first, second = (a[0], b[0]) if isinstance(a, tuple) else (a, b)
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    assert bool((first - second).abs().max() > 1e-4)


def test_an_encoder_of_ones_own_need_not_take_masks() -> None:
    class Plain(Encoder):
        def __init__(self) -> None:
            super().__init__(None)
            self.net = nn.Linear(7, 2)

        def forward(self, x: Tensor, context: Tensor | None = None) -> Normal:  # type: ignore[override]
            z = self.net(x)
            return Normal(z, torch.zeros_like(z))

    base = VAE(SPEC, latents=2, **TINY)
    model = LatentModel(Plain(), base.decoder, NormalPrior((2,)))
    x, seen = table(4), torch.rand(4, 7) < 0.5
    with random.keyed(0):
        a = model.elbo(x, observed=seen).value
    with random.keyed(0):
        b = model.elbo(torch.where(seen, x, torch.nan), observed=seen).value
    assert torch.equal(a, b)
    assert bool(a.isfinite().all())


def test_a_table_of_masses_is_a_mass_and_sums_to_one() -> None:
    """Of two small columns, over every value of both, at one latent."""
    columns = [Column("a", "category", ("x", "y", "z")), Column("b", "ordinal", (1, 2))]
    model = VAE(DataSpec((2,), columns=columns), latents=1, **TINY)
    assert model.measure is Measure.MASS
    every = torch.cartesian_prod(torch.arange(3.0), torch.arange(2.0)).double()
    law = model.law(torch.randn(1, 1).expand(6, 1))
    torch.testing.assert_close(law.log_prob(every).exp().sum(), torch.tensor(1.0))


@pytest.mark.parametrize("name", list(MIXED))
def test_a_saved_model_of_a_table_is_the_same(name: str, tmp_path: Any) -> None:
    model, x = MIXED[name](), table(5)
    again = load(model.save(tmp_path / "model"))
    assert again.spec == SPEC
    with random.keyed(0):
        a = model.elbo(x).value
    with random.keyed(0):
        assert torch.equal(again.double().elbo(x).value, a)


def test_laws_of_ones_own_choice_for_a_column_or_a_kind() -> None:
    laws = {"height": StudentTDecoder, "count": PoissonDecoder}
    decoder = Columns.of(lambda count: MLP(3, count, width=8), SPEC, laws)
    model = VAE(SPEC, latents=3, decoder=decoder, **TINY)
    assert model.elbo(table(4)).value.isfinite().all()
    assert "p(height | z) = t(x" in repr(model)
    assert "p(visits | z) = Poisson(x" in repr(model)
    with pytest.raises(ValueError, match=r"laws for \['hight'\].*check the spelling"):
        Columns.of(lambda count: MLP(3, count), SPEC, {"hight": StudentTDecoder})


def test_a_column_without_a_part_is_refused() -> None:
    decoder = Columns.of(lambda count: MLP(3, count, width=8), SPEC)
    with pytest.raises(ValueError, match="one part for each of the columns"):
        Columns(decoder.network, SPEC, [p for p in decoder.parts if isinstance(p, StudentTDecoder)])


def test_a_diffusion_refuses_columns_of_several_kinds_and_to_impute() -> None:
    with pytest.raises(ValueError, match=r"for a Diffusion; .*LatentDiffusion"):
        Diffusion(SPEC)
    own, _ = pair("diffusion")
    with pytest.raises(ValueError, match=r"Diffusion to impute.*genmod.inverse"):
        own.impute(MEAN[None], torch.tensor([[True, True, False]]))
    with pytest.raises(ValueError, match=r"missing entries for a Diffusion.*get the mask"):
        own.check_missing()


def test_a_spec_that_says_missing_is_another_spec() -> None:
    complete = replace(SPEC, missing=False)
    assert complete != SPEC
    network = MLP(complete.feature_shape, 4, width=8)
    with pytest.raises(ValueError, match="one description of the data"):
        VAE(SPEC, latents=2, encoder=GaussianEncoder(network, (2,), complete))


def test_images_with_missing_pixels_hand_the_mask_to_convolutions() -> None:
    spec = DataSpec((1, 16, 16), 4, missing=True)
    model = VAE(spec, latents=2, width=4)
    x, seen = torch.randint(0, 4, (2, 1, 16, 16)), torch.rand(2, 1, 16, 16) < 0.5
    with random.keyed(0):
        a = model.elbo(x, observed=seen).value
    with random.keyed(0):
        assert torch.equal(a, model.elbo(torch.where(seen, x, 255), observed=seen).value)
    assert isinstance(VAE(DataSpec((2,), columns=REALS[:2]), latents=2).decoder, StudentTDecoder)


@pytest.mark.parametrize("inference", ["bottom-up", "top-down"])
def test_a_hierarchy_of_a_table_starts_near_its_prior(inference: str) -> None:
    """Rates before any step are of the order of the latents' number; linear maps once made them 1e8."""
    spec = DataSpec((5,), columns=[Column(f"x{i}") for i in range(5)], missing=True)
    x = 2 * torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    for seed in range(4):
        torch.manual_seed(seed)
        model = HVAE(spec, latents=(4, 2), inference=inference)
        rates = [nats for _, nats, _ in model.elbo(x).levels()]
        assert max(float(nats.detach().max()) for nats in rates) < 200
