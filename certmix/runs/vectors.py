"""How vectors are kept in a database: each by the name of its kind and its bytes, or many in a block."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from certmix.types import IntArray

DTYPES = {"int64": "<i8", "float64": "<f8", "int64 zlib": "<i8", "uint32": "<u4"}
LONG = 512
"""Bytes from which whole numbers are compressed: votes among many classes are mostly zeros."""
_MOST_BYTES = 1 << 26  # of one vector: score statistics of a million classes are smaller


def packed_vector(vector: Any) -> tuple[str, bytes]:
    """Return the dtype and the bytes of a vector."""
    vector = np.asarray(vector)
    if vector.dtype == np.uint32:
        return "uint32", np.ascontiguousarray(vector, "<u4").tobytes()
    if vector.dtype.kind == "f":
        return "float64", np.ascontiguousarray(vector, "<f8").tobytes()
    raw = np.ascontiguousarray(vector, "<i8").tobytes()
    return ("int64 zlib", zlib.compress(raw, 1)) if len(raw) >= LONG else ("int64", raw)


def unpacked(dtype: Any, data: Any, wanted: str | None = None, length: int | None = None) -> Any:
    """Return what `packed_vector` packed; ValueError if it is none, or of another kind or length."""
    if dtype not in DTYPES or not isinstance(data, bytes):
        raise ValueError("no numbers")
    if dtype.endswith("zlib"):
        stream = zlib.decompressobj()
        try:
            data = stream.decompress(data, _MOST_BYTES if length is None else 8 * length + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if not stream.eof:
            raise ValueError("cut off, or too long")
    vector = np.frombuffer(data, DTYPES[dtype])
    vector = vector.astype(vector.dtype.newbyteorder("="), copy=False)
    if wanted is not None and vector.dtype != wanted:
        raise ValueError(f"numbers of type {vector.dtype}")
    if length is not None and len(vector) != length:
        raise ValueError(f"{len(vector)} numbers, not {length}")
    return vector


Row = tuple[int, str, bytes]
"""An input, and its vector as `packed_vector` gives it."""


class Kept(NamedTuple):
    """Vectors of inputs (k,), increasing, as they are kept: their kinds, bytes each has (k,), and all bytes.

    ``kinds`` is one for all where they are alike.
    """

    indices: IntArray
    kinds: str | tuple[str, ...]
    lengths: IntArray
    data: bytes

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Kept:
        """Return rows together; ValueError where one is no vector of an input."""
        for index, kind, data in rows:
            if not isinstance(index, int) or kind not in DTYPES or not isinstance(data, bytes):
                raise ValueError(f"of input {index} is damaged: no numbers")
        kinds, lengths = tuple(row[1] for row in rows), [len(row[2]) for row in rows]
        return cls(
            np.array([row[0] for row in rows], np.int64), kinds[0] if len(set(kinds)) == 1 else kinds,
            np.array(lengths, np.int64), b"".join([row[2] for row in rows]),
        )  # fmt: skip

    @classmethod
    def from_block(cls, block: Any) -> Kept:
        """Return what `as_block` gave; ValueError if it is none."""
        first, last, kind, inputs, lengths, data = block
        good = kind in DTYPES and all(isinstance(one, bytes) for one in (inputs, lengths, data))
        if not good or len(inputs) % 8 or not len(inputs) or len(inputs) != 2 * len(lengths):
            raise ValueError("has a block that is damaged")
        indices = np.frombuffer(inputs, "<i8").astype(np.int64, copy=False)
        sizes = np.frombuffer(lengths, "<u4").astype(np.int64)
        if (first, last) != (indices[0], indices[-1]) or sizes.sum() != len(data):
            raise ValueError("has a block that is damaged")
        return cls(indices, kind, sizes, data)

    @classmethod
    def joined(cls, parts: Sequence[Kept]) -> Kept:
        """Return several, one after another."""
        if not parts:
            return cls.of([])
        kinds = {part.kinds for part in parts}
        return cls(
            np.concatenate([part.indices for part in parts]),
            kinds.pop() if len(kinds) == 1 else tuple(kind for part in parts for _, kind, _ in part.rows()),
            np.concatenate([part.lengths for part in parts]), b"".join(part.data for part in parts),
        )  # fmt: skip

    def between(self, ends: tuple[int, int]) -> IntArray:
        """Return those of the inputs that lie between two."""
        return self.indices[(self.indices >= ends[0]) & (self.indices <= ends[1])]

    def alike(self) -> Any:
        """Return the vectors (k, w) if all are of one kind and length and not compressed, else None."""
        if not isinstance(self.kinds, str) or self.kinds.endswith("zlib"):
            return None
        kind, length = np.dtype(DTYPES[self.kinds]), self.lengths[0]
        if np.any(self.lengths != length) or not length or length % kind.itemsize:
            return None
        values = np.frombuffer(self.data, kind).reshape(len(self.lengths), -1)
        return values.astype(kind.newbyteorder("="), copy=False)

    def as_block(self) -> tuple[int, int, str, bytes, bytes, bytes]:
        """Return them as a row of the database's table of blocks; they are of one kind."""
        assert isinstance(self.kinds, str)
        first, last = int(self.indices[0]), int(self.indices[-1])
        lengths = self.lengths.astype("<u4").tobytes()
        return first, last, self.kinds, self.indices.astype("<i8").tobytes(), lengths, self.data

    def rows(self) -> Iterator[Row]:
        """Yield one by one what is kept together."""
        ends = self.lengths.cumsum()
        kinds = [self.kinds] * len(ends) if isinstance(self.kinds, str) else self.kinds
        places = zip(self.indices.tolist(), kinds, (ends - self.lengths).tolist(), ends.tolist(), strict=True)
        return ((index, kind, self.data[begin:end]) for index, kind, begin, end in places)
