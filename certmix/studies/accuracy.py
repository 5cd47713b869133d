"""Shares of images, as estimates with their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from certmix.bounds.clopper_pearson import interval
from certmix.types import AttackedAccuracy, EstimatedAccuracy

__all__ = ["attacked_accuracy", "estimated_accuracy"]


def _counted(right: Any) -> tuple[int, int, tuple[float, float]]:
    values = np.asarray(right, bool)
    correct, images = int(values.sum()), len(values)
    if images == 0:
        return 0, 0, (0.0, 1.0)
    low, high = interval(correct, images)
    return correct, images, (float(low), float(high))


def estimated_accuracy(right: Any) -> EstimatedAccuracy:
    """Return the share of True in bool (m,), with its 95 % interval over images."""
    return EstimatedAccuracy(*_counted(right))


def attacked_accuracy(right: Any) -> AttackedAccuracy:
    """Return the same for images under attack: an upper bound of robust accuracy.

    Examples
    --------
    >>> attacked_accuracy([True, False, True, True]).accuracy
    0.75
    """
    return AttackedAccuracy(*_counted(right))
