"""Clean against certified accuracy over alpha: the values that tables and plots show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from certmix.errors import one_line
from certmix.tables.result import Result
from certmix.tables.table import Cell, Quantity, Share, Table
from certmix.tables.words import PATCH, radius_heading
from certmix.text import floor_percent, plain_decimal
from certmix.types import SCHEMA_VERSION, Curve

_EVERY = 0.05  # between the alphas that tables for readers show; JSON, CSV and the plot hold all


@dataclass(frozen=True)
class Mix:
    """The mix at one alpha: clean accuracy, and for each certificate what is certified and what could be."""

    alpha: float
    clean_accuracy: float
    certified: tuple[Share, ...]
    could_reach: tuple[float, ...]


@dataclass(frozen=True)
class Sweep:
    """The mixes of one source over all alphas.

    ``clean_is`` says how clean accuracy came about.  ``match`` is the mix that has the clean accuracy wanted,
    if one was, and ``curves`` are its radii, one a certificate.  ``noise`` is told where it is not Gaussian.
    """

    source: str
    sigma: float | None
    inputs: int
    clean_is: str
    mixes: tuple[Mix, ...]
    match: Mix | None = None
    curves: tuple[Curve, ...] = ()
    noise: str = ""

    def lines(self) -> Iterator[tuple[list[Share], list[bool]]]:
        """Yield, for each certificate, its share at every alpha and whether it is on the front."""
        for shares in map(list, zip(*(mix.certified for mix in self.mixes), strict=True)):
            clean = [mix.clean_accuracy for mix in self.mixes]
            yield shares, on_front(clean, [share.accuracy or 0.0 for share in shares])


@dataclass(frozen=True, repr=False)
class TradeOff(Result):
    """Sweeps of several sources at one radius; each has a match if a clean accuracy was wanted."""

    at_radius: float
    certificates: tuple[str, ...]
    wanted_clean_accuracy: float | None
    sweeps: tuple[Sweep, ...]
    notes: tuple[str, ...]
    details: tuple[str, ...] = ()
    norm: str = "l2"

    @property
    def plots(self) -> Mapping[str, Callable[[str], bytes]]:
        """Certified against clean accuracy."""
        from certmix.tables.curves import trade_off_image

        return {"trade-off": partial(trade_off_image, self)}

    @property
    def table(self) -> Table:
        """The figures as a table: a row an alpha, every 0.05 and the matched one, which bears a star."""
        rows: list[tuple[Cell, ...]] = []
        groups = []
        for sweep in self.sweeps:
            lines: dict[float, tuple[Cell, ...]] = {}
            for mix in sweep.mixes:
                if abs(mix.alpha / _EVERY - round(mix.alpha / _EVERY)) < 1e-9:
                    lines[mix.alpha] = (mix.alpha, Share(mix.clean_accuracy), *mix.certified)
            if (match := sweep.match) is not None:
                star = Quantity(match.alpha, len(plain_decimal(match.alpha).partition(".")[2]), "*")
                lines[match.alpha] = (star, Share(match.clean_accuracy), *match.certified)
            rows += [lines[alpha] for alpha in sorted(lines)]
            level = sweep.noise if sweep.sigma is None else f"sigma = {plain_decimal(sweep.sigma)}"
            name = f"{one_line(sweep.source)} ({level}, {sweep.inputs:,} inputs)"
            groups.append((name, len(lines)))
        wanted = self.wanted_clean_accuracy
        starred = "" if wanted is None else f"; * has a clean accuracy of {floor_percent(wanted, 2)} or more"
        radius = radius_heading(self.at_radius, self.norm)
        at = f"a patch of {radius} pixels" if self.norm == PATCH else f"{self.norm} radius {radius}"
        return Table(
            name="trade-off",
            title=f"Clean and certified accuracy (%) at {at} over alpha{starred}",
            settings="",
            headings=("alpha", "clean", *self.certificates),
            rows=tuple(rows),
            notes=self.notes,
            details=self.details,
            doubts=len(self.notes),
            groups=tuple(groups),
            data=self.as_dict(),
            records=self._records(),
        )

    def _records(self) -> tuple[tuple[Any, ...], ...]:
        """Return CSV lines: one a source, certificate and alpha, and the matched ones."""
        at = plain_decimal(self.at_radius)
        figures = [f"{name}@{at}" for name in ("certified_accuracy", "lower", "upper", "could_reach")]
        found: list[tuple[Any, ...]] = [
            ("source", "sigma", "certificate", "alpha", "clean_accuracy", *figures, "on_front", "matched")
        ]

        def add(sweep: Sweep, k: int, mix: Mix, *told: Any) -> None:
            low, high = mix.certified[k].interval or (None, None)
            share = mix.certified[k].accuracy
            figure = (mix.alpha, mix.clean_accuracy, share, low, high, mix.could_reach[k])
            found.append((sweep.source, sweep.sigma, self.certificates[k], *figure, *told))

        for sweep in self.sweeps:
            for k, (_, front) in enumerate(sweep.lines()):
                for mix, best in zip(sweep.mixes, front, strict=True):
                    add(sweep, k, mix, best, False)
        for sweep in self.sweeps:
            if sweep.match is not None:
                for k in range(len(self.certificates)):
                    add(sweep, k, sweep.match, "", True)
        return tuple(found)

    @staticmethod
    def _figures(k: int, mixes: Sequence[Mix]) -> dict[str, list[Any]]:
        return {
            "certified_accuracy": [mix.certified[k].accuracy for mix in mixes],
            "interval": [mix.certified[k].interval for mix in mixes],
            "could_reach": [mix.could_reach[k] for mix in mixes],
        }

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        sources, matches = [], []
        for sweep in self.sweeps:
            whose, mixes = {"source": sweep.source, "sigma": sweep.sigma}, sweep.mixes
            sources.append(whose | {
                "inputs": sweep.inputs, "clean_is": sweep.clean_is, "alphas": [mix.alpha for mix in mixes],
                "clean_accuracy": [mix.clean_accuracy for mix in mixes],
                "rows": [
                    {"certificate": name, **self._figures(k, mixes), "on_front": front}
                    for k, (name, (_, front)) in enumerate(zip(self.certificates, sweep.lines(), strict=True))
                ],
            })  # fmt: skip
            if (mix := sweep.match) is not None:
                rows = [
                    {"certificate": name, **{what: one for what, (one,) in self._figures(k, [mix]).items()}}
                    for k, name in enumerate(self.certificates)
                ]
                figures = {"alpha": mix.alpha, "clean_accuracy": mix.clean_accuracy, "rows": rows}
                matches.append(whose | figures)
        return {
            "schema_version": SCHEMA_VERSION, "at_radius": self.at_radius, "norm": self.norm,
            "wanted_clean_accuracy": self.wanted_clean_accuracy, "sources": sources, "matches": matches,
            "notes": self.notes, "details": self.details,
        }  # fmt: skip


def on_front(clean: Sequence[float], certified: Sequence[float]) -> list[bool]:
    """Return for each point whether no other is at least as good in both, and better in one."""
    x, y = np.asarray(clean)[:, None], np.asarray(certified)[:, None]
    beaten = (x <= x.T) & (y <= y.T) & ((x < x.T) | (y < y.T))
    return [not bool(lost) for lost in np.any(beaten, axis=1).tolist()]
