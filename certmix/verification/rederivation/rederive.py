"""Deriving again what a run claims: from its request, its counts and its data, by a second implementation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from certmix.runs import read_run
from certmix.runs.folder import RESULTS
from certmix.sampling import resolve_device
from certmix.types import Dataset
from certmix.verification.checks import CheckResult
from certmix.verification.rederivation.samples import recheck_samples, rederive_samples
from certmix.verification.rederivation.sources import Faults, judged
from certmix.verification.rederivation.stored import STUDIES, read_description
from certmix.verification.rederivation.vectors import recheck_vectors, rederive_vectors

__all__ = ["recheck", "rederive"]


def rederive(
    run: Path,
    *,
    dataset: Dataset | None = None,
    models: Mapping[str, nn.Module] | None = None,
    device: str = "cpu",
) -> list[CheckResult]:
    """Check a run folder against its data, its models and its own counts, without sampling anything.

    Every bound, radius and figure is computed again by
    `certmix.verification.plain.bounds`, `certmix.verification.plain.scores` and
    `certmix.verification.plain.radii`, which share no bound or radius code with
    the run.  The rule that says when sampling stops, and the keys of the noise,
    are the run's own.

    Parameters
    ----------
    run
        Folder of a run of ``certmix certify``, sampled or not.  It is only read.
    dataset, models
        The data set, and modules by role (``robust``, ``standard``), of a run
        made from Python objects; None loads what ``run.json`` names.
    device
        Where the models' logits are computed again.

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
    return derive_again(run, dataset, models, resolve_device(device))


def recheck(run: Path, dataset: Dataset) -> list[CheckResult]:
    """Check what an interrupted run holds, or one of other models, before it is continued.

    These are the checks of `rederive` that need no models: of labels and
    inputs, of counts or logits, and of published tables against them.  Which
    images a table holds, and under which names, is not among them: an
    interrupted one may lack some, and ``run.json`` is about to be written again.

    Parameters
    ----------
    run
        Folder of a run of ``certmix certify``.
    dataset
        Its data set.

    Raises
    ------
    RunError
        If the folder cannot be read, or is of another study.
    """
    run = Path(run)
    if "request" not in read_run(run):
        results = run / RESULTS
        faults: Faults = [(None, f"{run}/run.json holds no request, {results} tables of some")]
        held = results.is_dir() and any(results.iterdir())
        return [judged("published requests", faults if held else [], "nothing was published yet")]
    _, study = read_description(run)
    again = recheck_samples if study == STUDIES[0] else recheck_vectors
    return [found for found in again(run, dataset) if found.check not in ("images", "published requests")]
