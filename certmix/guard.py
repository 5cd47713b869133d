"""Around code that others wrote, a model's: what it prints, how long it may take, what its exceptions mean.

No torch.
"""

from __future__ import annotations

import io
import math
import os
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from opcode import opmap
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TextIO, TypeVar

from certmix import signals
from certmix.errors import CertmixError, Interrupted, ModelError, describe
from certmix.streams import lossy

T = TypeVar("T")


# What it prints.

_KEPT: list[TextIO] = []
"""The stream of what a command prints, while it is not ``sys.stdout``."""
_BEGAN: list[str] = []
_THERE: list[str] = []
"""The folders in which a command began, and to which code of others changed since, if it did."""


def stdout() -> TextIO:
    """Return the stream of results, whatever models print."""
    return _KEPT[-1] if _KEPT else sys.stdout


@contextmanager
def kept_stdout() -> Iterator[None]:
    """Keep the standard output for what a command prints: what else is written to it goes to stderr.

    That is file descriptor 1 from the start, which child processes and C libraries write to, and
    ``sys.stdout`` as soon as code of others runs.
    """
    before, descriptor = sys.stdout, None
    with suppress(AttributeError, OSError, ValueError, io.UnsupportedOperation):
        if before.fileno() == 1 and sys.stderr.fileno() == 2:
            before.flush()
            descriptor = os.dup(1)
    if descriptor is not None:
        os.dup2(2, 1)
        own = lossy(descriptor, before)
        sys.stdout = own
    _KEPT.append(sys.stdout)
    with suppress(OSError):
        _BEGAN.append(os.getcwd())
    try:
        yield
    finally:
        _BEGAN.clear()
        _THERE.clear()
        sys.stdout = _KEPT.pop()
        if descriptor is not None:
            sys.stdout.flush()


# How long it takes.

_RUNNING: dict[int, tuple[str, float]] = {}
"""By thread, the code of others that runs, by its name in messages, and since when."""
_LIMIT: list[float] = []
"""Seconds that it may take, if there is a limit."""
_LAST: list[Callable[[str], None]] = []
"""What is to be done before the process ends because of it."""


def _go(to: list[str], back_from: list[str] | None = None) -> None:
    """Go to the folder where code of others was last, or back to where the command began.

    Its own paths are seen from the one, those of the command from the other.
    """
    with suppress(OSError):
        if _BEGAN and to and (here := os.getcwd()) != to[-1]:
            if back_from is not None:
                back_from[:] = [here]
            os.chdir(to[-1])


@contextmanager
def foreign(name: str) -> Iterator[None]:
    """Run code that others wrote; `name` says of what a message tells that it hangs."""
    errors = sys.stderr
    if _KEPT and sys.stdout is _KEPT[-1]:
        sys.stdout = errors
    thread = threading.get_ident()
    around = _RUNNING.get(thread)
    _RUNNING[thread] = name, time.monotonic()
    _go(_THERE)
    try:
        with signals.unswallowed():
            yield
    finally:
        if around is None:
            del _RUNNING[thread]
        else:
            _RUNNING[thread] = around[0], time.monotonic()
        if _KEPT:
            sys.stderr = errors
        if not _RUNNING:
            _go(_BEGAN, _THERE)


@contextmanager
def unwatched() -> Iterator[None]:
    """Do what may take long, such as compilation, in the midst of a model's code."""
    thread = threading.get_ident()
    around = _RUNNING.get(thread)
    if around is not None:
        _RUNNING[thread] = around[0], math.inf
    try:
        yield
    finally:
        if around is not None:
            _RUNNING[thread] = around[0], time.monotonic()


def running() -> str:
    """Return the name of the code of others that runs, "" if none does."""
    return next((name for name, _ in list(_RUNNING.values())), "")


def limit() -> float | None:
    """Return the seconds that code of others may take at a time, None if there is no limit."""
    return _LIMIT[-1] if _LIMIT else None


def overdue(seconds: float) -> str:
    """Return a sentence on code of others that runs for longer, "" if there is none."""
    for thread, (name, since) in list(_RUNNING.items()):
        if time.monotonic() - since > seconds:
            frame, where = sys._current_frames().get(thread), ""
            frames = [] if frame is None else [one for one, _ in traceback.walk_stack(frame)]
            for one in filter(_is_foreign, frames):
                where = f" (it is at {Path(one.f_code.co_filename).name} line {one.f_lineno})"
                break
            return hangs(name, seconds, where)
    return ""


def hangs(name: str, seconds: float, where: str = "") -> str:
    """Return the sentence on a model that hangs."""
    return (
        f"{name} did not answer within {seconds:g} s{where}: mend it, or give a longer --model-timeout; "
        "what was done is kept: repeat to go on"
    )


def watch(seconds: float, end: Callable[[str], object] | None = None) -> None:
    """Let a thread hand `end` the sentence of `overdue` if there comes to be one.

    By default it is printed, what `last_words` were left is done, and the process ends with exit code 2:
    nothing else ends a call that does not return.
    """
    _LIMIT.append(seconds)

    def look() -> None:
        while seconds in _LIMIT:
            time.sleep(min(1.0, seconds / 8))
            if told := overdue(seconds):
                (end or _end)(told)
                return

    threading.Thread(target=look, daemon=True).start()


def unwatch() -> None:
    """Let code of others take as long as it likes."""
    _LIMIT.clear()


@contextmanager
def last_words(words: Callable[[str], None]) -> Iterator[None]:
    """Have something done with the sentence if a model that hangs ends the process."""
    _LAST.append(words)
    try:
        yield
    finally:
        _LAST.pop()


def _end(told: str) -> None:
    shown = "\x1b[?25h\n" if sys.stderr.isatty() else ""  # a progress bar hides the cursor
    print(f"{shown}Error: {told}", file=sys.stderr, flush=True)
    for words in reversed(_LAST):
        with suppress(Exception):
            words(told)
    with suppress(Exception):
        stdout().flush()
    os._exit(2)


def within(seconds: float | None, work: Callable[[], T]) -> T:
    """Do work whose models may take so long at a time; what hangs is left in its thread: ModelError."""
    if seconds is None:
        return work()
    done: Future[T] = Future()

    def run() -> None:
        with suppress(InvalidStateError):  # it was given up
            try:
                done.set_result(work())
            except BaseException as error:  # is raised in the thread that waits
                done.set_exception(error)

    def end(told: str) -> None:
        with suppress(InvalidStateError):  # it has just come to its end
            done.set_exception(ModelError(told))

    threading.Thread(target=run, daemon=True).start()
    watch(seconds, end)
    try:
        return done.result()
    finally:
        _LIMIT.remove(seconds)


def end_within(seconds: float, code: int) -> None:
    """End this process with an exit code, by force if it does not end by itself.

    Threads of a model, and what it wants done at the end, may keep it for ever.
    """

    def end() -> None:
        time.sleep(seconds)
        told = f"the process still runs {seconds:g} s after the command ended, in code of others: it is ended"
        with suppress(OSError, ValueError):
            print(f"Warning: {told}", file=sys.stderr, flush=True)
        os._exit(code)

    threading.Thread(target=end, daemon=True).start()


# What its exceptions mean.


def keep_interrupt(error: BaseException) -> None:
    """Raise an interrupt of the user's again: all else that code of others raises is a failure of it.

    A KeyboardInterrupt is the user's unless a statement raised it outside the handlers of signals.
    """
    if not isinstance(error, KeyboardInterrupt):
        return
    places = [(frame, at.tb_lasti) for at in _chain(error) for frame in [at.tb_frame.f_code]]
    handlers = {getattr(signal.getsignal(one), "__code__", None) for one in signals.ENDING}
    if isinstance(error, Interrupted) or not places or any(code in handlers for code, _ in places):
        raise error
    code, at = places[-1]
    if code.co_code[at] != opmap["RAISE_VARARGS"]:
        raise error


@contextmanager
def failing_closed() -> Iterator[None]:
    """Raise ModelError for what code of others raises, for failed allocations, and for what ends programs."""
    try:
        yield
    except BaseException as error:
        keep_interrupt(error)
        known = isinstance(error, Exception) and not (lacks_memory(error) or is_of_others(error))
        if known or isinstance(error, CertmixError):
            raise
        raise ModelError(fault(error)) from error


def fault(error: BaseException) -> str:
    """Return one line on an exception that was not expected: whose it is, where, and what to do."""
    kept = "what was done is kept: repeat to go on"
    if isinstance(error, CertmixError):
        return str(error)
    if lacks_memory(error):
        remedy = "give a smaller --batch-size or fewer --workers, or free memory"
        return f"memory is lacking ({describe(error)}): {remedy}; {kept}"
    codes = [(at.tb_frame, at.tb_lineno) for at in _chain(error)]
    foreign_ones = [(frame, line) for frame, line in codes if _is_foreign(frame)]
    told = "the program was ended by" if isinstance(error, SystemExit) else "there was"
    if foreign_ones:
        frame, line = foreign_ones[-1]
        where = f"{Path(frame.f_code.co_filename).name} line {line}"
        return f"{told} {describe(error)} in code of a model ({where}): mend it; {kept}"
    if isinstance(error, SystemExit):
        return (
            f"{told} code of a model or of a package ({describe(error)}): remove its call of sys.exit; {kept}"
        )
    where = f" ({Path(codes[-1][0].f_code.co_filename).name} line {codes[-1][1]})" if codes else ""
    return f"certmix itself failed{where}: {describe(error)}: report it with what is printed above; {kept}"


def is_of_others(error: BaseException) -> bool:
    """Whether an exception passed through code that is neither of certmix nor of Python and its packages."""
    return any(_is_foreign(at.tb_frame) for at in _chain(error))


def lacks_memory(error: BaseException) -> bool:
    """Whether an allocation failed, of Python's, numpy's, torch's or a C++ library's."""
    named = {kind.__name__ for kind in type(error).__mro__}
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    words = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "alloc_failed")
    return not named.isdisjoint({"MemoryError", "OutOfMemoryError"}) or any(word in said for word in words)


def _chain(error: BaseException) -> list[Any]:
    found, at = [], error.__traceback__
    while at is not None:
        found.append(at)
        at = at.tb_next
    return found


_HOME = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}


def _is_foreign(frame: FrameType) -> bool:
    """Whether a frame runs code that is neither of certmix nor of Python and its packages."""
    code: CodeType = frame.f_code
    name = str(frame.f_globals.get("__name__")).partition(".")[0]
    if name in ("certmix", "certmix_cli") or code.co_filename.startswith("<"):
        return False
    path = Path(code.co_filename)
    if name == "__main__" and not path.suffix and entry_points(group="console_scripts", name=path.name):
        return False  # a program that pip made, such as bin/certmix
    return not {"site-packages", "dist-packages"} & {*path.parts} and not any(
        path.is_relative_to(place) for place in _HOME
    )
