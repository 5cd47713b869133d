"""What to know of a log, class counts or a run before trusting it.  No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_ndtr, ndtri

from certmix.certification.evaluate import ceilings, evaluate, log_rows
from certmix.certification.request import DEFAULT_RADII, CertifyRequest
from certmix.certification.stored import (
    LOG,
    MOST_SIGMAS,
    ONE_SIDED,
    RunContents,
    open_sampled,
    request_of,
    run_of_log,
)
from certmix.errors import ParameterError
from certmix.runs.logs import ClassCounts, Extent, PublishedLog, expected_rows, read_log, read_published

__all__ = [
    "LOG_CHECKS",
    "SHOWN",
    "Audit",
    "Finding",
    "Saturation",
    "StatedLog",
    "audit",
    "ceiling",
    "failure_probability_at",
    "find_saturation",
    "log_facts",
    "state",
]

_FEWEST = 3
_GAP = 0.01


@dataclass(frozen=True)
class Saturation:
    """The largest radius as printed, how many rows hold it, and which numbers print so."""

    radius: float
    rows: int
    low: float
    high: float


def ceiling(sigma: float, samples: int, failure_probability: float) -> float:
    """Return the largest radius that samples which all agree can show.

    Examples
    --------
    >>> round(ceiling(1.0, 100_000, 0.001), 3)
    3.811
    """
    return float(-sigma * ndtri(-math.expm1(math.log(failure_probability) / samples)))


def failure_probability_at(scaled_radius: float, samples: int) -> float:
    """Return the failure probability whose ceiling is a radius given in sigmas.

    Examples
    --------
    >>> round(failure_probability_at(3.811, 100_000), 5)
    0.00099
    """
    return math.exp(samples * float(log_ndtr(scaled_radius)))


def find_saturation(log: PublishedLog) -> Saturation | None:
    """Return where radii pile up; None if they do not: few rows at the top, or no gap below it."""
    if len(log) == 0 or log.radius.max() <= 0:
        return None
    top = float(log.radius.max())
    rows = log.radius == top
    near = (log.radius > (1 - _GAP) * top) & ~rows
    if rows.sum() < _FEWEST or near.any():
        return None
    low = float(log.lowest[np.argmax(rows)])
    # below a power of ten the digits are finer, above it they are not
    power_of_ten = log.decimals is None and math.log10(top).is_integer()
    return Saturation(top, int(rows.sum()), low, top + (top - low) * (10 if power_of_ten else 1))


_LEAST, _MOST = 1e-8, 0.5
"""Failure probabilities beyond these are nobody's: sigma must be another."""


@dataclass(frozen=True)
class Finding:
    """One thing to know.

    Parameters
    ----------
    check
        Its name.
    message
        In words.
    remedy
        What to do about it, in a few words.
    changes_table
        Whether some table made from the source would be another without it.
    images, count
        The first few indices it is about, and how many there are.
    """

    check: str
    message: str
    remedy: str
    changes_table: bool
    images: tuple[int, ...] = ()
    count: int = 0


@dataclass(frozen=True)
class StatedLog:
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
    bound: str | None

    @property
    def effective_failure_probability(self) -> tuple[float, float] | None:
        """Between which failure probabilities the radii pile up; None where sigma or the pile is missing."""
        if self.saturation is None or self.sigma is None:
            return None
        low, high = (
            failure_probability_at(r / self.sigma, self.samples)
            for r in (self.saturation.low, self.saturation.high)
        )
        return low, high

    @property
    def sigma_is_possible(self) -> bool:
        """Whether some failure probability in use has the radii pile up where they do."""
        found = self.effective_failure_probability
        return found is None or (found[1] >= _LEAST and found[0] <= _MOST)


def state(
    log: PublishedLog,
    sigma: float | None,
    samples: int,
    delta: float,
    radii: tuple[float, ...],
    rows: int | None,
) -> StatedLog:
    """Return a log with what is stated or known of how it was made, for the checks to read."""
    run = run_of_log(log)
    extent = expected_rows(log.index, run, rows)
    if run is not None:
        request = request_of(run, Path(log.source).parent)
        _refuse_other_sigma(log, sigma, request.sigma)
        most = ceilings(request, len(run["data"]["class_names"]))[0][2]
        return StatedLog(
            log, True, request.sigma, request.samples, request.failure_probability, most, radii, extent, None,
            log.bound or request.bound,
        )  # fmt: skip
    _refuse_other_sigma(log, sigma, log.sigma)
    sigma = log.sigma if sigma is None else sigma
    top = None if sigma is None else ceiling(sigma, samples, delta)
    piled = find_saturation(log) if log.bound in (None, ONE_SIDED) else None
    return StatedLog(log, False, sigma, samples, delta, top, radii, extent, piled, log.bound)


def _refuse_other_sigma(log: PublishedLog, given: float | None, own: float | None) -> None:
    if None not in (given, own) and given != own:
        raise ParameterError(f"sigma = {given}: {log.source} was made with {own}: drop --sigma")


def log_facts(context: StatedLog) -> dict[str, Any]:
    """Return the facts that the report of a log begins with, by name."""
    log, piled, sigma = context.log, context.saturation, context.sigma
    largest = float(log.radius.max()) if len(log) else None
    effective = context.effective_failure_probability if context.sigma_is_possible else None
    return {
        "rows": len(log),
        "expected_rows": context.extent.rows,
        "right": int(log.right.sum()),
        "abstained": int(log.abstained.sum()),
        "sigma": sigma,
        "samples": context.samples,
        "failure_probability": context.failure_probability,
        "bound": context.bound,
        "samples_known": context.own,
        "largest_radius": largest,
        "largest_radius_in_sigma": largest / sigma if largest is not None and sigma else None,
        "ceiling": context.ceiling,
        "ceiling_in_sigma": context.ceiling / sigma if context.ceiling is not None and sigma else None,
        "saturated_rows": piled.rows if piled is not None else None,
        "effective_failure_probability": None if effective is None else list(effective),
        "seconds_an_image": float(np.nanmean(log.seconds)) if np.isfinite(log.seconds).any() else None,
    }  # fmt: skip


SHOWN = 10
"""Images named in one finding."""


def _about(
    check: str, message: str, remedy: str, log: PublishedLog, rows: np.ndarray, changes: bool = True
) -> Finding:
    """Return a finding about some rows of a log."""
    first = tuple(int(i) for i in log.index[rows][:SHOWN])
    return Finding(check, message, remedy, changes, first, int(rows.sum()))


def _rows(context: StatedLog) -> list[Finding]:
    log, extent = context.log, context.extent
    distinct, found = len(np.unique(log.index)), []
    if log.cut_off:
        text = "the last line is incomplete: the log was cut off while it was written"
        found.append(Finding("rows", text, "get the whole log; tables leave the line out", True))
    if extent.rows is None:
        found.append(Finding("rows", f"{distinct:,} rows: {extent.why}", "give --rows", False))
    elif distinct < extent.rows:
        missing = extent.rows - distinct
        text = f"{distinct:,} rows of {extent.rows:,}, {missing:,} missing ({extent.why})"
        remedy = f"get the whole log, or give --rows {distinct} if no more were meant"
        found.append(Finding("rows", text, remedy, True))
    if np.any(np.diff(log.index) < 0):
        text = "idx does not increase from row to row: were several logs joined?"
        found.append(Finding("order", text, "if so, take each log by itself", False))
    return found


def _repeated(context: StatedLog) -> list[Finding]:
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
        remedy = "keep one row an image: recertify refuses the log as it is"
        return [_about("repeated", f"{told}, and they disagree", remedy, log, differs)]
    text = f"{told}: a table that counts rows counts them twice"
    return [_about("repeated", text, "take tables from recertify, which counts them once", log, again)]


def _bound(context: StatedLog) -> list[Finding]:
    """Say whether p and q follow from the radii, which tables at alpha < 1 rest on."""
    if context.bound is None:
        text = "the log does not say its bound: tables at alpha < 1 take it to be one-sided, q = 1 - p"
        return [Finding("bound", text, "ask whoever made the log; of two-sided bounds get the counts", False)]
    if context.bound == ONE_SIDED:
        return []
    text = f"the radii rest on the bound {context.bound}, from which p and q do not follow at alpha < 1"
    return [
        Finding(
            "bound", text, "take tables at alpha < 1 from the run folder: of the log they are refused", True
        )
    ]


def _saturation(context: StatedLog) -> list[Finding]:
    """Judge sigma and the failure probability by where radii pile up."""
    piled, sigma = context.saturation, context.sigma
    if context.own or context.bound not in (None, ONE_SIDED):
        return []
    if sigma is None or context.ceiling is None:
        text = "no --sigma was given: nothing is said of ceilings and failure probability"
        return [Finding("sigma", text, "give --sigma", False)]
    effective = context.effective_failure_probability
    if piled is None or effective is None:
        text = (
            "radii do not pile up at a largest one: nothing is said of the failure probability they rest on"
        )
        return [Finding("failure probability", text, "take it from whoever made the log", False)]
    told = f"{piled.rows:,} rows saturate at {piled.radius:g} = {piled.radius / sigma:.2f} sigma"
    expected = context.ceiling / sigma
    stated = f"n = {context.samples:,} at failure probability {context.failure_probability:g}"
    if not context.sigma_is_possible:
        text = (
            f"{told}, where {stated} gives {expected:.2f}: the radii cannot be those of sigma = {sigma:g}, "
            f"sigma = {piled.radius / expected:.2g} would fit"
        )
        return [Finding("sigma", text, "give the log's own --sigma", True)]
    low, high = effective
    if low <= context.failure_probability <= high:
        return []
    text = (
        f"{told}: for n = {context.samples:,} that is failure probability {low:.2g} to {high:.2g}, "
        f"not {context.failure_probability:g}, which gives {expected:.2f} sigma"
    )
    remedy = f"give --failure-probability {_between(low, high)}, or --samples if n was another"
    return [Finding("failure probability", text, remedy, True)]


def _between(low: float, high: float) -> str:
    """Return the shortest decimal between two numbers, nearest their middle."""
    texts = (f"{(low + high) / 2:.{digits}g}" for digits in range(1, 17))
    return next((text for text in texts if low <= float(text) <= high), repr(high))


def _above_ceiling(context: StatedLog) -> list[Finding]:
    if context.ceiling is None or context.sigma is None:
        return []
    log, printed = context.log, context.log.radius if context.own else context.log.lowest
    above = (printed > context.ceiling * (1 + 1e-9)) & ~log.abstained
    if not above.any():
        return []
    text = (
        f"{int(above.sum()):,} radii lie above {context.ceiling:.4g} = {context.ceiling / context.sigma:.2f} "
        f"sigma, the most that n = {context.samples:,} samples at failure probability "
        f"{context.failure_probability:g} can show (sigma = {context.sigma:g})"
    )
    if context.own:
        remedy = "restore the run's log from a copy, or repeat certmix certify to write it again"
    else:
        remedy = "give the --sigma, --samples and --failure-probability that the log was made with"
        if np.max(printed[above]) > MOST_SIGMAS * context.sigma:
            text += f"; the radii cannot be those of sigma = {context.sigma:g}"
            remedy = "give the log's own --sigma"
    return [_about("ceiling", text, remedy, log, above)]


def _correct_column(context: StatedLog) -> list[Finding]:
    log = context.log
    right = (log.predict == log.label).astype(np.float64)
    differs = log.correct != right
    if not differs.any():
        return []
    text = f"the column 'correct' contradicts label and prediction in {int(differs.sum()):,} rows"
    if np.array_equal(log.correct, np.cumsum(right)) or _is_running(log.correct):
        text = "the column 'correct' is a running total: its mean is not an accuracy"
    remedy = "compare label and predict instead, as recertify does"
    return [_about("correct", text, remedy, log, differs)]


def _is_running(correct: np.ndarray) -> bool:
    """Whether a column only ever grows by 0 or 1, beyond 1."""
    steps = np.diff(correct)
    return bool(correct.max() > 1 and np.all((steps == 0) | (steps == 1)))


def _thresholds(context: StatedLog) -> list[Finding]:
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
    remedy = "use recertify without --as-printed, which rounds down"
    return [_about("threshold", text, remedy, log, some)]


def _abstentions(context: StatedLog) -> list[Finding]:
    log = context.log
    odd = ((log.predict < 0) & (log.radius > 0)) | (
        (log.predict >= 0) & (log.radius == 0) & (not context.own)
    )
    if not odd.any():
        return []
    text = (
        f"{int(odd.sum()):,} rows abstain with a radius, or predict with radius 0: all are taken to abstain"
    )
    remedy = "correct the rows if some of them should count"
    return [_about("abstentions", text, remedy, log, odd, changes=False)]


LOG_CHECKS: tuple[Callable[[StatedLog], list[Finding]], ...] = (
    _rows, _repeated, _bound, _saturation, _above_ceiling, _correct_column, _thresholds, _abstentions,
)  # fmt: skip
"""Checks of a log that holds rows, in the order of the report."""


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
