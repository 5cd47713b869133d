"""Inputs and labels in two files beside each other: ``.npy`` files, and IDX files as MNIST's."""

from __future__ import annotations

import gzip
import io
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.data.arrays import from_arrays
from certmix.data.dataset import Request, Source
from certmix.data.in_file import LARGE, BinaryRows, ColumnRows, Rows, stamp
from certmix.errors import DataError, describe
from certmix.files import ArrayHeader, open_file, read_array, what_it_is
from certmix.types import Dataset

LABELS_OF = {
    **dict.fromkeys(("inputs", "images", "features", "data"), ("labels", "targets")),
    "X": ("y", "Y"), "x": ("y",),
}  # fmt: skip
"""What the labels' file is called where the inputs' one has this word."""
IDX = re.compile(r"(?P<part>.*?)-?images[-.]idx3-ubyte(\.gz)?$")
SPLITS = {"test": "t10k", "train": "train"}
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_MOST = 1 << 33


def find(path: Path) -> Path | None:
    """Return the file of inputs, or the folder of IDX files."""
    if path.is_file():
        return path if path.suffix.lower() == ".npy" or IDX.match(path.name) else None
    return path if any(map(IDX.match, _names(path))) else None


def _names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []


def load(path: Path, request: Request) -> Dataset:
    """Load inputs, and labels from the file beside them."""
    if path.is_dir():
        known = {found["part"]: name for name in reversed(_names(path)) if (found := IDX.match(name))}
        part = SPLITS.get(request.split, request.split)
        if part not in known:
            splits = [split for split, name in SPLITS.items() if name in known]
            raise DataError(
                f"{path} has no split {request.split!r}: use {' or '.join(splits or sorted(known))}"
            )
        path = path / known[part]
    else:
        request.refuse_split(str(path), "name two files")
    labels = _labels_of(path)
    settings = {"source": "idx" if IDX.match(path.name) else "npy", "labels_file": labels.name}
    return from_arrays(request, _read(path, True), np.asarray(_read(labels)), str(path), settings=settings)


def _labels_of(path: Path) -> Path:
    """Return the file of labels beside a file of inputs."""
    if IDX.match(path.name):
        name = path.name.replace("images", "labels").replace("idx3", "idx1")
        tried = [name, name.removesuffix(".gz"), f"{name}.gz"]
    else:
        words = re.split(r"([_\-. ])", path.name)
        tried = [
            "".join([*words[:k], label, *words[k + 1 :]])
            for k, word in enumerate(words)
            for label in LABELS_OF.get(word, ())
        ]
    there = [path.with_name(name) for name in tried if path.with_name(name).is_file()]
    if not there:
        usual = tried or ["labels.npy, of inputs.npy"]
        raise DataError(
            f"{path} holds inputs, and no labels lie beside it ({', '.join(usual[:3])}): name them so, or "
            "save both with np.savez('mine.npz', inputs=..., labels=...)"
        )
    return there[0]


def _read(path: Path, large: bool = False) -> NDArray[Any] | Rows:
    """Return a file's array, or where it is large, and may be, its rows in the file."""
    try:
        with open_file(path) as file:
            if wrong := what_it_is(file.read(100)):
                raise DataError(f"{path} is no array: {wrong}")
            file.seek(0)
            stays = large and path.stat().st_size > LARGE
            if path.suffix.lower() != ".npy":
                return _idx(file.read(_MOST), path.suffix == ".gz")
            found = read_array(file, path.stat().st_size, path.name, lambda by_column: stays)
    except (DataError, OSError):
        raise
    except Exception as error:  # headers and archives share no base class of errors
        raise DataError(f"{path} cannot be read ({describe(error)}): save it again") from error
    if isinstance(found, ArrayHeader):
        files = ((path, *stamp(path)),)
        kind = ColumnRows if found.by_column else BinaryRows
        return kind(files, found.dtype, found.shape, found.shape[:1], found.begin)
    return found


def _idx(raw: bytes, packed: bool) -> NDArray[Any]:
    """Return the array of an IDX file; ValueError if it is none."""
    if packed:
        with gzip.open(io.BytesIO(raw)) as file:
            raw = file.read(1 << 31)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES:
        raise ValueError("it does not begin as an IDX file does")
    begin = 4 + 4 * raw[3]
    shape = struct.unpack(f">{raw[3]}I", raw[4:begin])
    dtype = np.dtype(_IDX_TYPES[raw[2]])
    if len(raw) - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"it claims shape {shape}, which its {len(raw) - begin:,} bytes are not")
    return np.frombuffer(raw, dtype, offset=begin).reshape(shape)


SOURCE = Source(
    description="PATH.npy of inputs with its labels beside it (X.npy, y.npy), or IDX files as MNIST's",
    load=load,
    find=find,
)
