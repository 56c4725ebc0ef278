"""Candidates one by one, or side by side in processes of one torch thread each.

Processes are spawned, not forked: threads and a GPU do not survive a fork. A worker keeps the data
and takes one candidate after another. Everything that it makes goes through files, so that no number
depends on which worker made it, or whether there is one.
"""

from __future__ import annotations

import pickle
import signal
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait

import torch

from genmod.compare.candidate import Candidate
from genmod.compare.job import Job, one_thread, run
from genmod.compare.progress import Ended, Event, Failed, OnEvent
from genmod.data import Dataset


class Queue:
    """The candidates that are not done; the next one is that with the longest chain behind it.

    A candidate's length is its cost and that of the longest chain that waits for it: a chain begun
    late would be what everything waits for at the end.

    Args:
        candidates: all of them; each comes after earlier ones only.
        done: the names of those that need nothing more.
    """

    def __init__(self, candidates: Sequence[Candidate], done: set[str]) -> None:
        self.lengths = lengths(candidates)
        self.done = set(done)
        self.failed: dict[str, str] = {}
        self.waiting = [candidate for candidate in candidates if candidate.name not in done]

    def next(self) -> Candidate | None:
        """Take the next candidate; ``None`` if none can be started now."""
        ready = [each for each in self.waiting if self.done.issuperset(each.after)]
        if not ready:
            return None
        chosen = max(ready, key=lambda candidate: self.lengths[candidate.name])
        self.waiting.remove(chosen)
        return chosen

    def update(self, event: Event) -> None:
        """Take note of a candidate that ended or failed."""
        match event:
            case Ended(name):
                self.done.add(name)
            case Failed(name, message):
                self.fail(name, message)
            case _:
                pass

    def fail(self, name: str, message: str) -> None:
        """A candidate cannot be done, nor can those that come after it; the others go on."""
        self.failed[name] = message
        behind = [candidate for candidate in self.waiting if name in candidate.after]
        self.waiting = [candidate for candidate in self.waiting if candidate not in behind]
        for candidate in behind:
            self.fail(candidate.name, f"it comes after {name}, which failed")


def lengths(candidates: Sequence[Candidate]) -> Mapping[str, float]:
    """How long each candidate takes together with the longest chain that waits for it."""
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
    """Train the candidates of a queue in processes.

    Args:
        queue: the candidates.
        job: what they share.
        data: the data.
        processes: how many.
        on_event: receives every event, in this process.

    Raises:
        ValueError: a candidate whose ``build`` another process cannot find.
    """
    parcel = _pickled(job, data)
    # All at once, because a process takes seconds to import torch.
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
        parcel: the job and the data, pickled.
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
        """Let it train a candidate."""
        self.name = name
        try:
            if self._parcel is not None:
                self.pipe.send_bytes(self._parcel)
                self._parcel = None
            self.pipe.send(name)
        except BrokenPipeError:
            # It is dead: its end of the pipe is closed, which the next `receive` finds out.
            return

    def receive(self) -> Event:
        """Its next event; waits for it."""
        try:
            event: Event = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.alive = False
            return Failed(
                self.name,
                f"got a worker process that ended with exit code {self.process.exitcode}; expected it "
                "to finish its work; its own message is above (none, if the system ended it for lack of "
                "memory: use fewer jobs; a script of your own needs `if __name__ == '__main__':`)",
            )
        return event

    def stop(self) -> None:
        """End it at any moment: files are written in one move, so that none is left half."""
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def serve(pipe: Connection) -> None:
    """The loop of a worker process: candidates by name, until it is ended.

    Args:
        pipe: names come in, events go out.
    """
    # Ctrl-C reaches every process of a terminal; the parent handles it, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        job, data = pickle.loads(pipe.recv_bytes())
        while True:
            run(job, pipe.recv(), data, pipe.send)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The parent is gone.
        return


def _pickled(job: Job, data: Dataset) -> bytes:
    # Not by the pipe's own pickling: it would put tensors into shared memory, of which containers
    # have little.
    try:
        return pickle.dumps((job, data))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"got a suite that cannot be sent to another process ({error}); expected every `build` to be "
            "a function at the top level of a module; move it there, or use jobs=1"
        ) from error
