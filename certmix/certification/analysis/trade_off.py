"""Clean against certified accuracy over all mixing weights, from what is stored.  No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from certmix.bounds import clopper_pearson
from certmix.certification.evaluate import choice_notes, prospects_of
from certmix.certification.proved_table import counted, held_inputs
from certmix.certification.publish import repeat_command, unfinished
from certmix.certification.request.parts import checked_radii
from certmix.certification.request.proved import LABEL, standard_logits
from certmix.certification.stopping import Prospects, alike
from certmix.certification.stored import (
    NOT_CHECKED,
    Doubt,
    Reading,
    Stored,
    is_enumerated,
    named,
    open_enumerated,
    open_run,
    radii_at,
    read_stored,
    refuse_empty,
    refuse_of_files,
    refuse_of_runs,
)
from certmix.data.scales import about_scale, scaled_norm
from certmix.errors import ParameterError, check_choice
from certmix.models.temperature import answer_of, sharpened
from certmix.radii.constant import softmax_probabilities
from certmix.radii.counted import EXACT, Counted
from certmix.runs import read_run
from certmix.runs.records import Answers
from certmix.tables.table import Share
from certmix.tables.trade_off import Mix, Sweep, TradeOff
from certmix.tables.words import settled
from certmix.types import ConfidenceBounds, Curve, FloatArray, IntArray

__all__ = ["Mixable", "read_mixable", "trade_off"]

ALPHAS = tuple(k / 200 for k in range(100, 201))
BASELINE = "baseline"
"""Match the clean accuracy of the source of least sigma alone, as Figure 3 of the first paper does."""


@dataclass(frozen=True)
class Mixable:
    """A stored source whose mixes can be judged at any alpha.

    ``margin``, float64 (m,), is the label's share of votes minus the largest other; of a log, the least it
    can be, 0 where nothing is known.  ``standard``, float64 (m, c), are g's probabilities; where unknown
    (None), ``standard_accuracy`` is what is assumed of g.  ``prospects`` are those of inputs that could have
    more samples, if any.
    """

    stored: Stored
    margin: FloatArray
    standard: FloatArray | None
    standard_accuracy: float
    prospects: Prospects | None = None
    choices: str = ""

    def clean_accuracy(self, alpha: float) -> float:
        """Return the mix's clean accuracy: a plug-in estimate, or what an assumed g would make of it.

        Without g's probabilities, the mix follows h where h's margin exceeds
        (1 - alpha)/alpha, whatever g says, and a confident g elsewhere.
        """
        if self.standard is not None and self.stored.frequencies is not None:
            sure, g, h, label = self._sure
            mixed = (1 - alpha) * g
            mixed += alpha * h
            return (sure + np.count_nonzero(answer_of(mixed) == label)) / len(self.stored.label)
        threshold = (1 - alpha) / alpha
        right, undecided = np.mean(self.margin > threshold), np.mean(np.abs(self.margin) <= threshold)
        return float(right + self.standard_accuracy * undecided)

    @cached_property
    def _sure(self) -> tuple[int, FloatArray, FloatArray, IntArray]:
        """How many inputs every mix of 1/2 <= alpha <= 1 gets right; g, h and labels of those some may."""
        g, h, label = self.standard, self.stored.frequencies, self.stored.label
        assert g is not None
        assert h is not None
        rows, answer = np.arange(len(label)), h.argmax(1)
        own = [(one[rows, answer, None] - one) for one in (g, h)]
        for leads in own:
            leads[rows, answer] = 1.0
        # alike at both ends and so between them, by more than rounding changes
        sure = ((0.5 * (own[0] + own[1])).min(1) > 1e-9) & (own[1].min(1) > 1e-9)
        return int(np.count_nonzero(sure & (answer == label))), g[~sure], h[~sure], label[~sure]

    @property
    def clean_is(self) -> str:
        """How `clean_accuracy` comes about, in words."""
        if self.standard is not None:
            return f"plug-in estimate from h's votes and g's probabilities{self.choices}"
        rule = "h decides where its margin exceeds (1 - alpha)/alpha, a confident g elsewhere"
        assumed = (
            "g is never wrong there, so this is the most that any g can give"
            if self.standard_accuracy == 1.0
            else f"g is right there with probability {self.standard_accuracy:g}, as assumed"
        )
        return f"{rule}; {assumed}"

    def radius(self, alpha: float, certificate: str) -> FloatArray:
        """Return the radii (m,) at one alpha."""
        return radii_at(self.stored, alpha, certificate).radius

    def mixes(self, alphas: Sequence[float], certificates: Sequence[str], at_radius: float) -> list[Mix]:
        """Return the figures of each alpha; they increase."""
        found, ahead, inputs = self.stored.bounds, self.prospects, len(self.stored.label)
        lost = np.broadcast_to(np.asarray(found.lost, np.float64), inputs)
        own = self.stored.radius if self.stored.radius is not None else lost
        rows, counts, kind = alike(
            np.arange(inputs), (found.p_lower, found.q_upper, lost, own, self.stored.right)
        )
        few = self.stored.of(rows)
        ahead = None if ahead is None else replace(ahead, rows=kind[ahead.rows])
        hits, more = (np.zeros((len(alphas), len(certificates)), np.int64) for _ in range(2))

        def count(name: str, k: int, low: int, high: int, waiting: IntArray) -> None:
            """Count at the alphas from low to high, of the `waiting` inputs that may or may not get there."""
            if low >= high:
                return
            i = (low + high) // 2
            radii = radii_at(few, alphas[i], name)
            there = (radii.radius >= at_radius) & (radii.radius > 0)
            hits[i, k] = counts[few.right & there].sum()
            above = below = waiting
            if ahead is not None and len(waiting):  # a radius grows with alpha, whatever samples come
                more[i, k], likely = ahead.reach_one(waiting, radii, at_radius, self.stored.smoothing)
                got = there[ahead.rows[waiting]]
                above, below = waiting[~got], waiting[got | likely]
            count(name, k, low, i, below)
            count(name, k, i + 1, high, above)

        for k, name in enumerate(certificates):
            count(name, k, 0, len(alphas), np.arange(0 if ahead is None else len(ahead.rows)))
        shares, reach = hits / inputs, (hits + more) / inputs
        ends, (_, above) = (clopper_pearson.interval(some, inputs) for some in (hits, hits + more))
        columns = [one.tolist() for one in (shares, *ends, reach, above)]
        made = []
        for alpha, *lines in zip(alphas, *columns, strict=True):
            cells = [
                Share(share, (low, high), None if settled(share, most, inputs) else (most, top))
                for share, low, high, most, top in zip(*lines, strict=True)
            ]
            made.append(Mix(alpha, self.clean_accuracy(alpha), tuple(cells), tuple(lines[3])))
        return made


@dataclass(frozen=True)
class Counts(Mixable):
    """A run of votes on all cases, from which radii follow at any alpha."""

    votes: Counted | None = None

    def radius(self, alpha: float, certificate: str) -> FloatArray:
        """Return the radii (m,) at one alpha."""
        assert self.votes is not None
        how = self.stored.smoothing
        return self.votes.radii(how.kind, how.scale, [(certificate, alpha)])[0].radius

    def mixes(self, alphas: Sequence[float], certificates: Sequence[str], at_radius: float) -> list[Mix]:
        """Return the figures of each alpha."""
        made, inputs = [], len(self.stored.label)
        for alpha in alphas:
            cells, shares = list[Share](), list[float]()
            for name in certificates:
                radius = self.radius(alpha, name)
                hits = int(np.sum(self.stored.right & (radius >= at_radius) & (radius > 0)))
                low, high = clopper_pearson.interval(hits, inputs)
                shares.append(hits / inputs)
                cells.append(Share(shares[-1], (float(low), float(high))))
            made.append(Mix(alpha, self.clean_accuracy(alpha), tuple(cells), tuple(shares)))
        return made


def read_mixable(
    source: str | Path,
    *,
    sigma: float | None = None,
    standard_accuracy: float | None = None,
    as_printed: bool = False,
    assume_selected: bool = False,
    gate: float | None = None,
    standard_temperature: float | None = None,
) -> Mixable:
    """Return a run folder, log or class-count file, ready for any alpha.

    A run folder's votes are counted behind `gate`, and g is at `standard_temperature`; None as the run has.

    Raises
    ------
    CertmixError
        If it cannot be read, is empty, or an option does not apply to it.
    """
    assumed = 1.0 if standard_accuracy is None else standard_accuracy
    if not 0.0 <= assumed <= 1.0:
        raise ParameterError(f"standard accuracy = {assumed}: it must lie in [0, 1], such as 0.95")
    standard, prospects = None, None
    if os.path.isdir(source):
        refuse_of_files(source, as_printed=as_printed, assume_selected=assume_selected)
        changed = {"gate": gate, "standard_temperature": standard_temperature}
        if is_enumerated(Path(source)):
            return _counts(Path(source), sigma, standard_accuracy, changed)
        stored, standard, prospects = _from_run(Path(source), sigma, **changed)
        if standard is not None and standard_accuracy is not None:
            raise ParameterError(f"{source} knows g's predictions: drop --standard-accuracy")
    else:
        refuse_of_runs(source, gate=gate, standard_temperature=standard_temperature)
        stored = read_stored(source, Reading(sigma, None, None, as_printed, assume_selected))
        refuse_empty(stored)
    if stored.frequencies is None:
        least = np.maximum(2 * stored.bounds.p_lower - 1, 0.0)
        return Mixable(stored, np.where(stored.right, least, -least), None, assumed)
    rows, others = np.arange(len(stored.label)), stored.frequencies.copy()
    others[rows, stored.label] = -1.0
    margin = stored.frequencies[rows, stored.label] - others.max(1)
    words = {"gate": gate, "g's temperature": standard_temperature}
    told = "".join(f", {name} {value:g}" for name, value in words.items() if value is not None)
    return Mixable(stored, margin, standard, assumed, prospects, told)


def _counts(
    folder: Path, sigma: float | None, standard_accuracy: float | None, changed: dict[str, float | None]
) -> Counts:
    """Return a run of votes on all cases; `changed` are settings of its request, None as there."""
    if sigma is not None:
        raise ParameterError(f"sigma = {sigma}: {folder} was not sampled: leave it out")
    given = {name: value for name, value in changed.items() if value is not None}
    with open_enumerated(folder) as (request, store, described):
        request, g = request.replace(**given), None
        indices = held_inputs(request, store, described)
        if not len(indices):
            raise ParameterError(f"{folder} holds no finished input: run certmix certify first")
        votes = counted(request, store, indices)
        label = store.read(LABEL, indices.tolist()).reshape(-1).astype(np.int64)
        checksum = named(described["models"]["standard"])[1]
        if checksum is not None:
            g = softmax_probabilities(store.read(standard_logits(checksum), indices.tolist()))
            g = sharpened(g, request.standard_temperature)
    if g is not None and standard_accuracy is not None:
        raise ParameterError(f"{folder} knows g's predictions: drop --standard-accuracy")
    none, told = np.zeros(len(label)), unfinished(folder)
    stored = Stored(
        source=str(folder), kind="run folder", smoothing=request.smoothing,
        label=label, selected=votes.selected, bounds=ConfidenceBounds(none, none + 1, 0.0, EXACT, {}),
        radius=None, frequencies=votes.shares, planned=None, samples=None, bound=EXACT,
        notes=() if told is None else (f"{told}.",), details=(NOT_CHECKED,),
    )  # fmt: skip
    rows, others = np.arange(len(label)), votes.shares.copy()
    others[rows, label] = -1.0
    assumed = 1.0 if standard_accuracy is None else standard_accuracy
    return Counts(stored, votes.shares[rows, label] - others.max(1), g, assumed, votes=votes)


def _from_run(
    folder: Path, sigma: float | None, **changed: float | None
) -> tuple[Stored, FloatArray | None, Prospects | None]:
    """Return the bounds of a run folder, g's probabilities where all are known, and its inputs' prospects.

    `changed` are settings of its request that are others, None as there.
    """
    changes = {name: value for name, value in changed.items() if value is not None}
    run = open_run(folder, sigma, ballots=bool(changes.get("gate")))
    request = run.request.replace(**changes, tuned="none")
    if not len(run.records):
        raise ParameterError(f"{folder} holds no finished input: run certmix certify first")
    bounded = run.bounded_by(request)
    if not isinstance(bounded.bounds, ConfidenceBounds):
        raise ParameterError(
            f"{folder} has bounds of distributions ({request.bound}): trade-off needs bounds of means, "
            "such as --bound betting"
        )
    records = bounded.records.behind(request.gate)
    told = unfinished(folder, run.records.indices)
    stored = Stored(
        source=str(folder), kind="run folder", smoothing=request.smoothing,
        label=records.labels, selected=records.selected, bounds=bounded.bounds,
        radius=None,
        frequencies=records.frequencies,
        planned=run.planned, samples=None, bound=request.bound_at(request.gate),
        notes=(*(() if told is None else (f"{told}.",)), *choice_notes(run.first, request)),
        details=(NOT_CHECKED,), feature_scale=about_scale(run.about["settings"], ()).get("feature_scale", ()),
    )  # fmt: skip
    g = Answers.of(run.probabilities).rows(records.indices)
    ahead = prospects_of(bounded, request).get(request.gate)
    return stored, None if g is None else sharpened(g, request.standard_temperature), ahead


def trade_off(
    sources: Sequence[Mixable | str | Path] | str | Path,
    *,
    at_radius: float = 0.25,
    certificates: Sequence[str] | None = None,
    match_clean_accuracy: float | str | None = None,
) -> TradeOff:
    """Return clean and certified accuracy of each source's mixes over alpha.

    Parameters
    ----------
    sources
        Run folders, or what `certmix.certification.analysis.trade_off.read_mixable` makes of logs and class
        counts, which do not know their noise level; as a rule of several noise levels.
    at_radius
        The radius of the certified accuracy; 0 stands for any radius > 0.
    certificates
        Names in `certmix.radii.CERTIFICATES`; None takes all that the noise has.
    match_clean_accuracy
        Pick for each source the largest alpha (in thousandths) whose mix
        has at least this clean accuracy: a number, or ``"baseline"``.

    Raises
    ------
    ParameterError
        For a value out of range, or a clean accuracy that no alpha reaches.
    """
    checked_radii((at_radius,))
    read = []
    for source in [sources] if isinstance(sources, str | Path) else sources:
        if not isinstance(source, Mixable | str | Path):
            raise ParameterError(f"source {source!r}: give a path, or what read_mixable returns")
        read.append(source if isinstance(source, Mixable) else read_mixable(source))
    if not read:
        raise ParameterError("no source was given: name run folders, or logs by read_mixable")
    known = read[0].stored.smoothing.certificates
    certificates = tuple(known) if certificates is None else tuple(certificates)
    if not certificates:
        raise ParameterError(f"no certificate was given: use one of {', '.join(known)}")
    for name in certificates:
        check_choice("certificate", name, known)
    if len({(one.stored.smoothing.kind, one.stored.smoothing.norm) for one in read}) > 1:
        raise ParameterError("the sources differ in noise or norm: no table holds both")
    scales = {one.stored.feature_scale for one in read}
    if len(scales) > 1:
        raise ParameterError("the radii of the sources count different feature scales: no table holds both")
    wanted = match_clean_accuracy
    if wanted == BASELINE:
        wanted = min(read, key=lambda one: one.stored.smoothing.scale).clean_accuracy(1.0)
    elif wanted is not None and (isinstance(wanted, str) or not 0.0 < wanted <= 1.0):
        raise ParameterError(
            f"clean accuracy = {wanted}: give a number in (0, 1] such as 0.67, or '{BASELINE}'"
        )
    accuracy = None if wanted is None else float(wanted)
    sweeps = [_sweep(one, at_radius, certificates, accuracy) for one in read]
    notes, details = _notes(read, accuracy, sweeps)
    (norm,) = {one.stored.smoothing.norm for one in read}
    norm = scaled_norm(norm) if any(scales) else norm
    return TradeOff(at_radius, tuple(certificates), accuracy, tuple(sweeps), notes, details, norm)


def _sweep(one: Mixable, at_radius: float, certificates: Sequence[str], wanted: float | None) -> Sweep:
    """Return one source over alpha, with the largest alpha whose mix is as accurate as wanted."""
    stored, match, curves = one.stored, None, []
    mixes = tuple(one.mixes(ALPHAS, certificates, at_radius))
    if wanted is not None:
        enough = [mix.alpha for mix in mixes if mix.clean_accuracy >= wanted]
        if not enough:
            most = max(mix.clean_accuracy for mix in mixes)
            raise ParameterError(
                f"clean accuracy = {wanted:g}: no alpha gives {stored.source} more than {most:.4g}; lower it"
            )
        finer = [round(enough[-1] + k / 1000, 3) for k in range(5)]
        alpha = max(alpha for alpha in finer if alpha <= 1.0 and one.clean_accuracy(alpha) >= wanted)
        [match] = one.mixes((alpha,), certificates, at_radius)
        for name in certificates:
            radii = one.radius(alpha, name)
            certified = radii[stored.right & (radii > 0)]
            curves.append(Curve("mixed", name, certified, len(radii), match.clean_accuracy))
    about = stored.source, stored.smoothing.sigma, len(stored.label), one.clean_is
    return Sweep(*about, mixes, match, tuple(curves), stored.smoothing.told)


def _notes(
    sources: Sequence[Mixable], wanted: float | None, sweeps: Sequence[Sweep]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what a reader must know, and what tells more."""
    notes: list[str] = []
    details = [f"Clean accuracy of {one.source}: {one.clean_is}." for one in sweeps]
    for name, found in (("notes", notes), ("details", details)):
        for note in dict.fromkeys(note for one in sources for note in getattr(one.stored, name)):
            whose = [one.stored.source for one in sources if note in getattr(one.stored, name)]
            said = note if len(whose) == len(sources) else f"{', '.join(whose)}: {note}"
            found.append(Doubt(said) if isinstance(note, Doubt) else said)
    notes.sort(key=lambda note: not isinstance(note, Doubt))
    notes.append("Certified accuracies hold for any g; clean accuracies are estimates, not certificates.")
    open_ = [
        one.source for one in sweeps for mix in one.mixes if any(c.most is not None for c in mix.certified)
    ]
    if open_:
        folder = Path(open_[0])
        described = read_run(folder)
        again = "certify again with goal = 'radius'"
        if not described["sources"].get("objects"):
            again = f"{repeat_command(folder, described)} --goal radius"
        notes.append(f"40-45: 40 % are certified, 45 % could be with more samples, at any alpha: {again}")
    if wanted is not None:
        notes.append(
            "Each certificate stands at any alpha, but an alpha chosen on the inputs it is reported for "
            "makes the accuracies optimistic: choose it on other inputs."
        )
    return tuple(notes), tuple(details)
