"""Exported files give the model's own numbers for a batch of any size, or they are not written."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from genmod.decoders import GaussianDecoder
from genmod.distributions.base import elementwise
from genmod.export import ExportFormat, export
from genmod.model import LatentModel
from genmod.models import VAE, Diffusion, LatentDiffusion
from genmod.models.replace import find_diffusion, has_diffusion
from genmod.nn import MLP, DiTs
from genmod.path import run_path
from genmod.samplers import DDIM
from genmod.schedules import Cosine, LinearBeta, MonotoneNetwork, RectifiedFlow
from genmod.spec import Column, DataSpec
from tests.everywhere.families import CLASSES, FAMILIES, case

pytestmark = pytest.mark.usefixtures("as_users_run")

EQUAL = 1e-5
TINY: dict[str, Any] = {"width": 8, "depth": 1}
QUICK = [("vae", "onnx"), ("conditional latent diffusion", "torch")]
ALL = [(family, kind) for kind in ("onnx", "torch") for family in FAMILIES]

IMAGES: dict[str, Any] = {
    "images": lambda: VAE((3, 16, 16), bins=256, latents=4, width=8),
    "images in latents of space": lambda: LatentDiffusion(
        (1, 16, 16), bins=17, latents=(2, 4, 4), width=8
    ),
    "cosine": lambda: Diffusion((1, 16, 16), bins=17, schedule=Cosine(), width=8),
    "table of betas": lambda: Diffusion(3, schedule=LinearBeta(), steps=10, **TINY),
    "learned schedule": lambda: Diffusion(3, schedule=MonotoneNetwork(), **TINY),
    "rectified flow": lambda: Diffusion(3, schedule=RectifiedFlow(Cosine()), **TINY),
    "transformer": lambda: Diffusion((1, 16, 16), bins=2, networks=DiTs(width=32, depth=1)),
}


def random_model(name: str) -> LatentModel:
    """A model in which no weight is zero."""
    if name in FAMILIES:
        return case(name).model
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: LatentModel = IMAGES[name]()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.1)
    return model.eval()


@cache
def exported(name: str, kind: str, root: Path) -> Path:
    """The folder of a model, written once."""
    return export(random_model(name), root / f"{name}-{kind}".replace(" ", "-"), kind)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the folders of this session are."""
    return tmp_path_factory.mktemp("exported")


def run(folder: Path, part: str, **given: Tensor) -> Mapping[str, Tensor]:
    """The outputs of a file, by the runtime of its kind."""
    described = description(folder)
    assert set(given) == {port["name"] for port in described["parts"][part]["inputs"]}
    path = folder / described["parts"][part]["file"]
    if path.suffix == ".pt2":
        module = torch.export.load(io.BytesIO(path.read_bytes())).module()
        ports = described["parts"][part]["inputs"]
        found: dict[str, Tensor] = module(*[given[port["name"]] for port in ports])
        return found
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    arrays = session.run(names, {name: tensor.numpy() for name, tensor in given.items()})
    return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}


def description(folder: Path) -> dict[str, Any]:
    """The description, in which nothing but plain JSON is allowed."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    text = (folder / "export.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


def near(found: Tensor, expected: Tensor) -> None:
    """Equal up to EQUAL of the largest number."""
    apart = EQUAL * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=apart)


def data(model: LatentModel, rows: int) -> Tensor:
    """Random data in their own units."""
    if model.spec.columns is not None:
        return case("vae of a table").x[torch.arange(rows) % 5]
    if model.spec.bins is not None:
        return torch.randint(model.spec.bins, (rows, *model.spec.shape)).float()
    return torch.randn(rows, *model.spec.shape)


def context_of(name: str, rows: int) -> Tensor | None:
    """Labels of a conditional model."""
    return torch.randint(CLASSES, (rows,)) if "conditional" in name else None


# ------------------------------------------------------------------ the numbers of the model


def equal_the_model(name: str, kind: str, root: Path) -> None:
    model, folder = random_model(name), exported(name, kind, root)
    listed = description(folder)["parts"]

    def part(of: str, **given: Tensor | None) -> Mapping[str, Tensor]:
        names = [port["name"] for port in listed[of]["inputs"]]
        return run(folder, of, **{n: each for n in names if (each := given.get(n)) is not None})

    for rows in (1, 3, 64):
        x, context = data(model, rows), context_of(name, rows)
        observed = torch.rand(x.shape) < 0.7 if model.spec.missing else None
        log_snr = torch.linspace(-3, 4, rows)
        found = part("encoder", x=x, context=context, observed=observed, log_snr=log_snr)
        diffusion = find_diffusion(model) if has_diffusion(model) else None
        with torch.no_grad():
            if isinstance(model, Diffusion):
                alpha = log_snr.sigmoid().sqrt().reshape(-1, *[1] * (x.ndim - 1))
                near(found["mean"], alpha * model.encoder.real(x))
                # The decoder takes states that preserve variance, whatever the schedule.
                z = torch.randn(x.shape)
                law = model.law(z * math.hypot(*model.diffusion.schedule.scales_at_zero()), context)
                near(part("decoder", z_0=z, context=context)["mean"], law.mean)
            else:
                codes = model.encode(x, context, observed)
                levels = [codes] if isinstance(codes, Tensor) else list(codes)
                means = [each for key, each in found.items() if key.endswith("mean")]
                assert len(means) == len(levels)
                for mine, level in zip(means, levels, strict=True):
                    near(mine, level)
                inputs = [p["name"] for p in listed["decoder"]["inputs"] if p["name"] != "context"]
                named = dict(zip(inputs, levels, strict=True))
                decoded = part("decoder", context=context, **named)
                near(decoded["mean"], model.decode(codes, context).mean)
            if diffusion is not None:
                z = torch.randn(rows, *diffusion.shape)
                denoised = diffusion.denoiser(z, log_snr, context)
                found = part("denoiser", z_t=z, log_snr=log_snr, context=context)
                near(found["x_hat"], denoised.x_hat)


@pytest.mark.parametrize(("name", "kind"), QUICK)
def test_files_equal_the_model(name: str, kind: str, root: Path) -> None:
    equal_the_model(name, kind, root)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [pair for pair in ALL if pair not in QUICK])
def test_files_of_every_family_equal_the_model(name: str, kind: str, root: Path) -> None:
    equal_the_model(name, kind, root)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch"])
@pytest.mark.parametrize("name", IMAGES)
def test_files_of_images_and_schedules_equal_the_model(name: str, kind: str, root: Path) -> None:
    equal_the_model(name, kind, root)


def test_double_precision_is_kept(tmp_path: Path) -> None:
    model = VAE(3, latents=2, **TINY).double()
    folder = export(model, tmp_path, "torch")
    x = torch.randn(4, 3, dtype=torch.float64)
    found = run(folder, "encoder", x=x)["mean"]
    torch.testing.assert_close(found, model.encode(x), rtol=0, atol=1e-12)


# ------------------------------------------------------------------ what can be done with the files


def test_a_sampler_of_the_files_alone_equals_the_model_s(root: Path) -> None:
    """A rectified flow: the table, the states and the decoder are those that preserve variance."""
    model, folder = random_model("rectified flow"), exported("rectified flow", "torch", root)
    table = description(folder)["schedule"]
    places = range(0, 256, 51)
    z = noise = torch.randn(4, 3)
    for here, after in pairwise(places):
        alpha, sigma = table["alpha"][here], table["sigma"][here]
        log_snr = torch.full((4,), table["log_snr"][here])
        x_hat = run(folder, "denoiser", z_t=z, log_snr=log_snr)["x_hat"]
        eps = (z - alpha * x_hat) / sigma
        z = table["alpha"][after] * x_hat + table["sigma"][after] * eps
    found = run(folder, "decoder", z_0=z)["mean"]
    diffusion = find_diffusion(model)
    times = torch.tensor([table["times"][place] for place in places], dtype=torch.float64)
    with torch.no_grad():
        first = noise * torch.hypot(*diffusion.schedule.scales(times[:1])).float()
        sampler = DDIM().bind_missing(diffusion.denoiser, diffusion.schedule)
        near(found, model.law(sampler.run(first, times)).mean)


@pytest.mark.parametrize("name", ["bottom-up", "conditional latent diffusion"])
def test_the_prior_of_noise_zero_is_the_path_of_means(name: str, root: Path) -> None:
    model, folder = random_model(name), exported(name, "torch", root)
    prior, context = model.prior, context_of(name, 3)
    given = {} if context is None else {"context": context}
    for port in description(folder)["parts"]["prior"]["inputs"]:
        if port["name"] != "context":
            given[port["name"]] = torch.zeros(3, *port["shape"][1:])
    found = run(folder, "prior", **given)["z"]
    with torch.no_grad():
        if isinstance(model, LatentDiffusion):
            expected = model.nested.law(torch.zeros(3, *model.diffusion.shape), context).mean
        else:
            expected = run_path(prior.generate(3, context), lambda step: step[1].mean)
    near(found, expected)
    if "noise_z1" in given:
        ones = run(folder, "prior", **given | {"noise_z1": torch.ones_like(given["noise_z1"])})["z"]
        assert bool((ones > found).all())


def test_a_law_in_the_units_of_a_table(tmp_path: Path) -> None:
    """Real columns: the mean and the log-std of the file are those of the data's own units."""
    columns = [Column("height", mean=170.0, std=10.0), Column("weight", mean=70.0, std=15.0)]
    spec = DataSpec((2,), columns=columns)
    model = VAE(spec, latents=1, decoder=GaussianDecoder(MLP(1, 2, width=8), spec), **TINY).eval()
    folder, z = export(model, tmp_path, "torch"), torch.randn(3, 1)
    found, law = run(folder, "decoder", z=z), model.decode(z)
    near(found["mean"], law.mean)
    near(found["log_std"], 0.5 * law.variance.log())
    assert description(folder)["data"]["mean_and_std"] == [[170.0, 10.0], [70.0, 15.0]]


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_categories_of_different_numbers_of_values(kind: str, tmp_path: Path) -> None:
    """A table of every kind: the logit of a value that a column does not have is minus infinity."""
    columns = [
        Column("two", "category", ("a", "b")),
        Column("three", "category", ("a", "b", "c")),
        Column("low to high", "ordinal", ("low", "middle", "high")),
        Column("yes or no", "ordinal", ("no", "yes")),
        Column("year", "integer", low=1990, high=2020, mean=2005.0, std=10.0),
        Column("visits", "count", mean=3.0, std=5.0),
        Column("height", mean=170.0, std=10.0),
    ]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VAE(DataSpec((7,), columns=columns, missing=True), latents=2, **TINY).eval()
    folder = export(model, tmp_path, kind)
    z = torch.randn(5, 2)
    found, law = run(folder, "decoder", z=z), model.decode(z)
    near(found["mean"], law.mean)
    named = description(folder)["parts"]["decoder"]["law"]["parts"]
    (part,) = (each for each in named if each["class"] == "Categorical")
    masses = found[f"{part['prefix']}logits"].softmax(-1)
    assert part["columns"] == [0, 1]
    assert bool((masses[:, 0, 2] == 0).all())
    ones = law.mean.clone()
    ones[:, :2] = 1
    near(masses[..., 1].log(), elementwise(law, ones)[:, :2])


def test_the_description_names_what_the_files_take(root: Path) -> None:
    folder = exported("vae of a table", "torch", root)
    found = description(folder)
    assert found["model"] == "VAE"
    encoder, decoder = found["parts"]["encoder"], found["parts"]["decoder"]
    assert [port["name"] for port in encoder["inputs"]] == ["x", "observed"]
    assert encoder["inputs"][0]["shape"] == ["batch", 5]
    assert decoder["law"]["parts"][1] == {
        "prefix": "law_1.",
        "columns": [1],
        "class": "Categorical",
    }
    assert decoder["constants"]["law_2.high"] == [None]  # infinite: a year has no last one
    assert found["data"]["columns"][1]["values"] == ["red", "green", "blue"]


def test_a_model_stays_as_it_is(tmp_path: Path) -> None:
    model = VAE(3, latents=2, **TINY).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export(model, tmp_path, ExportFormat.TORCH)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())
    assert len([1, 2]) == 2  # Python's own len again


# ------------------------------------------------------------------ what is refused


class Branching(nn.Module):
    """A network with a branch on a value."""

    def forward(self, z: Tensor) -> Tensor:
        return z.repeat(1, 2) if float(z.sum()) > 0 else z.repeat(1, 2) * 2


class Noisy(nn.Module):
    """A network that is random in evaluation mode, too."""

    def forward(self, z: Tensor) -> Tensor:
        return z.repeat(1, 2) + torch.randn(4)


@pytest.mark.parametrize(
    ("network", "words"), [(Branching(), "cannot trace"), (Noisy(), "differs")]
)
def test_a_network_that_cannot_be_exported_is_refused_by_its_part(
    network: nn.Module, words: str, tmp_path: Path
) -> None:
    decoder = GaussianDecoder(network, 4, 1.0)
    model = VAE(4, latents=2, decoder=decoder, **TINY)
    with pytest.raises(ValueError, match=f"got (the|a file of the) decoder.*{words}"):
        export(model, tmp_path, "torch")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = VAE(3, latents=2, **TINY)
    nn.init.constant_(next(model.encoder.parameters()), math.nan)
    with pytest.raises(ValueError, match="encoder, whose output 'mean' is not finite"):
        export(model, tmp_path, "torch")


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"onnxruntime; .*genmod-torch\[export\]"):
        export(VAE(3, latents=2, **TINY), tmp_path)


def test_other_arguments_are_refused(tmp_path: Path) -> None:
    model = VAE(3, latents=2, **TINY)
    with pytest.raises(ValueError, match="did you mean 'onnx'"):
        export(model, tmp_path, "onx")
    with pytest.raises(ValueError, match="got model of type Linear"):
        export(nn.Linear(2, 2), tmp_path)  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="expected a folder"):
        export(model, tmp_path / "file", "torch")
