"""The page of any model: exact text of numbers, refusals by name, the command, and the page of the site."""

from __future__ import annotations

import base64
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from genmod import data
from genmod.cli import app
from genmod.lab import halved, page_files, write_lab
from genmod.lab.program import STATIC, operations, written_tensor
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.nn import DiTs, Labels, Vectors
from genmod.runs import RunConfig, train
from tests.export.test_export import IMAGES, random_model
from tests.lab.browser import needs_browser, visit

pytestmark = pytest.mark.usefixtures("as_users_run")

ROOT = Path(__file__).parents[2]
LAB = ROOT / "docs" / "lab"
TINY: dict[str, Any] = {"width": 8, "depth": 1}
MOST = 2_000_000
"""Bytes of a model's file on the site."""


class Sorted(nn.Module):
    """A network with an operation that the page lacks."""

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        values: Tensor = z.sort(-1).values
        return values


KINDS: dict[str, tuple[Callable[[], LatentModel], str]] = {
    "hierarchy": (lambda: HVAE((1, 8, 8), bins=17, latents=(4, 2), **TINY), "HVAE"),
    "latent diffusion": (
        lambda: LatentDiffusion((1, 8, 8), bins=17, latents=2, **TINY),
        "LatentDiffusion",
    ),
    "autoencoder": (lambda: Autoencoder((1, 8, 8), bins=17, latents=2, **TINY), "Autoencoder"),
    "vectors as a condition": (
        lambda: VAE((1, 8, 8), bins=17, latents=2, condition=Vectors(3), **TINY),
        r"Vectors\(",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_models_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    build, name = KINDS[kind]
    with pytest.raises(ValueError, match=f"{name}.*expected.*genmod sample"):
        write_lab(build(), "digits", tmp_path)
    assert list(tmp_path.glob("*.html")) == []


def test_an_operation_that_the_page_lacks_is_named_with_its_layer(tmp_path: Path) -> None:
    model = Diffusion((1, 8, 8), bins=17, denoiser=Sorted())
    with pytest.raises(ValueError, match=r"aten\.sort.*in Sorted.*genmod export"):
        write_lab(model, "digits", tmp_path)


def test_data_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8\).*\(1, 4, 4\)"):
        write_lab(VAE((1, 4, 4), bins=17, latents=2, **TINY), "digits", tmp_path)


def test_the_interpreter_has_what_the_lecture_needs() -> None:
    assert {"linear", "conv2d", "group_norm", "layer_norm", "silu", "matmul"} <= operations()
    text = (STATIC / "ops.js").read_text(encoding="utf-8")
    assert len(operations()) == len(set(re.findall(r"ops\.(\w+) = ", text)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_numbers_are_written_exactly(dtype: torch.dtype) -> None:
    tensor = (100 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))).to(dtype)
    found = written_tensor(tensor)
    stored = np.frombuffer(base64.b64decode(str(found["data"])), dtype=str(found["stored"]))
    assert torch.equal(torch.tensor(stored.reshape(4, 3)).to(dtype), tensor)


def test_weights_are_rounded_to_half_precision_and_the_model_is_kept() -> None:
    model = VAE((1, 8, 8), bins=17, latents=2, **TINY)
    before = [weight.clone() for weight in model.parameters()]
    for own, weight, old in zip(
        halved(model).parameters(), model.parameters(), before, strict=True
    ):
        assert torch.equal(weight, old)
        assert torch.equal(own, weight.half().float())
        assert written_tensor(own)["stored"] == "float16"


def trained(run: Path, model: dict[str, Any]) -> Path:
    """A run of two training steps."""
    settings = {
        "data": {"x": "digits"},
        "model": model | TINY,
        "training": {"steps": 2, "batch_size": 8},
    }
    train(RunConfig.of(settings), run, scored=False, progress=False)
    return run


def test_the_command_refuses_the_run_of_another_model(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", {"class": "Autoencoder", "latents": 2})
    found = CliRunner().invoke(app, ["lab", str(run)], prog_name="genmod")
    assert found.exit_code == 2
    assert "got the model Autoencoder" in found.stderr
    assert not (run / "lab").exists()


@pytest.mark.slow
def test_the_command_writes_the_page_of_a_run(tmp_path: Path) -> None:
    out = tmp_path / "page"
    run = trained(tmp_path / "run", {"class": "VAE", "latents": 3})
    found = CliRunner().invoke(app, ["lab", str(run), "--out", str(out)], prog_name="genmod")
    assert found.exit_code == 0, found.output
    assert "index.html" in found.stdout
    assert '<script src="model-1.js">' in (out / "index.html").read_text(encoding="utf-8")
    assert set(page_files(1)) | {"model-1.js"} == {path.name for path in out.iterdir()}


def test_the_page_of_the_site_is_the_packages() -> None:
    """Mend it with ``python docs/_build/lab.py``. Only the site's own page links to the site."""
    models = sorted(LAB.glob("model-*.js"))
    home = re.search(r"<p><a href.*</p>\n *", (LAB / "index.html").read_text(encoding="utf-8"))
    assert home is not None
    links = re.findall(r'href="\.\./([\w/]+)\.html"', home[0])
    assert links == ["index", "guides/lab"]
    assert all((LAB.parent / f"{link}.md").exists() for link in links)
    assert "../" not in page_files(1)["index.html"]
    for name, text in page_files(len(models), home[0]).items():
        assert (LAB / name).read_text(encoding="utf-8") == text, name
    assert len(models) == 2
    assert all(model.stat().st_size < MOST for model in models)


@needs_browser
def test_the_page_of_the_site_agrees_with_torch_and_reports_no_error(tmp_path: Path) -> None:
    for path in LAB.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    body = (
        "return lab.sections.map(({ model }) => lab.check(model)).concat({ errors: lab.errors });"
    )
    seen = visit(tmp_path / "index.html", body, fragment="check")
    *checks, last = seen.found
    assert last["errors"] == seen.console == []
    assert [check["name"] for check in checks] == ["VAE on digits", "Diffusion on digits"]
    for check in checks:
        assert max(check["calls"].values()) < 1e-4
        assert max(check["paths"].values(), default=0) < 1e-3


def test_the_models_of_the_site_can_be_trained_again() -> None:
    spec = importlib.util.spec_from_file_location("lab", ROOT / "docs" / "_build" / "lab.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vae, diffusion = module.models(data.load("digits"), steps=1)
    assert vae.prior.shape == (2,)
    assert diffusion.sample(1, context=torch.tensor([3]), steps=1).shape == (1, 1, 8, 8)


SHOWN: dict[str, Callable[[], LatentModel]] = {
    **{name: build for name, build in IMAGES.items() if "latents of space" not in name},
    "labels": lambda: VAE((1, 8, 8), bins=17, latents=3, condition=Labels(10), **TINY),
    "patches": lambda: Diffusion(
        (3, 16, 16), bins=256, networks=DiTs(width=32, depth=1), condition=Labels(2)
    ),
}


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("name", SHOWN)
def test_every_kind_of_network_runs_in_the_page(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = random_model(name) if name in IMAGES else SHOWN[name]().eval()
    shape, bins = model.spec.shape, model.spec.bins
    rows = torch.randn(40, *shape) if bins is None else torch.randint(bins, (40, *shape))
    page = write_lab(model, data.load((rows, torch.arange(40) % 2), bins=bins), tmp_path)
    seen = visit(page, "return lab.sections.map(({ model }) => lab.check(model));")
    (check,) = seen.found
    assert max(check["calls"].values()) < 1e-4, check
    assert max(check["paths"].values(), default=0) < 1e-3, check
    assert seen.console == []
