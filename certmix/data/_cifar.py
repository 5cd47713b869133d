"""The folders of CIFAR-10 and CIFAR-100: official binary files or Python batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from certmix.data._common import Request, check_labels, check_split, in_memory, refuse_range, refuse_resizing
from certmix.data._pickles import read_pickle
from certmix.errors import DataError
from certmix.types import Dataset, IntArray

PIXELS = 3 * 32 * 32
Part = tuple[NDArray[np.uint8], IntArray]


@dataclass(frozen=True)
class Family:
    """How CIFAR-10 and CIFAR-100 name things.

    ``label_bytes`` is the number of label bytes before the pixels of a binary
    row; the last one is the label that is used.
    """

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


def _layout(family: Family, folder: Path) -> str | None:
    stems = [stem for parts in family.parts.values() for stem in parts]
    if any((folder / f"{stem}.bin").is_file() for stem in stems):
        return "binary"
    return "python" if any((folder / stem).is_file() for stem in stems) else None


def find(family: Family, path: Path) -> Path | None:
    """Return the folder, or its official sub-folder, that holds this family's files."""
    for folder in (path, path / family.binary_folder, path / family.python_folder):
        if _layout(family, folder) is not None:
            return folder
    return None


def load(family: Family, folder: Path, request: Request) -> Dataset:
    """Load a split of a folder that `find` returned, uint8 (N, 3, 32, 32) in memory."""
    check_split(request, tuple(family.parts), str(folder))
    refuse_resizing(request, f"{family.name} folders")
    refuse_range(request, f"{family.name} folders")
    layout = _layout(family, folder)
    names = _class_names(family, folder, layout)
    read, suffix = (_read_binary, ".bin") if layout == "binary" else (_read_python, "")
    read_parts = []
    for stem in family.parts[request.split]:
        path = folder / f"{stem}{suffix}"
        if not path.is_file():
            raise DataError(f"{path} is missing: unpack the official archive again, or use another split")
        read_parts.append(read(family, path, len(names)))
    pixels = np.concatenate([part[0] for part in read_parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([part[1] for part in read_parts])
    return in_memory(
        replace(request, name=family.name), pixels, labels, names, settings={"source": family.name}
    )


def _read_binary(family: Family, path: Path, classes: int) -> Part:
    row = family.label_bytes + PIXELS
    content = np.fromfile(path, np.uint8)
    if content.size == 0 or content.size % row:
        raise DataError(
            f"{path} has {content.size} bytes, expected a multiple of {row}: it is truncated or of another "
            "kind; unpack the official archive again"
        )
    rows = content.reshape(-1, row)
    labels = check_labels(rows[:, family.label_bytes - 1], len(rows), classes, str(path))
    return rows[:, family.label_bytes :], labels


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
    return pixels, check_labels(batch[family.labels_key], len(pixels), classes, str(path))


def _class_names(family: Family, folder: Path, layout: str | None) -> tuple[str, ...]:
    path = folder / (family.names_text if layout == "binary" else family.names_pickle)
    if not path.is_file():
        return family.class_names
    if layout == "binary":
        names = path.read_text(encoding="utf-8", errors="replace").split()
    else:
        listed = read_pickle(path).get(family.names_key)
        names = listed if isinstance(listed, list) else []
    expected = len(family.class_names)
    if len(names) != expected:
        raise DataError(
            f"{path} has {len(names)} class names, expected {expected}: "
            "unpack the official archive again, or remove the file"
        )
    return tuple(str(name) for name in names)
