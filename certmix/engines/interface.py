"""What engines and studies ask of each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Engine", "Handler", "Take", "Work"]

Take = Callable[[Any], None]
"""Takes one result of a worker."""

Handler = Callable[[list[Any], float, Take], list[Any]]
"""Works on items for about so many seconds, hands over results, and returns the items that want more.

What is done twice, because a worker died, must give the same results twice.
"""


class Work(Protocol):
    """What a worker does; picklable, for engines with workers of their own."""

    def open(self, device: str | None) -> Handler:
        """Load what is needed on a device (None: the one asked for) and return what handles items."""
        ...

    def name(self, item: Any) -> str:
        """Return what to call an item in a message."""
        ...


class Engine(Protocol):
    """Gets items done."""

    @property
    def remote(self) -> bool:
        """Whether workers are processes of their own."""
        ...

    def run(self, work: Work, items: list[Any], take: Take) -> None:
        """Do all items and hand every result to `take`, in this process, in any order.

        Raises
        ------
        CertmixError
            As the work itself does, or if workers keep dying.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return plain data for ``run.json``."""
        ...
