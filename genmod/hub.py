"""Models that are saved, shared and downloaded: what every model inherits.

Files are transferred by huggingface_hub and read by this package: a download brings ``config.yaml`` and
``model.safetensors``, and nothing else is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from genmod.checks import invalid
from genmod.config.text import to_yaml
from genmod.files import as_path, write_text
from genmod.saving import CONFIG, WEIGHTS, load_model, save_model

Kind = TypeVar("Kind")
CARD = "README.md"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@runtime_checkable
class Reported(Protocol):
    """What :func:`genmod.evaluate` returns, as far as a card needs it."""

    def to_dict(self) -> dict[str, object]:
        """Its numbers as plain data."""


class Saved:
    """The methods of every model that save it to a folder, load it, and share it on a model hub.

    >>> import tempfile
    >>> from genmod import VAE, load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = VAE(3, latents=2, width=8).save(folder)
    ...     type(load(folder)).__name__
    'VAE'
    """

    def save(self, folder: Path | str) -> Path:
        """Write the model to a folder: how it was built, and its weights. ``genmod.load`` reads it.

        Raises:
            ValueError: a part that no file can name (see :func:`genmod.register`).
        """
        assert isinstance(self, nn.Module)
        return save_model(self, folder)

    def save_pretrained(self, folder: Path | str, report: Reported | None = None) -> Path:
        """Write the model to a folder as :meth:`save` does, and a model card beside it.

        Args:
            folder: the folder, which is made.
            report: what :func:`genmod.evaluate` returned, for the card.

        Raises:
            ValueError: a part that no file can name (see :func:`genmod.register`).
        """
        assert isinstance(self, nn.Module)
        place = self.save(folder)
        write_text(place / CARD, model_card(self, report))
        return place

    def push_to_hub(
        self, repository: str, report: Reported | None = None, private: bool = False
    ) -> str:
        """Upload the model and its card to a model repository, which is made if it is not there.

        Args:
            repository: ``"user/name"``.
            report: what :func:`genmod.evaluate` returned, for the card.
            private: whether a new repository is private.

        Returns:
            The address of the upload.

        Raises:
            ValueError: huggingface_hub is not installed, or refuses; no such name.
        """
        if _REPOSITORY.fullmatch(repository) is None:
            raise invalid(f"repository={repository!r}", *_NAME)
        hub = _hub()
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, report)
            try:
                hub.create_repo(repository, private=private, exist_ok=True)
                done = hub.upload_folder(
                    repo_id=repository,
                    folder_path=folder,
                    allow_patterns=[CONFIG, WEIGHTS, CARD],
                    commit_message="Upload a model of genmod",
                )
            except (OSError, ValueError) as error:
                raise _refused("upload to", repository, error) from error
        return str(done)

    @classmethod
    def from_pretrained(
        cls: type[Kind],
        name: Path | str,
        *,
        revision: str | None = None,
        device: torch.device | str = "cpu",
    ) -> Kind:
        """The model of this class in a folder or in a model repository.

        Args:
            name: a folder; or ``"user/name"``, where no folder has that name.
            revision: a branch, tag or commit of the repository.
            device: the device to put it on.

        Raises:
            ValueError: a model of another class, or what ``genmod.load`` refuses; a repository that cannot
                be reached; huggingface_hub is not installed.
        """
        found = load_model(_folder(name, revision), device)
        if not isinstance(found, cls):
            raise invalid(
                f"a saved {type(found).__name__}",
                f"a {cls.__name__}",
                "read it with genmod.load, which takes any class",
            )
        return found


_NAME = ("user/name", "write both parts, with letters, digits, '-', '_' and '.'")


def _folder(name: Path | str, revision: str | None) -> Path:
    """A folder as it is, or the two files of a repository, downloaded."""
    place = as_path(name)
    if place.exists() or not isinstance(name, str) or not _REPOSITORY.fullmatch(name):
        return place
    hub = _hub()
    try:
        return Path(
            hub.snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS])
        )
    except (OSError, ValueError) as error:
        raise _refused("download from", name, error) from error


def _hub() -> ModuleType:
    try:
        # Not at the top: an extra.
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise invalid(
            "a model repository without huggingface_hub",
            "it for uploads and downloads",
            "run pip install 'genmod-torch[hub]', or pass a folder",
        ) from error
    found: ModuleType = huggingface_hub
    return found


def _refused(what: str, repository: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return invalid(
        f"a refusal of the {what} {repository!r} ({reason})",
        "a repository that can be reached",
        "check its name, the network, and that you are logged in",
    )


# ---------------------------------------------------------------------- the card


def model_card(model: nn.Module, report: Reported | None = None) -> str:
    """A model card: what the model is, what it reaches, how to load it.

    >>> from genmod.models import VAE
    >>> print(model_card(VAE(3, latents=2, width=8)).split("---")[1].strip())
    library_name: genmod
    tags: [genmod, vae, generative-model]
    """
    name = type(model).__name__
    head = to_yaml({"library_name": "genmod", "tags": ["genmod", name.lower(), "generative-model"]})
    lines = ["---", head.rstrip(), "---", "", f"# {name}", "", "```", repr(model), "```", ""]
    lines += [
        "```python",
        f"from genmod import {name}",
        "",
        f'model = {name}.from_pretrained("...")',
    ]
    lines += ["x = model.sample(16)", "```", ""] if name != "Autoencoder" else ["```", ""]
    if report is not None:
        lines += ["## Report", "", *_report(report.to_dict())]
    return "\n".join(lines)


def _report(found: Mapping[str, Any]) -> list[str]:
    """The numbers of a report as a table."""
    rows = {f"log-likelihood ({found['stamp']})": (found["nats"], "nats a sample")}
    if found["bits_per_dim"] is not None:
        rows["code length"] = (found["bits_per_dim"], "bits/dim")
    if found["importance_weighted"] is not None:
        weighted = found["importance_weighted"]
        title = f"importance-weighted, {weighted['samples']} draws"
        rows[title] = (weighted["nats"], "nats a sample")
    rows |= {f"term: {name}": (term, "nats a sample") for name, term in found["terms"].items()}
    lines = [f"On {found['samples']} held-out samples; ± is one standard error.", ""]
    lines += ["| | value | unit |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {pair['mean']:.4f} ± {pair['standard_error']:.4f} | {unit} |"
        for name, (pair, unit) in rows.items()
    ]
    return [*lines, "", *(f"* {remark}" for remark in found["remarks"])]
