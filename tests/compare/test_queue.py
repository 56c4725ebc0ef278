"""The order of work: a candidate waits for those it comes after; no worker idles without need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from genmod.compare import Candidate
from genmod.compare.progress import Ended, Failed
from genmod.compare.suites import DIGITS
from genmod.compare.workers import Queue, lengths
from tests.compare.cases import PLAN, vae


def candidate(name: str, cost: float, after: tuple[str, ...] = ()) -> Candidate:
    """A candidate that is never built."""
    return Candidate(name, vae, PLAN, after=after, cost=cost)


def makespan(candidates: list[Candidate], jobs: int) -> float:
    """When the last of the candidates ends, each taking its cost, on so many workers."""
    queue, now = Queue(candidates, set()), 0.0
    busy: dict[str, float] = {}
    while True:
        while len(busy) < jobs and (chosen := queue.next()):
            busy[chosen.name] = now + chosen.cost
        if not busy:
            assert not queue.waiting
            return now
        first = min(busy, key=lambda name: busy[name])
        now = busy.pop(first)
        queue.update(Ended(first))


def test_a_chain_counts_as_long_as_all_of_it() -> None:
    """``b`` is short, but ``d`` waits for it: the two together are longer than ``a``."""
    suite = [candidate("a", 3), candidate("b", 1), candidate("c", 2), candidate("d", 4, ("b",))]
    assert lengths(suite) == {"a": 3, "b": 5, "c": 2, "d": 4}
    queue = Queue(suite, set())
    assert [queue.next(), queue.next()] == [suite[1], suite[0]]
    queue.update(Ended("b"))
    assert queue.next() is suite[3]
    assert queue.next() is suite[2]
    assert queue.next() is None
    assert makespan(suite, 2) == 5


def test_a_finished_candidate_is_not_trained_again() -> None:
    suite = [candidate("a", 1), candidate("b", 1, ("a",))]
    queue = Queue(suite, {"a"})
    assert queue.next() is suite[1]
    assert queue.next() is None


def test_dependents_of_a_failed_candidate_fail_and_others_continue() -> None:
    """Also one that comes after two candidates, both of which fail."""
    suite = [
        candidate("a", 1),
        candidate("b", 1, ("a",)),
        candidate("c", 1, ("a", "b")),
        candidate("d", 1),
    ]
    queue = Queue(suite, set())
    assert queue.next() is suite[0]
    queue.update(Failed("a", "no"))
    assert set(queue.failed) == {"a", "b", "c"}
    assert queue.failed["a"] == "no"
    assert "a, which failed" in queue.failed["b"]
    assert queue.next() is suite[3]
    assert queue.next() is None


@given(
    st.lists(st.tuples(st.integers(1, 9), st.sets(st.integers(0, 7))), min_size=1, max_size=8),
    st.integers(1, 4),
)
def test_a_list_schedule_is_within_its_bound(drawn: list[tuple[int, set[int]]], jobs: int) -> None:
    """Graham 1966: never longer than ``work / m + (1 - 1 / m) chain``: so no worker idles without need."""
    suite = [
        candidate(f"m{i}", cost, tuple(f"m{j}" for j in sorted(after) if j < i))
        for i, (cost, after) in enumerate(drawn)
    ]
    total = sum(each.cost for each in suite)
    chain = max(lengths(suite).values())
    assert max(chain, total / jobs) <= makespan(suite, jobs) + 1e-9
    assert makespan(suite, jobs) <= total / jobs + (1 - 1 / jobs) * chain + 1e-9


def test_the_suite_of_the_digits_keeps_two_workers_busy() -> None:
    """At the costs it declares, the last worker ends at most a tenth after half of the work."""
    assert makespan(list(DIGITS), 2) <= 1.1 * sum(each.cost for each in DIGITS) / 2
