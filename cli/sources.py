"""The option that commands on stored sources share: a noise level for each source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from certmix.errors import CertmixError, ParameterError

from .options import RADII

__all__ = ["is_smoothed", "of_source", "sigma_option"]

sigma_option = click.option(
    "--sigma", "sigmas", type=RADII, multiple=True, metavar="S[,S...]",
    help="Noise level of files, one for all or one a SOURCE; a run knows its own.",
)  # fmt: skip


def is_smoothed(run: Path) -> bool | None:
    """Whether a run folder certifies under noise; None of other studies, and where the command will tell."""
    from certmix.runs import read_run
    from certmix.runs.identity import CERTIFY

    try:
        study = str(read_run(run)["identity"].get("study", CERTIFY))
    except (AttributeError, CertmixError, KeyError, TypeError):
        return None
    return study == CERTIFY if study.startswith(CERTIFY) else None


def of_source(sigmas: Sequence[tuple[float, ...]], sources: Sequence[str], number: int) -> float | None:
    """Return the noise level of one source, None where none is given.

    Raises
    ------
    ParameterError
        If there are several, and not one for each source.
    """
    values = [value for given in sigmas for value in given]
    if len(values) not in (0, 1, len(sources)):
        raise ParameterError(
            f"{len(values)} noise levels for {len(sources)} sources: give --sigma once for all or for each"
        )
    if not values:
        return None
    return values[0] if len(values) == 1 else values[number]
