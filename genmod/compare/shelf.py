"""Where a comparison keeps what it has done, so that it can go on: safetensors and JSON only.

Below the folder of the comparison, for each member by its slug:

* ``run.json``: the settings that count, for all;
* ``checkpoints/SLUG.safetensors``: a training that is not done;
* ``models/SLUG.safetensors``: the weights of a trained model;
* ``members/SLUG.json``: how it is trained, for how long it was, and, once it is scored, its report;
* ``members/SLUG.safetensors``: the scores of every test sample.

Every file is written beside its place and then moved there in one move. The report is written last:
a member whose record has one is done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file

from genmod.checks import require
from genmod.compare.files import beside_of, into_place, read_json, write_json
from genmod.compare.member import Member
from genmod.compare.plan import Plan
from genmod.compare.recording import report_from, scores_from, tensors_of
from genmod.elbo import Measure
from genmod.evaluation import Report
from genmod.model import LatentModel
from genmod.nn.weights import load_weights, weights

_RUN, _MEMBER = "genmod-comparison-1", "genmod-member-1"
_ADVICE = (
    "use the same to go on with that run, choose another folder (--out) to leave it alone, or throw "
    "it away (--fresh, or fresh=True)"
)


@dataclass(frozen=True)
class Record:
    """What is known of a member.

    Args:
        asked: the settings it was asked for: see :func:`asked`.
        plan: how it is trained: what was asked for, or what a time budget pays for.
        seconds: how long it has trained so far.
        report: its report, once it is done.
    """

    asked: Mapping[str, object]
    plan: Plan
    seconds: float = 0.0
    report: Report | None = None


def asked(member: Member, effort: float) -> dict[str, object]:
    """The settings of a member that decide what comes of it, as JSON has them."""
    scoring = {
        "importance_samples": member.importance_samples,
        "timesteps": member.timesteps,
        "after": list(member.after),
    }
    return asdict(member.plan.times(effort)) | scoring


@dataclass(frozen=True)
class Shelf:
    """The files of a comparison.

    Args:
        folder: where they are.
    """

    folder: Path

    def checkpoint(self, slug: str) -> Path:
        """Where a training that is not done is kept."""
        return self.folder / "checkpoints" / f"{slug}.safetensors"

    def model(self, slug: str) -> Path:
        """Where the weights of a trained model are."""
        return self.folder / "models" / f"{slug}.safetensors"

    def record(self, slug: str) -> Path:
        """Where it says how a member is trained, and what came of it."""
        return self.folder / "members" / f"{slug}.json"

    def scores(self, slug: str) -> Path:
        """Where the numbers of every test sample are."""
        return self.folder / "members" / f"{slug}.safetensors"

    def open(self, settings: Mapping[str, object], fresh: bool = False) -> None:
        """Begin a run in this folder, or go on with the one that is there.

        Args:
            settings: those that count.
            fresh: whether to throw away a run that is there.

        Raises:
            ValueError: the run that is there has other settings.
        """
        path = self.folder / "run.json"
        if fresh:
            self._clear(path)
        if path.exists():
            _refuse_changes(read_json(path, _RUN)["settings"], settings, str(self.folder))
            return
        left = sorted(self.folder.glob("members/*.json"))
        require(
            not left,
            f"{self.folder} with records of a run ({', '.join(p.name for p in left)}), but no run.json",
            "a folder without a run, or a whole one",
            _ADVICE,
        )
        write_json(path, {"format": _RUN, "settings": dict(settings)})

    def _clear(self, path: Path) -> None:
        """Remove what a run has written for its members, and nothing else that may lie there."""
        path.unlink(missing_ok=True)
        for record in self.folder.glob("members/*.json"):
            slug = record.stem
            for file in (self.checkpoint(slug), self.model(slug), self.scores(slug), record):
                beside_of(file).unlink(missing_ok=True)
                file.unlink(missing_ok=True)

    def read(self, member: Member, effort: float) -> Record | None:
        """What is known of a member; ``None`` if it was never begun.

        Raises:
            ValueError: it was begun with other settings.
        """
        path = self.record(member.slug)
        if not path.exists():
            return None
        content = read_json(path, _MEMBER)
        # There and back: JSON knows no difference between some types.
        wanted = json.loads(json.dumps(asked(member, effort)))
        _refuse_changes(content["asked"], wanted, f"{member.name} in {self.folder}")
        report = None
        if content["report"] is not None:
            tensors = load_file(self.scores(member.slug))
            scores = scores_from(tensors, Measure(content["report"]["measure"]))
            report = report_from(content["report"], scores)
        return Record(content["asked"], Plan(**content["plan"]), content["seconds"], report)

    def write(self, member: Member, record: Record) -> None:
        """Keep what is known of a member."""
        report = record.report
        if report is not None and report.scores is not None:
            with into_place(self.scores(member.slug)) as beside:
                save_file(tensors_of(report.scores), beside)
        content = {
            "format": _MEMBER,
            "name": member.name,
            "asked": dict(record.asked),
            "plan": asdict(record.plan),
            "seconds": record.seconds,
            "report": None if report is None else report.to_dict(),
        }
        write_json(self.record(member.slug), content)

    def keep(self, member: Member, model: LatentModel) -> None:
        """Keep a trained model."""
        tensors = {name: tensor.contiguous() for name, tensor in weights(model).items()}
        with into_place(self.model(member.slug)) as beside:
            save_file(tensors, beside, {"name": member.name, "model": repr(model)})

    def restore(self, member: Member, model: LatentModel) -> LatentModel:
        """Put the weights of a trained model into one that was built like it, ready for use."""
        load_weights(model, load_file(self.model(member.slug)))
        return model.eval()


def _refuse_changes(saved: Mapping[str, object], wanted: Mapping[str, object], whose: str) -> None:
    changed = [
        f"{name} {wanted.get(name)!r} (there {saved.get(name)!r})"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
    ]
    require(
        not changed,
        f"other settings than those of {whose}: {', '.join(changed)}",
        "the same ones",
        _ADVICE,
    )
