"""The order of work: nobody before those it comes after, nobody idle without need, long ones first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from genmod.compare import DIGITS, Member
from genmod.compare.queue import Queue, lengths
from tests.compare.cases import PLAN, vae


def member(name: str, cost: float, after: tuple[str, ...] = ()) -> Member:
    """A member that is never built."""
    return Member(name, vae, PLAN, after=after, cost=cost)


def makespan(members: list[Member], jobs: int) -> float:
    """When the last of the members ends, each taking its cost, on so many workers."""
    queue, now = Queue(members, set()), 0.0
    busy: dict[str, float] = {}
    while True:
        while len(busy) < jobs and (chosen := queue.next()):
            busy[chosen.name] = now + chosen.cost
        if not busy:
            assert not queue.waiting
            return now
        first = min(busy, key=lambda name: busy[name])
        now = busy.pop(first)
        queue.end(first)


def test_a_chain_counts_as_long_as_all_of_it() -> None:
    """``b`` is short, but ``d`` waits for it: the two together are longer than ``a``."""
    family = [member("a", 3), member("b", 1), member("c", 2), member("d", 4, ("b",))]
    assert lengths(family) == {"a": 3, "b": 5, "c": 2, "d": 4}
    queue = Queue(family, set())
    assert [queue.next(), queue.next()] == [family[1], family[0]]
    queue.end("b")
    assert queue.next() is family[3]
    assert queue.next() is family[2]
    assert queue.next() is None
    assert makespan(family, 2) == 5


def test_what_is_done_is_not_done_again() -> None:
    family = [member("a", 1), member("b", 1, ("a",))]
    queue = Queue(family, {"a"})
    assert queue.next() is family[1]
    assert queue.next() is None


def test_who_comes_after_a_failure_fails_with_it_and_the_others_go_on() -> None:
    """Also one that comes after two members, both of which fail."""
    family = [
        member("a", 1),
        member("b", 1, ("a",)),
        member("c", 1, ("a", "b")),
        member("d", 1),
    ]
    queue = Queue(family, set())
    assert queue.next() is family[0]
    queue.fail("a", "no")
    assert set(queue.failed) == {"a", "b", "c"}
    assert queue.failed["a"] == "no"
    assert "a, which failed" in queue.failed["b"]
    assert queue.next() is family[3]
    assert queue.next() is None


@given(
    st.lists(st.tuples(st.integers(1, 9), st.sets(st.integers(0, 7))), min_size=1, max_size=8),
    st.integers(1, 4),
)
def test_a_list_schedule_is_within_its_bound(drawn: list[tuple[int, set[int]]], jobs: int) -> None:
    """Graham 1966: never longer than ``work / m + (1 - 1 / m) chain``: so nobody idles without need."""
    family = [
        member(f"m{i}", cost, tuple(f"m{j}" for j in sorted(after) if j < i))
        for i, (cost, after) in enumerate(drawn)
    ]
    total = sum(each.cost for each in family)
    chain = max(lengths(family).values())
    assert max(chain, total / jobs) <= makespan(family, jobs) + 1e-9
    assert makespan(family, jobs) <= total / jobs + (1 - 1 / jobs) * chain + 1e-9


def test_the_family_of_the_digits_keeps_two_workers_busy() -> None:
    """At the costs it declares, the last worker ends at most a tenth after half of the work."""
    assert makespan(list(DIGITS), 2) <= 1.1 * sum(member.cost for member in DIGITS) / 2
