"""CIFAR-10 and CIFAR-100: folders on disk (binary files or Python batches), and two samples in the package.

A sample is every 20th image of the CIFAR-10 test set, from the first on or, to tune on, from the 11th: one
lossless PNG sheet, 25 across and 20 down, with labels, original indices and provenance in the JSON file
beside it.

A pickle may call any function it names.  Those of CIFAR (A. Krizhevsky, Learning Multiple Layers of Features
from Tiny Images, 2009) need numpy's array reconstruction and, when Python 3 wrote them, the codec that
carries bytes: each is replaced by a stand-in that only keeps what it is given, and others are refused.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from certmix.data.dataset import ArrayReader, Reader, Request, Source, checked
from certmix.data.in_file import LARGE, BinaryRows, RowsReader, stamp
from certmix.data.labels import check_labels
from certmix.errors import DataError, describe
from certmix.files import digest_of, read_file
from certmix.types import Dataset, IntArray

PIXELS = 3 * 32 * 32
LARGEST = 1 << 28
"""Bytes of a pickle; the largest official one has 155 million."""
Part = tuple[NDArray[np.uint8], IntArray]


@dataclass(frozen=True)
class Family:
    """How CIFAR-10 and CIFAR-100 name things; of the label bytes of a binary row the last one counts."""

    name: str
    class_names: tuple[str, ...]
    label_bytes: int
    binary_folder: str
    python_folder: str
    parts: dict[str, tuple[str, ...]]
    labels_key: str
    names_key: str
    names_pickle: str
    names_text: str


def _suffix(family: Family, folder: Path) -> str | None:
    """Return ``.bin`` where binary files lie, "" where Python's batches do."""
    stems = [stem for parts in family.parts.values() for stem in parts]
    held = (end for end in (".bin", "") if any((folder / f"{stem}{end}").is_file() for stem in stems))
    return next(held, None)


def find(family: Family, path: Path) -> Path | None:
    """Return the folder, or its official sub-folder, that holds this family's files."""
    folders = (path, path / family.binary_folder, path / family.python_folder)
    return next((folder for folder in folders if _suffix(family, folder) is not None), None)


def load(family: Family, folder: Path, request: Request) -> Dataset:
    """Load a split of a folder that `find` returned, uint8 (N, 3, 32, 32) in memory."""
    suffix, names = _suffix(family, folder), family.class_names
    path = folder / (family.names_text if suffix else family.names_pickle)
    if os.path.lexists(path):
        if suffix:
            listed: Any = read_file(path).decode(errors="replace").split()
        else:
            listed = read_pickle(path).get(family.names_key)
        listed = listed if isinstance(listed, list) else []
        if len(listed) != len(names):
            raise DataError(
                f"{path} has {len(listed)} class names, expected {len(names)}: "
                "unpack the official archive again, or remove the file"
            )
        names = tuple(str(name) for name in listed)
    paths = [folder / f"{stem}{suffix}" for stem in family.parts[request.split]]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path} is missing: unpack the official archive again, or use another split")
    if suffix:
        inputs, labels = _read_binary(family, paths, len(names))
    else:
        parts = [_read_python(family, path, len(names)) for path in paths]
        pixels = np.concatenate([part[0] for part in parts]).reshape(-1, 3, 32, 32)
        inputs, labels = ArrayReader(pixels), np.concatenate([part[1] for part in parts])
    request = replace(request, name=family.name)
    return checked(request, inputs, labels, names, settings={"source": family.name})


def _read_binary(family: Family, paths: Sequence[Path], classes: int) -> tuple[Reader, IntArray]:
    """Return what reads the images of binary files, and their labels; these alone are in memory."""
    row, counts, labels, kind = family.label_bytes + PIXELS, list[int](), list[IntArray](), np.dtype(np.uint8)
    for path in paths:
        known = path, *stamp(path)
        if known[1] == 0 or known[1] % row:
            raise DataError(
                f"{path} has {known[1]} bytes, expected a multiple of {row}: it is truncated or of another "
                "kind; unpack the official archive again"
            )
        counts.append(known[1] // row)
        rows = BinaryRows((known,), kind, (counts[-1], row), counts=(counts[-1],))
        found = np.concatenate([block[:, family.label_bytes - 1] for block in rows.blocks()])
        labels.append(check_labels(found, counts[-1], classes, str(path)))
    files, count = tuple((path, *stamp(path)) for path in paths), sum(counts)
    source = BinaryRows(files, kind, (count, row), counts=tuple(counts))
    reader = RowsReader(source, partial(_pixels, family.label_bytes), kind, (count, 3, 32, 32))
    return (reader if count * row > LARGE else ArrayReader(reader.everything())), np.concatenate(labels)


def _pixels(label_bytes: int, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return rows[:, label_bytes:].reshape(-1, 3, 32, 32)


def _read_python(family: Family, path: Path, classes: int) -> Part:
    batch = read_pickle(path)
    for key in ("data", family.labels_key):
        if key not in batch:
            raise DataError(
                f"{path} has no {key!r}, only {', '.join(batch) or 'nothing'}: "
                f"use the files of the official {family.python_folder}"
            )
    pixels = batch["data"]
    array = isinstance(pixels, np.ndarray)
    if not (array and pixels.dtype == np.uint8 and pixels.shape[1:] == (PIXELS,) and len(pixels)):
        found = f"{pixels.dtype} {pixels.shape}" if array else type(pixels).__name__
        raise DataError(
            f"{path}: data is {found}, expected uint8 (N, {PIXELS}): unpack the official archive again"
        )
    labels = batch[family.labels_key]
    if isinstance(labels, list) and any(isinstance(label, str) for label in labels):
        raise DataError(f"{path}: {family.labels_key} holds text values: unpack the official archive again")
    return pixels, check_labels(labels, len(pixels), classes, str(path))


class _ArrayState:
    """Stands for an ndarray, or with a code for a dtype."""

    def __init__(self, code: Any = None, state: Any = None) -> None:
        self.code, self.state = code, state

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _encode(text: str, encoding: Any) -> str:
    """Stand for a text's bytes, which are made where they are the memory of an array."""
    if encoding not in ("latin1", b"latin1"):
        raise ValueError(f"codec {encoding!r:.20}")
    return text


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): lambda kind, shape, code: _ArrayState(),
    ("numpy._core.multiarray", "_reconstruct"): lambda kind, shape, code: _ArrayState(),
    ("numpy", "ndarray"): lambda: None,
    ("numpy", "dtype"): lambda code, align=False, copy=False: _ArrayState(code),
    ("_codecs", "encode"): _encode,
}
_InPython: Any = pickle._Unpickler


class _Unpickler(_InPython):  # type: ignore[misc]
    """Admits the stand-ins and no other global.

    Python's own and not the faster one in C, whose memo, like a bytearray, takes what a file claims.
    """

    dispatch: ClassVar = {k: v for k, v in _InPython.dispatch.items() if k != pickle.BYTEARRAY8[0]}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise DataError(f"the pickle asks for {module}.{name}, which is forbidden")
        found = _KNOWN[module, name]
        return lambda *arguments: found(*arguments)  # a new one, for BUILD may write to it


def _text(value: Any) -> Any:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _plain(value: Any, most: int) -> Any:
    """Return an array, or a list of numbers or of at most `most` letters, as it was pickled; ValueError."""
    if isinstance(value, _ArrayState):
        _, shape, dtype, fortran, data = value.state
        code = _text(dtype.code)
        if code not in ("u1", "i1", "i2", "i4", "i8", "f4", "f8"):
            raise ValueError(f"an array of kind {code!r}")
        kind = np.dtype(code).newbyteorder(_text(dtype.state[1]) if dtype.state else "|")
        memory = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(memory, kind).reshape(shape, order="F" if fortran else "C")
    if isinstance(value, list):
        texts = [item for item in value if not isinstance(item, int | float)]
        if not all(isinstance(item, str | bytes) for item in texts) or sum(map(len, texts)) > most:
            raise ValueError("a list of other things than numbers and texts, or texts that are repeated")
        return [_text(item) for item in value]
    return _text(value)


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the dictionary in a CIFAR pickle: arrays, lists, integers and text as str.

    DataError if the file cannot be read, is damaged, or holds something else or a forbidden global.
    """
    try:
        raw = read_file(path, LARGEST)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of texts with odd escapes
            content = _Unpickler(io.BytesIO(raw), encoding="bytes").load()
        if not isinstance(content, dict):
            raise DataError(f"it holds a {type(content).__name__} instead of a dictionary")
        return {str(_text(key)): _plain(value, len(raw)) for key, value in content.items()}
    except PermissionError:
        raise
    except DataError as error:
        raise DataError(f"{path}: {error}: use the files of the official archive") from error
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(
            f"{path} is not a readable pickle ({describe(error)}): unpack the official archive again"
        ) from error


SAMPLE, TUNING = "cifar10-sample", "cifar10-tuning"


def load_sample(name: str, place: Path, request: Request) -> Dataset:
    """Load a sample; `place` is not used."""
    from PIL import Image

    folder, stem = files("certmix.data"), name.replace("-", "_")
    try:
        facts = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
        with Image.open(io.BytesIO((folder / f"{stem}.png").read_bytes())) as image:
            tiles = np.asarray(image.convert("RGB")).reshape(20, 32, 25, 32, 3).transpose(0, 2, 4, 1, 3)
        pixels = np.ascontiguousarray(tiles.reshape(-1, 3, 32, 32))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{name}: its files are missing or damaged: install certmix again") from error
    found = digest_of(pixels.tobytes())
    if found != facts["sha256"]:
        raise DataError(
            f"{name}: sha256 of the pixels is {found[:12]}..., expected {facts['sha256'][:12]}...: "
            "install certmix again"
        )
    labels, indices = (np.array(facts[key], np.int64) for key in ("labels", "indices"))
    return checked(request, pixels, labels, facts["class_names"], indices=indices, settings={"source": name})


CIFAR10 = Family(
    name="cifar10",
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    label_bytes=1, binary_folder="cifar-10-batches-bin", python_folder="cifar-10-batches-py",
    parts={"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)},
    labels_key="labels", names_key="label_names", names_pickle="batches.meta", names_text="batches.meta.txt",
)  # fmt: skip
CIFAR100 = Family(
    name="cifar100", class_names=tuple(str(k) for k in range(100)), label_bytes=2,
    binary_folder="cifar-100-binary", python_folder="cifar-100-python",
    parts={"train": ("train",), "test": ("test",)}, labels_key="fine_labels", names_key="fine_label_names",
    names_pickle="meta", names_text="fine_label_names.txt",
)  # fmt: skip

SOURCES = {
    name: Source(
        f"500 CIFAR-10 test images (indices {first}, {first + 20}, ..., {first + 9980}) inside the package; "
        "split test",
        partial(load_sample, name),
        splits=("test",),
        options=(),
    )
    for name, first in ((SAMPLE, 0), (TUNING, 10))
} | {
    family.name: Source(
        f"{family.name.upper().replace('CIFAR', 'CIFAR-')} folder, binary or Python version "
        f"({family.binary_folder}, {family.python_folder})",
        partial(load, family),
        partial(find, family),
        tuple(family.parts),
        options=(),
    )
    for family in (CIFAR10, CIFAR100)
}
