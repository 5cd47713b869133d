"""Plots of certified accuracy take longest, and are looked at elsewhere."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def unplotted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave plots empty."""
    monkeypatch.setattr("certmix.tables.curves.curve_plot", lambda *a, **k: b"")
