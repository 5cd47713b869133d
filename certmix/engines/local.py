"""Workers that are processes of this machine; they share nothing, and end when this process does."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from typing import Any

from certmix.engines.interface import Take, Work
from certmix.engines.places import Place
from certmix.engines.queue import Queue
from certmix.engines.supervise import Died, Done, Failed, Ready, supervise
from certmix.engines.worker import serve
from certmix.errors import ParameterError

__all__ = ["LocalEngine", "packed"]

PATIENCE = 3.0
"""Seconds that a worker has to end before it is killed."""


def packed(work: Work) -> bytes:
    """Return a work as it travels to workers.

    Raises
    ------
    ParameterError
        If it holds objects that cannot be sent.
    """
    try:
        return pickle.dumps(work)
    except Exception as error:  # pickling runs code of the objects
        reason = " ".join(str(error).split())[:200]
        raise ParameterError(
            f"data or models given as objects cannot be sent to workers ({reason}): name them instead (a "
            "path, file.py:factory), define their classes at the top of a module, or use 1 worker"
        ) from None


@dataclass(eq=False)
class _Worker:
    """A process, this end of its pipe, and its number among its fellows."""

    process: Any
    pipe: connection.Connection
    slot: int


class _Crew:
    """Processes, started afresh (spawn), each with a place of its own."""

    def __init__(self, payload: bytes, size: int, places: Sequence[Place]) -> None:
        self.size, self._payload, self._places = size, payload, places
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def hire(self) -> _Worker:
        """Start a process in the first slot that is free."""
        slot = min(set(range(self.size)) - {worker.slot for worker in self._workers})
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(theirs, self._payload, self._places[slot % len(self._places)]), daemon=True
        )
        with _blocked_interrupts():
            process.start()
        theirs.close()
        worker = _Worker(process, ours, slot)
        self._workers.append(worker)
        return worker

    def send(self, worker: _Worker, task: list[Any]) -> None:
        """Send a task; a death is noticed by `events`."""
        with suppress(OSError):
            worker.pipe.send(task)

    def events(self) -> list[tuple[_Worker, Ready | Done | Failed | Died]]:
        """Wait for messages and deaths; what a dead process still said comes first."""
        sentinels = [worker.process.sentinel for worker in self._workers]
        heard = set(connection.wait([*(worker.pipe for worker in self._workers), *sentinels]))
        found = []
        for worker in list(self._workers):
            if worker.pipe in heard or worker.process.sentinel in heard:
                found.append((worker, self._hear(worker)))
        return found

    def _hear(self, worker: _Worker) -> Ready | Done | Failed | Died:
        try:
            if worker.pipe.poll():
                message: Ready | Done | Failed = worker.pipe.recv()
                return message
        except (EOFError, OSError):
            pass
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join(PATIENCE)
        code = worker.process.exitcode
        return Died(f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}")

    def dismiss(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()


@contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Let a process start deaf to Ctrl-C, which a terminal sends to all: its driver ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # else its start, within that of the first process, lifts the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class LocalEngine:
    """Workers that are processes of this machine, one torch thread each.

    Parameters
    ----------
    workers
        How many.
    places
        Where they compute, taken in turn: see `certmix.engines.places`.
    """

    remote = True

    def __init__(self, workers: int, places: Sequence[Place]) -> None:
        self.workers, self.places = workers, places

    def run(self, work: Work, items: list[Any], take: Take) -> None:
        """Do all items; see `certmix.engines.Engine`."""
        if items:
            crew = _Crew(packed(work), self.workers, self.places)
            supervise(crew, Queue(items, self.workers, work.name), take)

    def describe(self) -> dict[str, Any]:
        """Return plain data for ``run.json``."""
        return {"name": "local", "workers": self.workers}
