"""A tiny network, its weights as files, and how much the process grows."""

from __future__ import annotations

import io
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn


@contextmanager
def little_memory(most: int = 1 << 28) -> Iterator[None]:
    """See that the process does not outgrow what it was by 256 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < most, f"{grown:,} KiB"


def linear() -> nn.Linear:
    return nn.Linear(2, 3)


STATE = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}


@cache
def torch_file(legacy: bool = False, nested: bool = False) -> bytes:
    buffer = io.BytesIO()
    state = {"state_dict": STATE, "epoch": 3} if nested else STATE
    torch.save(state, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
