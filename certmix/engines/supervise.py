"""The loop that engines with workers share: who is idle gets a task, who dies is replaced."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from certmix.engines.interface import Take
from certmix.engines.queue import TRIES, Queue
from certmix.errors import RunError

__all__ = ["Crew", "Died", "Done", "Failed", "Ready", "supervise"]


@dataclass(frozen=True)
class Ready:
    """A worker has loaded what it needs."""


@dataclass(frozen=True)
class Done:
    """A task's results, and the items that want more."""

    results: list[Any]
    rest: list[Any]


@dataclass(frozen=True)
class Failed:
    """The work raised an error: it would anywhere."""

    error: BaseException


@dataclass(frozen=True)
class Died:
    """A worker is no more."""

    reason: str


class Crew(Protocol):
    """Workers of one kind."""

    size: int

    def hire(self) -> Any:
        """Start a worker and return what names it; it becomes ready later."""
        ...

    def send(self, worker: Any, task: list[Any]) -> None:
        """Give a task to a worker that is idle; if it is dead, `events` will tell."""
        ...

    def events(self) -> Iterable[tuple[Any, Ready | Done | Failed | Died]]:
        """Wait until something happens, and return what."""
        ...

    def dismiss(self) -> None:
        """End all workers, whatever they do."""
        ...


def supervise(crew: Crew, queue: Queue, take: Take) -> None:
    """Get all items of a queue done by a crew; its workers are gone when this returns or raises.

    Raises
    ------
    RunError
        If workers keep dying.
    """
    try:
        _Shift(crew, queue, take).work()
    finally:
        crew.dismiss()


class _Shift:
    """Who is at work on what."""

    def __init__(self, crew: Crew, queue: Queue, take: Take) -> None:
        self.crew, self.queue, self.take = crew, queue, take
        self.starting: set[Any] = set()
        self.idle: list[Any] = []
        self.busy: dict[Any, list[Any]] = {}
        self.stillborn = 0

    def work(self) -> None:
        """Hand out tasks until no item is open."""
        while self.queue.open:
            self._hire()
            for worker, event in self.crew.events():
                self._note(worker, event)
            self._hand_out()

    def _hire(self) -> None:
        """Have as many workers as there may be and are needed."""
        there = len(self.starting) + len(self.idle) + len(self.busy)
        for _ in range(min(self.crew.size, self.queue.open) - there):
            self.starting.add(self.crew.hire())

    def _hand_out(self) -> None:
        while self.idle and self.queue.waiting:
            worker = self.idle.pop()
            self.busy[worker] = self.queue.next()
            self.crew.send(worker, self.busy[worker])

    def _note(self, worker: Any, event: Ready | Done | Failed | Died) -> None:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Died):
            self._mourn(worker, event.reason)
            return
        self.stillborn = 0
        self.starting.discard(worker)
        self.idle.append(worker)
        if isinstance(event, Done):
            self.queue.done(self.busy.pop(worker), event.rest)
            for result in event.results:
                self.take(result)

    def _mourn(self, worker: Any, reason: str) -> None:
        """Put a dead worker's task back; give up where none comes to life."""
        if worker in self.starting:
            self.starting.remove(worker)
            self.stillborn += 1
            if self.stillborn >= max(TRIES, self.crew.size):
                raise RunError(
                    f"{self.stillborn} workers died before they were ready (the last: {reason}): use fewer "
                    "--workers if memory is short; a script must call certmix under "
                    "if __name__ == '__main__':"
                )
        elif worker in self.busy:
            self.queue.died(self.busy.pop(worker), reason)
        else:
            self.idle.remove(worker)
