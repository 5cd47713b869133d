"""Every table and log of a sampled run against its counts: which images, and what follows from them."""

from __future__ import annotations

from certmix.certification.request import CertifyRequest
from certmix.runs import ImageRecord
from certmix.types import Dataset, FloatArray
from certmix.verification.checks import CheckResult
from certmix.verification.plain.bounds import SLACK
from certmix.verification.plain.table import derive
from certmix.verification.rederivation.counts import insane
from certmix.verification.rederivation.coverage import (
    asked_faults,
    judge_tables,
    told_of,
    unpublished,
    unstored,
    wanted_indices,
)
from certmix.verification.rederivation.printed import printed_faults
from certmix.verification.rederivation.published import LOG, LogRow, Published, read_log
from certmix.verification.rederivation.stored import StoredRun
from certmix.verification.rederivation.tables import Fault, Rows, clean_faults, log_faults, row_faults

__all__ = ["FIGURES", "check_figures"]

FIGURES = {
    "records": "labels, predictions and sample numbers follow from the counts",
    "radii": f"radii are at most the plain ones (slack {SLACK:g}), to six digits",
    "certified accuracy": "every cell follows from the plain radii",
    "intervals": "Clopper-Pearson intervals over images, rounded outwards",
    "mean radii": f"mean certified radii follow from the plain ones (slack {SLACK:g})",
    "clean accuracy": "shares follow from the selection votes and the stored outputs",
    "printed tables": "CSV, Markdown and LaTeX say what the JSON says, rounded outwards",
}
"""Checks of published figures, and what is said where they hold."""


def check_figures(
    run: StoredRun, published: list[Published], requests: list[CertifyRequest], dataset: Dataset | None
) -> list[CheckResult]:
    """Compare every published table and log with the counts; one result a kind of figure."""
    if not published:
        return unpublished(FIGURES)
    faults: list[Fault] = []
    for found, request in zip(published, requests, strict=True):
        log = read_log(found.folder / LOG)
        faults += told_of(found, _image_faults(run, found, request, log, dataset))
        faults += told_of(found, _figure_faults(run, found, request, log))
    total = sum(found.summary.images for found in published)
    good = f"{total:,} rows in {len(published)} tables, none missing or added"
    return judge_tables([found.summary for found in published], faults, FIGURES, dataset, good)


def _image_faults(
    run: StoredRun, found: Published, request: CertifyRequest, log: list[LogRow], dataset: Dataset | None
) -> list[Fault]:
    """The log has one row for each image of the request; a partial one lacks those that are not finished."""
    rows, summary = [row.index for row in log], found.summary
    faults: list[Fault] = []
    if len(set(rows)) < len(rows):
        faults.append(("images", None, "the log has two rows of one image"))
    if summary.images != len(rows):
        faults.append(("images", None, f"the table is of {summary.images} images, the log of {len(rows)}"))
    faults += unstored(rows, run.images)
    if summary.complete and summary.images != summary.planned_images:
        faults.append(("images", None, f"complete with {summary.images} of {summary.planned_images} images"))
    if dataset is None:
        return faults
    wanted = wanted_indices(dataset, request.images).tolist()
    if summary.planned_images != len(wanted):
        faults.append(
            ("images", None, f"{summary.planned_images} images planned, the request is for {len(wanted)}")
        )
    return faults + asked_faults(rows, wanted, summary.complete, lambda ids: _finished(run, request, ids))


def _finished(run: StoredRun, request: CertifyRequest, indices: list[int]) -> list[int]:
    """Return which images have all samples that a request wants."""
    records = [run.images[i] for i in indices if i in run.images]
    records = [record for record in records if not any(insane(record, request, run.classes))]
    if not records:
        return []
    waiting = derive(records, request).waiting.tolist()
    return [record.index for record, waits in zip(records, waiting, strict=True) if not waits]


def _figure_faults(
    run: StoredRun, found: Published, request: CertifyRequest, log: list[LogRow]
) -> list[Fault]:
    """What of a table and a log does not follow from the counts."""
    kept = [row for row in log if row.index in run.images]
    records: list[ImageRecord] = [run.images[row.index] for row in kept]
    broken = [r.index for r in records if any(insane(r, request, run.classes))]
    if broken or not records:
        text = (
            f"nothing follows from the counts of {len(broken)} images, such as {broken[0]}"
            if broken
            else "no image"
        )
        return [(name, next(iter(broken), None), text) for name in FIGURES if name != "printed tables"]
    derived = derive(records, request)
    faults: list[Fault] = [
        ("records", record.index, f"image {record.index} is in the table, but lacks samples for it")
        for record, waits in zip(records, derived.waiting.tolist(), strict=True)
        if waits
    ]
    rows = Rows(tuple(records), derived)
    faults += log_faults(kept, rows, request)
    if len(kept) == len(log):
        faults += row_faults(found, rows, request)
        faults += clean_faults(found, rows, request, _outputs(run, found, request))
    return faults + [("printed tables", None, text) for text in printed_faults(found, run.description)]


def _outputs(run: StoredRun, found: Published, request: CertifyRequest) -> dict[int, FloatArray] | None:
    """Return the outputs of the standard model that a table is of; None if that cannot be told."""
    if found.summary.standard is None:
        return {}
    for checksum in run.standard:
        if request.name(checksum) == found.name:
            return run.standard[checksum]
    return None
