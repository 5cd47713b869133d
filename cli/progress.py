"""Talk on stderr: warnings, and progress bars where stderr is a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

import click


def say(message: str) -> None:
    """Print one warning line on stderr."""
    click.echo(f"Warning: {message}", err=True)


class _Bar:
    """A rich progress bar on stderr; silent when stderr is not a terminal."""

    columns = "{task.fields[status]}"

    def __init__(self) -> None:
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> Any:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn(self.columns),
                console=Console(file=sys.stderr),
            )  # fmt: skip
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, done: int, total: int, status: str) -> None:
        """Move the bar."""
        if self._progress is None:
            return
        if self._task is None:
            self._task = self._progress.add_task("", total=total, status=status)
        self._progress.update(self._task, completed=done, total=total, status=status)


class RunBar(_Bar):
    """Images done, over all conditions of a study, and the one at work; of samples, how fast and how good."""

    def update(self, progress: Any) -> None:
        """Take one `certmix.runs.cells.Progress`."""
        status = progress.cell
        if status == "samples":
            rate = progress.drawn / progress.seconds if progress.seconds > 0 else 0.0
            share = 100 * progress.certified / progress.done
            status = f"{rate:,.0f} samples/s, certified {share:.0f} %"
        self.show(progress.done, progress.total, status)


class TrainBar(_Bar):
    """Batches done, epoch and loss."""

    def update(self, progress: Any) -> None:
        """Take one `certmix.training.Progress`."""
        done = (progress.epoch - 1) * progress.batches + progress.batch
        status = f"epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.3f}"
        self.show(done, progress.epochs * progress.batches, status)
