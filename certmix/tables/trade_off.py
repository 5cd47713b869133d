"""Clean against certified accuracy over alpha: the values that tables and plots show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from certmix.errors import one_line
from certmix.tables.table import Cell, Quantity, Share, Table
from certmix.tables.words import radius_heading
from certmix.text import floor_percent, plain_decimal
from certmix.types import SCHEMA_VERSION, Curve

_EVERY = 0.05
"""Spacing of the alphas that tables for readers show; JSON, CSV and the plot hold all."""


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

    @property
    def table(self) -> Table:
        """The figures as a table: a row an alpha, every 0.05 and the matched one, which bears a star."""
        rows: list[tuple[Cell, ...]] = []
        groups = []
        for sweep in self.sweeps:
            lines: dict[float, tuple[Cell, ...]] = {}
            for k, alpha in enumerate(sweep.alphas):
                if abs(alpha / _EVERY - round(alpha / _EVERY)) < 1e-9:
                    columns = zip(sweep.certified_accuracy, sweep.interval, strict=True)
                    shown = [Share(shares[k], ends[k]) for shares, ends in columns]
                    lines[alpha] = (alpha, Share(sweep.clean_accuracy[k]), *shown)
            for match in self.matches:
                if (match.source, match.sigma) == (sweep.source, sweep.sigma):
                    star = Quantity(match.alpha, len(plain_decimal(match.alpha).partition(".")[2]), "*")
                    shown = list(map(Share, match.certified_accuracy, match.interval))
                    lines[match.alpha] = (star, Share(match.clean_accuracy), *shown)
            rows += [lines[alpha] for alpha in sorted(lines)]
            sigma = plain_decimal(sweep.sigma)
            groups.append(
                (f"{one_line(sweep.source)} (sigma = {sigma}, {sweep.images:,} images)", len(lines))
            )
        wanted = self.wanted_clean_accuracy
        starred = "" if wanted is None else f"; * has a clean accuracy of {floor_percent(wanted, 2)} or more"
        radius = radius_heading(self.at_radius)
        return Table(
            name="trade-off",
            title=f"Clean and certified accuracy (%) at l2 radius {radius} over alpha{starred}",
            settings="",
            headings=("alpha", "clean", *self.sweeps[0].certificates),
            rows=tuple(rows),
            notes=(*(f"Clean accuracy of {one.source}: {one.clean_is}." for one in self.sweeps), *self.notes),
            groups=tuple(groups),
            data=self.as_dict(),
            records=self._records(),
        )

    def _records(self) -> tuple[tuple[Any, ...], ...]:
        """Return CSV lines: one a source, certificate and alpha, and the matched ones."""
        figures = [
            f"{name}@{plain_decimal(self.at_radius)}" for name in ("certified_accuracy", "lower", "upper")
        ]
        lines: list[tuple[Any, ...]] = [
            ("source", "sigma", "certificate", "alpha", "clean_accuracy", *figures, "on_front", "matched")
        ]
        for sweep in self.sweeps:
            for name, shares, ends in zip(
                sweep.certificates, sweep.certified_accuracy, sweep.interval, strict=True
            ):
                front = on_front(sweep.clean_accuracy, shares)
                lines += [
                    (sweep.source, sweep.sigma, name, *figure, *interval, best, False)
                    for *figure, interval, best in zip(
                        sweep.alphas, sweep.clean_accuracy, shares, ends, front, strict=True
                    )
                ]
        for match in self.matches:
            for name, share, interval in zip(
                match.certificates, match.certified_accuracy, match.interval, strict=True
            ):
                figure = (match.alpha, match.clean_accuracy, share, *interval)
                lines.append((match.source, match.sigma, name, *figure, "", True))
        return tuple(lines)

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
