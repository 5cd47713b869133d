"""The best of several tables, cell by cell, as comparisons of noise levels are published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from certmix.certification.stored import ASSUMED, Doubt
from certmix.errors import ParameterError
from certmix.types import CleanAccuracy, Summary

__all__ = ["BestSummary", "best"]


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
        data=f"{len(full)} sources",
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
    """Say that cells were chosen after the fact, which source each is from, and what holds for all."""
    notes: list[str] = [
        "Each cell is the best of several sources, chosen by its own figure: no one classifier reaches "
        "them all, and intervals do not allow for the choice."
    ]
    if len({summary.images for summary in summaries}) > 1:
        notes.append(f"Images differ: {', '.join(f'{s.images:,}' for s in summaries)}.")
    letters = {name: chr(65 + k) if k < 26 else str(k) for k, name in enumerate(map(_name, summaries))}
    for row, names in zip(first.rows, winners, strict=True):
        columns = " ".join(letters[name] for name in names)
        notes.append(f"Source of each column, {row.classifier} {row.certificate}: {columns}.")
    for name, letter in letters.items():
        notes.append(f"Source {letter}: {name}.")
    notes += [f"{s.data}: {ASSUMED}" for s in summaries if ASSUMED in s.notes]
    seen = dict.fromkeys(note for summary in summaries for note in summary.notes)
    shared = [note for note in seen if note != ASSUMED and all(note in s.notes for s in summaries)]
    return [*_doubts(summaries), *notes, *(note for note in shared if not isinstance(note, Doubt))]


def _doubts(summaries: Sequence[Summary]) -> list[str]:
    """Return what is doubted of each source, with its name."""
    return [
        note if str(summary.data) in note else Doubt(f"{summary.data}: {note}")
        for summary in summaries
        for note in summary.notes
        if isinstance(note, Doubt)
    ]
