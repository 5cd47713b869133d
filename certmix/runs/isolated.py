"""Work in a process of its own, which may crash, leave or be killed without ending this one."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from certmix import guard
from certmix.errors import CertmixError, ModelError
from certmix.runs.engine import end_with, started, starting

__all__ = ["isolated"]

T = TypeVar("T")
BEATS, SILENCE = 0.5, 30.0
"""Seconds between two signs of life, and without one after which a process that has a limit is ended."""


def isolated(function: Callable[..., T], *given: Any) -> T:
    """Return what a function gives in a process of its own; both are sent, and so must be picklable.

    What it raises is raised here.  ModelError if the process ends without an answer, by a crash, `os._exit`
    or a signal, or if it gives no sign of life and models have a limit: C code can keep all threads waiting.
    """
    context, limit = multiprocessing.get_context("spawn"), guard.limit()
    heard, told = context.Pipe(duplex=False)
    watched, lifeline = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(told, watched, limit, function, given))
    with starting():
        process.start()
    told.close()
    watched.close()
    patience, ran, kept = (
        None if limit is None else limit + SILENCE,
        "",
        "what was done is kept: repeat to go on",
    )
    try:
        while heard.poll(patience):
            kind, what = heard.recv()
            if kind == "answer":
                return what  # type: ignore[no-any-return]
            if kind == "error":
                raise what
            ran = what or ran
        raise ModelError(guard.hangs(ran or "code of a model", limit or SILENCE))
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = (
            f"was ended by {signal.Signals(-code).name}"
            if code < 0
            else f"left with exit code {code} (os._exit)"
        )
        last = f", last {ran}" if ran else ""
        memory = ", or memory ran out" if -code == getattr(signal, "SIGKILL", 9) else ""
        remedy = "run the model by itself to see why, and mend it"
        raise ModelError(f"the process that runs the models{last} {how}{memory}: {remedy}; {kept}") from None
    finally:
        lifeline.close()
        process.kill()
        process.join()
        heard.close()


def _answer(
    told: Connection, lifeline: Connection, limit: float | None, function: Callable[..., T], given: Any
) -> None:
    """Call the function, and send what it gives or raises; signs of life name the model that runs."""
    started()
    end_with(lifeline)
    faulthandler.enable()  # a crash shows where
    one_at_a_time = threading.Lock()

    def send(kind: str, what: Any) -> None:
        with one_at_a_time:
            told.send((kind, what))

    def live() -> None:
        with suppress(OSError):  # whoever listened is gone
            while True:
                send("runs", guard.running())
                time.sleep(BEATS)

    def hangs(sentence: str) -> None:
        send("error", ModelError(sentence))
        os._exit(2)

    threading.Thread(target=live, daemon=True).start()
    if limit is not None:
        guard.watch(limit, hangs)
    sys.stdout = sys.stderr
    try:
        with guard.failing_closed():
            send("answer", function(*given))
    except CertmixError as error:
        send("error", type(error)(str(error)))
    except BaseException as error:  # a mistake of certmix's: its traceback is printed there
        sys.excepthook(type(error), error, error.__traceback__)
        send("error", ModelError(guard.fault(error)))
    os._exit(0)  # whatever a model left behind: threads, what it wants done at the end
