"""How a vector of numbers is kept in a database: the name of its kind, and its bytes."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

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
