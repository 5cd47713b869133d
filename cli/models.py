"""`certmix models`: what is shipped."""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict

import click

from certmix.errors import ModelError


@click.command("models")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the shipped models, or print the card of one as JSON."""
    from certmix.models.zoo import zoo_card, zoo_names

    if name is not None:
        if name not in zoo_names():
            near = difflib.get_close_matches(name, zoo_names(), 1)
            hint = f"did you mean {near[0]}? The names are" if near else "use one of"
            raise ModelError(f"no model called {name!a} is shipped: {hint} {', '.join(zoo_names())}")
        click.echo(json.dumps(asdict(zoo_card(name)), indent=2))
        return
    for shipped in zoo_names():
        card = zoo_card(shipped)
        figures = ", ".join(f"{what} {100 * value:.1f} %" for what, value in card.accuracy.items())
        click.echo(f"{shipped:28s} {figures}")
