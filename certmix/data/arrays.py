"""Arrays in an ``.npz`` file: `inputs`, `labels`, and if wanted `indices` and `class_names`."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.data.dataset import ArrayReader, Reader, Request, Source, checked
from certmix.data.in_file import LARGE, Rows, RowsReader, ZippedRows
from certmix.data.labels import check_integers, understand_labels
from certmix.errors import DataError, describe
from certmix.files import ArrayHeader, open_file, read_arrays, what_it_is
from certmix.types import Dataset

ROUNDING = 1e-6
"""Part of the range by which conversions leave it: such inputs are clipped."""
_WHOLE = 2**24
"""Whole numbers up to this are float32 numbers."""
LARGEST_WHOLE = 1 << 29
"""Bytes of inputs that are read whole where their form has no parts."""
KEYS = ("inputs", "labels", "indices", "class_names")


def _stays(path: Path, member: zipfile.ZipInfo, by_column: bool) -> bool:
    """Whether an array stays in its file: inputs that are large, in a form whose parts can be read."""
    parts = (zipfile.ZIP_STORED,) if by_column else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if member.filename != "inputs.npy" or member.file_size <= LARGE:
        return False
    if (stays := member.compress_type in parts) or member.file_size <= LARGEST_WHOLE:
        return stays
    how = "compressed in Fortran order" if by_column else "compressed by another method than deflate"
    raise DataError(
        f"{path}: inputs has {member.file_size:,} bytes, {how}, of which no part can be read by itself: save "
        "np.ascontiguousarray(inputs) with np.savez"
    )


def load(path: Path, request: Request) -> Dataset:
    """Load the arrays; the file is one set, and a split that is named is refused."""
    where = str(path)
    request.refuse_split(where, "give two files")
    with open_file(path) as file:
        if wrong := what_it_is(file.read(100)):
            raise DataError(f"{path} is not an .npz archive: {wrong}")
        if not zipfile.is_zipfile(file):
            raise DataError(f"{path} is not an .npz archive, or a truncated one: save it with np.savez")
        try:
            arrays, held = read_arrays(file, KEYS, partial(_stays, path))
        except DataError:
            raise
        except Exception as error:  # zip, zlib, header and object-array faults share no base class
            raise DataError(
                f"{path} cannot be read ({describe(error)}): save plain arrays with np.savez"
            ) from error
    for key in ("inputs", "labels"):
        if key not in arrays:
            raise DataError(
                f"{where} has no {key!r}, only {', '.join(held) or 'nothing'}: "
                "save it with np.savez(path, inputs=..., labels=...)"
            )
    inputs = arrays["inputs"]
    if isinstance(inputs, ArrayHeader):
        inputs = ZippedRows.of(path, "inputs.npy", inputs)
    names: tuple[str, ...] = ()
    if (listed := arrays.get("class_names")) is not None:
        if listed.ndim != 1 or listed.dtype.kind not in "US" or len(listed) < 2:
            raise DataError(
                f"{where}: class_names is {listed.dtype} of shape {listed.shape}, expected at least 2 texts: "
                "save np.array(['cat', 'dog', ...])"
            )
        names = tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in listed)
    return from_arrays(
        request, inputs, arrays["labels"], where, class_names=names, indices=arrays.get("indices"),
        settings={"source": "npz"},
    )  # fmt: skip


def from_arrays(
    request: Request,
    inputs: NDArray[Any] | Rows,
    labels: Any,
    where: str,
    *,
    class_names: Sequence[str] = (),
    indices: Any = None,
    features: Sequence[str] = (),
    settings: dict[str, Any],
) -> Dataset:
    """Return the data set of numbers (N, ...), in memory or in a file, and labels in any form.

    uint8 images, (N, H, W), channels last or, where they look it, first, are scaled to [0, 1]; other whole
    numbers are taken as they are.
    """
    count = inputs.shape[0] if inputs.shape else 0
    if 0 in (count, *inputs.shape):
        raise DataError(f"{where}: inputs has shape {inputs.shape}, so it is empty: give at least one input")
    reader: Reader
    if inputs.dtype == np.uint8 and len(inputs.shape) in (3, 4):
        request.refuse_range("uint8 images")
        reader = _reader(inputs, _images)
    else:
        reader = _reader(inputs, partial(_floats, where))
        reader, clipped = _clipped(reader, request.input_range, where)
        settings = settings | ({"clipped": clipped} if clipped else {})
    found = understand_labels(labels, count, class_names, where)
    settings = settings | ({"labels": found.told} if found.told else {})
    if indices is not None:
        indices = check_integers(indices, count, "indices", where)
        unique, times = np.unique(indices, return_counts=True)
        if len(unique) < count:
            twice = unique[times > 1][0]
            raise DataError(f"{where}: index {twice} occurs more than once: give distinct indices, or none")
    return checked(
        request, reader, found.values, found.class_names, indices=indices, settings=settings,
        features=features,
    )  # fmt: skip


def _reader(
    source: NDArray[Any] | Rows, prepare: Callable[[NDArray[Any]], NDArray[Any]]
) -> ArrayReader | RowsReader:
    """Return what reads inputs, prepared, from memory or from their file."""
    if isinstance(source, np.ndarray):
        return ArrayReader(prepare(source))
    shown = prepare(np.zeros((1, *source.shape[1:]), source.dtype))
    return RowsReader(source, prepare, shown.dtype, (source.shape[0], *shown.shape[1:]))


def _images(inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 (N, C, H, W) of these, of (N, H, W, C), or of greyscale (N, H, W)."""
    if inputs.ndim == 3:
        return np.ascontiguousarray(inputs[:, None])
    first = inputs.shape[1] in (1, 3, 4) and inputs.shape[3] not in (1, 3, 4)
    return np.ascontiguousarray(inputs if first else inputs.transpose(0, 3, 1, 2))


def _floats(where: str, inputs: NDArray[Any]) -> NDArray[np.float32]:
    """Return inputs as float32; DataError for others than numbers (N, ...) that float32 holds."""
    if inputs.dtype.kind not in "fiub" or inputs.ndim < 2:
        raise DataError(
            f"{where}: inputs are {inputs.dtype} of shape {inputs.shape}, "
            "expected numbers (N, ...), such as (N, features) or uint8 images (N, H, W, C)"
        )
    with np.errstate(all="ignore"):
        found = np.ascontiguousarray(inputs, np.float32)
    if inputs.dtype.kind in "iu" and inputs.size and np.abs(found).max() > _WHOLE:
        raise DataError(
            f"{where}: inputs hold whole numbers beyond {_WHOLE:,}, which float32 rounds: scale them, and "
            "store floats"
        )
    return found


def _extent(reader: Reader, where: str) -> tuple[float, float]:
    """Return the least and the largest value; DataError names the first input that has one not finite."""
    low, high, begin = math.inf, -math.inf, 0
    for block in reader.blocks():
        least, most = float(block.min()), float(block.max())
        if not (math.isfinite(least) and math.isfinite(most)):
            bad = begin + int(np.argmin(np.isfinite(block.reshape(len(block), -1)).all(axis=1)))
            raise DataError(
                f"{where}: inputs[{bad}] holds NaN or values that are infinite in float32: "
                "remove or mend such inputs"
            )
        low, high, begin = min(low, least), max(high, most), begin + len(block)
    return low, high


def _clipped(reader: Reader, input_range: tuple[float, float] | None, where: str) -> tuple[Reader, str]:
    """Return inputs inside the range, and in words what rounding had left outside and was clipped."""
    low, high = _extent(reader, where)
    if input_range is None or (low >= input_range[0] and high <= input_range[1]):
        return reader, ""
    least, most = input_range
    outside, ran = f"{least:g},{most:g}", f"inputs run from {_outward(low, -1)} to {_outward(high, 1)}"
    if max(least - low, high - most) <= ROUNDING * (most - least):
        told = f"{ran}, by rounding outside {outside}, and were clipped to it"
        if isinstance(reader, RowsReader):
            return replace(reader, prepare=partial(_inside, reader.prepare, least, most)), told
        return ArrayReader(_inside(None, least, most, reader.everything())), told
    pixels = input_range == (0.0, 1.0) and low >= 0 and 1 < high <= 255
    divide = "divide them by 255, as models and sigma expect, or " if pixels else ""
    wider = f"{_outward(min(low, least), -1)},{_outward(max(high, most), 1)}"
    raise DataError(
        f"{where}: {ran}, outside {outside}: {divide}pass --input-range {wider}, which holds them, or clip "
        f"them with np.clip(inputs, {outside})"
    )


def _inside(
    prepare: Callable[[NDArray[Any]], NDArray[Any]] | None, least: float, most: float, rows: NDArray[Any]
) -> NDArray[Any]:
    return np.clip(rows if prepare is None else prepare(rows), np.float32(least), np.float32(most))


def _outward(value: float, side: int) -> str:
    """Return a text of at least 6 digits that is not below the value (side 1), or not above it (-1)."""
    texts = (f"{value:.{digits}g}" for digits in range(6, 18))
    return next(text for text in texts if (float(text) - value) * side >= 0)


SOURCE = Source(
    description="PATH.npz with arrays inputs (float, or uint8 images) and labels",
    load=load,
    find=lambda path: path if path.is_file() and path.suffix.lower() == ".npz" else None,
)
