"""A command line that runs in this process, and a tiny problem to certify."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: a worker a core

NETS = '''
import time
import torch
from torch import nn


def linear():
    """Three classes in the plane; the first wins where the first input exceeds 0.2."""
    net = nn.Linear(2, 3)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[4.0, 0.0], [-4.0, 1.0], [-4.0, -1.0]]))
        net.bias.copy_(torch.tensor([-0.8, 0.8, 0.8]))
    return net


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = linear()

    def forward(self, x):
        time.sleep(0.02)
        return self.net(x)


def two_classes():
    return nn.Linear(2, 2)


class Wrong(nn.Module):
    def forward(self, x):
        return torch.full((len(x), 3), float("nan"))
'''


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run one file or one test in this process: a worker takes seconds to import torch."""
    named = {argument.partition("::")[0] for argument in config.args}
    alone = len(named) == 1 and Path(*named).is_file()
    return 0 if alone else None


@dataclass(frozen=True)
class Outcome:
    """Exit code and streams of one command."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Outcome]:
    """Return a function that runs `certmix` with arguments, in a folder of its own."""
    from certmix_cli.main import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["certmix", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), captured.out, captured.err)

    return run


@dataclass(frozen=True)
class Problem:
    """A data set of points in the unit square and options that certify it."""

    folder: Path
    options: tuple[str, ...]


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    """Twelve points in [0, 1]^2, labelled by a linear model that is given as a file."""
    (tmp_path / "nets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    inputs = rng.random((12, 2)).astype(np.float32)
    scores = np.stack([4 * inputs[:, 0] - 0.8, 0.8 - 4 * inputs[:, 0] + inputs[:, 1]], 1)
    np.savez(tmp_path / "points.npz", inputs=inputs, labels=scores.argmax(1), class_names=list("abc"))
    options = (
        "--data", str(tmp_path / "points.npz"), "--standard", f"{tmp_path / 'nets.py'}:linear",
        "--robust", f"{tmp_path / 'nets.py'}:linear", "--sigma", "0.25", "--alpha", "0.76",
    )  # fmt: skip
    return Problem(tmp_path, options)
