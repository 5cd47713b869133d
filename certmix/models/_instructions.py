"""A look at the instructions of torch's pickles, before the library follows them.

The library refuses to run code from them, but not to build: tuples that nest a
hundred thousand times, or that repeat one another, end the process or occupy
it for years once they are hashed, which any of them is that serves as a key.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from typing import IO, Any

_DEEPEST = _SLACK = 1000
_PICKLES = 5
"""In a file of the format before zip archives."""
_BOXES = frozenset(
    (
        "LIST", "EMPTY_LIST", "APPEND", "APPENDS", "DICT", "EMPTY_DICT", "SETITEM", "SETITEMS",
        "EMPTY_SET", "ADDITEMS",
    )
)  # fmt: skip
"""What makes lists, dictionaries and sets: these cannot be hashed, so that nothing follows them inside."""

Extent = tuple[int, int]
"""How many values something consists of, each as often as it is met, and how deep they lie."""


def check_pickles(data: bytes) -> None:
    """Refuse a torch file that would build more than its length warrants.

    Raises
    ------
    ValueError, LookupError, zipfile.BadZipFile
        If it would, or is damaged.
    """
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                if name.endswith(".pkl"):
                    _check(io.BytesIO(archive.read(name)))
        return
    stream = io.BytesIO(data)
    for _ in range(_PICKLES):
        _check(stream)


def _check(stream: IO[bytes]) -> None:
    """Follow one pickle, keeping the extents of values in place of them."""
    stack: list[Extent | None] = []  # None is a mark
    memo: dict[int, Extent | None] = {}
    for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
        name = instruction.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            taken = _take(stack, instruction)
            made = (1, 1) if name in _BOXES else (1 + sum(n for n, _ in taken), 1 + max(taken, key=_depth)[1])
            if made[0] > count + _SLACK or made[1] > _DEEPEST:
                raise ValueError("tuples that nest or repeat without measure")
            after = instruction.stack_after
            stack += [None if one is pickletools.markobject else made for one in after]


def _depth(extent: Extent) -> int:
    return extent[1]


def _take(stack: list[Extent | None], instruction: Any) -> list[Extent]:
    """Take from the stack what an instruction consumes; at least one value of no extent."""
    before, taken = instruction.stack_before, [(0, 0)]
    number = len(before)
    if pickletools.markobject in before:
        while (value := stack.pop()) is not None:
            taken.append(value)
        number = before.index(pickletools.markobject)
    for _ in range(number):
        taken.append(stack.pop() or (0, 0))
    return taken
