"""The runs of benchmarks/faults.py in short: nothing is lost, planted faults are found, damaged files are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_a_planted_fault_is_found_and_an_honest_run_is_not_accused(tmp_path: Path) -> None:
    import planting

    from certmix.verification.request import VerifyRequest

    named = [planting.HONEST, "numbers: split", "counts, published anew: 3 % more votes everywhere"]
    asked = VerifyRequest(device="cpu", resample=2, resample_samples=300, run_code=True)
    found = planting.plant(named, range(1, 2), tmp_path, inputs=8, samples=600, goal="radius", asked=asked)
    assert [(seen.seeds, seen.caught, seen.unchecked) for seen in found.values()] == [
        (1, 0, 0),
        (1, 1, 0),
        (1, 1, 0),
    ]


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="forks")
def test_damaged_files_are_counted_and_a_reader_that_ends_its_process_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import os

    import fuzzing

    [(_, found)] = fuzzing.read_damaged(["log"], 40, 0, 60)
    assert found.cases == 40 and found.read and found.refused and not found.wrong
    assert found.megabytes < 64 and found.seconds < 5
    ends = fuzzing.READERS["log"]._replace(reads=(lambda folder: os._exit(3),))
    raises = fuzzing.READERS["log"]._replace(reads=(lambda folder: 1 / 0,))
    monkeypatch.setitem(fuzzing.READERS, "ends", ends)
    monkeypatch.setitem(fuzzing.READERS, "raises", raises)
    told = dict(fuzzing.read_damaged(["ends", "raises"], 8, 0, 60))
    assert told["ends"].wrong == ["the process ended: 3"]
    assert len(told["raises"].wrong) == 8 and "ZeroDivisionError" in told["raises"].wrong[0]


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and mounts a small disk where it may")
def test_killed_commands_lose_nothing_and_end_as_if_undisturbed() -> None:
    words = [sys.executable, str(BENCHMARKS / "faults.py"), "kills", "--kills", "18"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("| SIGKILL |") == 9
