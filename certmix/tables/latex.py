"""A table as LaTeX tables that fit a page."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from certmix.errors import one_line
from certmix.tables.table import Printed, Table, key_columns, packed, printed, printed_columns, printed_notes
from certmix.text import UNKNOWN

_LINE_WIDTH = 344.0  # points; LaTeX's article has 345
_LETTER, _DIGIT, _THIN = 4.6, 4.25, 2.7  # points: most letters of 8 points, digits, the narrow ones
_SMALL = 0.84  # an interval's digits in those of its figure
_BETWEEN, _QUAD = 6.0, 8.5  # points: blanks between columns, before rows of a group
_LONG = 30  # letters from which on words are folded
_FOLDED = 0.28  # share of the line that they then take
_COLUMN = 229.0  # points of a column of two-column article; what is wider spans both
_MOST_NOTES = 2
_PAGE = 31.0  # lines that fit on a page between a caption and notes
_HEADING = 3.0  # lines that headings and rules take

_SPECIAL = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\char34{}",
    **{c: f"\\{c}" for c in "{}$&#_%"},
})  # fmt: skip
_SYMBOLS = {
    r"\textgreater{}=": r"$\geq$", r"\textgreater{}": "$>$", "sigma": r"$\sigma$", "alpha": r"$\alpha$",
    "beta": r"$\beta$", "l1": r"$\ell_1$", "l2": r"$\ell_2$", "linf": r"$\ell_\infty$",
    "(g)": "($g$)", "(h)": "($h$)",
}  # fmt: skip
"""How words of titles and headings are written as mathematics."""
_SYMBOL = re.compile(
    r"\\textgreater\{\}=?|\b(?:sigma|alpha|beta)(?= = )|\b(?:l1|l2|linf)(?= (?:radius|eps)\b)|\([gh]\)"
)

_Row = tuple[str | None, tuple[Any, ...]]  #: group, cells


@dataclass(frozen=True)
class _Column:
    """How a column is set: its heading's lines, its cells' unit and kind, and its width in points."""

    heading: tuple[str, ...]
    unit: str | None
    kind: str
    long: bool
    width: float


def latex_table(table: Table, label: str | None = None) -> str:
    """Return a table as floating tables in the style of booktabs, the only package needed.

    A table that is wider than a column of two spans both.  Columns that find no room on a line stand in a
    further block, rows that find none on a page in a further table; notes after the second are comments.
    """
    columns = _columns(table)
    widths, names = [column.width for column in columns], key_columns(table)
    if sum(widths[:names]) + max(widths[names:], default=0.0) > _LINE_WIDTH:
        names = 1
    blocks, _ = packed(widths, names, _LINE_WIDTH)
    wide = any(sum(widths[c] for c in block) > _COLUMN for block in blocks)
    float_, notes = "table*" if wide else "table", printed_notes(table)
    kept = max(_MOST_NOTES, table.doubts)
    notes[table.doubts :] = sorted(notes[table.doubts :], key=lambda note: "not certificates" not in note)
    lines, pages = [r"% needs \usepackage{booktabs}"], _pages(table, columns, blocks)
    for page, rows in enumerate(pages):
        lines += [f"\\begin{{{float_}}}", *_opening(table, label, continued=page > 0)]
        for block in blocks:
            lines += [*_tabular(columns, rows, block), r"\par\medskip"]
        if page == len(pages) - 1:
            lines += [f"{_math(table.below)}\\par\\medskip"] if table.below else []
            lines += [r"\begin{minipage}{\linewidth}", r"\scriptsize\raggedright"]
            lines += [f"{escape(note)}\\par" for note in notes[:kept]]
            lines += [r"\end{minipage}", *(f"% {one_line(note)}" for note in notes[kept:])]
        lines.append(f"\\end{{{float_}}}")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Return text as LaTeX prints it, on one line."""
    return one_line(text).translate(_SPECIAL)


def _math(text: str) -> str:
    """Return our own words, escaped, with symbols for what is named in them."""
    return _SYMBOL.sub(lambda found: _SYMBOLS[found[0]], escape(text))


def _columns(table: Table) -> list[_Column]:
    columns = []
    for index, (heading, unit, left) in enumerate(printed_columns(table)):
        cells = [printed(cell) for cell in table.column(index)]
        words = one_line(heading).split() or [""]
        lines = tuple(textwrap.wrap(one_line(heading), max(8, *map(len, words))) or [""])
        long = left and any(len(cell.text) > _LONG for cell in cells)
        ends = [_SMALL * max(map(_set, cell.interval or [""])) for cell in cells]
        figures = [_set(cell.shown(unit)) + end for cell, end in zip(cells, ends, strict=True)]
        width = max([_set(line) for line in lines] + figures)
        if long:
            width = _FOLDED * _LINE_WIDTH
        kind = f"p{{{_FOLDED}\\linewidth}}" if long else "l" if left else "r"
        quad = _QUAD if table.groups and index == 0 else 0.0
        columns.append(_Column(lines, unit, kind, long, width + quad + _BETWEEN))
    return columns


def _set(text: str) -> float:
    """Return how wide text is in print, in points."""
    return sum(_DIGIT if c.isdigit() else _THIN if c in "fijlrt .,:;'|()[]/-" else _LETTER for c in text)


def _pages(table: Table, columns: Sequence[_Column], blocks: Sequence[Sequence[int]]) -> list[list[_Row]]:
    """Return the rows of each table, so many that all blocks fit on a page."""
    room = _PAGE - _HEADING * len(blocks)
    pages: list[list[_Row]] = [[]]
    taken = 0.0
    for name, rows in table.blocks():
        taken += 0 if name is None else len(blocks)
        for row in rows:
            lines = [  # of folded words they stand closer than rows
                0.4 + 0.7 * math.ceil(1.3 * _LETTER * len(printed(cell).text) / column.width)
                if column.long
                else 1.0
                for cell, column in zip(row, columns, strict=True)
            ]
            needed = sum(max(lines[c] for c in block) for block in blocks)
            if taken + needed > room and pages[-1]:
                pages.append([])
                taken = 0.0
            pages[-1].append((name, row))
            taken += needed
    return pages


def _opening(table: Table, label: str | None, *, continued: bool) -> list[str]:
    partial = f"\\textbf{{{escape(table.partial.capitalize())}.}} " if table.partial else ""
    settings = f"; {_math(table.settings)}" if table.settings else ""
    caption = f"{_math(table.title)}{' (continued)' if continued else settings}."
    cells = [] if continued else [cell for row in table.rows for cell in row]
    if any(getattr(cell, "most", None) is not None for cell in cells):
        caption += " Ranges end at what more samples could still give (estimates)."
    if any(printed(cell).interval for cell in cells):
        caption += r" Subscripts and superscripts: ends of two-sided 95\,\% intervals."
    return [
        r"\centering", r"\footnotesize", r"\setlength{\tabcolsep}{3pt}",
        r"\setlength{\belowcaptionskip}{6pt}", r"\renewcommand{\arraystretch}{1.5}",
        *([r"\addtocounter{table}{-1}"] if continued else []),
        f"\\caption{{{partial}{caption}}}",
        *([] if continued else [f"\\label{{{label or f'tab:{table.name}'}}}"]),
    ]  # fmt: skip


def _tabular(columns: Sequence[_Column], rows: Sequence[_Row], block: Sequence[int]) -> list[str]:
    shown = [columns[c] for c in block]
    lines = [f"\\begin{{tabular}}{{{''.join(column.kind for column in shown)}}}", r"\toprule"]
    headings = []
    for column in shown:
        words, side = [_math(line) for line in column.heading], "r" if column.kind == "r" else "l"
        headings.append(words[0] if len(words) == 1 else f"\\shortstack[{side}]{{" + r"\\".join(words) + "}")
    lines.append(_line(headings))
    for name, group in groupby(rows, key=lambda row: row[0]):
        lines.append(r"\midrule")
        if name is not None:
            lines.append(_line([f"\\multicolumn{{{len(shown)}}}{{l}}{{{_math(name)}}}"]))
        indent = "" if name is None else r"\quad "
        lines += [indent + _line([_cell(printed(row[c]), columns[c]) for c in block]) for _, row in group]
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _cell(cell: Printed, column: _Column) -> str:
    if cell.unit is None:
        if cell.text == UNKNOWN:
            return "--"
        if not column.long:
            return escape(cell.text)
        # a long word may break after its punctuation, or where it has none for 15 letters
        pieces = re.findall(r"[^/_. -]{1,15}[/_. -]*|[/_. -]+", one_line(cell.text))
        return r"{\raggedright " + r"\allowbreak{}".join(map(escape, pieces)) + r"\par}"
    number, ends = escape(cell.text), ""
    if cell.interval is not None:
        ends = f"_{{{cell.interval[0]}}}^{{{cell.interval[1]}}}"
    if re.search(r"\d-", number):  # a range: a dash, not a minus
        low, high = re.split(r"(?<=\d)-", number, maxsplit=1)
        number = f"{low}--${high}{ends}$"
    elif ends:
        number = f"${number}{ends}$"
    elif number.startswith("-"):
        number = f"${number}$"
    return f"{number} {escape(cell.unit)}" if cell.unit and column.unit is None else number


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
