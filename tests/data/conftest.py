"""Tiny data sets on disk, and a check that a refusal is one clear line."""

from __future__ import annotations

import numpy as np
import pytest

from certmix.data import load
from certmix.errors import DataError


@pytest.fixture(scope="session")
def refusal():
    """Return a function that loads what cannot be loaded and returns the one-line error."""

    def refused(*arguments, error=DataError, **options):
        with pytest.raises(error) as caught:
            load(*arguments, **options)
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        assert ":" in message, "the remedy follows a colon"
        return message

    return refused


@pytest.fixture
def save_npz(tmp_path):
    """Return a function that saves arrays; good inputs and labels unless told otherwise."""

    def save(**arrays):
        good = {
            "inputs": np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3),
            "labels": np.array([0, 1, 2, 1]),
        }
        np.savez(tmp_path / "mine.npz", **{k: v for k, v in {**good, **arrays}.items() if v is not None})
        return tmp_path / "mine.npz"

    return save
