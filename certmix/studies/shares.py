"""Shares of inputs with their intervals, and what befell each input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from certmix.bounds.clopper_pearson import interval
from certmix.types import AttackedAccuracy, EstimatedAccuracy


def inputs_file(headings: Sequence[str], columns: Sequence[Iterable[Any]]) -> dict[str, bytes]:
    """Return ``inputs.tsv``, a line an input."""
    lines = ["\t".join(map(str, row)) for row in (headings, *zip(*columns, strict=True))]
    return {"inputs.tsv": ("\n".join(lines) + "\n").encode()}


def estimated_accuracy(right: Any) -> EstimatedAccuracy:
    """Return the share of True in bool (m,), with its 95 % interval over inputs."""
    values = np.asarray(right, bool)
    correct, inputs = int(values.sum()), len(values)
    low, high = interval(correct, inputs) if inputs else (0.0, 1.0)
    return EstimatedAccuracy(correct, inputs, (float(low), float(high)))


def attacked_accuracy(right: Any) -> AttackedAccuracy:
    """Return the same for inputs under attack: an upper bound of robust accuracy."""
    found = estimated_accuracy(right)
    return AttackedAccuracy(found.correct, found.inputs, found.interval)
