"""Clean against certified accuracy over alpha: the values that tables and plots show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from certmix.types import Curve

__all__ = ["Match", "Sweep", "TradeOff", "on_front"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Sweep:
    """One source over all alphas.

    Parameters
    ----------
    source, sigma, images
        Where from.
    clean_is
        How clean accuracy came about, in words.
    alphas, clean_accuracy
        One entry an alpha.
    certificates
        Names, one for each entry of the following.
    certified_accuracy, interval
        At the trade-off's radius: one tuple a certificate, one entry an alpha;
        intervals over images as (low, high).
    """

    source: str
    sigma: float
    images: int
    clean_is: str
    alphas: tuple[float, ...]
    clean_accuracy: tuple[float, ...]
    certificates: tuple[str, ...]
    certified_accuracy: tuple[tuple[float, ...], ...]
    interval: tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True)
class Match:
    """The alpha of one source whose mix has the clean accuracy wanted, and its curves, one a certificate."""

    source: str
    sigma: float
    alpha: float
    clean_accuracy: float
    certificates: tuple[str, ...]
    certified_accuracy: tuple[float, ...]
    interval: tuple[tuple[float, float], ...]
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class TradeOff:
    """Sweeps of several sources at one radius; matches if a clean accuracy was wanted."""

    at_radius: float
    wanted_clean_accuracy: float | None
    sweeps: tuple[Sweep, ...]
    matches: tuple[Match, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "at_radius": self.at_radius,
            "wanted_clean_accuracy": self.wanted_clean_accuracy,
            "sources": [
                {
                    "source": sweep.source, "sigma": sweep.sigma, "images": sweep.images,
                    "clean_is": sweep.clean_is, "alphas": sweep.alphas,
                    "clean_accuracy": sweep.clean_accuracy,
                    "rows": [
                        {"certificate": name, "certified_accuracy": certified, "interval": interval,
                         "on_front": on_front(sweep.clean_accuracy, certified)}
                        for name, certified, interval in zip(
                            sweep.certificates, sweep.certified_accuracy, sweep.interval, strict=True
                        )
                    ],
                }
                for sweep in self.sweeps
            ],
            "matches": [
                {
                    "source": match.source, "sigma": match.sigma, "alpha": match.alpha,
                    "clean_accuracy": match.clean_accuracy,
                    "rows": [
                        {"certificate": name, "certified_accuracy": certified, "interval": interval}
                        for name, certified, interval in zip(
                            match.certificates, match.certified_accuracy, match.interval, strict=True
                        )
                    ],
                }
                for match in self.matches
            ],
            "notes": self.notes,
        }  # fmt: skip


def on_front(clean: Sequence[float], certified: Sequence[float]) -> list[bool]:
    """Return for each point whether no other is at least as good in both, and better in one.

    Examples
    --------
    >>> on_front([0.9, 0.8, 0.7], [0.1, 0.3, 0.2])
    [True, True, False]
    """
    x, y = np.asarray(clean)[:, None], np.asarray(certified)[:, None]
    beaten = (x <= x.T) & (y <= y.T) & ((x < x.T) | (y < y.T))
    return [not bool(lost) for lost in np.any(beaten, axis=1).tolist()]
