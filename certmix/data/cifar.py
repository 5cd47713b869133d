"""The folders of CIFAR-10 and CIFAR-100 on the user's disk: official binary files or Python batches.

A pickle may call any function it names.  Those of CIFAR need numpy's array reconstruction and, when
Python 3 wrote them, the codec that carries bytes: each is replaced by a stand-in that only keeps what it
is given, and any other name is refused.  Nor can a small pickle build something huge: keys are texts,
lists hold numbers or texts alone, and texts are no longer than the file.

References
----------
A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

import io
import pickle
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from certmix.data.dataset import (
    Request,
    Source,
    check_labels,
    check_split,
    in_memory,
    one_line,
    refuse_range,
    refuse_resizing,
)
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
    labels = batch[family.labels_key]
    if isinstance(labels, list) and any(isinstance(label, str) for label in labels):
        raise DataError(f"{path}: {family.labels_key} holds text values: unpack the official archive again")
    return pixels, check_labels(labels, len(pixels), classes, str(path))


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


class _ArrayState:
    """Stands for an ndarray, or with a code for a dtype."""

    def __init__(self, code: Any = None, state: Any = None) -> None:
        self.code, self.state = code, state

    def __setstate__(self, state: Any) -> None:
        self.state = state


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): lambda kind, shape, code: _ArrayState(),
    ("numpy._core.multiarray", "_reconstruct"): lambda kind, shape, code: _ArrayState(),
    ("numpy", "dtype"): lambda code, align=False, copy=False: _ArrayState(code),
}
_INSTRUCTIONS = (
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT "
    "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES EMPTY_LIST "
    "LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS PUT BINPUT "
    "LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD"
)


_InPython: Any = pickle._Unpickler


class _Unpickler(_InPython):  # type: ignore[misc]
    """Admits the stand-ins, no other global, and no instruction that those of CIFAR lack.

    It is Python's own and not the faster one in C, whose memo takes as much memory as a file claims.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        code: _InPython.dispatch[code]
        for code in (getattr(pickle, name)[0] for name in _INSTRUCTIONS.split())
    }

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self.left = len(content)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: self._encode(text, encoding)
        if (module, name) not in _KNOWN:
            raise DataError(f"the pickle asks for {module}.{name}, which is forbidden")
        found = _KNOWN[module, name]
        return lambda *arguments: found(*arguments)  # a new one, for BUILD may write to it

    def _encode(self, text: str, encoding: str) -> bytes:
        self.left -= len(text)
        if encoding not in ("latin1", b"latin1") or self.left < 0:
            raise ValueError(f"codec {encoding!r:.20} of texts longer than the file")
        return text.encode("latin1")

    def _filled(self, items: list[Any]) -> dict[Any, Any]:
        """Return keys and values as a dictionary; a nested key could take for ever to hash."""
        if not all(isinstance(key, str | bytes) for key in items[::2]):
            raise ValueError("a key that is no text")
        return dict(zip(items[::2], items[1::2], strict=True))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(self._filled(items))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1].update(self._filled([key, value]))

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(self._filled(items))

    dispatch |= {
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }


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
        return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")
    if isinstance(value, list):
        texts = [item for item in value if not isinstance(item, int | float)]
        if any(not isinstance(item, str | bytes) for item in texts) or sum(map(len, texts)) > most:
            raise ValueError("a list of other things than numbers and texts, or texts that are repeated")
        return [_text(item) for item in value]
    return _text(value)


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the dictionary in a CIFAR pickle: arrays, lists, integers and text.

    Keys and text written by Python 2 as bytes come back as str.

    Raises
    ------
    DataError
        If the file cannot be read, is damaged, holds something else than a
        dictionary, or names a global other than numpy's array reconstruction.
    """
    try:
        raw = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of texts with odd escapes
            content = _Unpickler(raw).load()
        if not isinstance(content, dict):
            raise DataError(f"it holds a {type(content).__name__} instead of a dictionary")
        return {str(_text(key)): _plain(value, len(raw)) for key, value in content.items()}
    except PermissionError:
        raise
    except DataError as error:
        raise DataError(f"{path}: {error}: use the files of the official archive") from error
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(
            f"{path} is not a readable pickle ({one_line(error)}): unpack the official archive again"
        ) from error


CIFAR10 = Family(
    name="cifar10",
    class_names=(
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
    label_bytes=1,
    binary_folder="cifar-10-batches-bin",
    python_folder="cifar-10-batches-py",
    parts={"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)},
    labels_key="labels",
    names_key="label_names",
    names_pickle="batches.meta",
    names_text="batches.meta.txt",
)  # fmt: skip
CIFAR100 = Family(
    name="cifar100",
    class_names=tuple(str(k) for k in range(100)),
    label_bytes=2,
    binary_folder="cifar-100-binary",
    python_folder="cifar-100-python",
    parts={"train": ("train",), "test": ("test",)},
    labels_key="fine_labels",
    names_key="fine_label_names",
    names_pickle="meta",
    names_text="fine_label_names.txt",
)

SOURCES = {
    family.name: Source(
        f"{family.name.upper().replace('CIFAR', 'CIFAR-')} folder, binary or Python version "
        f"({family.binary_folder}, {family.python_folder})",
        partial(load, family),
        partial(find, family),
    )
    for family in (CIFAR10, CIFAR100)
}
