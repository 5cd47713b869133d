"""Freed memory is kept: a process that allocates and frees again touches few new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from certmix.memory import keep_freed_memory

CODE = """
import resource
import numpy as np
from certmix.memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory({{}})
def once():
    blocks = [np.ones(1_500_000) for _ in range(4)]
once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(keep=keep)], capture_output=True, text=True, check=True,
        env={"PATH": ""},
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_the_system_is_asked_for_memory_once():
    assert faults(keep=True) * 20 < faults(keep=False)


def test_settings_of_the_user_and_other_c_libraries_are_left_alone(monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        assert keep_freed_memory({name: "1"}) is False
    monkeypatch.setattr("certmix.memory.ctypes.CDLL", lambda name: object())
    assert keep_freed_memory({}) is False
