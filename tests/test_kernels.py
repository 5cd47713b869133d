"""Compiled code: where it is kept, and what happens where it cannot be."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from certmix import kernels
from certmix.errors import CertmixWarning

SCRIPT = """
from certmix.kernels import kernel

@kernel()
def double(x):
    return 2 * x

@kernel()
def quadruple(x):
    return double(double(x))

print(quadruple(3))
"""


class Harm:
    """Something that makes a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return open, (str(self.witness), "w")


def run(folder: Path, where: Path, **environment: str) -> str:
    (folder / "script.py").write_text(SCRIPT)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "CERTMIX_"))}
    done = subprocess.run(
        [sys.executable, folder / "script.py"],
        cwd=where, env=kept | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "12\n"), done.stderr
    return done.stderr


@pytest.mark.parametrize("settings", ["cache_dir: {}", "- a"])
def test_commands_do_not_read_settings_of_the_current_folder(tmp_path, settings):
    received, cache = tmp_path / "received", tmp_path / "cache"
    received.mkdir()
    if "cache_dir" in settings:
        run(tmp_path, tmp_path, NUMBA_CACHE_DIR=str(cache))
        indices = list(cache.rglob("*.nbi"))
        assert len(indices) == 2
        for index in indices:
            index.write_bytes(pickle.dumps(Harm(received / "harmed")))
    (received / ".numba_config.yaml").write_text(settings.format(cache))
    told = run(tmp_path, received, **{kernels.COMMAND: "1"})
    assert ".numba_config.yaml in this folder is not read: set variables NUMBA_" in told
    assert os.listdir(received) == [".numba_config.yaml"]


@pytest.mark.parametrize("suffix, content", [(".nbi", b""), (".nbc", b"\x80\x04damaged")])
def test_damaged_files_are_compiled_again_and_replaced(tmp_path, suffix, content):
    cache = tmp_path / "cache"
    run(tmp_path, tmp_path, NUMBA_CACHE_DIR=str(cache))
    damaged = sorted(cache.rglob(f"*{suffix}"))
    good = {path: len(path.read_bytes()) for path in damaged}
    for path in damaged:
        path.write_bytes(content)
    assert len(damaged) == 2
    assert run(tmp_path, tmp_path, NUMBA_CACHE_DIR=str(cache)) == ""
    for path, size in good.items():
        assert len(path.read_bytes()) > size / 2


def triple(x: int) -> int:
    return 3 * x


@pytest.mark.parametrize("at", ["save_overload", "locator"])
def test_a_full_disk_or_no_folder_costs_time_only(monkeypatch, at):
    def fails(*_):
        raise (
            OSError(errno.ENOSPC, "No space left on device")
            if at != "locator"
            else RuntimeError("no locator")
        )

    kernels._compile_again.cache_clear()
    monkeypatch.setattr(kernels._caches(), "__init__" if at == "locator" else "_save_overload", fails)
    with pytest.warns(CertmixWarning, match="compiled code cannot be kept .*set NUMBA_CACHE_DIR"):
        assert kernels.jit()(triple)(2) == 6
    assert kernels.jit()(triple)(2) == 6  # said once
