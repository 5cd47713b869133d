"""Tables from what is stored: another alpha, certificate or failure probability without sampling.  No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from certmix.errors import ParameterError
from certmix.radii import CERTIFICATES
from certmix.studies.evaluate import bound_records, evaluate, row_plan, table_row
from certmix.studies.expect import expectations
from certmix.studies.request import DEFAULT_RADII, CertifyRequest
from certmix.studies.stored import Stored, radii_at, read_stored
from certmix.studies.stored_run import open_run
from certmix.types import CleanAccuracy, Status, Summary

__all__ = ["BestSummary", "best", "recertify"]


@dataclass(frozen=True)
class BestSummary(Summary):
    """The best of several tables, cell by cell.

    ``best_source`` names the source of each accuracy: one tuple a row, in the
    order of `Summary.radii`.  ``sigma`` is None where the sources differ in it.
    """

    sources: tuple[str, ...] = ()
    best_source: tuple[tuple[str, ...], ...] = ()


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
        Noise level; logs and class counts need it, a run knows its own.
    alpha, certificates, radii
        As for `certmix.certify`.  None takes the run's own, otherwise 1, all
        certificates, and the usual radii.
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
    changes = {
        "alpha": alpha, "bound": bound, "failure_probability": failure_probability,
        "certificates": None if certificates is None else tuple(certificates),
        "radii": None if radii is None else tuple(radii),
    }  # fmt: skip
    given = {name: value for name, value in changes.items() if value is not None}
    if Path(source).is_dir():
        for option, used in (
            ("--as-printed", as_printed),
            ("--assume-selected", assume_selected),
            ("--rows", rows),
        ):
            if used:
                raise ParameterError(f"{source} is a run folder: {option} is for files; drop it")
        return _from_run(Path(source), sigma, given)
    stored = read_stored(
        source, sigma=sigma, failure_probability=failure_probability, bound=bound, as_printed=as_printed,
        assume_selected=assume_selected, rows=rows,
    )  # fmt: skip
    defaults = {"alpha": 1.0, "certificates": tuple(CERTIFICATES), "radii": DEFAULT_RADII, "goal": "fixed"}
    return _tabulate(stored, CertifyRequest(stored.sigma, **{**defaults, **given}))


def _from_run(folder: Path, sigma: float | None, given: dict[str, object]) -> Summary:
    """Evaluate stored counts again; images that the request would sample further keep their bounds so far."""
    run = open_run(folder)
    if sigma not in (None, run.request.sigma):
        raise ParameterError(f"sigma = {sigma}: {folder} was sampled with {run.request.sigma}: drop --sigma")
    request = replace(run.request, **given)
    notes = expectations(request, run.classes)
    if run.records and (waiting := int(bound_records(run.records, request).waiting.sum())):
        notes.append(
            f"Images that these settings would sample further, kept with their bounds so far: {waiting:,}."
        )
    for name in ("bound", "failure_probability"):
        if getattr(request, name) != getattr(run.request, name):
            notes.append(
                f"The run was made with {name.replace('_', ' ')} {getattr(run.request, name)}: another one is valid "
                "only if the choice does not rest on the run's results."
            )
    about = {**run.about, "notes": tuple(notes)}
    return evaluate(run.records, run.probabilities, request, run.planned, keep_waiting=True, **about).summary


def _tabulate(stored: Stored, request: CertifyRequest) -> Summary:
    """Return the table of a log or of class counts."""
    plan, count = row_plan(request), len(stored.label)
    radii = [radii_at(stored, alpha, certificate) for _, certificate, alpha in plan]
    table = tuple(
        table_row(classifier, found, stored.right, request.radii)
        for (classifier, _, _), found in zip(plan, radii, strict=True)
        if count
    )
    known = stored.samples is not None and count > 0
    robust, clean_note = _robust_accuracy(stored)
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
        samples=int(stored.samples.max()) if known else None,
        mean_samples=float(stored.samples.mean()) if known else None,
        data=stored.source,
        abstained=int(np.sum(radii[0].status == Status.ABSTAIN)),
        notes=(*stored.notes, *clean_note),
    )


def _robust_accuracy(stored: Stored) -> tuple[float | None, list[str]]:
    """Return what can be said of the robust classifier's clean accuracy, and how it came about."""
    if len(stored.label) == 0:
        return None, []
    if stored.frequencies is not None:
        return float(stored.right.mean()), []
    answered = int(np.sum(stored.selected >= 0))
    share = float(stored.right.sum() / answered) if answered else None
    note = (
        f"Clean accuracy (robust) is the share of right predictions among the {answered:,} rows that do not "
        f"abstain ({stored.right.sum():,} right, of {len(stored.label):,} rows); a log says nothing of the "
        "standard classifier, and so of the mix."
    )
    return share, [note]


def best(summaries: Sequence[Summary]) -> BestSummary:
    """Return the table of the best figure in each cell over several sources.

    Parameters
    ----------
    summaries
        Tables of one alpha, with the same certificates and radii; `Summary.data`
        names the sources.  Tables without any image are passed over.

    Raises
    ------
    ParameterError
        If the tables differ in rows or columns, or none holds an image.
    """
    full = [summary for summary in summaries if summary.rows]
    if not full:
        raise ParameterError("none of the sources holds a row: name logs that are not empty")
    shapes = {(s.alpha, s.radii, tuple((row.classifier, row.certificate) for row in s.rows)) for s in full}
    if len(shapes) > 1:
        raise ParameterError("the sources differ in alpha, radii or certificates: give them as options")
    first, names = full[0], [_name(summary) for summary in full]
    rows, winners = [], []
    for position, row in enumerate(first.rows):
        rivals = [summary.rows[position] for summary in full]
        chosen = [int(np.argmax([r.certified_accuracy[c] for r in rivals])) for c in range(len(first.radii))]
        rows.append(
            replace(
                row,
                certified_accuracy=tuple(rivals[k].certified_accuracy[c] for c, k in enumerate(chosen)),
                interval=tuple(rivals[k].interval[c] for c, k in enumerate(chosen)),
                mean_certified_radius=max(r.mean_certified_radius for r in rivals),
            )
        )
        winners.append(tuple(names[k] for k in chosen))
    return BestSummary(
        sigma=_common(full, lambda s: s.sigma),
        alpha=first.alpha,
        images=min(summary.images for summary in full),
        failure_probability=_common(full, lambda s: s.failure_probability),
        radii=first.radii,
        clean_accuracy=CleanAccuracy(None, None, None),
        rows=tuple(rows),
        complete=all(summary.complete for summary in full),
        goal=_common(full, lambda s: s.goal),
        planned_images=_common(full, lambda s: s.planned_images),
        bound=_common(full, lambda s: s.bound),
        notes=tuple(_best_notes(summaries, first, winners)),
        sources=tuple(names),
        best_source=tuple(winners),
    )


def _common(summaries: Sequence[Summary], read: Callable[[Summary], Any]) -> Any:
    values = {read(summary) for summary in summaries}
    return values.pop() if len(values) == 1 else None


def _name(summary: Summary) -> str:
    return f"{summary.data} (sigma {summary.sigma:g})"


def _best_notes(
    summaries: Sequence[Summary], first: Summary, winners: Sequence[tuple[str, ...]]
) -> list[str]:
    """Say that cells were chosen after the fact, which source each is from, and what holds for each source."""
    notes = [
        "Each cell is the best of several sources, chosen by its own figure: no one classifier reaches them all, "
        "and intervals do not allow for the choice."
    ]
    if len({summary.images for summary in summaries}) > 1:
        notes.append(f"Images differ: {', '.join(f'{s.images:,}' for s in summaries)}.")
    letters = {name: chr(65 + k) if k < 26 else str(k) for k, name in enumerate(map(_name, summaries))}
    for row, names in zip(first.rows, winners, strict=True):
        columns = " ".join(letters[name] for name in names)
        notes.append(f"Source of each column, {row.classifier} {row.certificate}: {columns}.")
    for name, letter in letters.items():
        notes.append(f"Source {letter}: {name}.")
    seen = dict.fromkeys(note for summary in summaries for note in summary.notes)
    shared = [note for note in seen if all(note in summary.notes for summary in summaries)]
    return notes + shared
