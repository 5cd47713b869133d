"""What a published log or a file of class counts holds, as confidence bounds.  No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from certmix.bounds import bound_counts
from certmix.certification.stored_run import run_of_log
from certmix.errors import ParameterError
from certmix.radii import certify_radii, margin_slack_of
from certmix.runs.extent import Extent, distinct_rows, expected_rows
from certmix.runs.formats import ClassCounts, PublishedLog, read_published
from certmix.types import CertifiedRadii, ConfidenceBounds, FloatArray, IntArray, Status

__all__ = [
    "ASSUMED", "BY_RADIUS", "ONE_SIDED", "Doubt", "Stored", "radii_at", "read_stored", "refuse_empty",
    "refuse_of_files",
]  # fmt: skip

_ROUNDING = 4 * 2.0**-53

ONE_SIDED = "clopper-pearson"
"""The bound with q = 1 - p, so that one radius says both; the field's custom."""

BY_RADIUS = ("exact", "smoothing")
"""Certificates that are a log's own radius at alpha = 1, whatever its bound."""

ASSUMED = (
    "The log does not say its bound: it is taken to be one-sided, q = 1 - p, as is the field's custom; if it "
    "was not, figures at alpha < 1 may be too high."
)

MOST_SIGMAS = 6.5
"""10^10 samples that all agree certify 6.06 sigma at a failure probability of 0.001."""


class Doubt(str):
    """A note that is a warning as well: it comes first, and commands say it on stderr."""

    __slots__ = ()


@dataclass(frozen=True)
class Stored:
    """Bounds of the robust classifier's images, (m,), and what is known of them.

    Parameters
    ----------
    source, kind
        As named; ``"log"``, ``"run's log"`` or ``"class counts"``.
    sigma
        Noise level.
    label, selected
        Classes; selected is -1 where the log abstains.
    bounds
        p and q; their failure probability is NaN where it is unknown.
    radius
        Of a log: the radius of the robust classifier alone.  None for counts.
    frequencies
        Of counts: float64 (m, c).  None for logs.
    planned
        Rows that there should be, None if unknown.
    samples
        Of each image, None for logs.
    bound
        Name of the bound, None if unknown.
    notes
        What a reader should know.
    """

    source: str
    kind: str
    sigma: float
    label: IntArray
    selected: IntArray
    bounds: ConfidenceBounds
    radius: FloatArray | None
    frequencies: FloatArray | None
    planned: int | None
    samples: IntArray | None
    bound: str | None
    notes: tuple[str, ...]
    as_printed: bool = False

    @property
    def failure_probability(self) -> float | None:
        """Of one image's certificate, None if unknown."""
        value = self.bounds.failure_probability
        return None if math.isnan(value) else value

    @property
    def radius_alone(self) -> bool:
        """Whether a log's bound is not one-sided, so that its radii do not say p and q."""
        return self.radius is not None and self.bound not in (None, ONE_SIDED)

    @property
    def right(self) -> np.ndarray:
        """bool (m,): the class is the label."""
        return self.selected == self.label


def radii_at(stored: Stored, alpha: float, certificate: str) -> CertifiedRadii:
    """Return certified radii; a log's own at alpha = 1, where both certificates are them.

    Going through a probability and back would miss radii that lie exactly on
    a table's threshold.

    Raises
    ------
    ParameterError
        For any other radii of a log whose bound is not one-sided: p = Phi(radius / sigma) and
        q = 1 - p would claim more than the log's bounds did.
    """
    if stored.radius is None or alpha != 1.0 or certificate not in BY_RADIUS:
        if stored.radius_alone:
            own = stored.kind == "run's log"
            run = f"the run folder {Path(stored.source).parent}" if own else "the folder of its run"
            raise ParameterError(
                f"{stored.source} rests on the bound {stored.bound}, not a one-sided one: its radii do not "
                f"say p and q: name {run}, or use --alpha 1 with --certificate exact or smoothing"
            )
        slack = 0.0 if stored.as_printed else margin_slack_of(alpha)
        return certify_radii(
            stored.bounds, sigma=stored.sigma, alpha=alpha, certificate=certificate, margin_slack=slack
        )
    status = np.where(stored.radius > 0, Status.CERTIFIED, Status.ABSTAIN)
    return CertifiedRadii(certificate, "l2", stored.sigma, 1.0, stored.radius, status.astype(np.int64))


def refuse_empty(stored: Stored) -> None:
    """Refuse a file without rows.

    Raises
    ------
    ParameterError
        If it holds none.
    """
    if len(stored.label) == 0:
        raise ParameterError(f"{stored.source} holds no rows: name a log that is not empty")


def refuse_of_files(folder: str | Path, **options: object) -> None:
    """Refuse options of logs and class counts that were given with a run folder.

    Raises
    ------
    ParameterError
        For the first that was.
    """
    for name, value in options.items():
        if value:
            option = name.replace("_", "-")
            raise ParameterError(f"{folder} is a run folder: --{option} is for files; drop it")


def read_stored(
    path: str | Path,
    *,
    sigma: float | None = None,
    failure_probability: float | None = None,
    bound: str | None = None,
    as_printed: bool = False,
    assume_selected: bool = False,
    rows: int | None = None,
) -> Stored:
    """Return what a log or a file of class counts holds; see `certmix.certification.recertify.recertify`.

    Raises
    ------
    DataError, ParameterError
        If the file is malformed, or an option does not apply to it.
    """
    found = read_published(path)
    if isinstance(found, ClassCounts):
        if as_printed:
            raise ParameterError(f"{path} holds counts, not printed radii: drop --as-printed")
        return _from_counts(found, sigma, failure_probability, bound, assume_selected, rows)
    if assume_selected:
        raise ParameterError(f"{path} is a log, not a file of class counts: drop --assume-selected")
    return _from_log(found, sigma, failure_probability, bound, as_printed, rows)


def _need_sigma(source: str, sigma: float | None) -> float:
    if sigma is None:
        raise ParameterError(f"{source} does not say its noise level: give --sigma")
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ParameterError(f"sigma = {sigma}: the noise level must be a positive number")
    return sigma


def _doubt_of_sigma(log: PublishedLog, sigma: float) -> list[Doubt]:
    """Ask whether the noise level is right where a log's largest radius would rest on billions of samples."""
    largest = float(np.max(log.radius[~log.abstained], initial=0.0)) / sigma
    if largest <= MOST_SIGMAS:
        return []
    return [
        Doubt(
            f"is sigma = {sigma:g} right? The largest radius of the log would be {largest:.3g} sigma, for "
            "which 10^10 samples an image are not enough; with too small a sigma every figure is too high"
        )
    ]


def _from_log(
    log: PublishedLog,
    sigma: float | None,
    delta: float | None,
    bound: str | None,
    as_printed: bool,
    rows: int | None,
) -> Stored:
    log, repeated = distinct_rows(log)
    own = run_of_log(log)
    known = {} if own is None else dict(own["request"])
    known |= {name: value for name in ("bound", "sigma") if (value := getattr(log, name)) is not None}
    for option, given, name in (
        ("--failure-probability", delta, "failure_probability"), ("--bound", bound, "bound"),
    ):  # fmt: skip
        if given is not None and given != known.get(name, math.nan):
            raise ParameterError(
                f"{option} {given}: {log.source} holds no counts, so what its radii rest on cannot be "
                f"changed; drop {option}, or name a run folder or class counts"
            )
    if "sigma" in known and sigma not in (None, known["sigma"]):
        raise ParameterError(f"sigma = {sigma}: {log.source} was made with {known['sigma']}: drop --sigma")
    level = _need_sigma(log.source, known.get("sigma", sigma))
    extent = expected_rows(log.index, own, rows)
    radius = log.radius if as_printed or own is not None else log.lowest
    radius = np.where(log.abstained, 0.0, radius)
    notes = [
        *_doubt_of_sigma(log, level),
        *_rows_note(len(log), extent, log.cut_off, repeated),
        _rounding_note(as_printed, own is not None),
    ]
    with np.errstate(over="ignore"):  # p is capped long before
        scaled = radius / level
    if own is None:
        notes.append("The log does not say its failure probability.")
    if "bound" not in known:
        notes.append(ASSUMED)
    return Stored(
        source=log.source, kind="log" if own is None else "run's log", sigma=level, label=log.label,
        selected=np.where(log.abstained, -1, log.predict),
        bounds=_log_bounds(scaled, as_printed, known.get("failure_probability", math.nan)),
        radius=radius, frequencies=None, planned=extent.rows, samples=None, bound=known.get("bound"),
        notes=tuple(notes), as_printed=as_printed,
    )  # fmt: skip


def _log_bounds(scaled: FloatArray, as_printed: bool, failure_probability: float) -> ConfidenceBounds:
    """p = Phi(radius / sigma), q = 1 - p: what a log of the robust classifier alone proves."""
    p = np.minimum(ndtr(scaled), 1.0 - 2.0**-53)
    if not as_printed:
        p = p - _ROUNDING
    p = np.where(scaled > 0, p, 0.0)
    return ConfidenceBounds(p, 1.0 - p, failure_probability, "log", {})


def _rounding_note(as_printed: bool, own: bool) -> str:
    if as_printed:
        return (
            "Radii are taken as printed, rounded to nearest: they are not rounded down, "
            "and may exceed what was proved."
        )
    return (
        "Radii are the log's own, which were rounded down when it was written."
        if own
        else "Each radius is the lowest that prints as the log's does."
    )


def _rows_note(rows: int, extent: Extent, cut_off: bool, repeated: int) -> list[str]:
    notes = [
        f"Rows: {rows:,} of {extent.rows:,} ({extent.why})."
        if extent.rows
        else f"Rows: {rows:,} ({extent.why})."
    ]
    if cut_off:
        notes.append("The last line is incomplete, and left out.")
    if repeated:
        notes.append(f"Repeated rows, equal to an earlier one and counted once: {repeated:,}.")
    return notes


def _from_counts(
    found: ClassCounts,
    sigma: float | None,
    failure_probability: float | None,
    bound: str | None,
    assume_selected: bool,
    rows: int | None,
) -> Stored:
    delta = 0.001 if failure_probability is None else failure_probability
    level, name = _need_sigma(found.source, sigma), bound or "clopper-pearson"
    selected, classes = found.counts.argmax(1), found.counts.shape[1]
    share = 1 if assume_selected else (2 if name == "clopper-pearson" else classes)
    bounds = bound_counts(found.counts, selected, delta / share, name)
    samples = found.counts.sum(1)
    extent = Extent(rows, "as stated") if rows else Extent(None, "how many there should be is not known")
    notes = [*_rows_note(len(found), extent, found.cut_off, 0), _selection_note(share, delta)]
    if samples.min() != samples.max():
        notes.append(f"Samples of an image: {samples.min():,} to {samples.max():,}.")
    notes.append("The number of samples is taken to have been fixed before they were drawn.")
    return Stored(
        source=found.source, kind="class counts", sigma=level, label=found.label, selected=selected,
        bounds=replace(bounds, failure_probability=delta), radius=None,
        frequencies=found.counts / samples[:, None], planned=rows, samples=samples, bound=name,
        notes=tuple(notes),
    )  # fmt: skip


def _selection_note(share: int, delta: float) -> str:
    if share == 1:
        return (
            "Each image's class is the most voted one of the counts that also bound it: the failure "
            "probability holds only if other samples chose the same class beforehand, "
            "as --assume-selected states."
        )
    return (
        "Each image's class is the most voted one of the counts that also bound it: to allow for that choice "
        f"the bounds use {delta:g} / {share}."
    )
