"""Every table of a run without samples against its logits: which images, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from certmix.certification.deterministic_request import DeterministicRequest
from certmix.types import Dataset, FloatArray, IntArray
from certmix.verification.checks import CheckResult
from certmix.verification.rederivation.coverage import (
    asked_faults,
    judge_tables,
    told_of,
    unpublished,
    unstored,
    wanted_indices,
)
from certmix.verification.rederivation.printed import printed_faults
from certmix.verification.rederivation.published import Published
from certmix.verification.rederivation.stored import StoredVectors
from certmix.verification.rederivation.tables import Fault, figure_faults
from certmix.verification.rederivation.vector_claims import RadiiRow, expected_radii, finished

__all__ = ["FIGURES", "check_figures", "standard_checksums"]

FIGURES = {
    "radii": "radii follow from the stored logits, or from the radii that were verified",
    "certified accuracy": "every cell follows from the radii",
    "intervals": "Clopper-Pearson intervals over images, rounded outwards",
    "mean radii": "mean certified radii follow from the radii",
    "clean accuracy": "shares follow from the stored logits",
    "printed tables": "CSV, Markdown and LaTeX say what the JSON says, rounded outwards",
}


def standard_checksums(run: StoredVectors) -> list[str]:
    """Return the checksums of the standard models whose logits are stored."""
    start = "standard logits "
    return [cell.removeprefix(start) for cell in run.cells if cell.startswith(start)]


def check_figures(
    run: StoredVectors,
    published: list[Published],
    claims: list[tuple[DeterministicRequest, bool]],
    logs: list[list[RadiiRow]],
    dataset: Dataset | None,
) -> list[CheckResult]:
    """Compare every published table and log with the logits; one result a kind of figure."""
    if not published:
        return unpublished(FIGURES)
    faults: list[Fault] = []
    labels = (
        {} if dataset is None else dict(zip(dataset.indices.tolist(), dataset.labels.tolist(), strict=True))
    )
    for found, (request, _), log in zip(published, claims, logs, strict=True):
        faults += told_of(found, _image_faults(run, found, request, log, dataset))
        faults += told_of(found, _figure_faults(run, found, request, log, labels))
    good = f"{sum(map(len, logs)):,} rows, none missing or added"
    return judge_tables([found.summary for found in published], faults, FIGURES, dataset, good)


def _image_faults(
    run: StoredVectors,
    found: Published,
    request: DeterministicRequest,
    log: list[RadiiRow],
    dataset: Dataset | None,
) -> list[Fault]:
    rows, summary = [row.index for row in log], found.summary
    faults = unstored(rows, run.cells.get("robust logits", {}))
    if summary.images != len(rows) or len(set(rows)) < len(rows):
        faults.append(
            ("images", None, f"the table is of {summary.images} images, radii.tsv of {len(set(rows))}")
        )
    if dataset is None:
        return faults
    wanted = wanted_indices(dataset, request.images).tolist()
    if summary.planned_images != len(wanted) or summary.complete != (summary.images == len(wanted)):
        faults.append(
            ("images", None, f"{summary.planned_images} images planned, the request is for {len(wanted)}")
        )

    def done(lacking: list[int]) -> list[int]:
        cells = [f"standard logits {c}" for c in standard_checksums(run) if request.name(c) == found.name]
        return [i for i in lacking if finished(run, request, i, cells)]

    return faults + asked_faults(rows, wanted, summary.complete, done)


def _figure_faults(
    run: StoredVectors,
    found: Published,
    request: DeterministicRequest,
    log: list[RadiiRow],
    known: Mapping[int, int],
) -> list[Fault]:
    """What of a table does not follow; labels are those of the data set where it is known."""
    stored = run.cells.get("robust logits", {})
    kept = [row for row in log if row.index in stored and stored[row.index].shape == (run.classes,)]
    table = [(row.classifier, row.certificate) for row in found.summary.rows]
    if len(kept) < len(log) or not kept:
        return [("radii", None, "there are no logits to derive it from")]
    if table != [("robust", request.certificate), ("mixed", request.certificate)]:
        return [("certified accuracy", None, f"its rows are {table}")]
    faults: list[Fault] = []
    labels = np.array([known.get(row.index, row.label) for row in kept])
    right = np.array([row.predict for row in kept]) == labels
    scale = 0.0 if request.certificate == "margin" else 1 / request.given[0]
    for place, (row, alpha) in enumerate(zip(found.summary.rows, request.weights(), strict=True)):
        radii, told = expected_radii(run, request, kept, place, alpha)
        faults += told
        for check, text in figure_faults(row, np.where(right, radii, 0.0), request.radii, scale):
            faults.append((check, None, f"{row.classifier}: {text}"))
    faults += _clean_faults(run, found, request, kept, labels)
    return faults + [("printed tables", None, text) for text in printed_faults(found, run.description)]


def _softmax(logits: FloatArray) -> FloatArray:
    powers: FloatArray = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _clean_faults(
    run: StoredVectors,
    found: Published,
    request: DeterministicRequest,
    log: list[RadiiRow],
    labels: IntArray,
) -> list[Fault]:
    indices = [row.index for row in log]
    h = np.stack([run.cells["robust logits"][i] for i in indices])
    faults: list[Fault] = [
        ("radii", row.index, f"image {row.index} is predicted as {row.predict}, its logits say {y}")
        for row, y in zip(log, h.argmax(1).tolist(), strict=True)
        if row.predict != y
    ]
    claims: dict[str, Any] = {
        "robust": float(np.mean(h.argmax(1) == labels)),
        "standard": None,
        "mixed": None,
    }
    for checksum in standard_checksums(run):
        cell = run.cells[f"standard logits {checksum}"]
        if request.name(checksum) == found.name and all(i in cell for i in indices):
            g = _softmax(np.stack([cell[i] for i in indices]))
            mixed = (1 - request.alpha) * g + request.alpha * _softmax(h)
            claims["standard"] = float(np.mean(g.argmax(1) == labels))
            claims["mixed"] = float(np.mean(mixed.argmax(1) == labels))
    for name, value in claims.items():
        told = getattr(found.summary.clean_accuracy, name)
        if told != value:
            faults.append(
                ("clean accuracy", None, f"clean accuracy {name} is {told}, the logits give {value}")
            )
    return faults
