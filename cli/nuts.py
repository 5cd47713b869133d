"""`certmix nuts`: fit, evaluate and study nonlinearly mixed classifiers."""

from __future__ import annotations

import importlib

import click

SUBCOMMANDS = {
    "fit": "Fit s, p, c and alpha of a nonlinear mix from two models and data.",
    "evaluate": "Attack a fitted mix every way there is, beside its base models and the plain mix.",
    "study": "Tables and figures from cached results: sensitivity, margins, beta, ablations, cost.",
}


class _LazySubgroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in SUBCOMMANDS:
            return None
        module = importlib.import_module(f".nuts_{name}", __package__)
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))


@click.group("nuts", cls=_LazySubgroup, epilog="Start here: certmix nuts fit --output mix")
def command() -> None:
    """Mix nonlinearly (MixedNUTS): more accurate at almost the same robustness.

    The robust classifier's logits are normalised, clamped, raised to a power
    and scaled before they are mixed, so that it is sure where it should be.
    Nothing is trained: four numbers are fitted on cached logits. The result is
    a folder that --robust nuts:FOLDER, or any attack library, can use.
    """
