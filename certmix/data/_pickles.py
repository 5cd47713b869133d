"""Read the pickles of CIFAR without running anything that they name.

A pickle may call any function it names.  Those of CIFAR need four: numpy's
array reconstruction, its array and dtype types, and, when Python 3 wrote them,
the codec that carries bytes.  Each is replaced by a stand-in that only keeps
what it is given; the arrays are then made from that by `np.frombuffer`.  Any
other name is refused, so no code of numpy or of the pickle runs meanwhile.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.data._common import one_line
from certmix.errors import DataError


class _ArrayState:
    """Stands for an ndarray."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _DtypeState(_ArrayState):
    """Stands for a dtype."""

    def __init__(self, code: Any) -> None:
        self.code = code
        self.state = None


def _reconstruct(kind: Any, shape: Any, code: Any) -> _ArrayState:
    return _ArrayState()


def _dtype(code: Any, align: Any = False, copy: Any = False) -> _DtypeState:
    return _DtypeState(code)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"codec {encoding!r} instead of latin1")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    """Admits the stand-ins and no other global."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise DataError(f"the pickle asks for {module}.{name}, which is forbidden")
        return _STAND_INS[module, name]


def _text(value: Any) -> Any:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _array(value: _ArrayState) -> NDArray[Any]:
    _, shape, dtype, fortran, data = value.state
    code = _text(dtype.code)
    if code not in ("u1", "i1", "i2", "i4", "i8", "f4", "f8"):
        raise ValueError(f"an array of kind {code!r}")
    order = _text(dtype.state[1]) if dtype.state else "|"
    kind = np.dtype(code).newbyteorder(order)
    return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


def _plain(value: Any) -> Any:
    if isinstance(value, _ArrayState):
        return _array(value)
    if isinstance(value, list):
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
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
        if not isinstance(content, dict):
            raise DataError(f"it holds a {type(content).__name__} instead of a dictionary")
        return {str(_text(key)): _plain(value) for key, value in content.items()}
    except DataError as error:
        raise DataError(f"{path}: {error}: use the files of the official archive") from error
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(
            f"{path} is not a readable pickle ({one_line(error)}): unpack the official archive again"
        ) from error
