"""Reading a data set whole, and how much memory that takes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from certmix.data import load, stack
from certmix.types import Dataset


@contextmanager
def little_memory(most: int = 1 << 25) -> Iterator[None]:
    """See that Python and numpy never hold more than 32 MiB."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak:,} bytes"


def whole(path: Path, split: str | None = None, **options) -> Dataset:
    """Load a data set and read every input of it."""
    found = load(path, split, **options)
    inputs = stack(found, range(len(found)))
    assert inputs.dtype == np.float32 and np.isfinite(inputs).all()
    assert found.labels.dtype == np.int64 and found.labels.min() >= 0 and found.labels.max() < found.classes
    assert len(found.indices) == len(inputs) and len(set(found.indices.tolist())) == len(inputs)
    return found
