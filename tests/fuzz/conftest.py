"""Where odd files lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.harness import scratch


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory, where the system has such a place."""
    with scratch() as folder:
        yield folder
