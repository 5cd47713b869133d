"""Monte Carlo: noise keyed by (seed, input, chunk), votes counted as int64.

Importing this package does not import torch; the sampler does, on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certmix.lazy import lazily
from certmix.sampling.devices import PRECISIONS, automatic_batch_size, resolve_device
from certmix.sampling.schedule import looks

if TYPE_CHECKING:
    from certmix.sampling.noise import Noise
    from certmix.sampling.packing import Draw
    from certmix.sampling.sampler import Sampler, count_votes

__all__ = [
    "PRECISIONS", "Draw", "Noise", "Sampler", "automatic_batch_size", "count_votes", "looks",
    "resolve_device",
]  # fmt: skip

__getattr__ = lazily(
    __name__, {"Draw": "packing", "Noise": "noise", "Sampler": "sampler", "count_votes": "sampler"}
)
