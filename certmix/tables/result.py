"""What every result offers: a line, a table, a plot, files, and how a notebook shows it.  No torch."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from certmix.errors import ParameterError, one_line
from certmix.files import write_atomically
from certmix.tables.figure import figure_of
from certmix.tables.formats import FORMATS, csv_table, html_table
from certmix.tables.table import Table
from certmix.tables.terminal import text_table

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

__all__ = ["Result"]

_TABLES = {f".{kind.suffix}": kind.render for kind in FORMATS.values() if kind.suffix} | {".txt": text_table}
_PLOTS = (".png", ".svg", ".pdf")


class Result:
    """What a function of certmix found.

    ``print(result)`` shows its table; a notebook shows table and plot.
    """

    if TYPE_CHECKING:  # a field or a property of each; a property here would be a field's default

        @property
        def table(self) -> Table:
            """The table: `certmix.tables.render` writes it in any format."""

        @property
        def plots(self) -> Mapping[str, Callable[[str], bytes]]:
            """What draws the plots, by name: of ``png``, ``svg`` or ``pdf``, the file's content."""

    def __repr__(self) -> str:
        table = self.table
        parts = [table.title, table.settings, "" if table.complete else "partial result"]
        return one_line(f"<{type(self).__name__}: {'; '.join(filter(None, parts))}>")

    def __str__(self) -> str:
        return text_table(self.table)

    def _repr_html_(self) -> str:
        shown = html_table(self.table)
        for draw in list(self._plots.values())[:1]:
            content = b64encode(draw("svg")).decode("ascii")
            shown += f'<img alt="plot" style="max-width:42em" src="data:image/svg+xml;base64,{content}">'
        return shown

    def to_pandas(self) -> pandas.DataFrame:
        """Return the table as a data frame: shares of 1 with all digits, as in CSV."""
        try:
            import pandas
        except ImportError:
            raise ParameterError(
                "a data frame needs pandas: pip install pandas, or use .save('t.csv')"
            ) from None
        return pandas.read_csv(io.StringIO(csv_table(self.table)))

    def plot(self, name: str | None = None) -> Axes:
        """Draw the plot, or another of ``plots`` by its name, and return its matplotlib Axes.

        ``.figure`` of these is the whole figure, to be changed or saved; a notebook shows it.
        """
        axes = figure_of(self._drawn(name)).axes
        return axes[0]

    def save(self, path: str | Path) -> Path:
        """Write the table (.txt, .csv, .json, .md, .tex), the plot (.png, .svg, .pdf) or both (.html).

        Returns the path.  ParameterError for another ending, RunError if it cannot be written.
        """
        target = Path(path)
        suffix = target.suffix.lower()
        if suffix in _TABLES:
            content = _TABLES[suffix](self.table).encode()
        elif suffix in _PLOTS:
            content = self._drawn(None)(suffix.removeprefix("."))
        elif suffix == ".html":
            head = f"<!doctype html><meta charset=utf-8><title>{escape(one_line(self.table.title))}</title>"
            content = (head + self._repr_html_()).encode()
        else:
            known = ", ".join((*_TABLES, *_PLOTS, ".html"))
            raise ParameterError(f"{target}: the ending says what to write: use one of {known}")
        write_atomically(target, content)
        return target

    @property
    def _plots(self) -> Mapping[str, Callable[[str], bytes]]:
        return getattr(self, "plots", {})

    def _drawn(self, name: str | None) -> Callable[[str], bytes]:
        plots = self._plots
        if not plots:
            raise ParameterError(f"a {type(self).__name__} of {self.table.name} has no plot: use .table")
        if name is not None and name not in plots:
            raise ParameterError(f"plot {name!r} is unknown: use one of {', '.join(plots)}")
        return next(iter(plots.values())) if name is None else plots[name]
