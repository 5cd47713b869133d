"""Monte Carlo: noise keyed by (seed, image, chunk), votes counted as int64.

Importing this package does not import torch; the sampler does, on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from certmix.sampling.precision import PRECISIONS
from certmix.sampling.schedule import looks

if TYPE_CHECKING:
    from certmix.sampling.noise import Noise
    from certmix.sampling.votes import Sampler, automatic_batch_size, count_votes, resolve_device

__all__ = [
    "PRECISIONS",
    "Noise",
    "Sampler",
    "automatic_batch_size",
    "count_votes",
    "looks",
    "resolve_device",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "noise" if name == "Noise" else "votes"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
