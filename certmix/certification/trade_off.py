"""Clean against certified accuracy over all mixing weights, from what is stored.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification.evaluate import evaluate, table_row
from certmix.certification.publish import unfinished
from certmix.certification.request import CertifyRequest
from certmix.certification.stored import (
    NOT_CHECKED,
    Doubt,
    Stored,
    open_sampled,
    radii_at,
    read_stored,
    refuse_empty,
    refuse_of_files,
)
from certmix.errors import ParameterError
from certmix.radii import CERTIFICATES
from certmix.tables.trade_off import Match, Sweep, TradeOff
from certmix.types import CertifiedAccuracy, ConfidenceBounds, Curve, FloatArray, IntArray

__all__ = [
    "ALPHAS",
    "BASELINE",
    "Mixable",
    "read_mixable",
    "trade_off",
]


@dataclass(frozen=True)
class Mixable:
    """A stored source whose mixes can be judged at any alpha.

    Parameters
    ----------
    stored
        Bounds and classes.
    margin
        float64 (m,): the label's share of votes minus the largest other; of a
        log, the least it can be.  0 where nothing is known.
    standard
        float64 (m, c): g's probabilities, None where they are unknown.
    standard_accuracy
        What is assumed of g where they are.
    """

    stored: Stored
    margin: FloatArray
    standard: FloatArray | None
    standard_accuracy: float

    def clean_accuracy(self, alpha: float) -> float:
        """Return the mix's clean accuracy: a plug-in estimate, or what an assumed g would make of it.

        Without g's probabilities, the mix follows h where h's margin exceeds
        (1 - alpha)/alpha, whatever g says, and a confident g elsewhere.
        """
        frequencies = self.stored.frequencies
        if self.standard is not None and frequencies is not None:
            mixed = (1 - alpha) * self.standard + alpha * frequencies
            return float(np.mean(mixed.argmax(1) == self.stored.label))
        threshold = (1 - alpha) / alpha
        right, undecided = np.mean(self.margin > threshold), np.mean(np.abs(self.margin) <= threshold)
        return float(right + self.standard_accuracy * undecided)

    @property
    def clean_is(self) -> str:
        """How `clean_accuracy` comes about, in words."""
        if self.standard is not None:
            return "plug-in estimate from h's votes and g's probabilities"
        rule = "h decides where its margin exceeds (1 - alpha)/alpha, a confident g elsewhere"
        assumed = (
            "g is never wrong there, so this is the most that any g can give"
            if self.standard_accuracy == 1.0
            else f"g is right there with probability {self.standard_accuracy:g}, as assumed"
        )
        return f"{rule}; {assumed}"

    def row(self, alpha: float, certificate: str, at_radius: float) -> CertifiedAccuracy:
        """Return the certified accuracy at one radius."""
        radii = radii_at(self.stored, alpha, certificate)
        return table_row("mixed", radii, self.stored.right, (at_radius,))


def read_mixable(
    source: str | Path,
    *,
    sigma: float | None = None,
    standard_accuracy: float | None = None,
    as_printed: bool = False,
    assume_selected: bool = False,
) -> Mixable:
    """Return a run folder, log or class-count file, ready for any alpha.

    Raises
    ------
    CertmixError
        If it cannot be read, is empty, or an option does not apply to it.
    """
    assumed = 1.0 if standard_accuracy is None else standard_accuracy
    if not 0.0 <= assumed <= 1.0:
        raise ParameterError(f"standard accuracy = {assumed}: it must lie in [0, 1], such as 0.95")
    if Path(source).is_dir():
        refuse_of_files(source, as_printed=as_printed, assume_selected=assume_selected)
        return _from_run(Path(source), sigma, assumed, standard_accuracy is not None)
    stored = read_stored(source, sigma=sigma, as_printed=as_printed, assume_selected=assume_selected)
    refuse_empty(stored)
    if stored.frequencies is not None:
        return Mixable(stored, _margins(stored.frequencies, stored.label), None, assumed)
    least = np.maximum(2 * stored.bounds.p_lower - 1, 0.0)
    return Mixable(stored, np.where(stored.right, least, -least), None, assumed)


def _margins(frequencies: FloatArray, label: IntArray) -> FloatArray:
    rows, others = np.arange(len(label)), frequencies.copy()
    others[rows, label] = -1.0
    margin: FloatArray = frequencies[rows, label] - others.max(1)
    return margin


def _from_run(folder: Path, sigma: float | None, assumed: float, is_assumed: bool) -> Mixable:
    run = open_sampled(folder)
    if sigma not in (None, run.request.sigma):
        raise ParameterError(f"sigma = {sigma}: {folder} was sampled with {run.request.sigma}: drop --sigma")
    if not run.records:
        raise ParameterError(f"{folder} holds no finished image: run certmix certify first")
    evaluation = evaluate(run.records, run.probabilities, run.request, run.planned, every_look=True)
    if not isinstance(evaluation.bounds, ConfidenceBounds):
        raise ParameterError(
            f"{folder} has bounds of distributions ({run.request.bound}): trade-off needs bounds of means, "
            "such as --bound betting"
        )
    records = evaluation.records
    told = unfinished(folder)
    label = np.array([record.label for record in records], np.int64)
    frequencies = np.stack([record.selection / record.selection.sum() for record in records])
    stored = Stored(
        source=str(folder), kind="run folder", sigma=run.request.sigma, label=label,
        selected=np.array([record.selected for record in records], np.int64), bounds=evaluation.bounds,
        radius=None, frequencies=frequencies, planned=run.planned, samples=None,
        bound=run.request.bound, notes=(NOT_CHECKED,) if told is None else (NOT_CHECKED, f"{told}."),
    )  # fmt: skip
    known = all(record.index in run.probabilities for record in records)
    if known and is_assumed:
        raise ParameterError(f"{folder} knows g's predictions: drop --standard-accuracy")
    standard = np.stack([run.probabilities[record.index] for record in records]) if known else None
    return Mixable(stored, _margins(frequencies, label), standard, assumed)


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
        Run folders, or what `certmix.certification.trade_off.read_mixable` makes of logs and class
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
