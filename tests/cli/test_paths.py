"""A path that is too long, or into a folder of somebody else, is one line that names it and what to do."""

from __future__ import annotations

import json
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


EACH = """
import contextlib, io, json, sys
from certmix_cli.main import main
for words in json.loads(sys.argv[1]):
    sys.argv, told, code = ["certmix", *words], io.StringIO(), None
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, told.getvalue()]))
"""


def as_another(commands: list[list[str]]) -> Iterator[tuple[int, str]]:
    """Run commands as somebody who is not allowed everything; yield their exit codes and what they say."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("the superuser may enter every folder")
    limited = [] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]
    done = subprocess.run(
        [*limited, sys.executable, "-c", EACH, json.dumps(commands)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    yield from map(json.loads, done.stdout.splitlines())


def test_folders_of_somebody_else(place: Path) -> None:
    to_write = [(name, output) for name in WRITERS for output in ("private", "private/x")]
    (place / "private").mkdir(mode=0)
    shutil.copytree("run", "theirs")
    os.chmod("theirs", 0)
    try:
        found = as_another([
            *([*WRITE[name].split(), output] for name, output in to_write),
            *([*READ[name].split(), "theirs"] for name in READERS),
        ])  # fmt: skip
        for (name, output), (code, told) in zip(to_write, found, strict=False):
            assert code == 2 and "Traceback" not in told, name
            assert re.search(f"^Error: .*{output}.*: (choose|name)", told, re.MULTILINE), (name, told)
            assert "Permission denied" in told or "is a folder" in told or "exists" in told, name
        for name, (code, told) in zip(READERS, found, strict=True):
            assert code == 2 and "Traceback" not in told, name
            assert "Permission denied): give this user the right to read it" in told, (name, told)
    finally:
        (place / "private").rmdir()
        os.chmod("theirs", 0o700)
        shutil.rmtree("theirs")


WRITERS = "certify", "attack", "report", "guarantee init", "evidence"
READERS = "show", "audit", "verify", "page", "data"
