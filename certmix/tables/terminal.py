"""The summary on a terminal: as much as its width allows, never cut off."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from certmix.tables.cells import CLEAN_LABELS, clean_values
from certmix.tables.terminal_layout import Block, fit
from certmix.tables.wording import classifier_label, notes, one_line, partial_warning, settings
from certmix.types import Summary

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

__all__ = ["print_terminal", "terminal_table"]


def terminal_table(summary: Summary) -> RenderableType:
    """Return a rich renderable that fits itself to the console's width.

    Each cell holds the certified accuracy in percent, rounded down, and its
    interval in dim type: beside it where the console is wide, otherwise
    below, in whole percents (rounded outwards) where it must.  Where even
    that is too wide, the radii continue in a further block.
    """
    return _TerminalTable(summary)


def print_terminal(summary: Summary, file: IO[str] | None = None) -> None:
    """Print `terminal_table` to a text stream, by default the standard output.

    Without a terminal behind the stream the width is 80 columns, or the
    environment's ``COLUMNS``, no colours are written and no line ends in blanks.
    """
    from rich.console import Console

    console = Console(file=file, highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        console.print(terminal_table(summary), crop=False)
        return
    with console.capture() as printed:
        console.print(terminal_table(summary), crop=False)
    console.file.write("\n".join(line.rstrip(" ") for line in printed.get().split("\n")))


@dataclass(frozen=True)
class _TerminalTable:
    summary: Summary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        summary = self.summary
        warning = partial_warning(summary)
        if warning:
            yield Text(warning.upper(), style="bold yellow")
        yield Text(
            f"Certified accuracy (%) at {summary.norm} radius, with its 95 % interval over images",
            style="bold",
        )
        yield Text(settings(summary))
        for block in fit(summary, options.max_width):
            yield Text()
            yield from _block(block, summary.alpha)
        yield Text()
        clean = zip(CLEAN_LABELS, clean_values(summary.clean_accuracy), strict=True)
        yield Text("Clean accuracy (%): " + ", ".join(f"{label} {value}" for label, value in clean))
        yield Text()
        for note in notes(summary):
            for line in _wrapped(_encodable(note, options.encoding), options.max_width):
                yield Text(line, style="dim", no_wrap=True, overflow="ignore")


def _encodable(text: str, encoding: str) -> str:
    return one_line(text).encode(encoding, "backslashreplace").decode(encoding)


def _wrapped(text: str, width: int) -> list[str]:
    """Break at blanks only: a path that is longer than a line stays whole, to be copied."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _block(block: Block, alpha: float) -> Iterator[RenderableType]:
    """Yield one block: its heading, then each classifier's name and rows."""
    from rich.text import Text

    heading = _grid(block)
    heading.add_row(*block.heading, style="bold")
    yield heading
    for classifier, rows in block.groups:
        yield Text(classifier_label(classifier, alpha), style="bold")
        table = _grid(block)
        for name, cells, mean in rows:
            texts = [
                Text.assemble(figure, block.separator if interval else "", (interval, "dim"))
                for figure, interval in cells
            ]
            table.add_row(f"  {name}", *texts, *mean)
        yield table


def _grid(block: Block) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, block.gap, 0, 0), pad_edge=False)
    for index, width in enumerate(block.widths):
        table.add_column(justify="right" if index else "left", width=width, overflow="fold")
    return table
