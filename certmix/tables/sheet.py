"""A study's table: what it holds, its formats, and its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from certmix.atomic import write_atomically
from certmix.errors import ParameterError
from certmix.tables.sheet_data import csv_sheet, json_sheet
from certmix.tables.sheet_latex import latex_sheet
from certmix.tables.sheet_markdown import markdown_sheet
from certmix.tables.sheet_text import text_sheet
from certmix.tables.sheet_values import Cell, Quantity, Sheet, check_stem

__all__ = ["SHEET_FORMATS", "Cell", "Quantity", "Sheet", "render_sheet", "write_sheet"]

SHEET_FORMATS: dict[str, Callable[[Sheet], str]] = {
    "table": text_sheet,
    "json": json_sheet,
    "csv": csv_sheet,
    "markdown": markdown_sheet,
    "latex": latex_sheet,
}
"""Renderers by name."""

_TABLES = {"csv": "csv", "md": "markdown", "tex": "latex", "json": "json"}  # suffix -> format
_PLOTS = ("png", "svg")
_NONE: Mapping[str, Callable[[str], bytes]] = MappingProxyType({})


def render_sheet(sheet: Sheet, format: str) -> str:
    """Return a sheet as text that ends with one line end.

    Accuracies are in percent with one decimal, rounded down, their intervals
    outwards; csv and json hold shares of 1 with all digits.

    Parameters
    ----------
    sheet
        The figures.
    format
        A name in `SHEET_FORMATS`.

    Raises
    ------
    ParameterError
        The format is unknown.

    Examples
    --------
    >>> times = Sheet("times", "Times", "", ("run", "time"), (("a", Quantity(1.25, 1, "s")),))
    >>> render_sheet(times, "csv").split()
    ['run,time_s,complete', 'a,1.25,true']
    """
    if format not in SHEET_FORMATS:
        raise ParameterError(f"format '{format}' is unknown: choose one of {', '.join(SHEET_FORMATS)}")
    return SHEET_FORMATS[format](sheet)


def write_sheet(
    folder: str | Path, sheet: Sheet, plots: Mapping[str, Callable[[str], bytes]] = _NONE
) -> list[Path]:
    """Write ``NAME.{csv,md,tex,json}`` of the sheet, and each plot's ``.png`` and ``.svg``.

    Everything is made before anything is written, and each file appears whole
    or not at all.

    Parameters
    ----------
    folder
        Where to; made if missing.
    sheet
        The figures.
    plots
        Stem -> function that takes ``png`` or ``svg`` and returns the file's content.

    Returns
    -------
    list[Path]
        The files, in the order above.

    Raises
    ------
    ParameterError
        A plot's name is not fit for a file.
    RunError
        The folder cannot be made or written to.
    """
    contents = {f"{sheet.name}.{s}": render_sheet(sheet, name).encode() for s, name in _TABLES.items()}
    for name, draw in plots.items():
        check_stem(name)
        contents.update({f"{name}.{suffix}": draw(suffix) for suffix in _PLOTS})
    for name, content in contents.items():
        write_atomically(Path(folder) / name, content)
    return [Path(folder) / name for name in contents]
