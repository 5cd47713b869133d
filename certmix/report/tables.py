"""The table of tables: one renderer a format."""

from __future__ import annotations

from collections.abc import Callable

from certmix.errors import ParameterError
from certmix.report.csv_table import csv_table
from certmix.report.json_table import json_table
from certmix.report.latex import latex_table
from certmix.report.markdown import markdown_table
from certmix.types import Summary

__all__ = ["FORMATS", "render"]

FORMATS: dict[str, Callable[[Summary], str]] = {
    "json": json_table,
    "csv": csv_table,
    "markdown": markdown_table,
    "latex": latex_table,
}


def render(summary: Summary, format: str) -> str:
    """Return the summary as text that ends with one line end.

    Parameters
    ----------
    summary
        The result of a run, partial or complete.
    format
        A name in `FORMATS`.

    Raises
    ------
    ParameterError
        The format is unknown.

    Examples
    --------
    >>> from certmix.types import CleanAccuracy
    >>> run = Summary(0.5, 0.76, 0, 0.001, (), CleanAccuracy(None, None, None), ())
    >>> render(run, "csv").split(",")[:3]
    ['classifier', 'certificate', 'sigma']
    """
    if format not in FORMATS:
        raise ParameterError(f"format '{format}' is unknown: choose one of {', '.join(FORMATS)}")
    return FORMATS[format](summary)
