"""What models do to the process that runs them: the command ends, with its exit code, where it began."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from certmix import guard, signals, streams
from certmix.errors import Interrupted
from certmix.runs.engine import starting

NETS = """
import atexit, os, signal, sys, threading, time
import torch
from torch import nn


class Net(nn.Linear):
    def __init__(self, odd):
        super().__init__(2, 3)
        self.odd = odd
        with torch.no_grad():
            self.weight.copy_(torch.tensor([[4.0, 0.0], [-4.0, 1.0], [-4.0, -1.0]]))
            self.bias.copy_(torch.tensor([-0.8, 0.8, 0.8]))

    def forward(self, x):
        self.odd()
        return super().forward(x)


def starts_a_thread():
    if threading.active_count() < 9:
        threading.Thread(target=time.sleep, args=(1000,)).start()


def sleeps_at_the_end():
    atexit.register(time.sleep, 1000)


def closes_and_leaves():
    sys.stdout.close()
    sys.stderr.close()
    sys.exit(0)


def thread(): return Net(starts_a_thread)
def end(): return Net(sleeps_at_the_end)
def closes(): return Net(lambda: (sys.stdout.close(), sys.stderr.close()))
def reads_beside():
    open("table.txt").close()
    os.chdir("deeper")
    open("another.txt").close()
    os.chdir("..")


def reads():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "beside"))
    return Net(reads_beside)


def wraps():
    import io
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
    sys.stderr = io.TextIOWrapper(sys.stderr.detach(), encoding="utf-8")
    return closes()


def leaves():
    sys.stderr = open(os.devnull, "w")
    return Net(closes_and_leaves)


def moves(): return Net(lambda: os.chdir("/"))
def plain(): return Net(lambda: None)
def moves_when_made():
    os.chdir("/")
    return Net(lambda: None)
"""
PROGRAM = "import certmix_cli.main as m; m.PATIENCE = 0.5; m.program()"


ENDS = "thread", pytest.param("end", marks=pytest.mark.long)


@pytest.fixture
def given(problem):
    """Return the arguments that certify two inputs with a model of `NETS`."""
    (problem.folder / "odd.py").write_text(NETS)

    def words(name: str) -> list[str]:
        models = ["--robust", f"odd.py:{name}", "--standard", "none"]
        return ["certify", *problem.options, *models, "--inputs", "2", "--samples", "200", "--output", "run"]

    return words


@pytest.mark.parametrize("name", [*ENDS, "wraps", "leaves"])
def test_the_process_ends_with_its_own_exit_code(problem, given, name):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *given(name), "--format", "json"],
        cwd=problem.folder, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    if name == "leaves":
        assert (done.returncode, done.stdout) == (2, "")
        assert "a model must not end the program" in done.stderr.splitlines()[-1]
        return
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["inputs"] == 2
    told = "the process still runs 0.5 s after the command ended, in code of others"
    assert (told in done.stderr) == (name in ("thread", "end"))
    assert done.stderr.splitlines()[-1].startswith("Run folder: ") or told in done.stderr


@pytest.mark.parametrize("name", ["moves", "moves_when_made", "reads"])
def test_results_lie_where_the_command_began(command, problem, given, name):
    (problem.folder / "beside" / "deeper").mkdir(parents=True)
    (problem.folder / "beside" / "table.txt").touch()
    (problem.folder / "beside" / "deeper" / "another.txt").touch()
    done = command(*given(name))
    assert done.code == 0, done.err
    assert os.getcwd() == str(problem.folder)
    assert (problem.folder / "run" / "run.json").is_file()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("then", ["goes on", "fails"])
def test_a_signal_that_a_model_swallows_ends_the_command_after_it(then):
    def forward():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            done.append("swallowed")
        if then == "fails":
            raise ValueError("no")

    def command():
        with guard.foreign("a model"):
            forward()
        done.append("went on")

    done: list[str] = []
    with signals.caught(), pytest.raises(Interrupted):
        command()
    assert done == ["swallowed"] and signals.exit_code() == 143


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_after_a_signal_many_open_files_are_no_hindrance():
    heard, told = os.pipe()
    far = os.dup2(told, 1500)
    try:
        stream = streams.lossy(far, None, stands_for=99)
        streams.hurry()
        stream.write("a line")
        stream.flush()
        assert os.read(heard, 100) == b"a line" and 99 not in streams._FAULTS
    finally:
        streams._HURRIED.clear()
        for one in (heard, told, far):
            os.close(one)


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_after_a_signal_nobody_waits_for_a_reader_that_does_not_read(monkeypatch):
    monkeypatch.setattr(streams, "_PATIENCE", 0.1)
    heard, told = os.pipe()
    try:
        stream = streams.lossy(told, None, stands_for=99)
        streams.hurry()
        stream.write("a line\n" * (1 << 16))
        stream.flush()
        assert 99 in streams._FAULTS
    finally:
        streams._FAULTS.pop(99, None)
        streams._HURRIED.clear()
        os.close(heard)
        os.close(told)


def test_processes_start_deaf_to_terminals_and_blind_to_the_current_folder():
    before = dict(os.environ)
    with starting():
        assert os.environ["PYTHONSAFEPATH"]
        if os.name != "nt":
            assert {signal.SIGINT, signal.SIGHUP} <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert os.environ == before
    if os.name != "nt":
        assert not {signal.SIGINT, signal.SIGHUP} & signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("how", ["workers", "isolated"])
def test_no_module_of_the_current_folder_is_imported_by_workers(command, problem, given, how):
    assert command(*given("plain")[:-1], problem.folder / "run").code == 0
    for name in ("multiprocessing", "numpy", "pickle"):
        (problem.folder / f"{name}.py").write_text(f"open({str(problem.folder / name)!r}, 'w').close()")
    more = given("plain")[:-1] + ["two", "--workers", "2"]
    done = command(*(more if how == "workers" else ["verify", "run", "--resample", "0", "--isolated"]))
    assert "Traceback" not in done.err
    assert not [name for name in ("multiprocessing", "numpy", "pickle") if Path(name).exists()]


@pytest.mark.parametrize(
    "settings",
    [
        "pipe",
        "folder",
        *(pytest.param(one, marks=pytest.mark.long) for one in (b"\xff\xfe", b"\0" * (1 << 21))),
    ],
)
def test_settings_of_plots_in_the_current_folder_are_read_without_waiting(command, problem, given, settings):
    assert command(*given("plain")).code == 0
    path = problem.folder / "run" / "matplotlibrc"
    if settings == "pipe":
        os.mkfifo(path)
    elif settings == "folder":
        path.mkdir()
    else:
        path.write_bytes(settings)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "report", ".", "--output", "../page.html"],
        cwd=path.parent, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    if settings == "folder":  # matplotlib passes over it
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: matplotlib cannot read its settings")
