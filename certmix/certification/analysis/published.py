"""What lies in a run's folder, cell by cell, against what its numbers give.  No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from certmix.errors import RunError, one_line
from certmix.files import COPY_IT, LINK_OUT, leads_out, parse_json, read_file, remedy_of
from certmix.tables.formats import PLOTTED

_SEPARATORS = {".tsv": "\t", ".csv": ","}


class Difference(NamedTuple):
    """A cell of a file of a run's folder that is not what the numbers give; `input` is its row's, or None.

    Of a link that leads out of the folder nothing is compared, and `cell` is empty.
    """

    file: str
    cell: str
    there: str
    derived: str
    input: int | None = None

    def remedy(self, usual: str) -> str:
        """Return what to do: what is `usual` for a cell."""
        return usual if self.cell else COPY_IT

    def __str__(self) -> str:
        if not self.cell:
            return f"{self.file} {self.there}"
        own, derived = (one_line(text) or "nothing" for text in (self.there, self.derived))
        return f"{self.file}, {self.cell}: {own} lies there, the numbers give {derived}"


def differences(
    folder: Path,
    texts: Mapping[str, str],
    plots: Mapping[str, Callable[[str], bytes]] = MappingProxyType({}),
) -> list[Difference]:
    """Return where a run's tables, log and plots are not what its numbers give, or cannot be read.

    `texts` are those of the numbers, `plots` draw what they give, by name.  Files that are not there are
    passed over.
    """
    names = [*texts, *(f"{stem}.{suffix}" for stem in plots for suffix in PLOTTED)]
    links = {name for name in names if leads_out(folder, name)}
    found = [Difference(name, "", LINK_OUT, "") for name in names if name in links]
    for name, own in texts.items():
        if name in links:
            continue
        try:
            there = read_file(folder / name).decode()
            if there != own:
                found += _compared(name, there, own)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            _refuse_kept(folder / name, error)
            found.append(Difference(name, "as a whole", f"what cannot be read ({error})", "a file"))
    for stem, draw in plots.items():
        for suffix in PLOTTED:
            name = f"{stem}.{suffix}"
            if name in links:
                continue
            try:
                if read_file(folder / name) != draw(suffix):
                    found.append(Difference(name, "as a whole", "another picture", "the plot"))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                _refuse_kept(folder / name, error)
                found.append(Difference(name, "as a whole", f"what cannot be read ({error})", "a picture"))
    return found


def _refuse_kept(path: Path, error: OSError | ValueError) -> None:
    """Raise RunError where what kept a file from being read is no fault of what it holds."""
    if remedy := remedy_of(error, ""):
        raise RunError(f"{path} cannot be read ({getattr(error, 'strerror', error)}): {remedy}") from None


def _compared(name: str, there: str, own: str) -> Iterator[Difference]:
    """Yield the cells of a file in which two texts differ by more than rounding."""
    if name.endswith(".json"):
        left, right = (_leaves(parse_json(text.encode())) for text in (there, own))
        for cell in {**right, **left}:
            if not _same(left.get(cell), right.get(cell)):
                one, other = (str(leaves.get(cell, ""))[:60] for leaves in (left, right))
                yield Difference(name, cell, one, other)
        return
    mark, heading = _SEPARATORS.get(Path(name).suffix), list[str]()
    for number, lines in enumerate(zip_longest(there.splitlines(), own.splitlines(), fillvalue=""), 1):
        heading = lines[1].split(mark) if number == 1 else heading
        if lines[0] == lines[1]:
            continue
        if mark is None or number == 1:
            alike = (k for k, (one, other) in enumerate(zip(*lines, strict=False)) if one != other)
            begin = max(0, next(alike, min(map(len, lines))) - 10)
            one, other = (line[begin : begin + 60] for line in lines)
            yield Difference(name, f"line {number}", one, other)
            continue
        cells = [line.split(mark) for line in lines]
        input = int(cells[1][0]) if heading[0] == "idx" and cells[1][0].isdecimal() else None
        for column, one, other in zip_longest(heading, *cells, fillvalue=""):
            if column != "time" and not _same(one, other):  # it grows with samples drawn for later requests
                yield Difference(name, f"line {number}, {column or 'beyond'}", one[:60], other[:60], input)


def _leaves(value: Any) -> dict[str, Any]:
    """Return the values within plain data by where they stand, such as ``rows[0].alpha``."""
    found, todo = dict[str, Any](), [("", value)]
    while todo:
        place, one = todo.pop()
        if isinstance(one, dict):
            todo += [(f"{place}.{key}".removeprefix("."), inner) for key, inner in reversed(one.items())]
        elif isinstance(one, list):
            todo += [(f"{place}[{k}]", inner) for k, inner in reversed([*enumerate(one)])]
        else:
            found[place] = one
    return found


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other) or math.isclose(float(one), float(other), rel_tol=1e-10, abs_tol=1e-12)
    except (OverflowError, TypeError, ValueError):
        return False
