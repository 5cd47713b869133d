"""Read the pickles of CIFAR without running anything that they name.

A pickle may call any function it names.  Those of CIFAR need four: numpy's
array reconstruction, its array and dtype types, and, when Python 3 wrote them,
the codec that carries bytes.  Each is replaced by a stand-in that only keeps
what it is given; the arrays are then made from that by `np.frombuffer`.  Any
other name is refused, so no code of numpy or of the pickle runs meanwhile.

Nor can a small pickle build something huge: a look at its instructions
beforehand refuses those that repeat a list, a dictionary or a tuple, tuples
nested in thousands, and places of the memo beyond the file.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import warnings
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
        found = _STAND_INS[module, name]
        if isinstance(found, str):
            return found
        return lambda *arguments: found(*arguments)  # a new one, for BUILD may write to it


_MAKES_ATOMS = frozenset(
    (
        "BINBYTES", "BINBYTES8", "BINSTRING", "BINUNICODE", "BINUNICODE8", "GLOBAL", "REDUCE",
        "SHORT_BINBYTES", "SHORT_BINSTRING", "SHORT_BINUNICODE", "STACK_GLOBAL", "STRING", "UNICODE",
    )
)  # fmt: skip
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_SLACK = 1000
"""Tuples that nest, characters of a text that is used again, and places that the memo skips."""


def _check_instructions(content: bytes) -> None:
    """Refuse a pickle whose contents could outgrow its length; ValueError."""
    atoms: set[int] = set()
    memoized = tuples = 0
    atom = False
    for instruction, argument, _ in pickletools.genops(content):
        name = instruction.name
        if name in _PUTS:
            place = memoized if argument is None else int(argument)
            memoized += 1
            if not 0 <= place <= memoized + _SLACK:
                raise ValueError(f"place {place} of the memo")
            (atoms.add if atom else atoms.discard)(place)
        elif name in _GETS:
            atom = True
            if int(argument or 0) not in atoms:
                raise ValueError(f"place {argument} of the memo is used again, and is no short text or array")
        elif name not in ("FRAME", "PROTO"):
            atom = name in _MAKES_ATOMS and len(argument or "") <= _SLACK
            tuples += name.startswith("TUPLE") - (name == "REDUCE")
            if name == "DUP" or tuples > _SLACK:
                raise ValueError(f"{name}, which those of CIFAR do not hold or not as often")


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


def _plain(value: Any, most: int) -> Any:
    if isinstance(value, _ArrayState):
        return _array(value)
    if isinstance(value, list):
        if sum(len(item) for item in value if isinstance(item, bytes)) > most:
            raise ValueError("text that is repeated")
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
            _check_instructions(raw)
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
            f"{path} is not a readable pickle ({one_line(error)}): unpack the official archive again"
        ) from error
