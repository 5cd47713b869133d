"""`certmix merge`: the shards of a run together again."""

from __future__ import annotations

from pathlib import Path

import click

from .certify_options import format_option

EPILOG = """\b
Examples:
  certmix certify --sigma 0.5 --alpha 0.76 --shard 1/2 --output shard-1
  certmix certify --sigma 0.5 --alpha 0.76 --shard 2/2 --output shard-2
  certmix merge shard-1 shard-2 --output run

The merged folder is an ordinary run: certify, recertify, reproduce and verify
take it. It holds the same samples as a run that was never divided.
"""


@click.command("merge", epilog=EPILOG)
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FOLDER...")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="RUN",
    help="Folder of the merged run.  [default: runs/<identity of the run>]",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Delete an earlier run in that folder.")
@format_option
def command(folders: tuple[Path, ...], output: Path | None, fresh: bool, format_: str) -> int:
    """Merge the run folders of all shards of one request into one run.

    Every FOLDER comes from certmix certify --shard I/N with the same data,
    models and options. Missing or unfinished images are named, as are shards
    that differ in what was asked; nothing is written then.
    """
    from certmix.certification.shards import merge

    from .certify import print_result
    from .progress import say

    print_result(merge(folders, output, fresh=fresh, say=say), format_)
    click.echo("Models not checked: the shards keep equal logits of them, none is loaded here.", err=True)
    return 0
