"""Progress on stderr: a bar on a terminal and in a notebook, a line a minute elsewhere.  No torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

EVERY = 60.0
"""Seconds between two lines where there is no terminal."""

Show = Callable[[int, int, str], None]
"""Takes how much is done, of how much, and words that stand beside it."""


@contextmanager
def bar() -> Iterator[Show]:
    """Show how far the block is; it says so itself."""
    if _in_notebook():
        with _notebook_bar() as show:
            yield show
    elif sys.stderr.isatty():
        with _terminal_bar() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def watching(progress: bool | Callable[[Any], None] | None) -> Iterator[Callable[[Any], None] | None]:
    """Yield what takes a `certmix.runs.cells.Progress`: the function given, a bar, or None for False."""
    if progress is False or callable(progress):
        yield progress or None
        return
    with bar() as show:

        def update(now: Any) -> None:
            status = now.cell
            if status == "samples":
                rate = now.drawn / now.seconds if now.seconds > 0 else 0.0
                status = f"{rate:,.0f} samples/s, certified {100 * now.certified / now.done:.0f} %"
            show(now.done, now.total, status)

        yield update


def _lines() -> Show:
    """Return what writes a line a minute: of what is done, and how long the rest may take."""
    start = last = time.monotonic()
    first: list[int] = []

    def show(done: int, total: int, status: str) -> None:
        nonlocal last
        now = time.monotonic()
        first[:] = first or [done]
        if now - last < EVERY:
            return
        last, gained = now, done - first[0]
        rest = f", about {_duration((total - done) * (now - start) / gained)} left" if gained > 0 else ""
        print(f"{done:,} of {total:,}{rest} ({status})", file=sys.stderr, flush=True)

    return show


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"


@contextmanager
def _terminal_bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[status]}")
    with Progress(*columns, console=Console(file=sys.stderr)) as shown:
        task = shown.add_task("", visible=False, status="")
        yield lambda done, total, status: shown.update(
            task, completed=done, total=total, status=status, visible=True
        )


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


@contextmanager
def _notebook_bar() -> Iterator[Show]:
    """Show a bar in the cell's output, five times a second at most, and take it away at the end."""
    from IPython.display import HTML, display

    handle: Any = None
    last = 0.0

    def show(done: int, total: int, status: str) -> None:
        nonlocal handle, last
        now = time.monotonic()
        if handle is not None and now - last < 0.2:
            return
        last = now
        text = f'<progress value="{done}" max="{total}"></progress> {done:,}/{total:,} {escape(status)}'
        if handle is None:
            handle = display(HTML(text), display_id=True)
        else:
            handle.update(HTML(text))

    try:
        yield show
    finally:
        if handle is not None:
            handle.update(HTML(""))
