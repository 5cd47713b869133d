"""A path that is too long, or into a folder of somebody else, is one line that names it and what to do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certmix_cli.main import cli
from click.testing import CliRunner
from forged import certified, sources

from certmix.errors import CertmixError

SOURCES = (
    "--data points.npz --standard nets.py:linear --robust nets.py:linear --sigma .25 --alpha .76 --inputs 2"
    " --device cpu"
)
WRITE = {
    "certify": f"certify {SOURCES} --samples 200 --output",
    "attack": "attack --data points.npz --standard nets.py:linear --robust nets.py:linear --alpha .76 --device cpu --inputs 2 --eps .1 --output",
    "report": "report run --output",
    "guarantee init": "guarantee init run --output",
    "evidence": "evidence run --run-code --resample 0 --output",
    "reproduce": "reproduce run --run-code --output",
}
READ = {
    "show": "show",
    "recertify": "recertify",
    "audit": "audit",
    "trade-off": "trade-off",
    "page": "report --output page.html",
    "plan": "plan --like",
    "compare": "compare run",
    "merge": "merge",
    "verify": "verify",
    "reproduced": "reproduce",
    "falsify": "falsify",
    "packed": "evidence --output e",
    "init": "guarantee init",
    "guarantee check": "guarantee check",
    "data": "certify --sigma .25 --alpha .76 --standard none --data",
    "feature scale": f"certify {SOURCES} --feature-scale",
    "tuned": f"certify {SOURCES} --tuned",
}
NAMES = {"name": "x" * 256, "path": "y/" * 2400 + "y", "folders": "y/" * 1500 + "y"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run in it."""
    folder = tmp_path_factory.mktemp("paths")
    certified(folder / "run", sources(folder), inputs=2, samples=200)
    return folder


@pytest.fixture
def place(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in that folder."""
    monkeypatch.chdir(made)
    yield made
    subprocess.run(["rm", "-rf", "y"], check=True)  # it may lie too deep for Python


def one_line(command: str, *more: str) -> str:
    """Run a command that is refused in one line; return that."""
    done: Any = CliRunner().invoke(cli, [*command.split(), *more])
    told = done.stderr.strip() if done.exception is None else str(done.exception)
    assert done.exception is None or isinstance(done.exception, CertmixError), (done.exception, done.output)
    assert "itself failed" not in told and "Traceback" not in done.output and "\n" not in told
    return told


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", [*READ, *WRITE])
def test_paths_that_are_too_long(place: Path, command: str, name: str) -> None:
    told = one_line((READ | WRITE)[command], NAMES[name])
    if name != "folders":
        assert "too long" in told
    elif command in READ:
        assert "No such file" in told or "no such path" in told or "holds no run.json" in told
    elif command in ("certify", "attack", "reproduce"):
        assert "too long for a database): choose a shorter --output" in told


def as_another(*command: str) -> tuple[int, str]:
    """Run a command as somebody who is not allowed everything; return its exit code and what it says."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("the superuser may enter every folder")
    limited = [] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]
    done = subprocess.run(
        [*limited, sys.executable, "-m", "certmix_cli", *command], capture_output=True, text=True
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("output", ["private", "private/x"])
@pytest.mark.parametrize("command", ["certify", "attack", "report", "guarantee init", "evidence"])
def test_folders_of_somebody_else_to_write(place: Path, command: str, output: str) -> None:
    (place / "private").mkdir(mode=0)
    try:
        code, told = as_another(*WRITE[command].split(), output)
    finally:
        (place / "private").rmdir()
    assert code == 2 and "Traceback" not in told
    assert re.search(f"^Error: .*{output}.*: (choose|name)", told, re.MULTILINE)
    assert "Permission denied" in told or "is a folder" in told or "exists" in told


@pytest.mark.parametrize("command", ["show", "audit", "verify", "page", "data"])
def test_folders_of_somebody_else_to_read(place: Path, command: str) -> None:
    shutil.copytree("run", "theirs")
    os.chmod("theirs", 0)
    try:
        code, told = as_another(*READ[command].split(), "theirs")
    finally:
        os.chmod("theirs", 0o700)
        shutil.rmtree("theirs")
    assert code == 2 and "Traceback" not in told
    assert "Permission denied): give this user the right to read it" in told
