"""The papers' guarantees held against the installed package, on this machine.

`SUITES` names them; each lives in the module of its name, which is imported
when it runs.  No pytest, no network, no files: numbers in, slack out.
"""

from __future__ import annotations

import importlib
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from certmix.errors import ParameterError
from certmix.verification.selftests.tally import Property, SuiteResult, Tally

__all__ = ["CASES", "SUITES", "Property", "SuiteResult", "run_suites"]

SUITES = {
    "arithmetic": "float64 and its libraries are what all proofs of rounding count on",
    "margin-lemma": "Lemma 3.2: a margin of (1 - alpha) / alpha decides, whatever g says",
    "lipschitz": "Theorem 3.5: radii from Lipschitz constants",
    "smoothing": "Theorem 3.7: radii of Gaussian-smoothed functions",
    "exact": "the exact certificate: sound, and not to be improved on",
    "rounding": "radii and margins are rounded down, thresholds up, in decimal arithmetic",
    "clopper-pearson": "binomial bounds: coverage by enumeration, in fractions",
    "vote-bounds": "joint bounds of votes, and bounds that are looked at again and again",
    "score-bounds": "bounds of mean scores: coverage by enumeration",
    "propagation": "bounds propagated through networks: nothing in the ball falls below",
    "sampling": "noise and votes: true probabilities lie within their bounds",
}
"""Suites by name, in order of dependence, and what each shows."""

CASES = 100
"""Random cases of a suite, by default; edges are always tried."""

Clock = Callable[[], float]


def run_suites(
    names: Sequence[str] = (), *, cases: int = CASES, seed: int = 0, clock: Clock = time.perf_counter
) -> Iterator[SuiteResult]:
    """Run suites one after the other, yielding each result.

    Parameters
    ----------
    names
        Names in `SUITES`; none means all.
    cases
        How many random cases a suite draws; properties multiply them.
    seed
        Key of all random numbers; each suite has its own stream.
    clock
        Seconds, for the record.

    Raises
    ------
    ParameterError
        For an unknown suite, fewer than 1 case or a negative seed.

    Examples
    --------
    >>> result, = run_suites(["clopper-pearson"], cases=5)
    >>> str(result.outcome)
    'holds'
    """
    for name in names:
        if name not in SUITES:
            raise ParameterError(f"suite {name!r} is unknown: use one of {', '.join(SUITES)}")
    if cases < 1:
        raise ParameterError(f"cases = {cases}: at least 1 is needed")
    if seed < 0:
        raise ParameterError(f"seed = {seed}: it must be at least 0")
    return (_run(name, cases, seed, clock) for name in dict.fromkeys(names or SUITES))


def _run(name: str, cases: int, seed: int, clock: Clock) -> SuiteResult:
    """Run one suite; whatever it raises is its failure."""
    tally, error, begin = Tally(), None, clock()
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    try:
        module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
        with np.errstate(all="ignore"):
            module.run(random, cases, tally)
    except Exception as found:
        error = _one_line(found)
    return SuiteResult(name, SUITES[name], tuple(tally), clock() - begin, error)


def _one_line(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {message} ({place.name}, line {place.lineno})"
