"""From counts to bounds (p, q) that hold with a stated probability: one table.

A bound is `(counts, selected, failure_probability) -> ConfidenceBounds`.
Which one is used must be decided before the estimation samples are seen.
"""

from __future__ import annotations

from collections.abc import Callable

from certmix.bounds import beta_binomial, clopper_pearson
from certmix.bounds.prediction import is_established
from certmix.errors import ParameterError
from certmix.types import ConfidenceBounds, IntArray

__all__ = ["AVERAGED_BOUNDS", "BOUNDS", "beta_binomial", "bound_counts", "clopper_pearson", "is_established"]

Bound = Callable[[IntArray, IntArray, float], ConfidenceBounds]

BOUNDS: dict[str, Bound] = {
    "clopper-pearson": clopper_pearson.one_sided,
    "clopper-pearson-two-sided": clopper_pearson.two_sided,
    "beta-binomial": beta_binomial.fixed,
}
"""Bounds for vote counts by name; the first is the default."""

AVERAGED_BOUNDS = frozenset({*BOUNDS, "relative-entropy", "hoeffding"})
"""Bounds that hold for samples of unequal means, too, of the average mean (Hoeffding 1956, 1963)."""


def bound_counts(
    counts: IntArray, selected: IntArray, failure_probability: float, bound: str = "clopper-pearson"
) -> ConfidenceBounds:
    """Return the bounds of a named method; see `BOUNDS`.

    Raises
    ------
    ParameterError
        For an unknown bound or arguments out of range.
    """
    if bound not in BOUNDS:
        raise ParameterError(f"bound {bound!r} is unknown: use one of {', '.join(BOUNDS)}")
    return BOUNDS[bound](counts, selected, failure_probability)
