"""SIGTERM and SIGHUP end a command as Ctrl-C does; a second signal ends the process at once."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from certmix import streams
from certmix.errors import Interrupted

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
TOGETHER = 0.3
"""Seconds within which signals are one: a terminal that closes, and ``timeout``, send theirs twice."""
_RECEIVED: list[int] = []
_POSTPONED: list[bool] = []


def received() -> signal.Signals:
    """Return the signal that ended the command, SIGINT if none did."""
    return signal.Signals(_RECEIVED[0] if _RECEIVED else signal.SIGINT)


def exit_code() -> int:
    """Return the exit code of an interrupted command, as a shell has it: 130, 143 or 129."""
    return 128 + received()


def _stop(number: int, frame: FrameType | None) -> None:
    _RECEIVED.append(number)
    streams.hurry()
    if len(_RECEIVED) == 1 and not _POSTPONED:
        raise KeyboardInterrupt


@contextmanager
def unswallowed() -> Iterator[None]:
    """Interrupt after this block, code of others, if it caught the interrupt of a signal itself."""
    before, here = len(_RECEIVED), threading.current_thread() is threading.main_thread()
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if here and len(_RECEIVED) > before == 0:
            raise Interrupted("interrupted") from error
        raise
    if here and len(_RECEIVED) > before == 0 and not _POSTPONED:
        raise Interrupted("interrupted")


@contextmanager
def postponed() -> Iterator[None]:
    """Let a signal of `caught` interrupt after this block."""
    before = len(_RECEIVED)
    _POSTPONED.append(True)
    try:
        yield
    finally:
        _POSTPONED.pop()
        if not before and _RECEIVED and not _POSTPONED:
            raise Interrupted("interrupted")


@contextmanager
def caught() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first signal that is to end the process; end it at the second.

    What is ignored stays so, as of ``nohup`` and of a shell's background.  A thread waits for the second,
    since Python calls handlers only between two steps of its own.
    """
    _RECEIVED.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    heard, told = socket.socketpair()
    told.setblocking(False)

    def listen() -> None:
        first = 0.0
        with heard:
            while numbers := heard.recv(64):
                for number in set(numbers) & set(ENDING):
                    if first and time.monotonic() - first > TOGETHER:
                        if sys.__stderr__ is not None and os.isatty(2):
                            os.write(2, b"\x1b[?25h\n")  # a progress bar hides the cursor
                        os._exit(128 + number)
                    first = first or time.monotonic()

    threading.Thread(target=listen, daemon=True).start()
    earlier = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    for number, handler in before.items():
        if handler not in (signal.SIG_IGN, None):
            signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, handler)
        signal.set_wakeup_fd(earlier)
        told.close()


@contextmanager
def kept() -> Iterator[None]:
    """Let no library of the block set handlers of its own."""
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)
