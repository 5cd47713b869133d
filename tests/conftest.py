"""A worker a core, plots left empty, a command line that runs in this process, and a tiny problem to certify."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("short", settings(), max_examples=40)  # the long suite names another: .ci/run
settings.load_profile("short")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: a worker a core
os.environ.setdefault("CERTMIX_SELFTEST_CASES", "20")  # certmix selftest takes more of each property
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # workers and commands compile nothing again
sys.dont_write_bytecode = False


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run one file or one test in this process: a worker takes seconds to import torch."""
    named = {argument.partition("::")[0] for argument in config.args}
    alone = len(named) == 1 and Path(*named).is_file()
    return 0 if alone else None


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over what stays: it would look through all of torch again and again."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True, scope="module")
def unplotted() -> Iterator[None]:
    """Leave plots empty; tests/tables draws every one."""
    from unplotted import empty_plots

    with empty_plots():
        yield


@pytest.fixture(autouse=True, scope="session")
def no_native_bf16() -> Iterator[None]:
    """Have --precision auto be fp32 on every machine: what tests expect of counts was drawn in it."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        for test in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            patch.setattr(torch.cpu, test, lambda: False, raising=False)
        yield


@pytest.fixture
def soon() -> Iterator[None]:
    """Fail a test that waits: nothing ever comes out of a pipe."""

    def stop(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


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
    from forged import sources

    named = sources(tmp_path)
    models = [word for name, value in named.items() for word in (f"--{name}", value)]
    return Problem(tmp_path, (*models, "--sigma", "0.25", "--alpha", "0.76"))
