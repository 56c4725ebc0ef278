"""Training of the candidates: one after another, or in parallel processes with one torch thread each.

Processes are spawned, not forked, because threads and a GPU do not survive a fork. A worker process keeps
the data and trains one candidate after another. All results go through files, so no number depends on which
process computed it.
"""

from __future__ import annotations

import pickle
import signal
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait

import torch

from genmod.checks import invalid
from genmod.compare.candidate import Candidate
from genmod.compare.job import Job, one_thread, run
from genmod.compare.progress import Ended, Event, Failed, OnEvent
from genmod.data import Dataset


class Queue:
    """The candidates that are not done, in the order in which they should start.

    A candidate's length is its cost, plus the length of the longest chain of candidates that wait for it.
    The longest starts first, so that no long chain is left alone at the end (critical-path scheduling).

    Args:
        candidates: all candidates, in an order that respects their ``after``.
        done: the names of those that are done.
    """

    def __init__(self, candidates: Sequence[Candidate], done: set[str]) -> None:
        self.lengths = lengths(candidates)
        self.done = set(done)
        self.failed: dict[str, str] = {}
        self.waiting = [candidate for candidate in candidates if candidate.name not in done]

    def next(self) -> Candidate | None:
        """Remove and return the next candidate; ``None`` if none can start now."""
        ready = [each for each in self.waiting if self.done.issuperset(each.after)]
        if not ready:
            return None
        chosen = max(ready, key=lambda candidate: self.lengths[candidate.name])
        self.waiting.remove(chosen)
        return chosen

    def update(self, event: Event) -> None:
        """Record that a candidate ended or failed."""
        match event:
            case Ended(name):
                self.done.add(name)
            case Failed(name, message):
                self.fail(name, message)
            case _:
                pass

    def fail(self, name: str, message: str) -> None:
        """Record that a candidate failed, and with it all candidates that wait for it."""
        self.failed[name] = message
        behind = [candidate for candidate in self.waiting if name in candidate.after]
        self.waiting = [candidate for candidate in self.waiting if candidate not in behind]
        for candidate in behind:
            self.fail(candidate.name, f"it comes after {name}, which failed")


def lengths(candidates: Sequence[Candidate]) -> Mapping[str, float]:
    """The cost of each candidate plus that of the longest chain that waits for it."""
    found: dict[str, float] = {}
    for candidate in reversed(candidates):
        behind = [found[other.name] for other in candidates if candidate.name in other.after]
        found[candidate.name] = candidate.cost + max(behind, default=0.0)
    return found


def one_by_one(queue: Queue, job: Job, data: Dataset, on_event: OnEvent) -> None:
    """Train the candidates of a queue in this process."""

    def both(event: Event) -> None:
        queue.update(event)
        on_event(event)

    with one_thread():
        while candidate := queue.next():
            run(job, candidate.name, data, both)


def side_by_side(queue: Queue, job: Job, data: Dataset, processes: int, on_event: OnEvent) -> None:
    """Train the candidates of a queue in parallel processes.

    Args:
        queue: the candidates.
        job: the shared settings.
        data: the data set.
        processes: the number of processes.
        on_event: called with every event, in this process.

    Raises:
        ValueError: a candidate whose ``build`` cannot be imported by another process.
    """
    parcel = _pickled(job, data)
    # All start at once, because importing torch takes seconds.
    idle = [Worker(parcel) for _ in range(min(processes, len(queue.waiting)))]
    busy: list[Worker] = []
    try:
        while True:
            while len(busy) < processes and (candidate := queue.next()):
                worker = idle.pop() if idle else Worker(parcel)
                worker.give(candidate.name)
                busy.append(worker)
            if not busy:
                return
            ready = wait([worker.pipe for worker in busy])
            for worker in [worker for worker in busy if worker.pipe in ready]:
                event = worker.receive()
                queue.update(event)
                on_event(event)
                if isinstance(event, Ended | Failed):
                    busy.remove(worker)
                    if worker.alive:
                        idle.append(worker)
    finally:
        for worker in (*idle, *busy):
            worker.stop()


class Worker:
    """A process that trains candidates.

    Args:
        parcel: the job and the data, in bytes.
    """

    def __init__(self, parcel: bytes) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.alive, self.name = True, ""
        self._parcel: bytes | None = parcel

    def give(self, name: str) -> None:
        """Send the name of a candidate to train."""
        self.name = name
        try:
            if self._parcel is not None:
                self.pipe.send_bytes(self._parcel)
                self._parcel = None
            self.pipe.send(name)
        except BrokenPipeError:
            # The process has died. The next `receive` reports it.
            return

    def receive(self) -> Event:
        """Wait for the next event of the process."""
        try:
            event: Event = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.alive = False
            return Failed(
                self.name,
                f"got a worker process that ended with exit code {self.process.exitcode}; expected it "
                "to finish; see its message above. Without one, the system probably ended it for lack of "
                "memory: use fewer jobs. A script of your own needs `if __name__ == '__main__':`",
            )
        return event

    def stop(self) -> None:
        """End the process. This is safe at any moment, because files are written atomically."""
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def serve(pipe: Connection) -> None:
    """The loop of a worker process: train candidates by name until the process is ended.

    Args:
        pipe: receives names, sends events.
    """
    # Ctrl-C reaches every process of a terminal. The parent handles it and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        job, data = pickle.loads(pipe.recv_bytes())
        while True:
            run(job, pipe.recv(), data, pipe.send)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The parent process has ended.
        return


def _pickled(job: Job, data: Dataset) -> bytes:
    # Not by the pipe's own pickling: it would put tensors into shared memory, of which containers
    # have little.
    try:
        return pickle.dumps((job, data))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise invalid(
            f"a suite that cannot be sent to another process ({error})",
            "every `build` to be a function at the top level of a module",
            "move it there, or use jobs=1",
        ) from error
