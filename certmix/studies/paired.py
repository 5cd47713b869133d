"""How much more or less often one classifier errs than another, on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["PairedChange", "paired_change"]

RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedChange:
    """Relative change of an error count, in percent, with its 95 % interval.

    ``percent`` and the interval are None where the reference never errs.
    """

    percent: float | None
    low: float | None
    high: float | None

    def words(self) -> str:
        """Return the interval, rounded outwards.

        Examples
        --------
        >>> PairedChange(-28.0, -34.12, -21.78).words()
        '-34.2 to -21.7'
        """
        if self.low is None or self.high is None:
            return "-"
        low, high = np.floor(10 * self.low) / 10, np.ceil(10 * self.high) / 10
        return f"{low:.1f} to {high:.1f}"


def paired_change(wrong: Any, reference_wrong: Any) -> PairedChange:
    """Return the change of errors relative to a reference classifier on the same m images.

    The interval is the percentile bootstrap over images: of all that matters
    only how many images either errs on, so counts are resampled, 10,000 times
    with a fixed seed.

    Parameters
    ----------
    wrong, reference_wrong
        bool (m,): where each errs.

    Examples
    --------
    >>> paired_change([True, False, False, True], [True, True, False, True]).percent
    -33.33333333333333
    """
    one, two = np.asarray(wrong, bool), np.asarray(reference_wrong, bool)
    both, only_one, only_two = (one & two).sum(), (one & ~two).sum(), (~one & two).sum()
    if both + only_two == 0:
        return PairedChange(None, None, None)
    percent = 100 * (both + only_one) / (both + only_two) - 100
    shares = np.array([both, only_one, only_two, len(one) - both - only_one - only_two]) / len(one)
    drawn = np.random.default_rng(0).multinomial(len(one), shares, RESAMPLES)
    errors, reference = drawn[:, 0] + drawn[:, 1], drawn[:, 0] + drawn[:, 2]
    changes = 100 * errors[reference > 0] / reference[reference > 0] - 100
    low, high = np.quantile(changes, [0.025, 0.975])
    return PairedChange(float(percent), float(low), float(high))
