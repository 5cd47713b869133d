"""No workers: everything in this process."""

from __future__ import annotations

import math
from typing import Any

from certmix.engines.interface import Take, Work

__all__ = ["SerialEngine"]


class SerialEngine:
    """Does all items here, one task for all; results arrive as they come."""

    remote = False

    def run(self, work: Work, items: list[Any], take: Take) -> None:
        """Do all items; see `certmix.engines.Engine`."""
        handler = work.open(None)
        while items:
            items = handler(items, math.inf, take)

    def describe(self) -> dict[str, Any]:
        """Return plain data for ``run.json``."""
        return {"name": "serial", "workers": 1}
