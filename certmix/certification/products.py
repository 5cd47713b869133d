"""What a sampled run shows: the table's particulars, and the files it publishes.  No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from certmix.certification.evaluate import Evaluation, choice_notes, expectations, log_rows, reading_notes
from certmix.certification.request import CertifyRequest, Shard
from certmix.certification.stored import LOG
from certmix.runs import Run, write_log
from certmix.tables import write_products

__all__ = ["particulars", "publish", "remarks"]


def particulars(
    request: CertifyRequest,
    classes: int,
    names: dict[str, str | None],
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the fields of a `Summary` that evaluation does not know: names and notes.

    Parameters
    ----------
    request, classes
        What was asked, and the number of classes.
    names
        Of ``data``, ``standard`` and ``robust``.
    remarks
        Further notes.
    """
    notes = expectations(request, classes) + reading_notes(request, classes)
    return {**names, "notes": (*notes, *remarks)}


def remarks(first: Mapping[str, str], request: CertifyRequest, shard: Shard | None) -> list[str]:
    """Return what the table of a run says of how it came about; `first` as in `choice_notes`."""
    found = choice_notes(first, request)
    if shard is not None:
        found.append(f"Shard {shard}: a share of the images, to be merged with the others.")
    return found


def publish(run: Run, request: CertifyRequest, evaluation: Evaluation) -> None:
    """Write the table and its log into the run's folder."""

    def write(folder: Path) -> None:
        write_products(folder, evaluation.summary, evaluation.curves)
        write_log(folder / LOG, log_rows(evaluation), request.bound_name)

    run.publish(write, {"rows_independent": all(record.places == 1 for record in evaluation.records)})
