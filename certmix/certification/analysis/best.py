"""The best of several tables, cell by cell.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from certmix.certification.evaluate import Evaluation, Outcomes
from certmix.certification.stored import ASSUMED, Doubt, recertified
from certmix.errors import ParameterError
from certmix.types import CleanAccuracy, Summary

__all__ = ["BestSummary", "best", "of_all"]


@dataclass(frozen=True)
class BestSummary(Summary):
    """The best of several tables, cell by cell.

    ``best_source`` names the source of each accuracy: one tuple a row, in the
    order of `Summary.radii`.  ``sigma`` is None where the sources differ in it.
    """

    sources: tuple[str, ...] = ()
    best_source: tuple[tuple[str, ...], ...] = ()


def best(summaries: Sequence[Summary]) -> BestSummary:
    """Return the table of the best figure in each cell over several sources.

    Parameters
    ----------
    summaries
        Tables of one alpha, with the same certificates and radii; `Summary.data`
        names the sources.  Tables without any input are passed over.

    Raises
    ------
    ParameterError
        If the tables differ in rows or columns, or none holds an input.
    """
    full = [summary for summary in summaries if summary.rows]
    if not full:
        raise ParameterError("none of the sources holds a row: name logs that are not empty")
    shapes = {(s.alpha, s.radii, tuple((row.classifier, row.certificate) for row in s.rows)) for s in full}
    if len({summary.feature_scale for summary in full}) > 1:
        raise ParameterError("the radii of the sources count different feature scales: no table holds both")
    if len({(summary.noise, summary.norm) for summary in full}) > 1:
        raise ParameterError("the sources differ in noise or norm: no table holds both")
    if len(shapes) > 1:
        raise ParameterError("the sources differ in alpha, radii or certificates: give them as options")
    first, names = full[0], [_name(summary) for summary in full]
    rows, winners = [], []
    for position, row in enumerate(first.rows):
        rivals = [summary.rows[position] for summary in full]
        chosen = [int(np.argmax([r.certified_accuracy[c] for r in rivals])) for c in range(len(first.radii))]
        of_cells = ("certified_accuracy", "interval", "could_reach")
        best: dict[str, Any] = {
            name: tuple(getattr(rivals[k], name)[c] for c, k in enumerate(chosen)) for name in of_cells
        }
        most = max(rivals, key=lambda rival: rival.mean_certified_radius)
        best |= {name: getattr(most, name) for name in ("mean_certified_radius", "mean_radius_interval")}
        best["mean_radius_could_reach"] = max(rival.mean_radius_could_reach for rival in rivals)
        rows.append(replace(row, clean_accuracy=None, **best))
        winners.append(tuple(names[k] for k in chosen))
    common: dict[str, Any] = {}
    for name in ("sigma", "failure_probability", "goal", "planned_inputs", "bound"):
        values = {getattr(summary, name) for summary in full}
        common[name] = values.pop() if len(values) == 1 else None
    notes, details = _best_notes(summaries, first, winners)
    return BestSummary(
        alpha=first.alpha, inputs=min(summary.inputs for summary in full), radii=first.radii,
        clean_accuracy=CleanAccuracy(None, None, None), rows=tuple(rows),
        complete=all(summary.complete for summary in full), data=f"{len(full)} sources", notes=tuple(notes),
        details=tuple(details), sources=tuple(names), best_source=tuple(winners), norm=first.norm,
        feature_scale=first.feature_scale, noise=first.noise, scale=first.scale,
        converted_from=first.converted_from, **common,
    )  # fmt: skip


def of_all(sources: Sequence[tuple[Any, float | None]], *, several: bool, **how: Any) -> Evaluation:
    """Return the table of one source with its noise level, or with `several` the best of them."""
    if several and len(sources) == 1:
        raise ParameterError("--best is for several sources: leave it out")
    if len(sources) > 1 and not several:
        raise ParameterError(f"{len(sources)} sources were given: name one, or add --best")
    found = [recertified(place, sigma=level, **how) for place, level in sources]
    if not several:
        return found[0]
    columns = {one.summary.radii for one in found}
    if how.get("radii") is None and len(columns) > 1:
        widest = max(columns, key=lambda radii: radii[-1])
        found = [recertified(place, sigma=level, **how | {"radii": widest}) for place, level in sources]
    none = np.empty(0, np.int64)  # it has no curves and no outcomes of its own
    return Evaluation(best([one.summary for one in found]), (), Outcomes(none, none, none))


def _name(summary: Summary) -> str:
    level = f"scale {summary.scale:g}" if summary.sigma is None else f"sigma {summary.sigma:g}"
    return f"{summary.data} ({level})"


def _best_notes(
    summaries: Sequence[Summary], first: Summary, winners: Sequence[tuple[str, ...]]
) -> tuple[list[str], list[str]]:
    """Say what is doubted, that cells were chosen after the fact; and whose each is, what holds for all."""
    notes: list[str] = [
        note if str(summary.data) in note else Doubt(f"{summary.data}: {note}")
        for summary in summaries
        for note in summary.notes
        if isinstance(note, Doubt)
    ]
    notes.append(
        "Each cell is the best of several sources, chosen by its own figure: no one classifier reaches "
        "them all, and intervals do not allow for the choice."
    )
    notes += [f"{s.data}: {ASSUMED}" for s in summaries if ASSUMED in s.notes]
    details = []
    if len({summary.inputs for summary in summaries}) > 1:
        details.append(f"Inputs differ: {', '.join(f'{s.inputs:,}' for s in summaries)}.")
    letters = {name: chr(65 + k) if k < 26 else str(k) for k, name in enumerate(map(_name, summaries))}
    for row, names in zip(first.rows, winners, strict=True):
        columns = " ".join(letters[name] for name in names)
        details.append(f"Source of each column, {row.classifier} {row.certificate}: {columns}.")
    details += [f"Source {letter}: {name}." for name, letter in letters.items()]
    told = [dict.fromkeys((*summary.notes, *summary.details)) for summary in summaries]
    shared = [note for note in told[0] if all(note in one for one in told)]
    return notes, details + [note for note in shared if note != ASSUMED and not isinstance(note, Doubt)]
