"""Checks of a published log: rows, saturation, ceilings, columns, thresholds.  No torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from certmix.certification.audit_state import Finding, StatedLog
from certmix.certification.stored import MOST_SIGMAS, ONE_SIDED
from certmix.runs.formats import PublishedLog

__all__ = ["LOG_CHECKS", "SHOWN"]

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
