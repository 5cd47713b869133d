"""Sampling some images of a run again: with its own seed, and with one it cannot have known."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from certmix.errors import ParameterError
from certmix.sampling import resolve_device
from certmix.types import Dataset
from certmix.verification.checks import CheckResult
from certmix.verification.rederivation.reload import reload
from certmix.verification.rederivation.stored import STUDIES, read_description
from certmix.verification.resampling.draws import Again
from certmix.verification.resampling.vectors import resample_vectors
from certmix.verification.resampling.votes import resample_votes

__all__ = ["resample"]


def resample(
    run: Path,
    *,
    images: int = 10,
    samples: int = 1000,
    new_seed: int | None = None,
    error_rate: float = 1e-3,
    device: str = "auto",
    dataset: Dataset | None = None,
    models: Mapping[str, nn.Module] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[CheckResult]:
    """Compare some images' counts with samples drawn anew.

    The images are a random subset, in which those are more likely whose radii
    lie little above a column of the table.  Noise is the same on every
    machine: with the run's own seed counts must be equal, but for votes that
    rounding may change.  With a new seed they must be of one distribution, by
    an exact test that allows for the look at which the run stopped.  Runs
    without samples have their logits computed, and their radii propagated, again.

    Parameters
    ----------
    run
        Folder of a run of ``certmix certify``, sampled or not.  It is only read.
    images
        How many images are sampled in depth; `certmix.verification.resampling.choice.WIDE` times as
        many in a few samples.
    samples
        Samples drawn in depth for an image with the run's seed, on average, besides the selection samples.
    new_seed
        Chooses the images and keys the new noise; None takes one from the
        operating system.  It is reported, and gives the same result again.
    error_rate
        Probability with which, at most, an honest run fails.
    device
        As for `certmix.certify`.
    dataset, models
        As for `certmix.verification.rederivation.rederive.rederive`.
    progress
        Called with (draws done, draws in all).

    Returns
    -------
    list[CheckResult]
        One a check, under names that do not change between runs.

    Raises
    ------
    CertmixError
        If the folder cannot be read, is of another study, or a parameter is out of range.
    """
    if images < 1 or samples < 1:
        raise ParameterError(f"images = {images}, samples = {samples}: at least 1 of each is needed")
    if not 0 < error_rate < 1:
        raise ParameterError(
            f"error rate = {error_rate}: it must lie strictly between 0 and 1, such as 0.001"
        )
    run, chosen = Path(run), resolve_device(device)
    description, study = read_description(run)
    seed = secrets.randbits(48) if new_seed is None else new_seed
    if seed < 0 or seed == description["request"].get("seed"):
        raise ParameterError(f"new seed = {seed}: give one of at least 0 that is not the run's own")
    reloaded = reload(description, dataset, models, chosen)
    again = Again(run, reloaded, chosen, images, samples, seed, error_rate, progress)
    return resample_votes(again) if study == STUDIES[0] else resample_vectors(again)
