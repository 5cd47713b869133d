"""What a sampled run shows: the table's particulars, and the files it publishes.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from certmix.certification.evaluate import Evaluation, expectations, log_rows, reading_notes
from certmix.certification.published_summary import forget_partial
from certmix.certification.request import CertifyRequest
from certmix.runs import RunFolder, write_log
from certmix.tables import write_products

__all__ = ["particulars", "publish"]


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


def publish(run: RunFolder, request: CertifyRequest, standard_checksum: str, evaluation: Evaluation) -> None:
    """Write the products under the request's name, and the newest at the top; partial ones of others go."""
    folder = run.results(request.name(standard_checksum))
    write_products(folder, evaluation.summary, evaluation.curves)
    write_log(folder / "records.tsv", log_rows(evaluation), request.bound_name)
    independent = all(record.places == 1 for record in evaluation.records)
    run.publish(folder, {"rows_independent": independent})
    forget_partial(run.path, folder)
