"""Results on stdout; talk on stderr: warnings and progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from certmix import guard
from certmix.progress import watching


def out(text: str, nl: bool = True) -> None:
    """Print a result, on the stream that models do not reach."""
    click.echo(text, file=guard.stdout(), nl=nl)


def say(message: str) -> None:
    """Print one warning line on stderr."""
    click.echo(f"Warning: {message}", err=True)


def watched(function: Callable[..., Any], *given: Any, **more: Any) -> Any:
    """Call what takes ``progress`` and ``say``."""
    with watching(None) as progress:
        return function(*given, **{"progress": progress, "say": say, **more})
