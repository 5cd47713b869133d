"""Options that were written though the rest of the command leaves them no effect: refused, never ignored."""

from __future__ import annotations

from collections.abc import Iterable

import click

from certmix.errors import ParameterError

__all__ = ["parameters", "refuse_unused"]


def parameters(prefix: str) -> list[str]:
    """Return the parameters of the command that runs whose names begin so."""
    found = click.get_current_context().command.params
    return [param.name for param in found if param.name is not None and param.name.startswith(prefix)]


def refuse_unused(names: Iterable[str], why: str) -> None:
    """Refuse parameters that were written on the command line; `why` says what they are for.

    A remedy that comes first ends in "or": "is of the mix: add --alpha, or".

    Raises
    ------
    ParameterError
        For the first that was written.
    """
    context = click.get_current_context()
    flags = {param.name: param.opts[0] for param in context.command.params}
    for name in names:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise ParameterError(f"{flags[name]} {why}{'' if why.endswith(' or') else ':'} leave it out")
