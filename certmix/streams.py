"""Standard streams that are full or closed lose what is printed, and nothing else."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_FAULTS: dict[int, OSError] = {}
"""By file descriptor, what was wrong when it was first written to in vain."""
_HURRIED: list[bool] = []
_PATIENCE = 3.0
"""Seconds that whoever reads a stream has to take something, once a signal is to end the command."""


class _Lossy(io.RawIOBase):
    """A file descriptor that takes everything; it is not closed."""

    def __init__(self, descriptor: int, stands_for: int) -> None:
        self._descriptor, self._stands_for = descriptor, stands_for
        self.name = f"<descriptor {stands_for}>"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:
        while self._stands_for not in _FAULTS:
            try:
                if not _HURRIED:
                    return os.write(self._descriptor, data)
                if _takes(self._descriptor, _PATIENCE):
                    return os.write(self._descriptor, memoryview(data)[: select.PIPE_BUF])  # never waits
                raise BrokenPipeError(errno.EPIPE, "nobody reads")
            except BlockingIOError:
                _takes(self._descriptor)
            except OSError as error:
                _FAULTS[self._stands_for] = error
        return memoryview(data).nbytes


def hurry() -> None:
    """Do not wait any more for a reader that does not read: a pager, or a program that hangs."""
    if os.name != "nt":  # where only sockets can be asked whether they take something
        _HURRIED.append(True)


def _takes(descriptor: int, seconds: float | None = None) -> bool:
    """Wait until a descriptor takes something; False if it does not within so many seconds."""
    if not hasattr(select, "poll"):
        return bool(select.select([], [descriptor], [], seconds)[1])
    asked = select.poll()
    asked.register(descriptor, select.POLLOUT)
    return bool(asked.poll(None if seconds is None else 1000 * seconds))


class _KeptBuffer(io.BufferedWriter):
    """The bytes of a stream that code of others cannot close."""

    def close(self) -> None:
        self.flush()


class _Kept(io.TextIOWrapper):
    """A text stream that code of others can neither close nor take apart."""

    def close(self) -> None:
        self.flush()

    def detach(self) -> _KeptBuffer:
        self.flush()
        return _KeptBuffer(self.buffer.raw)  # type: ignore[attr-defined]


def lossy(descriptor: int, like: TextIO | None, stands_for: int = 1) -> TextIO:
    """Return a text stream of a file descriptor that is never full or closed, and else like another."""
    raw = _Lossy(descriptor, stands_for)
    coded = ("utf-8", "backslashreplace") if like is None else (like.encoding, like.errors)
    return _Kept(_KeptBuffer(raw), *coded, line_buffering=stands_for == 2 or raw.isatty())


@contextmanager
def safe() -> Iterator[None]:
    """Say in one line, after the block, that stdout did not take all of what was printed.

    The block ends by SystemExit; its exit code stays if whoever reads stdout closed it, and is at least 2 if
    stdout failed.
    """
    _FAULTS.clear()
    _HURRIED.clear()
    before = sys.stdout, sys.stderr
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # else a file that is opened would get its number, and what is printed
            os.open(os.devnull, os.O_RDWR)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if os.name != "nt":
            with suppress(AttributeError, OSError, ValueError):  # of another program's, such as a test's
                if stream is None or stream.fileno() == descriptor:
                    closed = stream is None and descriptor == 1  # what fails is said of stdout alone
                    setattr(sys, name, lossy(-1 if closed else descriptor, stream, descriptor))
    try:
        yield
    except SystemExit as ended:
        with suppress(AttributeError):
            sys.stdout.flush()
        if (fault := _FAULTS.get(1)) is None:
            raise
        code = ended.code
        if fault.errno in (errno.EPIPE, errno.EBADF):
            told = "stdout was closed before all was printed; nothing else is lost"
        else:
            code = code or 2
            told = (
                f"Error: stdout did not take all that was printed ({fault.strerror}): free space, or name "
                "another place, and repeat the command; nothing else is lost"
            )
        print(told, file=sys.stderr)
        raise SystemExit(code) from None
    finally:
        with suppress(AttributeError):
            sys.stderr.flush()
        sys.stdout, sys.stderr = before
