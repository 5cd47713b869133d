"""Processes: their deaths, their errors, their ends.  No model is loaded."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_work import Toy, alive, workers

from certmix.engines.local import LocalEngine
from certmix.engines.places import Place, places
from certmix.errors import ParameterError, RunError

CPU = [Place("cpu", {"OMP_NUM_THREADS": "1"})]
SQUARES = [(i, i * i) for i in range(20)]


def done(toy, items=20, count=2, at=CPU):
    results = []
    LocalEngine(count, at).run(toy, list(range(items)), results.append)
    return results


def test_a_killed_worker_is_replaced_and_all_items_are_done(tmp_path: Path):
    results = done(Toy(str(tmp_path), kill_once=3, partly=4, crowd=2))
    assert sorted(result[:2] for result in results) == SQUARES
    assert len(workers(tmp_path)) >= 2
    assert (tmp_path / "died").exists()
    assert not multiprocessing.active_children()


def test_an_item_that_kills_every_worker_is_named(tmp_path: Path):
    with pytest.raises(RunError, match="3 workers died while they held item 0 .*killed by signal 9"):
        done(Toy(str(tmp_path), kill_always=0), items=1)
    assert not multiprocessing.active_children()


def test_workers_that_die_at_the_start(tmp_path: Path):
    with pytest.raises(RunError, match="died before they were ready.*killed by signal 9"):
        done(Toy(str(tmp_path), start="die"), items=2, count=1)


@pytest.mark.parametrize(
    "toy, kind, text",
    [
        ({"start": "refuse"}, ParameterError, "this work is refused: choose another"),
        ({"raises": (1, "mendable")}, ParameterError, "item: choose another"),
        ({"raises": (1, "defect")}, ValueError, "a defect"),
        ({"raises": (1, "odd")}, RuntimeError, "OddError: 1 and 2"),
    ],
    ids=str,
)
def test_errors_of_the_work_are_raised_here(tmp_path: Path, toy, kind, text):
    with pytest.raises(kind, match=text) as raised:
        done(Toy(str(tmp_path), **toy), items=2, count=1)
    assert any("toy_work.py" in note for note in raised.value.__notes__), "where in the worker"


def test_what_cannot_be_sent_is_refused():
    class Inside(Toy):
        pass

    with pytest.raises(ParameterError, match="cannot be sent to workers .*name them instead") as refused:
        done(Inside("."))
    assert "\n" not in str(refused.value)


def test_an_interrupt_ends_all_workers(tmp_path: Path):
    def stop(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalEngine(2, CPU).run(Toy(str(tmp_path), pause=0.05), list(range(50)), stop)
    assert not multiprocessing.active_children()


def test_workers_take_gpus_in_turn_and_share_them(tmp_path: Path):
    at = places("cuda", 2, {"CUDA_VISIBLE_DEVICES": "5, 3"})
    done(Toy(str(tmp_path), crowd=3), items=24, count=3, at=at)
    shown = sorted(path.read_text() for path in tmp_path.glob("worker-*"))
    assert shown == ["3", "5", "5"]


@pytest.mark.parametrize(
    "device, gpus, environment, devices, visible",
    [
        ("cpu", 0, {}, ["cpu"], [None]),
        ("cuda", 1, {}, ["cuda"], [None]),
        ("cuda:1", 4, {}, ["cuda:1"], [None]),
        ("cuda", 3, {}, ["cuda"] * 3, ["0", "1", "2"]),
        ("cuda", 2, {"CUDA_VISIBLE_DEVICES": "MIG-a,MIG-b"}, ["cuda"] * 2, ["MIG-a", "MIG-b"]),
    ],
)
def test_places(device, gpus, environment, devices, visible):
    found = places(device, gpus, environment)
    assert [place.device for place in found] == devices
    assert [place.environment.get("CUDA_VISIBLE_DEVICES") for place in found] == visible
    assert all(place.environment["OMP_NUM_THREADS"] == "1" for place in found)


DRIVER = """
import sys
sys.path.insert(0, sys.argv[2])
from certmix.engines.local import LocalEngine
from certmix.engines.places import Place
from toy_work import Toy
if __name__ == "__main__":
    LocalEngine(2, [Place("cpu")]).run(Toy(sys.argv[1], pause=30.0), list(range(20)), print)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_driver(tmp_path: Path, how):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    driver = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), str(Path(__file__).parents[1])],
        stderr=subprocess.PIPE, start_new_session=True, text=True,
    )  # fmt: skip
    _wait(lambda: len(workers(tmp_path)) == 2)
    os.killpg(driver.pid, how) if how == signal.SIGINT else os.kill(driver.pid, how)
    try:
        _, told = driver.communicate(timeout=20)
    except subprocess.TimeoutExpired:  # Python drops an interrupt that arrives within a finalizer
        os.killpg(driver.pid, how)
        _, told = driver.communicate(timeout=20)
    _wait(lambda: not any(map(alive, workers(tmp_path))))
    if how == signal.SIGINT:
        assert told.count("Traceback") == 1, "workers are deaf to what a terminal sends to all"
        assert "Process Spawn" not in told


def _wait(condition):
    for _ in range(300):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited in vain")
