"""A member of a family: a model, how it is trained, and what it waits for; all of it data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from genmod.checks import require
from genmod.compare.plan import Plan
from genmod.data import Dataset
from genmod.model import LatentModel

LATENTS = 1000
"""Latents of the diffusions, at full effort."""


@dataclass(frozen=True, eq=False)
class Setting:
    """What building a member needs to know.

    Args:
        data: the data set.
        effort: how much of the customary number of steps is made.
        trained: the members that this one comes ``after``, as they were left by their training.
    """

    data: Dataset
    effort: float
    trained: Mapping[str, LatentModel]

    @property
    def latents(self) -> int:
        """How many latents a diffusion has: fewer at a fraction of the effort, so that a look is quick."""
        return max(10, min(LATENTS, round(LATENTS * self.effort)))


@dataclass(frozen=True)
class Member:
    """A model of a family.

    Args:
        name: what reports call it.
        build: builds it, untrained. A function at the top level of a module, so that another
            process can find it by its name.
        plan: how it is trained at full effort.
        after: the members that have to be trained before; they come earlier in the family.
        importance_samples: how many importance samples its report gets; 0 for none.
        timesteps: how many levels of a diffusion each test sample visits; ``None``: the default.
        cost: about how long training and scoring take beside the other members; members side by
            side are started longest first, and nothing else depends on it.
    """

    name: str
    build: Callable[[Setting], LatentModel]
    plan: Plan
    after: tuple[str, ...] = ()
    importance_samples: int = 0
    timesteps: int | None = None
    cost: float = 1.0

    @property
    def slug(self) -> str:
        """The name as a file may have it.

        >>> from genmod.models import VAE
        >>> Member("VAE, wide", lambda s: VAE(s.data.shape), Plan(10)).slug
        'vae-wide'
        """
        return slug(self.name)


def slug(name: str) -> str:
    """A name in small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def check_family(family: Sequence[Member]) -> None:
    """Require names that differ as files, and members that come after earlier ones.

    Raises:
        ValueError: two members of one name; a member after one that is not in the family before it.
    """
    require(len(family) >= 1, "a family without members", "at least one", "pass family=None")
    seen: dict[str, str] = {}
    for member in family:
        require(
            member.slug != "" and member.slug not in seen,
            f"a member named {member.name!r} beside {seen.get(member.slug, 'others')!r}",
            "names that differ in letters or digits, because each names files",
            "rename one of them",
        )
        earlier = list(seen.values())
        for name in member.after:
            require(
                name in earlier,
                f"{member.name!r} after {name!r}",
                f"one of the members before it: {', '.join(earlier) or 'none'}",
                "put that member into the family, earlier",
            )
        seen[member.slug] = member.name


def select(family: Sequence[Member], names: Sequence[str] | None) -> list[Member]:
    """The members of these names, in the family's order, and those that they come after.

    Args:
        family: all members.
        names: as reports or as files have them; ``None`` for all.

    Raises:
        ValueError: a name that nobody has.
    """
    if not names:
        return list(family)
    slugs = {member.slug for member in family}
    for name in names:
        require(
            slug(name) in slugs,
            f"no model named {name!r}",
            f"some of: {', '.join(member.name for member in family)}",
            "spell it as there, or in small letters with hyphens",
        )
    wanted = {slug(name) for name in names}
    for member in reversed(family):
        if member.slug in wanted:
            wanted |= {slug(name) for name in member.after}
    return [member for member in family if member.slug in wanted]
