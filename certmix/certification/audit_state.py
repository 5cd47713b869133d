"""A log with what is stated of it, what is found in it, and the facts of its report.  No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification.evaluate import ceilings
from certmix.certification.saturation import Saturation, ceiling, failure_probability_at, find_saturation
from certmix.certification.stored import ONE_SIDED
from certmix.certification.stored_run import request_of, run_of_log
from certmix.errors import ParameterError
from certmix.runs.extent import Extent, expected_rows
from certmix.runs.formats import PublishedLog

__all__ = ["Finding", "StatedLog", "log_facts", "state"]

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
