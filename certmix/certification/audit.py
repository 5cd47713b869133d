"""What to know before trusting a stored source: checks of logs, class counts and run folders.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification.audit_log import LOG_CHECKS, SHOWN
from certmix.certification.audit_state import Finding, log_facts, state
from certmix.certification.evaluate import evaluate, log_rows
from certmix.certification.request import DEFAULT_RADII, CertifyRequest
from certmix.certification.stored_run import LOG, RunContents, open_sampled
from certmix.runs.formats import ClassCounts, read_log, read_published

__all__ = ["Audit", "Finding", "audit"]


@dataclass(frozen=True)
class Audit:
    """All that is known of one source.

    ``facts`` holds plain data by name; None where unknown.
    """

    source: str
    kind: str
    facts: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def changes_table(self) -> bool:
        """Whether any finding would change a table."""
        return any(finding.changes_table for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "changes_table": self.changes_table}


def audit(
    source: str | Path,
    *,
    sigma: float | None = None,
    samples: int = 100_000,
    failure_probability: float = 0.001,
    radii: Sequence[float] = DEFAULT_RADII,
    rows: int | None = None,
) -> Audit:
    """Return what a reader should know of a log, a file of class counts, or a run folder.

    Of a run folder the counts and ``records.tsv`` are looked at, not the
    published tables: `certmix.verification.verify` checks these.

    Parameters
    ----------
    source
        File or folder.
    sigma
        Noise level that the log is said to have; without it nothing is said of ceilings.
    samples, failure_probability
        What a published log is said to rest on; a run's own log knows better.
    radii
        Thresholds of the tables in mind.
    rows
        How many rows there should be; by default judged from idx.

    Raises
    ------
    CertmixError
        If the source cannot be read.
    """
    CertifyRequest(
        1.0 if sigma is None else sigma, 1.0, samples=samples, goal="fixed",
        failure_probability=failure_probability, radii=tuple(radii),
    )  # fmt: skip
    if Path(source).is_dir():
        return _audit_run(Path(source))
    found = read_published(source)
    if isinstance(found, ClassCounts):
        return _audit_counts(found, rows)
    context = state(found, sigma, samples, failure_probability, tuple(radii), rows)
    if len(found) == 0:
        findings = [
            Finding("rows", "the log holds a header and no rows", "name a log that is not empty", True)
        ]
    else:
        findings = [finding for check in LOG_CHECKS for finding in check(context)]
    return Audit(found.source, "log", log_facts(context), tuple(findings))


def _audit_counts(found: ClassCounts, rows: int | None) -> Audit:
    samples, findings = found.counts.sum(1), []
    if found.cut_off:
        text = "the last line is incomplete: the file was cut off"
        findings.append(Finding("rows", text, "get the whole file; tables leave the line out", True))
    if rows is not None and len(found) != rows:
        findings.append(Finding("rows", f"{len(found):,} rows of {rows:,}", "get the whole file", True))
    if samples.min() != samples.max():
        text = (
            f"samples of an image range from {samples.min():,} to {samples.max():,}: was their number fixed?"
        )
        remedy = "if votes decided on it, the bounds do not hold: keep counts of one number of samples"
        findings.append(Finding("samples", text, remedy, True))
    text = "the classes were chosen on the counts that bound them, unless other samples chose them beforehand"
    remedy = "recertify allows for it, unless --assume-selected is given"
    findings.append(Finding("selection", text, remedy, False))
    facts = {
        "rows": len(found), "expected_rows": rows, "classes": found.counts.shape[1],
        "samples": [int(samples.min()), int(samples.max())],
        "right": int(np.sum(found.counts.argmax(1) == found.label)),
        "unanimous": int(np.sum(found.counts.max(1) == samples)),
    }  # fmt: skip
    return Audit(found.source, "class counts", facts, tuple(findings))


def _audit_run(folder: Path) -> Audit:
    run = open_sampled(folder)
    findings = [*_run_rows(run), *_run_sums(run), *_run_log(run, folder)]
    request = run.request
    facts = {
        "images": len(run.records), "planned_images": run.planned, "sigma": request.sigma,
        "goal": request.goal, "samples": request.samples, "bound": request.bound,
        "failure_probability": request.failure_probability,
        "standard_outputs": sum(record.index in run.probabilities for record in run.records),
        "models": "not checked (certmix verify compares them with the run)",
    }  # fmt: skip
    return Audit(str(folder), "run folder", facts, tuple(findings))


def _run_rows(run: RunContents) -> list[Finding]:
    if len(run.records) == run.planned:
        return []
    text = f"{len(run.records):,} images of {run.planned:,} are finished"
    return [Finding("rows", text, "repeat certmix certify to finish the rest", True)]


def _run_sums(run: RunContents) -> list[Finding]:
    """Votes must add up to the number of samples they are kept under."""
    hard = run.request.scores == "hard"
    wrong = [
        record.index
        for record in run.records
        if (hard and record.selection.sum() != run.request.selection_samples)
        or any(counts.sum() != samples for samples, counts in record.estimation.items())
    ]
    text = f"the votes of {len(wrong):,} images do not add up to their number of samples"
    remedy = "restore the folder from a copy, or certify again with --fresh"
    return [Finding("counts", text, remedy, True, tuple(wrong[:SHOWN]), len(wrong))] if wrong else []


def _run_log(run: RunContents, folder: Path) -> list[Finding]:
    """Compare the folder's own log with what its counts give."""
    if not (folder / LOG).exists() or not run.records:
        text = f"no {LOG} to compare the counts with"
        return [Finding("log", text, "repeat certmix certify to write it", False)]
    log = read_log(folder / LOG)
    told = {int(i): (int(p), float(r)) for i, p, r in zip(log.index, log.predict, log.radius, strict=True)}
    evaluation = evaluate(run.records, {}, run.request, run.planned)
    wrong = [
        index
        for index, _, predicted, radius, _ in log_rows(evaluation)
        if index in told
        and not (
            log.bound == run.request.bound
            and told[index][0] == predicted
            and told[index][1] <= radius < told[index][1] + 2e-6
        )
    ]
    text = f"{LOG} disagrees with the counts on {len(wrong):,} images"
    remedy = "repeat certmix certify to write it again, or restore the counts"
    return [Finding("log", text, remedy, True, tuple(wrong[:SHOWN]), len(wrong))] if wrong else []
