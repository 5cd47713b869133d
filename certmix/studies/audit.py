"""What to know before trusting a stored source: checks of logs, class counts and run folders.  No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certmix.errors import ParameterError
from certmix.records.extent import Extent, expected_rows
from certmix.records.formats import ClassCounts, PublishedLog, read_log, read_published
from certmix.studies.evaluate import ceilings, evaluate, log_rows
from certmix.studies.request import DEFAULT_RADII, CertifyRequest
from certmix.studies.saturation import Saturation, ceiling, failure_probability_at, find_saturation
from certmix.studies.stored_run import LOG, RunContents, open_run, request_of, run_of_log

__all__ = ["Audit", "Finding", "audit"]

SHOWN = 10
"""Images named in one finding."""


@dataclass(frozen=True)
class Finding:
    """One thing to know.

    Parameters
    ----------
    check
        Its name.
    message
        In words.
    changes_table
        Whether some table made from the source would be another without it.
    images
        The first few indices it is about.
    """

    check: str
    message: str
    changes_table: bool
    images: tuple[int, ...] = ()


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


@dataclass(frozen=True)
class _Log:
    """A log with what is stated or known of it."""

    log: PublishedLog
    own: bool
    sigma: float | None
    samples: int
    failure_probability: float
    ceiling: float | None
    radii: tuple[float, ...]
    extent: Extent
    saturation: Saturation | None


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
    context = _context(found, sigma, samples, failure_probability, tuple(radii), rows)
    if len(found) == 0:
        findings = [Finding("rows", "the log holds a header and no rows", True)]
    else:
        findings = [finding for check in LOG_CHECKS for finding in check(context)]
    return Audit(found.source, "log", _log_facts(context), tuple(findings))


def _context(
    log: PublishedLog,
    sigma: float | None,
    samples: int,
    delta: float,
    radii: tuple[float, ...],
    rows: int | None,
) -> _Log:
    run = run_of_log(log)
    extent = expected_rows(log.index, run, rows)
    if run is not None:
        request = request_of(run, Path(log.source).parent)
        if sigma not in (None, request.sigma):
            raise ParameterError(f"sigma = {sigma}: {log.source} was made with {request.sigma}: drop --sigma")
        top = ceilings(request, len(run["data"]["class_names"]))[0][2]
        return _Log(
            log, True, request.sigma, request.samples, request.failure_probability, top, radii, extent, None
        )
    top = None if sigma is None else ceiling(sigma, samples, delta)
    return _Log(log, False, sigma, samples, delta, top, radii, extent, find_saturation(log))


def _few(log: PublishedLog, rows: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in log.index[rows][:SHOWN])


def _rows(context: _Log) -> list[Finding]:
    log, extent = context.log, context.extent
    distinct, found = len(np.unique(log.index)), []
    if log.cut_off:
        found.append(
            Finding("rows", "the last line is incomplete: the log was cut off while it was written", True)
        )
    if extent.rows is None:
        found.append(Finding("rows", f"{distinct:,} rows: {extent.why}", False))
    elif distinct < extent.rows:
        missing = extent.rows - distinct
        found.append(
            Finding("rows", f"{distinct:,} rows of {extent.rows:,}, {missing:,} missing ({extent.why})", True)
        )
    if np.any(np.diff(log.index) < 0):
        found.append(
            Finding("order", "idx does not increase from row to row: were several logs joined?", False)
        )
    return found


def _repeated(context: _Log) -> list[Finding]:
    log = context.log
    _, first, which, counts = np.unique(log.index, return_index=True, return_inverse=True, return_counts=True)
    again = counts[which] > 1
    if not again.any():
        return []
    same = first[which]
    differs = (
        (log.predict != log.predict[same]) | (log.radius != log.radius[same]) | (log.label != log.label[same])
    )
    told = f"{int((counts > 1).sum()):,} images have several rows"
    if differs.any():
        return [Finding("repeated", f"{told}, and they disagree", True, _few(log, differs))]
    return [
        Finding("repeated", f"{told}: a table that counts rows counts them twice", True, _few(log, again))
    ]


def _saturation(context: _Log) -> list[Finding]:
    """Judge sigma and the failure probability by where radii pile up."""
    piled, sigma = context.saturation, context.sigma
    if piled is None or sigma is None or context.ceiling is None:
        return []
    low, high = (failure_probability_at(r / sigma, context.samples) for r in (piled.low, piled.high))
    told = f"{piled.rows:,} rows saturate at {piled.radius:g} = {piled.radius / sigma:.2f} sigma"
    expected = context.ceiling / sigma
    stated = f"n = {context.samples:,} at failure probability {context.failure_probability:g}"
    if high < 1e-8 or low > 0.5:
        fits = piled.radius / expected
        return [
            Finding(
                "sigma", f"{told}, where {stated} gives {expected:.2f}: sigma = {fits:.2g} would fit", True
            )
        ]
    if low <= context.failure_probability <= high:
        return []
    return [
        Finding(
            "failure probability",
            f"{told}: for n = {context.samples:,} that is failure probability {low:.2g} to {high:.2g}, "
            f"not {context.failure_probability:g}, which gives {expected:.2f} sigma",
            True,
        )
    ]


def _above_ceiling(context: _Log) -> list[Finding]:
    if context.ceiling is None or context.sigma is None:
        return []
    log, printed = context.log, context.log.radius if context.own else context.log.lowest
    above = (printed > context.ceiling * (1 + 1e-9)) & ~log.abstained
    if not above.any():
        return []
    return [
        Finding(
            "ceiling",
            f"{int(above.sum()):,} radii lie above {context.ceiling:.4g} = {context.ceiling / context.sigma:.2f} "
            f"sigma, the most that n = {context.samples:,} samples at failure probability "
            f"{context.failure_probability:g} can show (sigma = {context.sigma:g})",
            True,
            _few(log, above),
        )
    ]


def _correct_column(context: _Log) -> list[Finding]:
    log = context.log
    right = (log.predict == log.label).astype(np.float64)
    differs = log.correct != right
    if not differs.any():
        return []
    if np.array_equal(log.correct, np.cumsum(right)) or _is_running(log.correct):
        text = "the column 'correct' is a running total: its mean is not an accuracy"
        return [Finding("correct", text, True, _few(log, differs))]
    text = f"the column 'correct' contradicts label and prediction in {int(differs.sum()):,} rows"
    return [Finding("correct", text, True, _few(log, differs))]


def _is_running(correct: np.ndarray) -> bool:
    """Whether a column only ever grows by 0 or 1, beyond 1."""
    steps = np.diff(correct)
    return bool(correct.max() > 1 and np.all((steps == 0) | (steps == 1)))


def _thresholds(context: _Log) -> list[Finding]:
    """Right rows printed exactly at a threshold: rounding to nearest decides whether they count."""
    log = context.log
    if context.own:
        return []
    at = {r: log.right & (log.radius == r) & (log.lowest < r) for r in context.radii if r > 0}
    counts = ", ".join(f"{int(rows.sum()):,} at {r:g}" for r, rows in at.items() if rows.any())
    if not counts:
        return []
    some = np.any(list(at.values()), axis=0)
    text = f"right rows exactly at a threshold: {counts}; as printed they count, rounded down they do not"
    return [Finding("threshold", text, True, _few(log, some))]


def _abstentions(context: _Log) -> list[Finding]:
    log = context.log
    odd = ((log.predict < 0) & (log.radius > 0)) | (
        (log.predict >= 0) & (log.radius == 0) & (not context.own)
    )
    if not odd.any():
        return []
    text = (
        f"{int(odd.sum()):,} rows abstain with a radius, or predict with radius 0: all are taken to abstain"
    )
    return [Finding("abstentions", text, False, _few(log, odd))]


LOG_CHECKS: tuple[Callable[[_Log], list[Finding]], ...] = (
    _rows, _repeated, _saturation, _above_ceiling, _correct_column, _thresholds, _abstentions,
)  # fmt: skip
"""Checks of a log that holds rows, in the order of the report."""


def _log_facts(context: _Log) -> dict[str, Any]:
    log, piled, sigma = context.log, context.saturation, context.sigma
    largest = float(log.radius.max()) if len(log) else None
    known = piled is not None and sigma is not None
    return {
        "rows": len(log),
        "expected_rows": context.extent.rows,
        "right": int(log.right.sum()),
        "abstained": int(log.abstained.sum()),
        "sigma": sigma,
        "samples": context.samples,
        "failure_probability": context.failure_probability,
        "samples_known": context.own,
        "largest_radius": largest,
        "largest_radius_in_sigma": largest / sigma if largest is not None and sigma else None,
        "ceiling": context.ceiling,
        "ceiling_in_sigma": context.ceiling / sigma if context.ceiling is not None and sigma else None,
        "saturated_rows": piled.rows if piled is not None else None,
        "effective_failure_probability": [
            failure_probability_at(r / sigma, context.samples) for r in (piled.low, piled.high)
        ] if known else None,
        "seconds_an_image": float(np.nanmean(log.seconds)) if np.isfinite(log.seconds).any() else None,
    }  # fmt: skip


def _audit_counts(found: ClassCounts, rows: int | None) -> Audit:
    samples, findings = found.counts.sum(1), []
    if found.cut_off:
        findings.append(Finding("rows", "the last line is incomplete: the file was cut off", True))
    if rows is not None and len(found) != rows:
        findings.append(Finding("rows", f"{len(found):,} rows of {rows:,}", True))
    if samples.min() != samples.max():
        text = (
            f"samples of an image range from {samples.min():,} to {samples.max():,}: was their number fixed?"
        )
        findings.append(Finding("samples", text, True))
    text = "the classes were chosen on the counts that bound them, unless other samples chose the same beforehand"
    findings.append(Finding("selection", text, False))
    facts = {
        "rows": len(found), "expected_rows": rows, "classes": found.counts.shape[1],
        "samples": [int(samples.min()), int(samples.max())],
        "right": int(np.sum(found.counts.argmax(1) == found.label)),
        "unanimous": int(np.sum(found.counts.max(1) == samples)),
    }  # fmt: skip
    return Audit(found.source, "class counts", facts, tuple(findings))


def _audit_run(folder: Path) -> Audit:
    run = open_run(folder)
    findings = [*_run_rows(run), *_run_sums(run), *_run_log(run, folder)]
    request = run.request
    facts = {
        "images": len(run.records), "planned_images": run.planned, "sigma": request.sigma, "goal": request.goal,
        "samples": request.samples, "failure_probability": request.failure_probability, "bound": request.bound,
        "standard_outputs": sum(record.index in run.probabilities for record in run.records),
    }  # fmt: skip
    return Audit(str(folder), "run folder", facts, tuple(findings))


def _run_rows(run: RunContents) -> list[Finding]:
    if len(run.records) == run.planned:
        return []
    return [Finding("rows", f"{len(run.records):,} images of {run.planned:,} are finished", True)]


def _run_sums(run: RunContents) -> list[Finding]:
    """Votes must add up to the number of samples they are kept under."""
    wrong = [
        record.index
        for record in run.records
        if record.selection.sum() != run.request.selection_samples
        or any(counts.sum() != samples for samples, counts in record.estimation.items())
    ]
    text = f"the votes of {len(wrong):,} images do not add up to their number of samples"
    return [Finding("counts", text, True, tuple(wrong[:SHOWN]))] if wrong else []


def _run_log(run: RunContents, folder: Path) -> list[Finding]:
    """Compare the folder's own log with what its counts give."""
    if not (folder / LOG).exists() or not run.records:
        return [Finding("log", f"no {LOG} to compare the counts with", False)]
    log = read_log(folder / LOG)
    told = {int(i): (int(p), float(r)) for i, p, r in zip(log.index, log.predict, log.radius, strict=True)}
    evaluation = evaluate(run.records, {}, run.request, run.planned)
    wrong = [
        index
        for index, _, predicted, radius, _ in log_rows(evaluation)
        if index in told
        and not (told[index][0] == predicted and told[index][1] <= radius < told[index][1] + 2e-6)
    ]
    text = f"{LOG} disagrees with the counts on {len(wrong):,} images"
    return [Finding("log", text, True, tuple(wrong[:SHOWN]))] if wrong else []
