"""The table of tables: one renderer a format."""

from __future__ import annotations

from collections.abc import Callable

from certmix.errors import ParameterError
from certmix.tables import formats
from certmix.tables.csv_table import csv_table
from certmix.tables.json_table import json_table
from certmix.tables.latex import latex_table
from certmix.tables.markdown import markdown_table
from certmix.tables.table import Table
from certmix.types import Summary

__all__ = ["FORMATS", "render"]

FORMATS: dict[str, Callable[[Summary], str]] = {
    "json": json_table,
    "csv": csv_table,
    "markdown": markdown_table,
    "latex": latex_table,
}


def render(summary: Summary | Table, format: str) -> str:
    """Return the table of a result as text that ends with one line end.

    Parameters
    ----------
    summary
        ``result.summary`` of a certification, partial or complete, or ``result.table`` of a study.
    format
        A name in `FORMATS`; of a table, in `certmix.tables.formats.FORMATS`.

    Raises
    ------
    ParameterError
        The format is unknown, or it is given something else.

    Examples
    --------
    >>> from certmix.types import CleanAccuracy
    >>> run = Summary(0.5, 0.76, 0, 0.001, (), CleanAccuracy(None, None, None), ())
    >>> render(run, "csv").split(",")[:3]
    ['classifier', 'certificate', 'sigma']
    """
    if isinstance(summary, Table):
        return formats.render(summary, format)
    if not isinstance(summary, Summary):
        raise ParameterError(f"a {type(summary).__name__} is no table: give a result's .summary or .table")
    if format not in FORMATS:
        raise ParameterError(f"format '{format}' is unknown: choose one of {', '.join(FORMATS)}")
    return FORMATS[format](summary)
