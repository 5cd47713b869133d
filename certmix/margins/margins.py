"""From bounds of logit differences to a bound of the softmax margin.  No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from certmix.errors import ParameterError
from certmix.types import FloatArray

_ULP = 2.0**-52


def softmax_margin_lower(differences: ArrayLike) -> FloatArray:
    """Return a lower bound of min_i h_y - h_i, h = softmax(z), from lower bounds l_j <= z_y - z_j.

    With l the least of the l_j,

    ``(1 - exp(-l)) / (1 + sum_j exp(-l_j))`` where l > 0, and ``tanh(l / 2)`` elsewhere.

    Both are the smallest value that the bounds allow (the second as an infimum); the first formula is unsound
    for l < 0.  The bound is valid whatever the differences are, so that -1 stands for "nothing is known".

    Parameters
    ----------
    differences
        (m, c - 1): l_j for every rival j of y, in any order, else ParameterError.  -inf is a bound like any
        other; a row with a NaN gives -1.

    Returns
    -------
    FloatArray
        (m,) in [-1, 1], rounded down: numpy's exponentials are taken to be right to 8 units in the last
        place.

    References
    ----------
    Lemma 3.2 of Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the accuracy-robustness trade-off",
    takes this margin; docs/proofs-margins.md proves the formula.

    Examples
    --------
    >>> softmax_margin_lower([[2.0, 3.0, 5.0], [-1.0, 3.0, 5.0]]).round(3)
    array([ 0.725, -0.462])
    """
    bounds = np.asarray(differences, np.float64)
    if bounds.ndim != 2 or bounds.shape[1] < 1:
        raise ParameterError(
            f"differences have shape {bounds.shape}: give one row an input, one column a rival"
        )
    unknown = np.isnan(bounds).max(1)
    bounds = np.where(np.isnan(bounds), -np.inf, bounds)
    least = bounds.min(1)
    total = 1.0 + np.exp(-np.maximum(bounds, 0.0)).sum(1)
    positive = -np.expm1(-np.maximum(least, 0.0)) / total
    rest = np.tanh(np.minimum(least, 0.0) / 2)
    slack = (bounds.shape[1] + 32) * _ULP
    value = np.where(least > 0, positive * (1 - slack), rest * (1 + slack))
    return np.where(unknown, -1.0, np.clip(np.nextafter(value, -2.0), -1.0, 1.0))
