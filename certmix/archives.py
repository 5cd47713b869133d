"""Zip archives that somebody else may have written, and the arrays in them."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Collection
from typing import IO, Any, BinaryIO

from numpy.lib import format as npy
from numpy.typing import NDArray

__all__ = ["read_arrays", "refuse_bomb", "what_it_is"]

_FREE = 1 << 28
_TIMES = 200
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def what_it_is(content: bytes) -> str | None:
    """Say what a file of a failed download is and what to do; None for what may hold numbers.

    Parameters
    ----------
    content
        The first 100 bytes, or more.

    Examples
    --------
    >>> what_it_is(b"<!DOCTYPE html><html>quota exceeded</html>")
    'it is a web page: download it again'
    """
    if not content:
        return "it is empty: download it again"
    if content.startswith(b"version https://git-lfs.github.com/"):
        return "it is a pointer of Git LFS: fetch the file with git lfs pull"
    if content.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page: download it again"
    return None


def refuse_bomb(file: BinaryIO) -> None:
    """Refuse a zip archive that expands to more than 256 MiB and 200 times its size.

    The file is left at its beginning.

    Raises
    ------
    ValueError
        If it does.  What is no archive raises what `zipfile` raises.
    """
    with zipfile.ZipFile(file) as archive:
        expanded = sum(member.file_size for member in archive.infolist())
    size = file.seek(0, 2)
    file.seek(0)
    if expanded > max(_FREE, _TIMES * size):
        raise ValueError(f"its {size:,} bytes expand to {expanded:,}")


def read_arrays(file: BinaryIO, names: Collection[str]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Return those arrays of an ``.npz`` file that have these names, and the names of all.

    Nothing is unpickled, and an array takes as many bytes as the file holds of it.

    Raises
    ------
    Exception
        Of almost any kind, for a damaged file: those of zip, zlib and headers share no base class.
    """
    refuse_bomb(file)
    found = {}
    with zipfile.ZipFile(file) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        held = [name.removesuffix(".npy") for name in archive.namelist()]
        for name in names:
            if name in held:
                with archive.open(f"{name}.npy") as member:
                    found[name] = _array(name, member, archive.getinfo(f"{name}.npy").file_size)
    return found, held


def _array(name: str, member: IO[bytes], length: int) -> NDArray[Any]:
    shape, _, dtype = _HEADERS[npy.read_magic(member)](member)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which only code could restore")
    if dtype.itemsize == 0 or math.prod(shape) * dtype.itemsize != length - member.tell():
        raise ValueError(f"{name} claims shape {shape} of {dtype}, which its {length} bytes are not")
    member.seek(0)
    array: NDArray[Any] = npy.read_array(member, allow_pickle=False)
    return array
