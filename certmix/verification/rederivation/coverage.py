"""Which images a run and its tables hold, against those that were asked for; and the verdicts on tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from certmix.certification.begun import begun_images
from certmix.certification.deterministic_request import DeterministicRequest
from certmix.certification.request import CertifyRequest
from certmix.data import spread
from certmix.types import Dataset, IntArray, Summary
from certmix.verification.checks import CheckResult
from certmix.verification.rederivation.published import Published
from certmix.verification.rederivation.sources import Faults, judged, unchecked
from certmix.verification.rederivation.tables import Fault

__all__ = [
    "asked_faults",
    "check_stored",
    "judge_tables",
    "told_of",
    "unpublished",
    "unstored",
    "wanted_indices",
]


def wanted_indices(dataset: Dataset, images: int | str) -> IntArray:
    """Return the indices of the images that a request is about."""
    return dataset.indices[spread(len(dataset), images)]


def check_stored(
    stored: Iterable[int],
    dataset: Dataset | None,
    requests: Sequence[CertifyRequest | DeterministicRequest],
    begun: str | None = None,
) -> CheckResult:
    """Every stored image was asked for, be it by a request that was `begun` alone."""
    if dataset is None:
        return unchecked("stored images", "the data set cannot be loaded")
    numbers = dict.fromkeys([*(request.images for request in requests), *begun_images(begun)])
    asked = {int(i) for images in numbers for i in wanted_indices(dataset, images)}
    held = dict.fromkeys(stored)
    faults: Faults = [
        (
            index,
            f"image {index} is stored, but no request of this run asked for it (or its table was deleted)",
        )
        for index in held
        if index not in asked
    ]
    return judged("stored images", faults, f"all {len(held):,} stored images were asked for")


def unstored(rows: Iterable[int], stored: Iterable[int]) -> list[Fault]:
    """Return the images of a log that the run does not hold."""
    held = set(stored)
    return [("images", i, f"image {i} is published, but not stored") for i in rows if i not in held]


def asked_faults(
    rows: Sequence[int],
    wanted: Sequence[int],
    complete: bool,
    finished: Callable[[list[int]], Iterable[int]],
) -> list[Fault]:
    """Return the images that a log holds beyond those wanted, and those that it lacks.

    Parameters
    ----------
    rows
        Images of the log.
    wanted
        Images that its request is about.
    complete
        Whether the table says that it lacks none.
    finished
        Which of some images the run holds all that the request wants of: a
        partial table may lack the others.
    """
    told, asked = set(rows), set(wanted)
    faults: list[Fault] = [("images", i, f"image {i} was not asked for") for i in rows if i not in asked]
    lacking = [i for i in wanted if i not in told]
    if complete:
        return faults + [("images", i, f"image {i} is missing") for i in lacking]
    return faults + [
        ("images", i, f"image {i} is stored and finished, but left out: repeat the request to add it")
        for i in finished(lacking)
    ]


def told_of(found: Published, faults: Iterable[Fault]) -> list[Fault]:
    """Return faults with the table that they are about."""
    short = found.name.rpartition("-")[2]
    return [(check, image, f"{text} (results/...{short})") for check, image, text in faults]


def unpublished(figures: Iterable[str]) -> list[CheckResult]:
    """Return the verdicts on a run without tables."""
    return [unchecked(name, "nothing was published yet") for name in ("images", *figures)]


def judge_tables(
    tables: Sequence[Summary], faults: Sequence[Fault], figures: Mapping[str, str], dataset: Dataset | None,
    good: str,
) -> list[CheckResult]:  # fmt: skip
    """Return the verdicts on the images of tables, and on each kind of figure.

    Parameters
    ----------
    tables
        All that were published.
    faults
        What is wrong with them; of ``"images"`` and of the names in `figures`.
    figures
        Name of the check -> what is said where it holds.
    dataset
        None if it cannot be loaded: then it is not known which images are missing.
    good
        What is said of the images where all are there.
    """
    results = [
        judged(name, [(image, text) for check, image, text in faults if check == name], holds)
        for name, holds in figures.items()
    ]
    missing: Faults = [(image, text) for check, image, text in faults if check == "images"]
    if dataset is None and not missing:
        return [unchecked("images", "the data set cannot be loaded"), *results]
    return [_check_complete(tables, missing, good), *results]


def _check_complete(tables: Iterable[Summary], faults: Faults, good: str) -> CheckResult:
    """Judge which images tables hold: of a partial one it is not known whether more would agree."""
    partial = [table for table in tables if not table.complete]
    if faults or not partial:
        return judged("images", faults, good)
    first = f"partial: {partial[0].images:,} of {partial[0].planned_images:,} images"
    more = f" (and {len(partial) - 1} more tables)" if len(partial) > 1 else ""
    return unchecked(
        "images", f"{first}{more}; finish or merge the run, all rows that are there were derived"
    )
