"""A stored source whose mix can be judged at any alpha: certified, and on clean inputs.  No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from certmix.certification.evaluate import evaluate, table_row
from certmix.certification.stored import Stored, radii_at, read_stored, refuse_empty, refuse_of_files
from certmix.certification.stored_run import NOT_CHECKED, open_sampled
from certmix.certification.unfinished import unfinished
from certmix.errors import ParameterError
from certmix.types import CertifiedAccuracy, ConfidenceBounds, FloatArray, IntArray

__all__ = ["Mixable", "read_mixable"]


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
