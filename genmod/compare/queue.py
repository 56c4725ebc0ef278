"""Which member is to be started next: the longest of those that wait for nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genmod.compare.member import Member


class Queue:
    """The members that are not done.

    A member's length is its cost and that of the longest chain that waits for it: a chain begun
    late would be what everybody waits for at the end.

    Args:
        members: all of them; each comes after earlier ones only.
        done: the names of those that need nothing more.
    """

    def __init__(self, members: Sequence[Member], done: set[str]) -> None:
        self.lengths = lengths(members)
        self.done = set(done)
        self.failed: dict[str, str] = {}
        self.waiting = [member for member in members if member.name not in done]

    def next(self) -> Member | None:
        """Take the next member; ``None`` if none can be started now."""
        ready = [member for member in self.waiting if self.done.issuperset(member.after)]
        if not ready:
            return None
        chosen = max(ready, key=lambda member: self.lengths[member.name])
        self.waiting.remove(chosen)
        return chosen

    def end(self, name: str) -> None:
        """A member is done."""
        self.done.add(name)

    def fail(self, name: str, message: str) -> None:
        """A member cannot be done, nor can those that come after it; the others go on."""
        self.failed[name] = message
        behind = [member for member in self.waiting if name in member.after]
        self.waiting = [member for member in self.waiting if member not in behind]
        for member in behind:
            self.fail(member.name, f"it comes after {name}, which failed")


def lengths(members: Sequence[Member]) -> Mapping[str, float]:
    """How long each member takes together with the longest chain that waits for it."""
    found: dict[str, float] = {}
    for member in reversed(members):
        behind = [found[other.name] for other in members if member.name in other.after]
        found[member.name] = member.cost + max(behind, default=0.0)
    return found
