"""What to know of a log, class counts or a run before trusting it.  No torch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_ndtr, ndtri

from certmix.certification.analysis.published import differences
from certmix.certification.evaluate import ceilings
from certmix.certification.publish import derive, opened, texts_in
from certmix.certification.request.parts import DEFAULT_RADII
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.stored import LOG, MOST_SIGMAS, ONE_SIDED, known_of, named, read_sampled
from certmix.runs.logs import ClassCounts, Extent, PublishedLog, read_published
from certmix.runs.records import pieces

__all__ = ["Audit", "Finding", "audit"]

_FEWEST, _GAP = 3, 0.01  # rows that hold the largest radius at least, and the gap below them
_LEAST, _MOST = 1e-8, 0.5  # failure probabilities beyond these are nobody's: sigma must be another
_SHOWN = 10


@dataclass(frozen=True)
class Finding:
    """One thing to know: which check found it, in words, and what to do about it.

    ``changes_table`` says whether some table made from the source would be another without it;
    ``inputs`` holds the first few indices it is about, ``count`` how many there are.
    """

    check: str
    message: str
    remedy: str
    changes_table: bool
    inputs: tuple[int, ...] = ()
    count: int = 0


@dataclass(frozen=True)
class Audit:
    """All that is known of one source; ``facts`` holds plain data by name, None where unknown."""

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

    Of a run folder the counts, tables and ``records.tsv`` are looked at, not the plots:
    `certmix.verification.verify` checks these.  A CertmixError says that the source cannot be read.

    Parameters
    ----------
    source
        File or folder.
    sigma
        Noise level that the log is said to have; without it nothing is said of ceilings.
    samples, failure_probability
        What a published log is said to rest on; a run's own log knows better.
    radii, rows
        Thresholds of the tables in mind; how many rows there should be, by default judged from idx.
    """
    CertifyRequest(
        1.0 if sigma is None else sigma, 1.0, samples=samples, goal="fixed",
        failure_probability=failure_probability, radii=tuple(radii),
    )  # fmt: skip
    if os.path.isdir(source):
        return _audit_run(Path(source))
    found = read_published(source)
    if isinstance(found, ClassCounts):
        return _audit_counts(found, rows)
    known = known_of(found, sigma, rows)
    sigma, most = known.sigma, None
    if known.run is not None:
        samples, failure_probability = known.run.samples, known.run.of_one_input
        most = ceilings(known.run, known.classes)[0][2]
    elif sigma is not None:
        most = ceiling(sigma, samples, failure_probability)
    by_votes = known.run is None and known.bound in (None, ONE_SIDED)
    stated = StatedLog(
        found, known.run is not None, sigma, samples, failure_probability, most, tuple(radii), known.extent,
        find_saturation(found) if by_votes else None, known.bound,
    )  # fmt: skip
    if len(found) == 0:
        text = "the log holds a header and no rows"
        findings = [Finding("rows", text, "name a log that is not empty", True)]
    else:
        findings = [finding for check in _CHECKS for finding in check(stated)]
    piled, largest = stated.saturation, float(found.radius.max()) if len(found) else None
    effective = stated.effective_failure_probability if stated.sigma_is_possible else None
    facts = {
        "rows": len(found), "expected_rows": known.extent.rows, "right": int(found.right.sum()),
        "abstained": int(found.abstained.sum()), "sigma": sigma, "samples": samples,
        "failure_probability": failure_probability, "bound": known.bound, "samples_known": stated.own,
        "largest_radius": largest,
        "largest_radius_in_sigma": largest / sigma if largest is not None and sigma else None,
        "ceiling": most, "ceiling_in_sigma": most / sigma if most is not None and sigma else None,
        "saturated_rows": None if piled is None else piled.rows,
        "effective_failure_probability": None if effective is None else list(effective),
        "seconds_an_input": float(np.nanmean(found.seconds)) if np.isfinite(found.seconds).any() else None,
    }  # fmt: skip
    return Audit(found.source, "log", facts, tuple(findings))


def ceiling(sigma: float, samples: int, failure_probability: float) -> float:
    """Return the largest radius that samples which all agree can show."""
    return float(-sigma * ndtri(-math.expm1(math.log(failure_probability) / samples)))


def failure_probability_at(scaled_radius: float, samples: int) -> float:
    """Return the failure probability whose ceiling is a radius given in sigmas."""
    return math.exp(samples * float(log_ndtr(scaled_radius)))


class Saturation(NamedTuple):
    """The largest radius as printed, how many rows hold it, and which numbers print so."""

    radius: float
    rows: int
    low: float
    high: float


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


@dataclass(frozen=True)
class StatedLog:
    """A log with what is stated or known of it; `own` is a run's."""

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
        low, high = (r / self.sigma for r in (self.saturation.low, self.saturation.high))
        return failure_probability_at(low, self.samples), failure_probability_at(high, self.samples)

    @property
    def sigma_is_possible(self) -> bool:
        """Whether some failure probability in use has the radii pile up where they do."""
        found = self.effective_failure_probability
        return found is None or (found[1] >= _LEAST and found[0] <= _MOST)


def _about(
    check: str, message: str, remedy: str, inputs: Sequence[Any] | np.ndarray, changes: bool = True
) -> Finding:
    """Return a finding about some inputs, by index."""
    return Finding(check, message, remedy, changes, tuple(map(int, inputs[:_SHOWN])), len(inputs))


def _rows(stated: StatedLog) -> Iterator[Finding]:
    log, extent, distinct = stated.log, stated.extent, len(np.unique(stated.log.index))
    if log.cut_off:
        text = "the last line is incomplete: the log was cut off while it was written"
        yield Finding("rows", text, "get the whole log; tables leave the line out", True)
    if extent.rows is None:
        yield Finding("rows", f"{distinct:,} rows: {extent.why}", "give --rows", False)
    elif distinct < extent.rows:
        text = f"{distinct:,} rows of {extent.rows:,}, {extent.rows - distinct:,} missing ({extent.why})"
        remedy = f"get the whole log, or give --rows {distinct} if no more were meant"
        yield Finding("rows", text, remedy, True)
    if np.any(np.diff(log.index) < 0):
        text = "idx does not increase from row to row: were several logs joined?"
        yield Finding("order", text, "if so, take each log by itself", False)


def _repeated(stated: StatedLog) -> Iterator[Finding]:
    log = stated.log
    _, first, which, counts = np.unique(log.index, return_index=True, return_inverse=True, return_counts=True)
    again, same = counts[which] > 1, first[which]
    if not again.any():
        return
    differs = (
        (log.predict != log.predict[same]) | (log.radius != log.radius[same]) | (log.label != log.label[same])
    )
    told = f"{int((counts > 1).sum()):,} inputs have several rows"
    if differs.any():
        remedy = "keep one row an input: recertify refuses the log as it is"
        yield _about("repeated", f"{told}, and they disagree", remedy, log.index[differs])
    else:
        text = f"{told}: a table that counts rows counts them twice"
        yield _about("repeated", text, "take tables from recertify, which counts them once", log.index[again])


def _bound(stated: StatedLog) -> Iterator[Finding]:
    """Say whether p and q follow from the radii, which tables at alpha < 1 rest on."""
    if stated.bound is None:
        text = "the log does not say its bound: tables at alpha < 1 take it to be one-sided, q = 1 - p"
        yield Finding("bound", text, "ask whoever made the log; of two-sided bounds get the counts", False)
    elif stated.bound != ONE_SIDED:
        text = f"the radii rest on the bound {stated.bound}, from which p and q do not follow at alpha < 1"
        remedy = "take tables at alpha < 1 from the run folder: of the log they are refused"
        yield Finding("bound", text, remedy, True)


def _saturation(stated: StatedLog) -> Iterator[Finding]:
    """Judge sigma and the failure probability by where radii pile up."""
    piled, sigma, delta = stated.saturation, stated.sigma, stated.failure_probability
    if stated.own or stated.bound not in (None, ONE_SIDED):
        return
    if sigma is None or stated.ceiling is None:
        text = "no --sigma was given: nothing is said of ceilings and failure probability"
        yield Finding("sigma", text, "give --sigma", False)
        return
    effective = stated.effective_failure_probability
    if piled is None or effective is None:
        text = (
            "radii do not pile up at a largest one: nothing is said of the failure probability they rest on"
        )
        yield Finding("failure probability", text, "take it from whoever made the log", False)
        return
    told = f"{piled.rows:,} rows saturate at {piled.radius:g} = {piled.radius / sigma:.2f} sigma"
    expected, (low, high) = stated.ceiling / sigma, effective
    if not stated.sigma_is_possible:
        text = (
            f"{told}, where n = {stated.samples:,} at failure probability {delta:g} gives {expected:.2f}: "
            f"the radii cannot be those of sigma = {sigma:g}, sigma = {piled.radius / expected:.2g} would fit"
        )
        yield Finding("sigma", text, "give the log's own --sigma", True)
    elif not low <= delta <= high:
        text = (
            f"{told}: for n = {stated.samples:,} that is failure probability {low:.2g} to {high:.2g}, "
            f"not {delta:g}, which gives {expected:.2f} sigma"
        )
        # the shortest decimal between the two that is nearest their middle
        between = (f"{(low + high) / 2:.{digits}g}" for digits in range(1, 17))
        proposed = next((one for one in between if low <= float(one) <= high), repr(high))
        remedy = f"give --failure-probability {proposed}, or --samples if n was another"
        yield Finding("failure probability", text, remedy, True)


def _above_ceiling(stated: StatedLog) -> Iterator[Finding]:
    log, sigma, most = stated.log, stated.sigma, stated.ceiling
    if most is None or sigma is None:
        return
    printed = log.radius if stated.own else log.lowest
    above = (printed > most * (1 + 1e-9)) & ~log.abstained
    if not above.any():
        return
    text = (
        f"{int(above.sum()):,} radii lie above {most:.4g} = {most / sigma:.2f} sigma, the most that n = "
        f"{stated.samples:,} samples at failure probability {stated.failure_probability:g} can show "
        f"(sigma = {sigma:g})"
    )
    remedy = "give the --sigma, --samples and --failure-probability that the log was made with"
    if stated.own:
        remedy = "restore the run's log from a copy, or repeat certmix certify to write it again"
    elif np.max(printed[above]) > MOST_SIGMAS * sigma:
        text += f"; the radii cannot be those of sigma = {sigma:g}"
        remedy = "give the log's own --sigma"
    yield _about("ceiling", text, remedy, log.index[above])


def _correct_column(stated: StatedLog) -> Iterator[Finding]:
    log = stated.log
    right = (log.predict == log.label).astype(np.float64)
    differs = log.correct != right
    if not differs.any():
        return
    text = f"the column 'correct' contradicts label and prediction in {int(differs.sum()):,} rows"
    steps = np.diff(log.correct)
    grows = log.correct.max() > 1 and np.all((steps == 0) | (steps == 1))
    if grows or np.array_equal(log.correct, np.cumsum(right)):
        text = "the column 'correct' is a running total: its mean is not an accuracy"
    yield _about("correct", text, "compare label and predict instead, as recertify does", log.index[differs])


def _thresholds(stated: StatedLog) -> Iterator[Finding]:
    """Right rows printed exactly at a threshold: rounding to nearest decides whether they count."""
    log = stated.log
    at = {r: log.right & (log.radius == r) & (log.lowest < r) for r in stated.radii if r > 0}
    counts = ", ".join(f"{int(rows.sum()):,} at {r:g}" for r, rows in at.items() if rows.any())
    if counts and not stated.own:
        text = f"right rows exactly at a threshold: {counts}; as printed they count, rounded down they do not"
        remedy = "use recertify without --as-printed, which rounds down"
        yield _about("threshold", text, remedy, log.index[np.any(list(at.values()), axis=0)])


def _abstentions(stated: StatedLog) -> Iterator[Finding]:
    log = stated.log
    odd = (log.predict < 0) & (log.radius > 0)
    if not stated.own:
        odd |= (log.predict >= 0) & (log.radius == 0)
    if odd.any():
        text = (
            f"{int(odd.sum()):,} rows abstain with a radius, or predict with radius 0: all are taken to "
            "abstain"
        )
        remedy = "correct the rows if some of them should count"
        yield _about("abstentions", text, remedy, log.index[odd], changes=False)


_CHECKS = (
    _rows, _repeated, _bound, _saturation, _above_ceiling, _correct_column, _thresholds, _abstentions,
)  # fmt: skip


def _audit_counts(found: ClassCounts, rows: int | None) -> Audit:
    samples, findings = found.counts.sum(1), []
    if found.cut_off:
        text = "the last line is incomplete: the file was cut off"
        findings.append(Finding("rows", text, "get the whole file; tables leave the line out", True))
    if rows is not None and len(found) != rows:
        findings.append(Finding("rows", f"{len(found):,} rows of {rows:,}", "get the whole file", True))
    if samples.min() != samples.max():
        text = (
            f"samples of an input range from {samples.min():,} to {samples.max():,}: was their number fixed?"
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
    """Say what a run is; votes must add up to their number of samples, and give what lies in the folder."""
    described = read_sampled(folder)
    with opened(folder, described) as (request, store):
        assert isinstance(request, CertifyRequest)
        records = store.records(ballots=request.gated)
        derived = derive(request, store, described, records)
        _, checksum = named(described["models"]["standard"])
        answered = [] if checksum is None else [*store.standard(checksum)]
    inputs, planned, findings = derived.summary.inputs, derived.summary.planned_inputs, list[Finding]()
    facts = {
        "inputs": inputs, "planned_inputs": planned, "sigma": request.sigma,
        "goal": request.goal, "samples": request.samples, "bound": request.bound,
        "failure_probability": request.of_one_input,
        "standard_outputs": int(np.isin(derived.outcomes.indices, answered).sum()),
        "models": "not checked (certmix verify compares them with the run)",
    }  # fmt: skip
    if inputs != planned:
        text = f"{inputs:,} inputs of {planned:,} are finished"
        findings.append(Finding("rows", text, "repeat certmix certify to finish the rest", True))
    bad = np.zeros(len(records), bool)
    if request.scores == "hard":
        bad = records.selection.sum(1) != request.selection_samples
    for samples, look in records.votes.items():
        for part in pieces(look.rows, records.selection.shape[1]):
            bad[part] |= look.of(part).sum(1) != samples
    if len(wrong := records.indices[bad]):
        text = f"the votes of {len(wrong):,} inputs do not add up to their number of samples"
        remedy = "restore the folder from a copy, or certify again with --fresh"
        findings.append(_about("counts", text, remedy, wrong))
    if others := differences(folder, texts_in(request, derived)):
        more = f" (and {len(others) - 1:,} more cells)" if len(others) > 1 else ""
        remedy = others[0].remedy("repeat certmix certify to write it again, or restore the counts")
        rows = np.unique([one.input for one in others if one.input is not None]).astype(np.int64)
        findings.append(_about("published files", f"{others[0]}{more}", remedy, rows))
    if not os.path.exists(folder / LOG):
        text = f"no {LOG} to compare the counts with"
        findings.append(Finding("published files", text, "repeat certmix certify to write it", False))
    return Audit(str(folder), "run folder", facts, tuple(findings))
