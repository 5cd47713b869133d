"""Clean accuracy against certified accuracy over alpha, from what is stored.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from certmix.certification.mixable import Mixable, read_mixable
from certmix.certification.request import CertifyRequest
from certmix.certification.stored import Doubt, radii_at
from certmix.errors import ParameterError
from certmix.radii import CERTIFICATES
from certmix.tables.trade_off import Match, Sweep, TradeOff
from certmix.types import Curve

__all__ = ["ALPHAS", "BASELINE", "trade_off"]

ALPHAS = tuple(k / 200 for k in range(100, 201))
BASELINE = "baseline"
"""Match the clean accuracy of the source of least sigma alone, as Figure 3 of the first paper does."""


def trade_off(
    sources: Sequence[Mixable | str | Path] | str | Path,
    *,
    at_radius: float = 0.25,
    certificates: Sequence[str] = tuple(CERTIFICATES),
    match_clean_accuracy: float | str | None = None,
) -> TradeOff:
    """Return clean and certified accuracy of each source's mixes over alpha.

    Parameters
    ----------
    sources
        Run folders, or what `certmix.certification.mixable.read_mixable` makes of logs and class
        counts, which do not know their noise level; as a rule of several noise levels.
    at_radius
        The radius of the certified accuracy; 0 stands for any radius > 0.
    certificates
        Names in `certmix.radii.CERTIFICATES`.
    match_clean_accuracy
        Pick for each source the largest alpha (in thousandths) whose mix
        has at least this clean accuracy: a number, or ``"baseline"``.

    Raises
    ------
    ParameterError
        For a value out of range, or a clean accuracy that no alpha reaches.
    """
    CertifyRequest(1.0, 1.0, certificates=tuple(certificates), radii=(at_radius,))
    read = [_read(one) for one in ([sources] if isinstance(sources, str | Path) else sources)]
    if not read:
        raise ParameterError("no source was given: name run folders, or logs by read_mixable")
    wanted = _wanted(read, match_clean_accuracy)
    matches = () if wanted is None else tuple(_match(one, wanted, at_radius, certificates) for one in read)
    sweeps = tuple(_sweep(one, at_radius, certificates) for one in read)
    return TradeOff(at_radius, wanted, sweeps, matches, tuple(_notes(read, wanted)))


def _read(source: Any) -> Mixable:
    if isinstance(source, Mixable):
        return source
    if not isinstance(source, str | Path):
        raise ParameterError(f"source {source!r}: give a path, or what read_mixable returns")
    return read_mixable(source)


def _wanted(sources: Sequence[Mixable], match: float | str | None) -> float | None:
    if match is None:
        return None
    if match == BASELINE:
        return min(sources, key=lambda one: one.stored.sigma).clean_accuracy(1.0)
    if isinstance(match, str) or not 0.0 < match <= 1.0:
        raise ParameterError(
            f"clean accuracy = {match}: give a number in (0, 1] such as 0.67, or '{BASELINE}'"
        )
    return float(match)


def _sweep(one: Mixable, at_radius: float, certificates: Sequence[str]) -> Sweep:
    rows = [[one.row(alpha, name, at_radius) for alpha in ALPHAS] for name in certificates]
    return Sweep(
        source=one.stored.source,
        sigma=one.stored.sigma,
        images=len(one.stored.label),
        clean_is=one.clean_is,
        alphas=ALPHAS,
        clean_accuracy=tuple(map(one.clean_accuracy, ALPHAS)),
        certificates=tuple(certificates),
        certified_accuracy=tuple(tuple(row.certified_accuracy[0] for row in line) for line in rows),
        interval=tuple(tuple(row.interval[0] for row in line) for line in rows),
    )


def _matching_alpha(one: Mixable, wanted: float) -> float:
    """Return the largest alpha, in thousandths, whose mix is at least so accurate."""
    enough = [alpha for alpha in ALPHAS if one.clean_accuracy(alpha) >= wanted]
    if not enough:
        most = max(map(one.clean_accuracy, ALPHAS))
        raise ParameterError(
            f"clean accuracy = {wanted:g}: no alpha gives {one.stored.source} more than {most:.4g}; lower it"
        )
    finer = [round(enough[-1] + k / 1000, 3) for k in range(5)]
    return max(alpha for alpha in finer if alpha <= 1.0 and one.clean_accuracy(alpha) >= wanted)


def _match(one: Mixable, wanted: float, at_radius: float, certificates: Sequence[str]) -> Match:
    alpha, stored = _matching_alpha(one, wanted), one.stored
    clean, rows, curves = one.clean_accuracy(alpha), [], []
    for name in certificates:
        radii = radii_at(stored, alpha, name).radius
        rows.append(one.row(alpha, name, at_radius))
        curves.append(Curve("mixed", name, radii[stored.right & (radii > 0)], len(radii), clean))
    return Match(
        stored.source, stored.sigma, alpha, clean, tuple(certificates),
        tuple(row.certified_accuracy[0] for row in rows), tuple(row.interval[0] for row in rows),
        tuple(curves),
    )  # fmt: skip


def _notes(sources: Sequence[Mixable], wanted: float | None) -> list[str]:
    notes = ["Certified accuracies hold for any g; clean accuracies are estimates, not certificates."]
    if wanted is not None:
        notes.append(
            "Each certificate stands at any alpha, but an alpha chosen on the images it is reported for "
            "makes the accuracies optimistic: choose it on other images."
        )
    told = dict.fromkeys(note for one in sources for note in one.stored.notes)
    for note in told:
        whose = [one.stored.source for one in sources if note in one.stored.notes]
        said = note if len(whose) == len(sources) else f"{', '.join(whose)}: {note}"
        notes.append(Doubt(said) if isinstance(note, Doubt) else said)
    return sorted(notes, key=lambda note: not isinstance(note, Doubt))
