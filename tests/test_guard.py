"""What models print, how long they take, and whose an exception is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from certmix import guard
from certmix.attacks.search import pull_back
from certmix.errors import ModelError, RunError
from certmix.runs.isolated import isolated

NOISY = """
import ctypes, os, sys
import torch
from torch import nn


class Net(nn.Linear):
    def forward(self, x):
        print("of Python")
        sys.__stdout__.write("past Python's stream\\n")
        os.write(1, b"of the descriptor\\n")
        ctypes.CDLL(None).puts(b"of C")
        os.system("echo of a child")
        return super().forward(x)


def net():
    print("when made")
    torch.manual_seed(0)
    return Net(2, 3)
"""
HANGING = """
import os, time
import torch
from torch import nn


class Net(nn.Linear):
    def forward(self, x):
        if os.path.exists("hang"):
            time.sleep(1000)
        return super().forward(x)


def net():
    torch.manual_seed(0)
    return Net(2, 3)
"""


def certmix(*words, **more):
    code = "import sys; from certmix_cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=200, **more
    )


def certify(problem, *more):
    few = ("--inputs", 1, "--samples", 200, "--output", "run")
    model = ("--robust", "net.py:net", "--standard", "none")
    return "certify", *problem.options, *model, *few, *more


@pytest.mark.parametrize("how", [(), pytest.param(("--workers", 2), marks=pytest.mark.long)])
def test_what_models_print_goes_to_stderr(problem, how):
    (problem.folder / "net.py").write_text(NOISY)
    done = certmix(*certify(problem, *how, "--format", "json"), cwd=problem.folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["inputs"] == 1
    for told in ("when made", "of Python", "past Python's stream", "of the descriptor", "of C", "of a child"):
        assert f"\n{told}\n" in f"\n{done.stderr}"


@pytest.mark.parametrize("how", [(), pytest.param(("--isolated",), marks=pytest.mark.long)])
def test_a_model_that_hangs_is_named_and_ends_the_command(problem, command, how):
    (problem.folder / "net.py").write_text(HANGING)
    assert command(*certify(problem)).code == 0
    (problem.folder / "hang").touch()
    words = (
        "verify",
        "run",
        "--run-code",
        "--model-timeout",
        1,
        "--report",
        "json=report.json",
        "--format",
        "json",
        *how,
    )
    if how:
        done = command(*words)
        code, out, err = done.code, done.out, done.err
    else:  # nothing but the end of the process ends the call
        process = certmix(*words, cwd=problem.folder)
        code, out, err = process.returncode, process.stdout, process.stderr
    assert code == 2
    line = HANGING[: HANGING.index("sleep(1000)")].count("\n") + 1
    told = f"net:net did not answer within 1 s (it is at net.py line {line})"
    assert [one for one in err.splitlines() if one.startswith(f"Error: {told}")]
    for text in (out, Path("report.json").read_text()):
        found = json.loads(text)
        assert found["outcome"] == "unchecked"
        assert told in found["checks"][0]["message"]


def test_a_worker_tells_of_a_model_that_hangs():
    def work():
        with guard.foreign("nets:slow"):
            stop.wait(60)

    stop = threading.Event()
    with pytest.raises(
        ModelError, match=r"^nets:slow did not answer within 0.1 s \(it is at .*repeat to go on$"
    ):
        guard.within(0.1, work)
    stop.set()
    assert guard.limit() is None
    assert guard.within(60, lambda: 3) == 3
    with pytest.raises(RunError, match="told"):
        guard.within(60, lambda: (_ for _ in ()).throw(RunError("told")))


def test_only_the_innermost_code_is_timed_and_compilation_is_not():
    with guard.foreign("outer"):
        time.sleep(0.02)
        with guard.foreign("inner"):
            assert guard.overdue(0.01) == ""
            time.sleep(0.02)
            assert guard.overdue(0.01).startswith("inner did not answer")
            with guard.unwatched():
                assert guard.overdue(0.01) == ""
        assert guard.overdue(0.01) == ""
        assert guard.running() == "outer"
    assert guard.running() == ""


def test_a_model_s_own_backward_pass_is_timed():
    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, slope):
            seen.append(guard.running())
            return slope

    seen, x = [], torch.ones(2, 3, requires_grad=True)
    pull_back(Slow.apply(x), x, torch.ones(2, 3), "none")
    assert seen == ["the gradient of a model"]


def test_the_process_ends_after_last_words_though_some_fail(monkeypatch, capsys):
    left, told = [], []
    monkeypatch.setattr(os, "_exit", left.append)
    with guard.last_words(told.append), guard.last_words(lambda told: 1 / 0):
        guard._end("it hangs")
    assert (left, told) == ([2], ["it hangs"])
    assert capsys.readouterr().err == "Error: it hangs\n"


@pytest.mark.parametrize(
    "code, told",
    [
        ("import os; os._exit(0)", r"left with exit code 0 \(os._exit\): run the model by itself"),
        ("import ctypes; ctypes.string_at(0)", "was ended by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL, or memory ran out"),
        ("raise SystemExit(0)", r"was ended by code of a model or of a package \(SystemExit: 0\)"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("{}[1]", "KeyError: 1"),
        ("from certmix.errors import DataError; raise DataError('of its own')", "^of its own$"),
    ],
)
def test_a_process_of_its_own_may_end_as_it_likes(code, told):
    with pytest.raises(Exception, match=told) as raised:
        isolated(exec, code)
    assert type(raised.value).__name__ == ("DataError" if "DataError" in code else "ModelError")
    assert len(str(raised.value).splitlines()) == 1


def test_its_answer_comes_back_whatever_it_leaves_behind():
    threads = "__import__('threading').Thread(target=__import__('time').sleep, args=(60,)).start()"
    left = "__import__('atexit').register(__import__('os')._exit, 1)"
    assert isolated(eval, f"({threads}, {left}, 6 * 7)[2]") == 42


def test_code_that_keeps_all_threads_waiting_is_ended_from_outside(monkeypatch):
    monkeypatch.setattr("certmix.runs.isolated.SILENCE", 1.0)
    monkeypatch.setattr(guard, "limit", lambda: 0.5)
    code = "import re\nfrom certmix.guard import foreign\nwith foreign('nets:stuck'):\n    re.match('(a+)+$', 'a' * 60 + 'b')"
    with pytest.raises(ModelError, match="^(nets:stuck|code of a model) did not answer within 0.5 s"):
        isolated(exec, code)


def raised_by(code):
    try:
        exec(compile(code, "/home/somebody/nets.py", "exec"), {"__name__": "nets"})
    except BaseException as error:
        return error


@pytest.mark.parametrize(
    "code, told",
    [
        ("{}[1]", r"there was KeyError: 1 in code of a model \(nets.py line 1\): mend it"),
        ("raise SystemExit(0)", r"the program was ended by SystemExit: 0 in code of a model"),
        (
            "raise MemoryError",
            "memory is lacking .MemoryError.: give a smaller --batch-size or fewer --workers",
        ),
        ("import torch; torch.empty(1 << 60)", "memory is lacking .RuntimeError: .*fewer --workers"),
        ("import numpy; numpy.empty(1 << 54)", "memory is lacking .*fewer --workers"),
        ("def f(): f()\nf()", r"RecursionError: .* in code of a model \(nets.py line 1\)"),
    ],
)
def test_an_exception_is_one_line_with_whose_it_is(code, told):
    error = raised_by(code)
    for _ in range(2):
        with pytest.raises(ModelError, match=told) as shown, guard.failing_closed():
            raise error
        assert len(str(shown.value).splitlines()) == 1


def test_a_mistake_of_certmix_is_told_as_such(monkeypatch, command):
    monkeypatch.setattr("certmix.models.zoo.zoo_names", partial(eval, "{}[1]", {"__name__": "certmix"}))
    done = command("models")
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("Error: certmix itself failed (")


@pytest.mark.parametrize(
    "program, foreign",
    [
        ("/opt/lab/bin/certmix", False),
        ("/home/somebody/.local/bin/pytest", False),
        ("/home/somebody/bin/experiment", True),
        ("/home/somebody/pytest.py", True),
    ],
)
def test_programs_that_pip_made_are_no_code_of_the_user_s(program, foreign):
    found = {"__name__": "__main__"}
    exec(compile("import sys\nframe = sys._getframe()", program, "exec"), found)
    assert guard._is_foreign(found["frame"]) == foreign
