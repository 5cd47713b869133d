"""The products of a run: every table and plot, under fixed names in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from certmix.atomic import write_atomically
from certmix.tables.plots import curve_plot
from certmix.tables.tables import render
from certmix.types import Curve, Summary

__all__ = ["write_products"]

_TABLES = {"csv": "csv", "md": "markdown", "tex": "latex", "json": "json"}  # suffix -> format
_PLOTS = ("png", "svg")


def write_products(folder: str | Path, summary: Summary, curves: Sequence[Curve]) -> list[Path]:
    """Write ``certified-accuracy.{csv,md,tex,json,png,svg}`` into a folder.

    Everything is made before anything is written, and each file appears
    whole or not at all: it replaces the one of an earlier run in one step.

    Parameters
    ----------
    folder
        Where to; made if missing.
    summary
        The figures of the tables.
    curves
        The radii of the plot, as a rule one curve for each row.

    Returns
    -------
    list[Path]
        The files, in the order above.

    Raises
    ------
    RunError
        The folder cannot be made or written to.
    """
    title = "Certified accuracy" + (f": {summary.data}" if summary.data else "")
    contents = {suffix: render(summary, name).encode() for suffix, name in _TABLES.items()}
    for suffix in _PLOTS:
        contents[suffix] = curve_plot(
            curves, suffix, title=title, sigma=summary.sigma, alpha=summary.alpha,
            complete=summary.complete, norm=summary.norm,
        )  # fmt: skip
    paths = {suffix: Path(folder) / f"certified-accuracy.{suffix}" for suffix in contents}
    for suffix, path in paths.items():
        write_atomically(path, contents[suffix])
    return list(paths.values())
