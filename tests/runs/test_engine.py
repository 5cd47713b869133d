"""Engines: every item is done, whoever dies; errors, ends and choices.  No model is loaded."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_work import Toy, alive, workers

from certmix.errors import ModelError, ParameterError, RunError
from certmix.runs import engine
from certmix.runs.engine import TRIES, Engine, EngineChoice, Work

CPU = torch.device("cpu")
SQUARES = [(i, i * i) for i in range(20)]


def done(toy, items=20, count=2, device=CPU):
    results = []
    Engine(EngineChoice(workers=count), device).run(toy.work(), list(range(items)), results.append)
    return results


def test_a_killed_worker_is_replaced_and_all_items_are_done(tmp_path: Path):
    results = done(Toy(str(tmp_path), kill_once=3, partly=4, crowd=2))
    assert sorted(result[:2] for result in results) == SQUARES
    assert len(workers(tmp_path)) >= 2
    assert os.getpid() not in workers(tmp_path)
    assert (tmp_path / "died").exists()
    assert not multiprocessing.active_children()


def test_an_item_that_kills_every_worker_is_named(tmp_path: Path):
    with pytest.raises(
        RunError, match="^workers died 3 times while they held item 4: .*repeat to go on$"
    ) as told:
        done(Toy(str(tmp_path), kill_always=4), items=5)  # the last: others are done before its third try
    assert "__main__" not in str(told.value), "others were done"
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    "toy, kind, text",
    [
        ({"start": "die"}, RunError, "3 times while they held item 0: .*__name__ == '__main__'"),
        ({"start": "refuse"}, ParameterError, "this work is refused: choose another"),
        ({"raises": (0, "mendable")}, ParameterError, "item: choose another"),
        ({"raises": (0, "defect")}, ModelError, r"ValueError: a defect in code of a model \(toy_work.py"),
        ({"raises": (0, "odd")}, ModelError, "OddError: 1 and 2"),
    ],
    ids=str,
)
def test_errors_of_the_work_are_raised_here(tmp_path: Path, toy, kind, text):
    with pytest.raises(kind, match=text) as raised:
        done(Toy(str(tmp_path), **toy), items=1)
    assert "toy_work.py" in str(raised.value.__cause__) or kind is RunError, "where in the worker"


def test_what_cannot_be_sent_is_refused():
    class Inside(Toy):
        pass

    with pytest.raises(ParameterError, match="cannot be sent to workers .*name them instead") as refused:
        done(Inside("."))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("spread", [False, True])
def test_an_interrupt_ends_all_workers(tmp_path: Path, spread):
    def stop(result):
        raise KeyboardInterrupt

    work = Toy(str(tmp_path), pause=0.05).work()
    with pytest.raises(KeyboardInterrupt):
        Engine(EngineChoice(workers=1 + spread), CPU).run(work, list(range(50)), stop)
    assert not multiprocessing.active_children()


def test_a_short_run_starts_no_worker_and_a_long_one_does(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    chosen, toy, results = Engine(EngineChoice(workers=None), CPU), Toy(str(tmp_path)), []
    assert chosen.described == {"name": "local", "workers": 2}
    chosen.run(toy.work(), list(range(20)), results.append)
    assert {result[2] for result in results} == {os.getpid()}

    def slow(items, seconds, take):
        time.sleep(0.2)
        take((items[0], items[0] ** 2, os.getpid()))
        return items[1:]

    monkeypatch.setattr(engine, "ALONE", 0.1)
    monkeypatch.setattr(engine, "PAYS", 0.1)
    results.clear()
    work = Work(lambda: slow, lambda: toy, str)
    Engine(EngineChoice(workers=None), CPU).run(work, list(range(5000)), results.append)
    assert sorted(result[:2] for result in results) == [(i, i * i) for i in range(5000)]
    assert len({result[2] for result in results} - {os.getpid()}) >= 1
    assert results[0][2] == os.getpid()
    assert Engine(EngineChoice(workers=None), torch.device("cuda")).described["workers"] == 1


@pytest.mark.parametrize(
    "script, count",
    [("import certmix", 1), ("if __name__ == '__main__':\n    import certmix", 2), (None, 2)],
    ids=["no guard", "guard", "no file"],
)
def test_a_script_that_workers_would_run_again_works_alone_unless_asked(tmp_path, monkeypatch, script, count):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    main = ModuleType("__main__")
    main.__file__ = str(tmp_path / "script.py")
    if script is not None:
        Path(main.__file__).write_text(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert Engine(EngineChoice(workers=None), CPU).described["workers"] == count
    assert Engine(EngineChoice(workers=3), CPU).described["workers"] == 3


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_any_executor(tmp_path: Path, kind):
    results = []
    context = {} if kind is ThreadPoolExecutor else {"mp_context": multiprocessing.get_context("spawn")}
    with kind(2, **context) as executor:
        given = Engine(EngineChoice(), CPU, executor)
        assert given.described == {"name": kind.__name__, "workers": 2}
        given.run(Toy(str(tmp_path)).work(), list(range(20)), results.append)
        assert executor.submit(int, "7").result() == 7, "it is not shut down"
    assert sorted(result[:2] for result in results) == SQUARES


def test_an_executor_that_is_broken_and_one_beside_ray(tmp_path: Path):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        work = Toy(str(tmp_path), kill_once=3).work()
        with pytest.raises(RunError, match="the executor cannot take tasks .*repeat to go on"):
            Engine(EngineChoice(), CPU, executor).run(work, list(range(20)), print)
        with pytest.raises(ParameterError, match="an executor is an engine of its own"):
            Engine(EngineChoice("ray"), CPU, executor)


class Imagined(Executor):
    """Workers that die by lot, and answer in any order, or leave items over."""

    def __init__(self, workers, chance, seed, poison=None):
        self._max_workers, self.chance, self.poison = workers, chance, poison
        self.random, self.most, self.under_way = random.Random(seed), 0, 0

    def submit(self, function, payload, device, task):
        answer = Future()
        if self.poison in task or self.random.random() < self.chance:
            answer.set_exception(BrokenExecutor("lot"))
        else:
            left = self.random.randint(0, len(task) - 1)
            answer.set_result((task[: len(task) - left], task[len(task) - left :]))
        return answer


def imagined(executor, items):
    results = []
    work = Work(lambda: None, int, lambda item: f"item {item}")
    Engine(EngineChoice(), CPU, executor).run(work, list(range(items)), results.append)
    return results


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 5), st.integers(0, 10**6))
def test_every_item_is_done_once(items, workers, seed):
    assert sorted(imagined(Imagined(workers, 0.02, seed), items)) == list(range(items))


def test_what_kills_every_worker_is_named_and_takes_no_other_along():
    with pytest.raises(RunError, match=rf"died {TRIES} times while they held item 7: "):
        imagined(Imagined(3, 0.0, 1, poison=7), 40)


@pytest.mark.parametrize(
    "choice, text",
    [
        ({"workers": 0}, "workers = 0: give a whole number of at least 1"),
        ({"engine": "magic"}, "engine 'magic' is unknown: use one of local, ray"),
        ({"gpus_per_worker": 1}, "--gpus-per-worker is for --engine ray"),
        ({"ray_address": "x"}, "--ray-address is for --engine ray"),
        ({"engine": "ray", "gpus_per_worker": -1}, "gpus per worker = -1"),
    ],
    ids=str,
)
def test_choices_out_of_range(choice, text):
    with pytest.raises(ParameterError, match=text):
        EngineChoice(**choice)


@pytest.mark.parametrize(
    "device, visible, expected",
    [("cuda", "5, 3", ["5", "3"]), ("cuda", "MIG-a,MIG-b, MIG-c", ["MIG-a", "MIG-b", "MIG-c"]),
     ("cuda", "", ["0", "1"]), ("cuda:1", "", []), ("cpu", "7", [])],
)  # fmt: skip
def test_gpus_are_those_that_are_shown(monkeypatch, device, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1 if "MIG" in visible else 2)  # as torch does
    assert engine._gpus(torch.device(device)) == expected


LISTED = """GPU 0: NVIDIA H200 (UUID: GPU-5c89)
  MIG 3g.71gb     Device  0: (UUID: MIG-aa11)
  MIG 3g.71gb     Device  1: (UUID: MIG-bb22)
GPU 1: NVIDIA H200 (UUID: GPU-77ab)
"""


@pytest.mark.skipif(os.name == "nt", reason="a script stands for nvidia-smi")
@pytest.mark.parametrize(
    "listed, expected",
    [(LISTED, ["MIG-aa11", "MIG-bb22", "GPU-77ab"]), (LISTED[:35] + LISTED[-36:], ["0", "1"])],
)
def test_each_slice_of_a_divided_gpu_gets_a_worker(tmp_path, monkeypatch, listed, expected):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{listed}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert engine._gpus(torch.device("cuda")) == expected


EARLY = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, sys.argv[2])
if __name__ == "__mp_main__":  # what a script does at its top comes before anything that a worker is told
    seen = [os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")]
    Path(sys.argv[1], f"seen-{os.getpid()}").write_text(repr(seen))
from certmix.runs import engine
from toy_work import Toy
if __name__ == "__main__":
    engine._gpus = lambda device: ["5", "MIG-3"]
    work = Toy(sys.argv[1], crowd=2).work()
    engine.Engine(engine.EngineChoice(workers=2), SimpleNamespace(type="cuda")).run(work, [1, 2, 3, 4], print)
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["OMP_NUM_THREADS"], file=sys.stderr)
"""


def test_a_worker_s_first_import_sees_its_gpu_and_one_thread(tmp_path: Path):
    script, own = tmp_path / "early.py", {"OMP_NUM_THREADS": "3"}
    script.write_text(EARLY)
    given = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"} | own
    ran = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(Path(__file__).parents[1])],
        env=given, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.stderr == "None 3\n"
    seen = sorted(path.read_text() for path in tmp_path.glob("seen-*"))
    assert seen == ["['5', '1']", "['MIG-3', '1']"]


def test_workers_take_gpus_in_turn_and_share_them(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(engine, "_gpus", lambda device: ["5", "3"])
    done(Toy(str(tmp_path), crowd=3), items=24, count=3, device=torch.device("cuda"))
    shown = sorted(path.read_text() for path in tmp_path.glob("worker-*"))
    assert set(shown) == {"3", "5"}
    assert len(shown) == 3
    assert {path.read_text() for path in tmp_path.glob("device-*")} == {"cuda"}


DRIVER = """
import signal, sys
from types import SimpleNamespace
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
sys.path.insert(0, sys.argv[2])
from certmix.runs.engine import Engine, EngineChoice
from toy_work import Toy
if __name__ == "__main__":
    toy, cpu = Toy(sys.argv[1], pause=30.0), SimpleNamespace(type="cpu")  # no torch: processes begin at once
    Engine(EngineChoice(workers=2), cpu).run(toy.work(), list(range(20)), print)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_driver(tmp_path: Path, how):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    driver = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), str(Path(__file__).parents[1])],
        stderr=subprocess.PIPE, start_new_session=True, text=True,
    )  # fmt: skip
    _wait(lambda: len(workers(tmp_path)) == 2)
    told = None
    for _ in range(4):  # Python drops an interrupt that arrives within a finalizer
        os.killpg(driver.pid, how) if how == signal.SIGINT else os.kill(driver.pid, how)
        with suppress(subprocess.TimeoutExpired):
            _, told = driver.communicate(timeout=20)
            break
    assert told is not None
    _wait(lambda: not any(map(alive, workers(tmp_path))))
    if how == signal.SIGINT:
        assert "leaked" not in told
        assert told.count("Traceback") == 1, "workers are deaf to what a terminal sends to all"
        assert "Process Spawn" not in told


def _wait(condition):
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited in vain")
