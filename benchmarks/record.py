"""What is kept of a run that may be made in several calls: one JSON file, and a checkpoint beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common import write
from safetensors.torch import save_file
from torch import Tensor

from genmod.evaluation import Report
from genmod.training import Step


@dataclass
class Record:
    """A run on one data set.

    Args:
        folder: where its files are.
        name: the data set's.
        settings: all that decided it.
        plan: its number of ``steps``, and how long things were measured to take.
        seconds: for how long it was trained.
        curve: ``seconds, step, images, validation_bits_per_dim`` of every look at validation data.
        report: of the test data, once that is known.
    """

    folder: Path
    name: str
    settings: Mapping[str, object]
    plan: dict[str, float]
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    report: dict[str, object] | None = None

    @property
    def path(self) -> Path:
        """The JSON file."""
        return self.folder / f"{self.name}.json"

    @property
    def checkpoint(self) -> Path:
        """Where training goes on from."""
        return self.folder / f"{self.name}.checkpoint"

    def look(self, step: Step, batch: int) -> None:
        """Add a point to the curve, and print it."""
        assert step.validation is not None
        bits = step.validation.bits_per_dim
        assert bits is not None
        images = step.number * batch
        # Steps after the last checkpoint of an interrupted call are made twice.
        self.curve = [point for point in self.curve if point["step"] < step.number]
        self.curve.append(
            {
                "seconds": self.seconds,
                "step": step.number,
                "images": images,
                "validation_bits_per_dim": bits,
            }
        )
        print(
            f"  {self.seconds:6.0f} s, step {step.number:,} of {int(self.plan['steps']):,}, "
            f"{images:,} images: {bits:.4f} bits/dim on validation images",
            flush=True,
        )
        self.write()

    def end(self, report: Report, weights: Mapping[str, Tensor]) -> None:
        """Keep what was reached and the weights; training is over."""
        self.report = report.to_dict()
        self.write()
        tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(tensors, self.folder / f"{self.name}.safetensors")
        self.checkpoint.unlink(missing_ok=True)

    def write(self) -> None:
        """All but the folder, as JSON."""
        write(self.path, {key: v for key, v in vars(self).items() if key != "folder"}, tell=False)

    @classmethod
    def read(cls, folder: Path, name: str, settings: Mapping[str, object]) -> Record | None:
        """The record of an earlier call, if there is one.

        Raises:
            SystemExit: it was made with other settings.
        """
        path = folder / f"{name}.json"
        if not path.exists():
            return None
        found = json.loads(path.read_text())
        wanted = json.loads(json.dumps(settings))
        changed = [key for key, value in wanted.items() if found["settings"].get(key) != value]
        if changed:
            raise SystemExit(
                f"{path} was made with other settings ({', '.join(changed)}): use those, or name "
                "another --out"
            )
        del found["machine"]
        return cls(folder=folder, **found)
