"""Checks of a published log: rows, saturation, ceilings, columns, thresholds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certmix.errors import ParameterError
from certmix.records.extent import Extent, expected_rows
from certmix.records.formats import PublishedLog
from certmix.studies.evaluate import ceilings
from certmix.studies.saturation import Saturation, ceiling, failure_probability_at, find_saturation
from certmix.studies.stored_run import request_of, run_of_log

__all__ = ["LOG_CHECKS", "SHOWN", "Finding", "StatedLog", "log_facts", "state"]

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
    images, count
        The first few indices it is about, and how many there are.
    """

    check: str
    message: str
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
        if sigma not in (None, request.sigma):
            raise ParameterError(f"sigma = {sigma}: {log.source} was made with {request.sigma}: drop --sigma")
        most = ceilings(request, len(run["data"]["class_names"]))[0][2]
        return StatedLog(
            log, True, request.sigma, request.samples, request.failure_probability, most, radii, extent, None
        )
    top = None if sigma is None else ceiling(sigma, samples, delta)
    return StatedLog(log, False, sigma, samples, delta, top, radii, extent, find_saturation(log))


def _about(check: str, message: str, log: PublishedLog, rows: np.ndarray, changes: bool = True) -> Finding:
    """Return a finding about some rows of a log."""
    return Finding(check, message, changes, tuple(int(i) for i in log.index[rows][:SHOWN]), int(rows.sum()))


def _rows(context: StatedLog) -> list[Finding]:
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
        return [_about("repeated", f"{told}, and they disagree", log, differs)]
    return [_about("repeated", f"{told}: a table that counts rows counts them twice", log, again)]


def _saturation(context: StatedLog) -> list[Finding]:
    """Judge sigma and the failure probability by where radii pile up."""
    piled, sigma = context.saturation, context.sigma
    if context.own:
        return []
    if sigma is None or context.ceiling is None:
        return [
            Finding(
                "sigma", "no --sigma was given: nothing is said of ceilings and failure probability", False
            )
        ]
    if piled is None:
        text = (
            "radii do not pile up at a largest one: nothing is said of the failure probability they rest on"
        )
        return [Finding("failure probability", text, False)]
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
    return [_about("ceiling", text, log, above)]


def _correct_column(context: StatedLog) -> list[Finding]:
    log = context.log
    right = (log.predict == log.label).astype(np.float64)
    differs = log.correct != right
    if not differs.any():
        return []
    if np.array_equal(log.correct, np.cumsum(right)) or _is_running(log.correct):
        text = "the column 'correct' is a running total: its mean is not an accuracy"
        return [_about("correct", text, log, differs)]
    text = f"the column 'correct' contradicts label and prediction in {int(differs.sum()):,} rows"
    return [_about("correct", text, log, differs)]


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
    return [_about("threshold", text, log, some)]


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
    return [_about("abstentions", text, log, odd, changes=False)]


LOG_CHECKS: tuple[Callable[[StatedLog], list[Finding]], ...] = (
    _rows, _repeated, _saturation, _above_ceiling, _correct_column, _thresholds, _abstentions,
)  # fmt: skip
"""Checks of a log that holds rows, in the order of the report."""


def log_facts(context: StatedLog) -> dict[str, Any]:
    """Return the facts that the report of a log begins with, by name."""
    log, piled, sigma = context.log, context.saturation, context.sigma
    largest = float(log.radius.max()) if len(log) else None
    effective = None
    if piled is not None and sigma is not None:
        ends = (piled.low / sigma, piled.high / sigma)
        effective = [failure_probability_at(end, context.samples) for end in ends]
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
        "effective_failure_probability": effective,
        "seconds_an_image": float(np.nanmean(log.seconds)) if np.isfinite(log.seconds).any() else None,
    }  # fmt: skip
