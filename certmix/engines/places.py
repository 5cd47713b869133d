"""Where a worker computes: its device, and the environment that shows it one GPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Place", "places"]

VISIBLE = "CUDA_VISIBLE_DEVICES"
ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Place:
    """A torch device by name, and environment variables that must be set before torch is imported."""

    device: str
    environment: Mapping[str, str] = field(default_factory=dict)


def places(device: str, gpus: int, environment: Mapping[str, str] = os.environ) -> list[Place]:
    """Return the places that workers take in turn.

    Parameters
    ----------
    device
        A torch device; ``cuda`` alone stands for all GPUs, ``cuda:1`` for one.
    gpus
        How many torch sees.
    environment
        Where ``CUDA_VISIBLE_DEVICES`` may already restrict and order them.

    Examples
    --------
    >>> [place.environment["CUDA_VISIBLE_DEVICES"] for place in places("cuda", 2, {})]
    ['0', '1']
    """
    if device != "cuda" or gpus < 2:
        return [Place(device, ALONE)]
    named = [name.strip() for name in environment.get(VISIBLE, "").split(",") if name.strip()]
    names = named if len(named) >= gpus else [str(k) for k in range(gpus)]
    return [Place("cuda", {**ALONE, VISIBLE: name}) for name in names[:gpus]]
