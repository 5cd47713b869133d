"""Files: written whole or not at all, and read with suspicion when somebody else may have written them."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shlex
import stat
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from certmix.errors import CertmixError, RunError, brief

DESCRIPTION = "run.json"
"""What a run says of itself, in its folder, which is known by it."""
TEXT, BULK = 1 << 26, 1 << 33
"""Bytes up to which a file is read whole: JSON, TOML, code and logs; weights, programs and declared files."""
_FREE = 1 << 28
_TIMES = 200
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def digest_of(content: Any) -> str:
    """Return SHA-256 (hex) of bytes, or of plain data as JSON with its keys sorted."""
    plain = content if isinstance(content, bytes) else json.dumps(content, sort_keys=True).encode()
    return hashlib.sha256(plain).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file in one step, replacing what was there, and make missing folders; else RunError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        make_folder(path.parent)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
            for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
                if _killed(left.name.split(".")[-2]):
                    left.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder and those that it lies in, unless it is there; OSError if it cannot be made."""
    missing = []
    with suppress(FileNotFoundError):
        os.stat(path)  # what is too long, or may not be entered, is refused before anything is made
    while not os.path.isdir(path):  # `Path.mkdir` calls itself for each folder above, up to Python's limit
        missing.append(path)
        if path == (path := path.parent):
            break
    for one in reversed(missing):
        one.mkdir(exist_ok=True)


def unwritable(path: Path, error: OSError) -> RunError:
    """Return the error of a file or folder that cannot be written."""
    remedy = "choose a folder that can be written to"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free space and repeat the command"
    elif error.errno == errno.ENAMETOOLONG:
        remedy = "shorten the name or the path"
    return RunError(f"cannot write {named(path, error)} ({error.strerror or error}): {remedy}")


_RIGHT = "give this user the right to read it, and to enter its folder"
_DISK = "its disk or file system fails: repeat the command, or restore it from a copy"
_UNREAD = {
    errno.EACCES: _RIGHT, errno.EPERM: _RIGHT, errno.EIO: _DISK, errno.ESTALE: _DISK,
    errno.ETIMEDOUT: _DISK, errno.ENAMETOOLONG: "shorten the path", errno.EMFILE: "let more files be open",
    errno.ENFILE: "end other programs", errno.ENOMEM: "end other programs",
}  # fmt: skip


def remedy_of(error: Exception, otherwise: str) -> str:
    """Return what to do about what could not be read: `otherwise` if what it holds or is may be at fault."""
    return _UNREAD.get(getattr(error, "errno", None) or 0, otherwise)


def as_argument(path: str | Path) -> str:
    """Return a path as it is typed in a shell, where it is no option of a command."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") and text != "-" else text)


def named(path: str | Path, error: Exception) -> str:
    """Return a path as messages name it: of one that is too long for the system the beginning."""
    return f"{path!s:.80}..." if getattr(error, "errno", None) == errno.ENAMETOOLONG else str(path)


def _killed(process: str) -> bool:
    """Whether no process of this number runs here; what a killed one was writing is still there."""
    if os.name == "nt" or not process.isdecimal():
        return False  # there the question would end the process
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


def open_file(path: str | Path, most: int | None = None) -> BinaryIO:
    """Open a regular file of at most `most` bytes to read, without waiting; OSError for anything else."""
    _refuse_special(path, os.stat(path))  # to open a device may do something
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        found = os.fstat(file.fileno())
        _refuse_special(path, found)  # it may have been replaced meanwhile
        if most is not None and found.st_size > most:
            told = f"it has {found.st_size:,} bytes, at most {most:,} are read"
            raise OSError(errno.EFBIG, told, str(path))
    except BaseException:
        file.close()
        raise
    return file


def read_file(path: str | Path, most: int = TEXT) -> bytes:
    """Return what a regular file of at most `most` bytes holds; OSError, without waiting, for all else."""
    with open_file(path, most) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # others may never end


def digest_of_file(path: str | Path, most: int) -> str:
    """Return SHA-256 (hex) of a regular file of at most `most` bytes, read in parts; OSError for all else."""
    found = hashlib.sha256()
    with open_file(path, most) as file:
        left = os.fstat(file.fileno()).st_size
        while left > 0 and (part := file.read(min(left, 1 << 20))):
            found.update(part)
            left -= len(part)
    return found.hexdigest()


def refuse_special(path: str | Path) -> None:
    """Refuse a pipe, a device or a socket, which to open may wait or do something: OSError."""
    if os.path.lexists(path) and not os.path.isdir(path):
        _refuse_special(path, os.stat(path))


LINK_OUT, COPY_IT = "is a link out of the folder", "copy the file there"


def leads_out(folder: str | Path, name: str) -> bool:
    """Whether a file of a folder that somebody else may have made is a link to what lies elsewhere.

    It is not read: what is said of a file may quote it, and elsewhere are private ones.  The folder itself
    may be a link, and links within it may lead to its other files; those of a snapshot in a cache of Hugging
    Face's library, to the contents that lie beside its snapshots.
    """
    place, found = os.path.realpath(folder), Path(os.path.realpath(os.path.join(folder, name)))
    cache = Path(place).parent
    own = {Path(place)} | ({cache.parent / "blobs"} if cache.name == "snapshots" else set())
    return own.isdisjoint(found.parents)


@contextmanager
def unquoted(path: object, named_by: Sequence[str | Path], what: str, remedy: str) -> Iterator[None]:
    """Say only that a file cannot be read as `what` where another names it: it may be private.

    The files of `named_by` led to it.  What lies in the folder of one of these, a run or a mix, came with it,
    and may be quoted; so may what its user names, and what the system says of it.  A guarantee, which is no
    JSON, has no folder of its own.
    """
    try:
        yield
    except CertmixError as error:
        own = [os.path.realpath(file.parent) for file in map(Path, named_by) if file.suffix == ".json"]
        place = os.path.expanduser(path) if isinstance(path, str | Path) else ""
        known = Path(os.path.realpath(place)).parents
        if not (named_by and os.path.lexists(place)) or isinstance(error.__cause__, OSError):
            raise
        if any(Path(folder) in known for folder in own):
            raise
        told = f"{brief(path)}, which {named_by[-1]} names, cannot be read as {what}"
        raise type(error)(f"{told}; it may be private, so that no more is told: {remedy}") from None


def refuse_special_in(folder: str | Path) -> None:
    """Do so with all that lies in a folder, if it is one: a library opens what it finds there."""
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        with suppress(FileNotFoundError):  # a link to nothing
            refuse_special(os.path.join(folder, name))


def _refuse_special(path: str | Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def parse_json(content: bytes) -> Any:
    """Return plain data of a JSON text in UTF-8; ValueError for others, twofold keys and deep nesting."""
    try:
        return json.loads(content.decode(), object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:40]!r} occurs twice")
        found[key] = value
    return found


def what_it_is(content: bytes) -> str | None:
    """Say by its first 100 bytes what a file of a failed download is and what to do; None for numbers."""
    if not content:
        return "it is empty: download it again"
    if content.startswith(b"version https://git-lfs.github.com/"):
        return "it is a pointer of Git LFS: fetch the file with git lfs pull"
    start = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:9].lower()
    if start.startswith((b"<!doctype", b"<!--", b"<html", b"<head", b"<?xml")):
        return "it is a web page: download it again, by the link to the file itself"
    if start.startswith((b'{"error', b"{'error", b"entry not", b"not found", b"404", b"access de")):
        return "it is the answer of a server that refused the download: download it again"
    return None


def refuse_bomb(file: BinaryIO) -> None:
    """Refuse a zip archive that expands to over 256 MiB and 200 times its size: ValueError; else rewind."""
    with zipfile.ZipFile(file) as archive:
        expanded = sum(member.file_size for member in archive.infolist())
    size = file.seek(0, 2)
    file.seek(0)
    if expanded > max(_FREE, _TIMES * size):
        raise ValueError(f"its {size:,} bytes expand to {expanded:,}")


class ArrayHeader(NamedTuple):
    """What the member of an ``.npz`` file says of its array, whose numbers come after `begin` bytes.

    `by_column`, in Fortran order, the first index runs fastest.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    begin: int
    by_column: bool


def read_arrays(
    file: BinaryIO,
    names: Collection[str],
    leave: Callable[[zipfile.ZipInfo, bool], bool] = lambda member, by_column: False,
) -> tuple[dict[str, Any], list[str]]:
    """Return those arrays of an ``.npz`` file that have these names, and the names of all.

    Nothing is unpickled, and an array takes as many bytes as the file holds of it.  Of one that `leave`, told
    whether it is in Fortran order, says to leave where it is, the `ArrayHeader` is returned.  A damaged file
    raises exceptions of almost any kind: those of zip, zlib and headers share no base class.
    """
    refuse_bomb(file)
    found: dict[str, Any] = {}
    with zipfile.ZipFile(file) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        held = [name.removesuffix(".npy") for name in archive.namelist()]
        for name in names:
            if name in held:
                info = archive.getinfo(f"{name}.npy")
                with archive.open(info) as member:
                    found[name] = read_array(member, info.file_size, name, partial(leave, info))
    return found, held


def read_array(
    file: Any, length: int, name: str, leave: Callable[[bool], bool] = lambda by_column: False
) -> Any:
    """Return the array of a ``.npy`` file of so many bytes, or its header if `leave` says to leave it."""
    shape, by_column, dtype = _HEADERS[npy.read_magic(file)](file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which only code could restore")
    if dtype.itemsize == 0 or math.prod(shape) * dtype.itemsize != length - file.tell():
        raise ValueError(f"{name} claims shape {shape} of {dtype}, which its {length} bytes are not")
    if leave(by_column):
        return ArrayHeader(shape, dtype, file.tell(), by_column)
    file.seek(0)
    return npy.read_array(file, allow_pickle=False)
