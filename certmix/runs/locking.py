"""Who writes to a run folder: one process, kept by flock or, where the file system has none, by a file."""

from __future__ import annotations

import errno
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from certmix.errors import RunError
from certmix.files import open_file, parse_json, refuse_special

LOCK, HELD = "lock", "lock.held"
_LACKING = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_TAKEN = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}


class Lock:
    """Keeps other processes from writing to a folder until it is released, or its process ends.

    `lacking` says that the file system has no flock: then ``lock.held`` names host and process.  It is taken
    over from a process of this host that has ended; of another host nobody can know.  `say` is told.
    RunError if another process writes to the folder, OSError if the folder cannot be written to.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._held, self.lacking = folder, folder / HELD, False
        refuse_special(folder / LOCK)
        self._file = open(folder / LOCK, "a+")  # noqa: SIM115 - held while the folder is open
        try:
            if fault := self._flock():
                self.lacking = True
                say(f"{folder}: its file system has no flock ({fault}): the file {HELD} keeps others out")
            if self.lacking or os.path.lexists(self._held):
                self._claim()
        except BaseException:
            self._file.close()
            raise

    def release(self) -> None:
        """Let others write to the folder."""
        if self.lacking:
            self._held.unlink(missing_ok=True)
        self._file.close()

    def _flock(self) -> str:
        """Lock the open file without waiting; return what the file system says if it cannot."""
        try:
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(self._file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            else:
                import fcntl

                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _LACKING:
                return str(error.strerror)
            if error.errno not in _TAKEN:
                raise
            raise RunError(
                f"{self._folder} is in use by another process: wait for it, or name another --output"
            ) from None
        return ""

    def _claim(self) -> None:
        """Remove the file of a process that has ended; where there is no flock, make the own."""
        with _alone_on_this_host():
            if os.path.lexists(self._held):
                self._refuse_living()
                self._held.unlink()
            if self.lacking:
                try:
                    file = os.open(self._held, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
                except FileExistsError:  # of another host, just now
                    self._refuse_living()
                    raise
                with open(file, "w") as written:
                    json.dump(_own(), written)

    def _refuse_living(self) -> None:
        """Refuse a folder that another process holds, or may hold."""
        told: Any = None
        with suppress(OSError, ValueError):
            if self._held.is_file() and not self._held.is_symlink():
                with open_file(self._held) as file:
                    told = parse_json(file.read(1000))
        own = _own()
        if not (isinstance(told, dict) and told.keys() == own.keys() and isinstance(told["process"], int)):
            who, here = "a process that cannot be told", False
        else:
            who, here = f"process {told['process']} on {told['host']!s:.100}", told["place"] == own["place"]
        if here and told["started"] != _started(told["process"]):
            return
        remedy = "wait for it" if here else f"wait for it, or delete {self._held} once it has ended"
        raise RunError(f"{self._folder} is in use by {who}: {remedy}, or name another --output")


def _own() -> dict[str, Any]:
    """Return what tells this process from all others, of other hosts and boots too."""
    place = platform.node()
    with suppress(OSError):  # containers of one host name count their processes each
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        place = f"{place} {boot} {os.readlink('/proc/self/ns/pid')}"
    process = os.getpid()
    return {"host": platform.node(), "place": place, "process": process, "started": _started(process)}


def _started(process: int) -> str:
    """Return when a process of this host started, or "" if it has ended: numbers of processes come again."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return ""
    except OSError:
        pass
    return "some time ago"


@contextmanager
def _alone_on_this_host() -> Iterator[None]:
    """Let one process of this host at a time look at such a file and remove it."""
    if os.name == "nt":
        yield
        return
    import fcntl

    folder = os.open(tempfile.gettempdir(), os.O_RDONLY)
    try:
        with suppress(OSError):  # also without flock there, another would have to come at the same instant
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
