"""The summary as one JSON object, strict enough for every parser."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from certmix.types import Summary

__all__ = ["json_table"]


def json_table(summary: Summary) -> str:
    """Return `Summary.as_dict` as one JSON object.

    Numbers keep their full precision; accuracies are shares of 1.  What is
    unknown or not finite is ``null``: ``NaN`` and ``Infinity`` are not JSON.
    The text is ASCII and ends with a line end.
    """
    return json.dumps(_plain(summary.as_dict()), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
