"""Sharing: two files and a card go up, two files come down. No network: the transfer is faked."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from genmod import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion, evaluate
from genmod.config.text import from_yaml
from genmod.model import LatentModel

MODELS = {
    "Autoencoder": lambda: Autoencoder(3, latents=2, width=8),
    "VAE": lambda: VAE(3, latents=2, width=8),
    "HVAE": lambda: HVAE(3, latents=(2, 2), width=8),
    "Diffusion": lambda: Diffusion(3, width=8, steps=4),
    "LatentDiffusion": lambda: LatentDiffusion(3, latents=2, width=8),
}


class Hub(ModuleType):
    """Repositories as folders."""

    def __init__(self, root: Path) -> None:
        super().__init__("huggingface_hub")
        self.root, self.asked = root, list[dict[str, Any]]()

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
        (self.root / name).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(
        self, repo_id: str, folder_path: str, allow_patterns: list[str], commit_message: str
    ) -> str:
        for name in allow_patterns:
            shutil.copy(Path(folder_path) / name, self.root / repo_id / name)
        return f"hub/{repo_id}"

    def snapshot_download(self, name: str, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked.append({"name": name, "revision": revision, "files": allow_patterns})
        if not (self.root / name).exists():
            raise OSError(f"404 for {name}\nsecond line")
        return str(self.root / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", found)
    monkeypatch.chdir(tmp_path)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_what_was_uploaded_is_what_is_downloaded(name: str, hub: Hub) -> None:
    model: LatentModel = MODELS[name]().eval()
    assert model.push_to_hub("ada/first-model") == "hub/ada/first-model"
    assert sorted(file.name for file in (hub.root / "ada/first-model").iterdir()) == [
        "README.md",
        "config.yaml",
        "model.safetensors",
    ]
    again = type(model).from_pretrained("ada/first-model", revision="v1")
    wanted = ["config.yaml", "model.safetensors"]
    assert hub.asked == [{"name": "ada/first-model", "revision": "v1", "files": wanted}]
    x, values = torch.randn(3, 3), []
    for each in (model, again):
        torch.manual_seed(0)
        values.append(each.elbo(x).value)
    assert torch.equal(*values)


def test_the_card_carries_the_report_and_loads_the_model(hub: Hub) -> None:
    model = VAE((1, 4, 4), bins=5, latents=2, width=8)
    x = torch.randint(0, 5, (20, 1, 4, 4))
    report = evaluate(model, x, importance_samples=4)
    card = (model.save_pretrained("mine", report) / "README.md").read_text()
    assert from_yaml(card.split("---")[1], "the head")["library_name"] == "genmod"
    assert f"{report.value.mean:.4f} ± {report.value.error:.4f}" in card
    assert report.bits_per_dim is not None
    assert f"{report.bits_per_dim.mean:.4f}" in card
    assert "importance-weighted, 4 draws" in card
    assert "term: prior" in card
    assert repr(model) in card
    assert 'VAE.from_pretrained("...")' in card


def test_a_folder_is_never_looked_for_elsewhere(hub: Hub) -> None:
    VAE(3, latents=2, width=8).save("ada/first-model")
    VAE.from_pretrained("ada/first-model")
    for name in ("nowhere", "../up/there", "/ada/model", "a/b/c", Path("ada/other")):
        with pytest.raises(ValueError, match="cannot be read"):
            VAE.from_pretrained(name)
    assert hub.asked == []


def test_what_the_hub_refuses_is_one_sentence(hub: Hub) -> None:
    with pytest.raises(
        ValueError, match=r"download from 'ada/none' \(404 for ada/none second line\)"
    ):
        VAE.from_pretrained("ada/none")
    for name in ("alone", "a/../b", "a/b/c", ""):
        with pytest.raises(ValueError, match="user/name"):
            VAE(3, latents=2, width=8).push_to_hub(name)


def test_without_the_extra_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"genmod-torch\[hub\]"):
        VAE.from_pretrained("ada/model")
