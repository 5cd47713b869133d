"""Monte Carlo: noise keyed by (seed, image, chunk), votes counted as int64.

Importing this package does not import torch; the sampler does, on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from certmix.sampling.devices import PRECISIONS, automatic_batch_size, resolve_device
from certmix.sampling.schedule import looks

if TYPE_CHECKING:
    from certmix.sampling.noise import Noise
    from certmix.sampling.packing import Draw
    from certmix.sampling.sampler import Sampler, count_votes

__all__ = [
    "PRECISIONS",
    "Draw",
    "Noise",
    "Sampler",
    "automatic_batch_size",
    "count_votes",
    "looks",
    "resolve_device",
]


_HOMES = {
    "Draw": "packing",
    "Noise": "noise",
    "Sampler": "sampler",
    "count_votes": "sampler",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
