"""Is a value of a run's description a whole number?"""

from __future__ import annotations

from typing import Any

__all__ = ["is_whole"]


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)
