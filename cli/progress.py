"""Results on stdout; talk on stderr: warnings, and progress bars where stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from certmix import guard


def out(text: str, nl: bool = True) -> None:
    """Print a result, on the stream that models do not reach."""
    click.echo(text, file=guard.stdout(), nl=nl)


def say(message: str) -> None:
    """Print one warning line on stderr."""
    click.echo(f"Warning: {message}", err=True)


@contextmanager
def bar() -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar; its block says how much is done, of how much, and which words stand beside it."""
    if not sys.stderr.isatty():
        yield lambda done, total, status: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[status]}")
    with Progress(*columns, console=Console(file=sys.stderr)) as shown:
        task = shown.add_task("", visible=False, status="")

        def show(done: int, total: int, status: str) -> None:
            shown.update(task, completed=done, total=total, status=status, visible=True)

        yield show


def watched(function: Callable[..., Any], *given: Any, **more: Any) -> Any:
    """Call what takes ``progress`` and ``say``: images done, of samples how fast and how good, warnings."""
    with bar() as show:

        def update(progress: Any) -> None:
            status = progress.cell
            if status == "samples":
                rate = progress.drawn / progress.seconds if progress.seconds > 0 else 0.0
                share = 100 * progress.certified / progress.done
                status = f"{rate:,.0f} samples/s, certified {share:.0f} %"
            show(progress.done, progress.total, status)

        return function(*given, **{"progress": update, "say": say, **more})
