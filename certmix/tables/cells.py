"""How one figure of a summary is printed: percent, intervals, radii, or unknown."""

from __future__ import annotations

import math
from typing import TypeGuard

from certmix.tables.wording import PLAIN, Dialect
from certmix.text import ceil_percent, floor_digits, floor_percent
from certmix.types import CertifiedAccuracy, CleanAccuracy

__all__ = ["CLEAN_LABELS", "accuracy", "clean_values", "interval_ends", "known", "mean_radius"]

CLEAN_LABELS = ("standard (g)", "robust (h)", "mixed")


def known(value: float | None) -> TypeGuard[float]:
    """Return whether value is a finite number."""
    return value is not None and math.isfinite(value)


def accuracy(share: float | None, dialect: Dialect = PLAIN) -> str:
    """Return a share of 1 in percent with one decimal, rounded down."""
    return floor_percent(share) if known(share) else dialect.unknown


def interval_ends(interval: tuple[float, float], digits: int = 1) -> tuple[str, str]:
    """Return an interval's ends in percent, the lower rounded down and the upper up."""
    low, high = interval
    return (
        floor_percent(low, digits) if known(low) else PLAIN.unknown,
        ceil_percent(high, digits) if known(high) else PLAIN.unknown,
    )


def mean_radius(row: CertifiedAccuracy, dialect: Dialect = PLAIN, *, norm: str = "l2") -> str:
    """Return a row's mean certified radius with three decimals (l-inf: five), rounded down."""
    value = row.mean_certified_radius
    return floor_digits(value, 5 if norm == "linf" else 3) if known(value) else dialect.unknown


def clean_values(clean: CleanAccuracy, dialect: Dialect = PLAIN) -> tuple[str, str, str]:
    """Return the printed clean accuracies, in the order of `CLEAN_LABELS`."""
    return (
        accuracy(clean.standard, dialect),
        accuracy(clean.robust, dialect),
        accuracy(clean.mixed, dialect),
    )
