"""Tables from what is stored: another alpha or certificate without sampling.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification.bounding import bound_records
from certmix.certification.evaluate import evaluate, row_plan, table_row
from certmix.certification.expect import choice_notes, expectations, reading_notes
from certmix.certification.request import DEFAULT_RADII, CertifyRequest
from certmix.certification.stored import BY_RADIUS, Doubt, Stored, radii_at, read_stored, refuse_of_files
from certmix.certification.stored_run import NOT_CHECKED, open_sampled
from certmix.errors import ParameterError
from certmix.radii import CERTIFICATES
from certmix.types import CleanAccuracy, Status, Summary

__all__ = ["recertify"]


def recertify(
    source: str | Path,
    *,
    sigma: float | None = None,
    alpha: float | None = None,
    certificates: Sequence[str] | None = None,
    bound: str | None = None,
    failure_probability: float | None = None,
    radii: Sequence[float] | None = None,
    as_printed: bool = False,
    assume_selected: bool = False,
    rows: int | None = None,
) -> Summary:
    """Return the certified-accuracy table of a run folder, a published log or a file of class counts.

    Parameters
    ----------
    source
        Folder of a run; log with the columns ``idx label predict radius
        correct time``; or file of class counts (counts, then the label).
    sigma
        Noise level; class counts need it, and logs without a column for it; a run knows its own.
    alpha, certificates, radii
        As for `certmix.certify`.  None takes the run's own, otherwise 1, all
        certificates, and the usual radii.  A log whose bound is not one-sided has its own
        radii alone: alpha 1, certificates ``exact`` and ``smoothing``.
    bound, failure_probability
        As for `certmix.certify`; published logs allow neither.  Choosing them
        after a look at the results voids the failure probability.
    as_printed
        Take a log's radii as printed, rounded to nearest, as published tables do.
    assume_selected
        Take the classes of a class-count file to have been chosen on other samples.
    rows
        How many rows a log or file should have.

    Raises
    ------
    CertmixError
        If the source cannot be read, or an option does not apply to it.
    """
    changes: dict[str, Any] = {
        "alpha": alpha, "bound": bound, "failure_probability": failure_probability,
        "certificates": None if certificates is None else tuple(certificates),
        "radii": None if radii is None else tuple(radii),
    }  # fmt: skip
    given = {name: value for name, value in changes.items() if value is not None}
    if Path(source).is_dir():
        refuse_of_files(source, as_printed=as_printed, assume_selected=assume_selected, rows=rows)
        return _from_run(Path(source), sigma, given)
    stored = read_stored(
        source, sigma=sigma, failure_probability=failure_probability, bound=bound, as_printed=as_printed,
        assume_selected=assume_selected, rows=rows,
    )  # fmt: skip
    defaults: dict[str, Any] = {
        "alpha": 1.0,
        "certificates": BY_RADIUS if stored.radius_alone else tuple(CERTIFICATES),
        "radii": DEFAULT_RADII,
        "goal": "fixed",
    }
    return _tabulate(stored, CertifyRequest(stored.sigma, **{**defaults, **given}))


def _from_run(folder: Path, sigma: float | None, given: dict[str, Any]) -> Summary:
    """Evaluate all stored counts again; no image is left out for want of more samples."""
    run = open_sampled(folder)
    if sigma not in (None, run.request.sigma):
        raise ParameterError(f"sigma = {sigma}: {folder} was sampled with {run.request.sigma}: drop --sigma")
    request = run.request.replace(**given)
    notes = expectations(request, run.classes) + reading_notes(request, run.classes)
    if run.records and (waiting := int(bound_records(run.records, request).waiting.sum())):
        notes.append(
            f"Images that these settings would sample further, judged by the samples there are: {waiting:,}."
        )
    notes += choice_notes(run.first, request)
    about = {**run.about, "notes": (*notes, NOT_CHECKED)}
    return evaluate(run.records, run.probabilities, request, run.planned, every_look=True, **about).summary


def _tabulate(stored: Stored, request: CertifyRequest) -> Summary:
    """Return the table of a log or of class counts."""
    plan, count = row_plan(request), len(stored.label)
    radii = [radii_at(stored, alpha, certificate) for _, certificate, alpha in plan]
    table = tuple(
        table_row(classifier, found, stored.right, request.radii)
        for (classifier, _, _), found in zip(plan, radii, strict=True)
        if count
    )
    samples = stored.samples if count else None
    robust, clean_note = _robust_accuracy(stored)
    doubts = [] if count else [Doubt(f"{stored.source} holds no rows: its table is empty")]
    return Summary(
        sigma=request.sigma,
        alpha=request.alpha,
        images=count,
        failure_probability=stored.failure_probability,
        radii=request.radii,
        clean_accuracy=CleanAccuracy(None, robust, None),
        rows=table,
        complete=count > 0 and stored.planned in (None, count),
        goal=None,
        planned_images=stored.planned,
        bound=stored.bound,
        samples=None if samples is None else int(samples.max()),
        mean_samples=None if samples is None else float(samples.mean()),
        data=stored.source,
        abstained=int(np.sum(radii[0].status == Status.ABSTAIN)),
        notes=(*doubts, *stored.notes, *clean_note),
    )


def _robust_accuracy(stored: Stored) -> tuple[float | None, list[str]]:
    """Return what can be said of the robust classifier's clean accuracy, and how it came about."""
    if len(stored.label) == 0:
        return None, []
    if stored.frequencies is not None:
        return float(stored.right.mean()), []
    abstained = int(np.sum(stored.selected < 0))
    note = (
        f"Clean accuracy (robust) is the share of right predictions among all {len(stored.label):,} rows; "
        f"the {abstained:,} abstentions count as wrong. A log says nothing of the standard classifier, and "
        "so of the mix."
    )
    return float(stored.right.mean()), [note]
