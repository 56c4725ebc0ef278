"""Members one by one, or side by side in processes of one torch thread each.

Processes are spawned, not forked: threads and a GPU do not survive a fork. A worker keeps the data
and takes one member after another; all that it makes goes through files, so that nothing depends on
which worker made it, or whether there is one.
"""

from __future__ import annotations

import pickle
import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TypeAlias

import torch

from genmod.compare.events import Ended, Event, Failed, Tell
from genmod.compare.packing import Packed
from genmod.compare.queue import Queue
from genmod.compare.work import Work, do, one_thread
from genmod.data import Dataset

Parcel: TypeAlias = tuple[Work, Packed]


def one_by_one(queue: Queue, work: Work, data: Dataset, tell: Tell) -> None:
    """Train the members of a queue in this process."""

    def told(event: Event) -> None:
        _count(queue, event)
        tell(event)

    with one_thread():
        while member := queue.next():
            do(work, member.name, data, told)


def side_by_side(queue: Queue, work: Work, data: Packed, jobs: int, tell: Tell) -> None:
    """Train the members of a queue in processes.

    Args:
        queue: the members.
        work: what they share.
        data: the data.
        jobs: how many processes.
        tell: is told of every event, in this process.

    Raises:
        ValueError: a member whose ``build`` another process cannot find.
    """
    parcel = _parcel((work, data))
    # All at once, because a process takes seconds to import torch.
    idle = [Worker(parcel) for _ in range(min(jobs, len(queue.waiting)))]
    busy: list[Worker] = []
    try:
        while True:
            while len(busy) < jobs and (member := queue.next()):
                worker = idle.pop() if idle else Worker(parcel)
                worker.give(member.name)
                busy.append(worker)
            if not busy:
                return
            speaking = wait([worker.pipe for worker in busy])
            for worker in [worker for worker in busy if worker.pipe in speaking]:
                event = worker.hear()
                _count(queue, event)
                tell(event)
                if isinstance(event, Ended | Failed):
                    busy.remove(worker)
                    if worker.alive:
                        idle.append(worker)
    finally:
        for worker in (*idle, *busy):
            worker.stop()


class Worker:
    """A process that trains members.

    Args:
        parcel: what it needs to know, pickled.
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
        """Let it train a member."""
        self.name = name
        try:
            if self._parcel is not None:
                self.pipe.send_bytes(self._parcel)
                self._parcel = None
            self.pipe.send(name)
        except BrokenPipeError:
            # It is dead: its end of the pipe is closed, which the next hearing finds out.
            return

    def hear(self) -> Event:
        """What it says; waits until it says something."""
        try:
            event: Event = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.alive = False
            return Failed(
                self.name,
                f"got a worker process that ended with exit code {self.process.exitcode}; expected it "
                "to end its work; what it said is above (nothing, if it was killed for want of "
                "memory: use fewer jobs; a script of your own needs `if __name__ == '__main__':`)",
            )
        return event

    def stop(self) -> None:
        """End it, whatever it does: files are written in one move, so that none is left half."""
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def serve(pipe: Connection) -> None:
    """What a worker process does: members by name, until it is ended.

    Args:
        pipe: what the parent says and hears.
    """
    # Ctrl-C reaches every process of a terminal; the parent answers it, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        work, packed = pickle.loads(pipe.recv_bytes())
        data = packed.unpack()
        while True:
            do(work, pipe.recv(), data, pipe.send)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The parent is gone: nobody waits for this any more.
        return


def _parcel(parcel: Parcel) -> bytes:
    # Not by the pipe's own pickling: it would put tensors into shared memory, of which containers
    # have little.
    try:
        return pickle.dumps(parcel)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"got a family that cannot go to another process ({error}); expected every `build` to be "
            "a function at the top level of a module; move it there, or use jobs=1"
        ) from error


def _count(queue: Queue, event: Event) -> None:
    match event:
        case Ended(name):
            queue.end(name)
        case Failed(name, message):
            queue.fail(name, message)
        case _:
            pass
