"""A candidate: a model of a comparison, how it is trained and scored, and what it waits for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from genmod.checks import one_of, require
from genmod.compare.plan import Plan
from genmod.data import Dataset
from genmod.model import LatentModel

LATENTS = 1000
"""Latents of the diffusions, at full effort."""


@dataclass(frozen=True, eq=False)
class BuildInputs:
    """What a candidate's ``build`` receives.

    Args:
        data: the data set.
        effort: the fraction of the full number of training steps.
        trained: the candidates that this one comes ``after``, trained.
    """

    data: Dataset
    effort: float
    trained: Mapping[str, LatentModel]

    @property
    def latents(self) -> int:
        """How many latents a diffusion has: fewer at a fraction of the effort, so that a trial is quick."""
        return max(10, min(LATENTS, round(LATENTS * self.effort)))


@dataclass(frozen=True)
class Candidate:
    """A model of a comparison.

    Args:
        name: what reports call it.
        build: builds it, untrained. A function at the top level of a module, so that another
            process can find it by its name.
        plan: how it is trained at full effort.
        after: the candidates that have to be trained before; they come earlier in the suite.
        importance_samples: how many importance samples its report gets; 0 for none.
        timesteps: how many levels of a diffusion each test sample visits; ``None``: the default of
            :func:`~genmod.evaluation.evaluate`.
        cost: about how long training and scoring take, relative to the other candidates. It decides the
            order in which they are started, and the time left that is shown; no number depends on it.
    """

    name: str
    build: Callable[[BuildInputs], LatentModel]
    plan: Plan
    after: tuple[str, ...] = ()
    importance_samples: int = 0
    timesteps: int | None = None
    cost: float = 1.0

    @property
    def slug(self) -> str:
        """The name as the command and files have it.

        >>> from genmod.models import VAE
        >>> Candidate("VAE, wide", lambda inputs: VAE(inputs.data.shape), Plan(10)).slug
        'vae-wide'
        """
        return slug(self.name)


def slug(name: str) -> str:
    """A name in small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def check_suite(suite: Sequence[Candidate]) -> None:
    """Require names that differ as files, and candidates that come after earlier ones.

    Raises:
        ValueError: two candidates of one name; one after another that is not before it in the suite.
    """
    require(len(suite) >= 1, "a suite without candidates", "at least one", "pass suite=None")
    seen: dict[str, str] = {}
    for candidate in suite:
        require(
            candidate.slug != "" and candidate.slug not in seen,
            f"a candidate named {candidate.name!r} beside {seen.get(candidate.slug, 'others')!r}",
            "names that differ in letters or digits, because each names files",
            "rename one of them",
        )
        for name in candidate.after:
            require(
                name in seen.values(),
                f"{candidate.name!r} after {name!r}",
                f"a candidate before it: {', '.join(seen) or 'none'}",
                "put that candidate into the suite, earlier",
            )
        seen[candidate.slug] = candidate.name


def select(suite: Sequence[Candidate], names: Sequence[str] | None) -> list[Candidate]:
    """The candidates of these names, in the suite's order, and those that they come after.

    Args:
        suite: all candidates.
        names: as reports or as the command has them; ``None`` for all.

    Raises:
        ValueError: an unknown name; the message suggests the nearest.
    """
    if not names:
        return list(suite)
    known = [candidate.slug for candidate in suite]
    wanted = {one_of(known, slug(name), "model") for name in names}
    for candidate in reversed(suite):
        if candidate.slug in wanted:
            wanted |= {slug(name) for name in candidate.after}
    return [candidate for candidate in suite if candidate.slug in wanted]
