"""Runs that several tests look at: they are only read, or copied first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from forged import certified, sources
from unplotted import empty_plots

HOW = {
    "fixed": dict(samples=400, goal="fixed"),
    "sequential": dict(samples=2000, goal="radius"),
    "lipschitz": dict(certificates=["lipschitz-constant"], lipschitz_constant=6.0, norm="l2", inputs=6),
    "margin": dict(certificates=["margin"], norm="linf", inputs=6, max_radius=0.5),
}
"""Options of `forged.certified` by the name of a run; the last two draw no samples."""


@pytest.fixture(scope="session")
def named(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def repeat(named):
    """Run, or go on with, the command of one of these runs in a folder."""

    def again(kind: str, folder: Path, **changes: Any) -> Path:
        sigma = None if "certificates" in HOW[kind] else 0.25
        return certified(folder, named, sigma, **{**HOW[kind], **changes})

    return again


@pytest.fixture(scope="session")
def runs(named, repeat, tmp_path_factory) -> dict[str, Path]:
    """Of the sequential run there were two tables before, the first of fewer inputs."""
    folder = tmp_path_factory.mktemp("runs")
    with empty_plots():
        certified(folder / "sequential", named, inputs=4, samples=400)
        certified(folder / "sequential", named, samples=1000, alpha=0.9)
        return {kind: repeat(kind, folder / kind) for kind in HOW}
