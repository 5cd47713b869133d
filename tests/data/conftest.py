"""Tiny data sets on disk, and a check that a refusal is one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from certmix.data import load
from certmix.errors import DataError


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Return a function that loads what cannot be loaded and returns the one-line error."""

    def refused(*arguments: Any, error: type[Exception] = DataError, **options: Any) -> str:
        with pytest.raises(error) as caught:
            load(*arguments, **options)
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        assert ":" in message, "the remedy follows a colon"
        return message

    return refused


@pytest.fixture
def save_npz(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that saves arrays; good inputs and labels unless told otherwise."""

    def save(**arrays: Any) -> Path:
        path = tmp_path / "mine.npz"
        good = {
            "inputs": np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3),
            "labels": np.array([0, 1, 2, 1]),
        }
        np.savez(path, **{k: v for k, v in {**good, **arrays}.items() if v is not None})
        return path

    return save
