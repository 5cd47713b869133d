"""Inputs that stay in their files: rows are read when they are wanted, whatever the size of the whole."""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from certmix.data.dataset import check_position, to_float
from certmix.errors import DataError, describe
from certmix.files import ArrayHeader, open_file

LARGE = 1 << 26
"""Bytes above which inputs stay in their file."""
BLOCK = 1 << 24
"""Bytes, about, that are in memory at a time."""
_LOCK = threading.Lock()


def step_of(row_bytes: int) -> int:
    """Return how many rows make a block."""
    return max(1, BLOCK // max(1, row_bytes))


@dataclass(frozen=True)
class Rows:
    """Rows (n, ...) of one kind that lie in files; `files` are these with their size and time of change."""

    files: tuple[tuple[Path, int, int], ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))

    def opened(self, number: int = 0) -> BinaryIO:
        """Open a file; DataError if it is no longer the one whose checksum was taken."""
        path, *known = self.files[number]
        file = open_file(path)
        if known != list(stamp(path)):
            file.close()
            raise DataError(f"{path} was changed while it was in use: run the command again")
        return file

    def rows(self, begin: int, end: int) -> NDArray[Any]:
        """Return some of the rows."""
        raise NotImplementedError

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield all rows, some at a time."""
        step = step_of(self.row_bytes)
        for begin in range(0, self.shape[0], step):
            yield self.rows(begin, min(begin + step, self.shape[0]))

    def _gathered(self, file: BinaryIO, place: int, begin: int, end: int) -> NDArray[Any]:
        """Return rows of an array in Fortran order whose numbers begin at `place`."""
        count, size = self.shape[0], self.dtype.itemsize
        found = np.empty((self.row_bytes // size, end - begin), self.dtype)
        for number, column in enumerate(found):
            at = place + (number * count + begin) * size
            if hasattr(os, "pread"):  # reads no more than that, where a buffer would be filled
                raw = os.pread(file.fileno(), column.nbytes, at)
            else:
                file.seek(at)
                raw = file.read(column.nbytes)
            if len(raw) != column.nbytes:
                raise DataError(f"{self.files[0][0]} is cut off: restore it")
            column[:] = np.frombuffer(raw, self.dtype)
        return np.ascontiguousarray(found.reshape(*self.shape[:0:-1], end - begin).T)

    def _array(self, raw: bytes, rows: int) -> NDArray[Any]:
        if len(raw) != rows * self.row_bytes:
            raise DataError(f"{self.files[0][0]} is cut off: restore it")
        return np.frombuffer(raw, self.dtype).reshape(rows, *self.shape[1:])


def stamp(path: Path) -> tuple[int, int]:
    """Return a file's size and time of change."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class BinaryRows(Rows):
    """Rows of files that hold nothing else after `begin` bytes; `counts` are those of each."""

    counts: tuple[int, ...] = ()
    begin: int = 0

    def rows(self, begin: int, end: int) -> NDArray[Any]:
        found, first = [], 0
        for number, count in enumerate(self.counts):
            low, high = max(begin, first), min(end, first + count)
            if low < high:
                with self.opened(number) as file:
                    file.seek(self.begin + (low - first) * self.row_bytes)
                    found.append(self._array(file.read((high - low) * self.row_bytes), high - low))
            first += count
        return found[0] if len(found) == 1 else np.concatenate(found)


class ColumnRows(BinaryRows):
    """Rows of one file in Fortran order: of each column the part that they hold is read."""

    def rows(self, begin: int, end: int) -> NDArray[Any]:
        with self.opened() as file:
            return self._gathered(file, self.begin, begin, end)


@dataclass(frozen=True)
class ZippedRows(Rows):
    """Rows of an array in an ``.npz`` file: `begin` bytes into its member `name`, whose data lie at `place`.

    Of an array that is compressed, which `method` says, rows are read as a stream up to those that are
    wanted, on from where the last ones ended if these come later.  One that is `by_column`, in Fortran order,
    is not compressed.
    """

    name: str = ""
    begin: int = 0
    place: int = 0
    method: int = zipfile.ZIP_STORED
    by_column: bool = False
    _state: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, path: Path, name: str, header: ArrayHeader) -> ZippedRows:
        """Return the rows of an array whose header was read."""
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            member = archive.getinfo(name)
            file.seek(member.header_offset + 26)  # of the local header, whose extra field may be another
            lengths = file.read(4)
        after = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
        place, files = member.header_offset + 30 + after, ((path, *stamp(path)),)
        return cls(
            files, header.dtype, header.shape, name, header.begin, place, member.compress_type,
            header.by_column,
        )  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:  # a stream is not for another process
        return {**self.__dict__, "_state": {}}

    def rows(self, begin: int, end: int) -> NDArray[Any]:
        if self.method == zipfile.ZIP_STORED:
            with self.opened() as file:
                if self.by_column:
                    return self._gathered(file, self.place + self.begin, begin, end)
                file.seek(self.place + self.begin + begin * self.row_bytes)
                return self._array(file.read((end - begin) * self.row_bytes), end - begin)
        with _LOCK:
            kept: OrderedDict[tuple[int, int], NDArray[Any]] = self._state.setdefault("kept", OrderedDict())
            if (begin, end) not in kept:
                kept[begin, end] = self._streamed(begin, end)
            kept.move_to_end((begin, end))
            found = kept[begin, end]
            while len(kept) > 1 and sum(one.nbytes for one in kept.values()) > BLOCK:
                kept.popitem(last=False)
            return found

    def _streamed(self, begin: int, end: int) -> NDArray[Any]:
        """Return rows of a compressed array; what goes on is where its stream is, and not an open file."""
        stream, place, at = self._state.pop("stream", (None, 0, 0))
        wanted = self.begin + begin * self.row_bytes
        if stream is None or at > wanted:
            stream, place, at = zlib.decompressobj(-zlib.MAX_WBITS), self.place, 0
        with self.opened() as file:
            file.seek(place)

            def read(count: int) -> bytes:
                found = b""
                while len(found) < count:
                    piece = stream.decompress(stream.unconsumed_tail, count - len(found))
                    if not piece and not stream.unconsumed_tail:
                        if stream.eof or not (more := file.read(1 << 16)):
                            raise DataError(f"{self.files[0][0]} is cut off: restore it")
                        piece = stream.decompress(more, count - len(found))
                    found += piece
                return found

            while at < wanted:
                at += len(read(min(wanted - at, BLOCK)))
            raw = read((end - begin) * self.row_bytes)
            self._state["stream"] = stream, file.tell(), wanted + len(raw)
        return self._array(raw, end - begin)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield all rows; DataError if the member does not have its checksum."""
        step = step_of(self.row_bytes)
        try:
            with self.opened() as file, zipfile.ZipFile(file) as archive, archive.open(self.name) as member:
                if self.by_column:
                    while member.read(BLOCK):
                        pass
                    yield from super().blocks()
                    return
                member.read(self.begin)
                for begin in range(0, self.shape[0], step):
                    rows = min(step, self.shape[0] - begin)
                    yield self._array(member.read(rows * self.row_bytes), rows)
                member.read(1)  # at the end the checksum is compared
        except (DataError, OSError):
            raise
        except Exception as error:  # faults of zip and zlib share no base class
            raise DataError(
                f"{self.files[0][0]} cannot be read ({describe(error)}): save plain arrays with np.savez"
            ) from error


@dataclass(frozen=True, eq=False)
class RowsReader:
    """Reads inputs of `source`; `prepare` makes rows (n, ...) of a type and `shape` of the data set's."""

    source: Rows
    prepare: Callable[[NDArray[Any]], NDArray[Any]]
    dtype: np.dtype[Any]
    shape: Sequence[int]

    def __call__(self, position: int) -> NDArray[np.float32]:
        """Return one input as float32."""
        place = check_position(position, self.source.shape[0])
        return to_float(self.prepare(self.source.rows(place, place + 1))[0])

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield all inputs, some at a time."""
        return map(self.prepare, self.source.blocks())

    def everything(self) -> NDArray[Any]:
        """Return all inputs, in memory."""
        found = np.empty(self.shape, self.dtype)
        begin = 0
        for block in self.blocks():
            found[begin : begin + len(block)] = block
            begin += len(block)
        return found
