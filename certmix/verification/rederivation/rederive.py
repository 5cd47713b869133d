"""Deriving again what a run claims: from its request, its counts and its data, by a second implementation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from certmix.types import Dataset
from certmix.verification.checks import CheckResult
from certmix.verification.rederivation.samples import rederive_samples
from certmix.verification.rederivation.stored import STUDIES, read_description
from certmix.verification.rederivation.vectors import rederive_vectors

__all__ = ["rederive"]


def rederive(
    run: Path, *, dataset: Dataset | None = None, models: Mapping[str, nn.Module] | None = None
) -> list[CheckResult]:
    """Check a run folder against its data, its models and its own counts, without sampling anything.

    Every bound, radius and figure is computed again by `plain_bounds`, `plain_scores`
    and `plain_radii`, which share no code with the run.

    Parameters
    ----------
    run
        Folder of a run of ``certmix certify``, sampled or not.  It is only read.
    dataset, models
        The data set, and modules by role (``robust``, ``standard``), of a run
        made from Python objects; None loads what ``run.json`` names.

    Returns
    -------
    list[CheckResult]
        One a check, under names that do not change between runs.  UNCHECKED
        where something that is needed cannot be loaded, or is not there yet.

    Raises
    ------
    RunError
        If the folder cannot be read, or is of another study.
    """
    run = Path(run)
    _, study = read_description(run)
    derive_again = rederive_samples if study == STUDIES[0] else rederive_vectors
    return derive_again(run, dataset, models)
