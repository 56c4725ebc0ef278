"""Side by side: the same numbers as one by one, and what goes wrong arrives as what it was."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch

from genmod.compare import Candidate, compare
from genmod.compare.candidate import BuildInputs
from genmod.compare.workers import Queue, side_by_side
from genmod.models import VAE
from tests.compare.cases import DEADLY, IMPOSSIBLE, PLAN, TINY, few, ignore, job, numbers
from tests.compare.test_job import same


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_parallel_workers_equal_one_process_bit_for_bit(tmp_path: Path) -> None:
    """Two workers, one of which dies; two candidates that fail do not stop the others.

    What they leave behind is what one process makes of the suite, to the last bit; the first call's
    error holds the message of the failing candidate, and the second call finds the others done.
    """
    suite = (*TINY, IMPOSSIBLE, DEADLY)
    one, two = tmp_path / "one", tmp_path / "two"
    threads = torch.get_num_threads()
    expected = compare(one, few(), suite=TINY, progress=False)
    assert torch.get_num_threads() == threads
    with pytest.raises(ValueError, match="impossible: got") as caught:
        compare(two, few(), suite=suite, jobs=2, progress=False)
    complaint = str(caught.value)
    with pytest.raises(ValueError, match="got") as direct:
        IMPOSSIBLE.build(BuildInputs(few(), 1.0, {}))
    assert f"impossible: {direct.value}\n" in complaint
    assert "deadly: got a worker process that ended with exit code 3" in complaint
    assert "run again" in complaint
    assert not multiprocessing.active_children()
    made = compare(two, few(), suite=TINY, jobs=2, progress=False)
    for a, b in zip(expected.reports, made.reports, strict=True):
        assert numbers(a) == numbers(b)
    for candidate in TINY:
        for file in ("models", "records"):
            name = f"{file}/{candidate.slug}.safetensors"
            assert same(one / name, two / name)


def test_a_builder_that_no_process_can_find_is_refused(tmp_path: Path) -> None:
    """Before any process is started."""

    def local(inputs: BuildInputs) -> VAE:
        return VAE(inputs.data.shape, inputs.data.bins)

    candidates = [Candidate("one", local, PLAN), Candidate("two", local, PLAN)]
    queue = Queue(candidates, set())
    with pytest.raises(ValueError, match="top level of a module"):
        side_by_side(queue, job(tmp_path, candidates), few(), 2, ignore)
    assert not multiprocessing.active_children()
