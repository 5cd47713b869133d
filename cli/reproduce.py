"""`certmix reproduce`: the same run again, compared image by image."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click


@click.command("reproduce")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder of the new run.  [default: a temporary one]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
def command(run: Path, output: Path | None, device: str) -> int:
    """Run again what RUN's run.json says, and show what differs.

    Data, models, seed and all settings come from RUN, which is only read. On
    the same device type all counts should be equal; other hardware or versions
    may round differently and flip a few votes. Exit code 0: equal, 1: not.
    """
    with tempfile.TemporaryDirectory() as temporary:
        return _reproduce(run, output or Path(temporary) / "run", device)


def _reproduce(run: Path, output: Path, device: str) -> int:
    from certmix.certification.reproduce import reproduce

    from .progress import CertifyBar, say

    with CertifyBar() as bar:
        found = reproduce(run, output, device=device, progress=bar.update, say=say)
    for change in found.changed:
        click.echo(f"differs: {change}")
    for difference in found.differences:
        click.echo(
            f"image {difference.index}: {difference.selection} selection and "
            f"{difference.estimation} estimation votes differ"
        )
    differing = {change.partition(":")[0] for change in found.changed if change.startswith("image ")}
    same = found.compared - len(found.differences) - len(differing)
    click.echo(f"{same} of {found.compared} images have equal {found.compares}")
    return 0 if found.equal else 1
