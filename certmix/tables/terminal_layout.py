"""Choosing how a table is laid out so that every cell fits a given number of columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from certmix.tables.cells import accuracy, interval_ends, known, mean_radius
from certmix.tables.wording import certificate_label, one_line, radius_heading
from certmix.types import CertifiedAccuracy, Summary

__all__ = ["Block", "fit"]


@dataclass(frozen=True)
class _Layout:
    """Where and how finely intervals are shown, which row names, how far apart columns stand."""

    beside: bool
    digits: int
    long_names: bool
    gap: int = 2
    least_width: int = 0


_LAYOUTS = (
    _Layout(beside=True, digits=1, long_names=True),
    _Layout(beside=True, digits=0, long_names=True, least_width=121),
    _Layout(beside=True, digits=0, long_names=False, least_width=121),
    _Layout(beside=False, digits=1, long_names=True),
    _Layout(beside=False, digits=1, long_names=False),
    _Layout(beside=False, digits=0, long_names=True),
    _Layout(beside=False, digits=0, long_names=False),
    _Layout(beside=False, digits=0, long_names=False, gap=1),
)

_Row = tuple[str, list[tuple[str, str]], list[str]]  #: name, (figure, interval) a radius, mean radius


@dataclass(frozen=True)
class Block:
    """Some of the radii, ready to print.

    Parameters
    ----------
    heading
        One cell a column; may hold two lines.
    groups
        Classifier and its rows: name, (figure, interval) a radius, and the
        mean radius as a list of one, or of none except in the last block.
    widths
        Characters a column needs.
    gap
        Blanks between columns.
    separator
        What stands between a figure and its interval.
    """

    heading: list[str]
    groups: list[tuple[str, list[_Row]]]
    widths: list[int]
    gap: int
    separator: str

    @property
    def width(self) -> int:
        """Characters that the block needs."""
        return sum(self.widths) + self.gap * (len(self.widths) - 1)


def fit(summary: Summary, width: int) -> list[Block]:
    """Return the fewest blocks, in the most telling layout, that fit the width.

    Where nothing fits (fewer than about 30 columns), one radius a block in the smallest layout.
    """
    radii = max(1, len(summary.radii))
    for count in range(1, radii + 1):
        for layout in _LAYOUTS:
            blocks = _blocks(summary, math.ceil(radii / count), layout)
            if width >= layout.least_width and all(block.width <= width for block in blocks):
                return blocks
    return blocks


def _blocks(summary: Summary, size: int, layout: _Layout) -> list[Block]:
    count = len(summary.radii)
    starts = range(0, max(1, count), size)
    return [_block(summary, range(s, min(s + size, count)), layout, last=s == starts[-1]) for s in starts]


def _block(summary: Summary, columns: range, layout: _Layout, *, last: bool) -> Block:
    line_end = " " if layout.beside else "\n"
    headings = [radius_heading(summary.radii[i]).replace(" ", line_end) for i in columns]
    heading = ["certificate", *headings, *([f"mean{line_end}radius"] if last else [])]
    rows = [(row.classifier, _row(row, columns, layout, last, summary.norm)) for row in summary.rows]
    printed = [heading, *(_texts(row, line_end) for _, row in rows)]
    return Block(
        heading=heading,
        groups=[(name, [row for _, row in group]) for name, group in groupby(rows, key=lambda pair: pair[0])],
        widths=[max(map(_text_width, column)) for column in zip(*printed, strict=True)],
        gap=layout.gap,
        separator=line_end,
    )


def _row(row: CertifiedAccuracy, columns: range, layout: _Layout, last: bool, norm: str) -> _Row:
    name = certificate_label(row.certificate) if layout.long_names else one_line(row.certificate)
    cells = [_cell(row.certified_accuracy[i], row.interval[i], layout) for i in columns]
    return name, cells, [mean_radius(row, norm=norm)] if last else []


def _cell(share: float, interval: tuple[float, float], layout: _Layout) -> tuple[str, str]:
    if not known(share):
        return accuracy(share), ""
    low, high = interval_ends(interval, layout.digits)
    return accuracy(share), f"[{low}, {high}]" if layout.beside else f"{low}-{high}"


def _texts(row: _Row, separator: str) -> Sequence[str]:
    name, cells, mean = row
    return [f"  {name}", *(f"{figure}{separator}{interval}" for figure, interval in cells), *mean]


def _text_width(text: str) -> int:
    return max(map(len, text.split("\n")))
