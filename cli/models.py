"""`certmix models`: what is shipped."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.command("models")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the shipped models, or print the card of one as JSON."""
    from certmix.models.zoo import zoo_card, zoo_names

    if name is not None:
        click.echo(json.dumps(asdict(zoo_card(name)), indent=2))
        return
    for shipped in zoo_names():
        card = zoo_card(shipped)
        figures = ", ".join(f"{what} {100 * value:.1f} %" for what, value in card.accuracy.items())
        click.echo(f"{shipped:28s} {figures}")
