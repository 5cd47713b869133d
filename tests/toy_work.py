"""Work without models: items are squared, and some of them misbehave."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certmix.errors import ParameterError
from certmix.runs.engine import Work

LOCKS: list[Any] = []
"""A semaphore of a worker's own, such as tqdm makes where it is imported."""


class OddError(Exception):
    """An error that cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@dataclass(frozen=True)
class Toy:
    """Squares integers; ``folder`` is where it leaves traces.

    ``kill_once`` kills its worker where no worker has died of it before,
    ``kill_always`` at every try; ``raises`` raises; ``partly`` does at most so
    many items of a task; ``start`` is done when a worker opens the work; nobody
    begins before ``crowd`` workers are there.
    """

    folder: str
    kill_once: int | None = None
    kill_always: int | None = None
    raises: tuple[int, str] | None = None
    partly: int | None = None
    start: str = ""
    pause: float = 0.0
    crowd: int = 1

    def work(self) -> Work:
        """What an engine is given."""
        return Work(lambda: self("here"), lambda: self, lambda item: f"item {item}")

    def __call__(self, device: str) -> Any:
        if self.start == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.start == "refuse":
            raise ParameterError("this work is refused: choose another")
        LOCKS.append(multiprocessing.RLock())
        Path(self.folder, f"device-{os.getpid()}").write_text(device)
        Path(self.folder, f"worker-{os.getpid()}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        return self._handle

    def _handle(self, items: list[int], seconds: float, take: Any) -> list[int]:
        while len(workers(Path(self.folder))) < self.crowd:
            time.sleep(0.01)
        for done, item in enumerate(items):
            if self.partly is not None and done >= self.partly:
                return items[done:]
            self._misbehave(item)
            time.sleep(self.pause)
            take((item, item * item, os.getpid()))
        return []

    def _misbehave(self, item: int) -> None:
        flag = Path(self.folder, "died")
        if item == self.kill_always or (item == self.kill_once and not flag.exists()):
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.raises is not None and item == self.raises[0]:
            raise {"mendable": ParameterError("item: choose another"), "odd": OddError(1, 2)}.get(
                self.raises[1], ValueError("a defect")
            )


def workers(folder: Path) -> list[int]:
    """Return the process ids of all workers that opened a work."""
    return [int(path.name.removeprefix("worker-")) for path in folder.glob("worker-*")]


def alive(pid: int) -> bool:
    """Return whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
