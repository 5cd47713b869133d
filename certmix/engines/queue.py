"""Items that wait for a worker: tasks of a few seconds, and other tries where workers died."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from certmix.errors import RunError

__all__ = ["SECONDS", "TRIES", "Queue"]

SECONDS = 3.0
"""After which a worker gives back what is left of a task."""
TRIES = 3
"""Workers that may die while they hold an item."""
MOST = (64, 8, 1)
"""Items of a task by deaths so far: enough to fill batches; what may kill workers takes few along."""


class Queue:
    """Items to be handed out: more in a task than are done in `SECONDS`, so that batches stay full.

    Parameters
    ----------
    items
        What is to be done.
    workers
        Among how many: the last items are divided among all of them.
    name
        What to call an item in a message.

    Attributes
    ----------
    open
        Items not done yet, handed out or not.
    """

    def __init__(self, items: Sequence[Any], workers: int, name: Callable[[Any], str]) -> None:
        self._waiting, self._workers, self._name = deque(items), workers, name
        self._deaths: Counter[str] = Counter()
        self.open = len(items)

    @property
    def waiting(self) -> int:
        """Items that no worker holds."""
        return len(self._waiting)

    def next(self) -> list[Any]:
        """Return the items of another task; none if all are handed out."""
        if not self._waiting:
            return []
        deaths = self._deaths[self._name(self._waiting[0])]
        size = min(MOST[deaths], math.ceil(self.waiting / self._workers))
        return [self._waiting.popleft() for _ in range(size)]

    def done(self, task: list[Any], rest: list[Any]) -> None:
        """Take back a task: `rest` wants more, and comes first."""
        self.open -= len(task) - len(rest)
        self._waiting.extendleft(reversed(rest))

    def died(self, task: list[Any], reason: str) -> None:
        """Take back a task whose worker died.

        Raises
        ------
        RunError
            If that happened to an item of it `TRIES` times.
        """
        names = [self._name(item) for item in task]
        self._deaths.update(names)
        worst = [name for name in names if self._deaths[name] >= TRIES]
        if worst:
            shown = ", ".join(worst[:5]) + (", ..." if len(worst) > 5 else "")
            raise RunError(
                f"{TRIES} workers died while they held {shown} (the last: {reason}): use fewer --workers or "
                "a smaller --batch-size if memory is short, or --workers 1 to see why; what is done is kept"
            )
        self._waiting.extendleft(reversed(task))
