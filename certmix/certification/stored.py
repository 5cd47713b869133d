"""Tables of what is stored: runs, published logs and class counts.  No torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr

from certmix.bounds import bound_behind_gate, bound_counts
from certmix.certification.evaluate import (
    Bounded,
    Evaluation,
    Outcomes,
    began_with,
    bound_records,
    choice_notes,
    evaluate,
    expectations,
    mean_interval,
    noise_told,
    table_row,
)
from certmix.certification.proved_table import evaluate_proved
from certmix.certification.request.parts import usual_radii
from certmix.certification.request.proved import Enumerated
from certmix.certification.request.sampled import CertifyRequest
from certmix.data.dataset import spread
from certmix.data.scales import about_scale
from certmix.errors import ParameterError, RunError
from certmix.files import parse_json
from certmix.radii import Smoothing, certify_radii, margin_slack_of
from certmix.radii.counted import EXACT
from certmix.radii.smoothings import GAUSSIAN
from certmix.runs import Store, read_run
from certmix.runs.folder import CERTIFY, DATABASE, DESCRIPTION, command_of
from certmix.runs.logs import ClassCounts, Extent, PublishedLog, distinct_rows, expected_rows, read_published
from certmix.runs.records import Records
from certmix.runs.settings import from_json
from certmix.tables.words import DETERMINISTIC
from certmix.types import (
    CertifiedRadii,
    CleanAccuracy,
    ConfidenceBounds,
    Curve,
    FloatArray,
    IntArray,
    Status,
    Summary,
)

__all__ = ["recertify"]

NOT_CHECKED = "Models not checked: none is loaded here (certmix verify compares them with the run)."
"""What commands say that read a run without its models."""
LOG = "records.tsv"
"""A run's own log, beside its run.json."""
PLANNED = "planned inputs"
_DECIMALS = 6
_ROUNDING = 4 * 2.0**-53  # of Phi(radius / sigma)

ONE_SIDED = "clopper-pearson"
"""The bound with q = 1 - p, so that one radius says both; the field's custom."""
BY_RADIUS = ("exact", "smoothing")
"""Certificates that are a log's own radius at alpha = 1, whatever its bound."""
ASSUMED = (
    "The log does not say its bound: it is taken to be one-sided, q = 1 - p, as is the field's custom; if it "
    "was not, figures at alpha < 1 may be too high."
)
MOST_SIGMAS = 6.5
"""10^10 samples that all agree certify 6.06 sigma at a failure probability of 0.001."""


class Doubt(str):
    """A note that is a warning as well: it comes first, and commands say it on stderr."""

    __slots__ = ()


@dataclass(frozen=True)
class RunContents:
    """A run folder, read: its own request, finished inputs, g's probabilities by index, its first choices."""

    request: CertifyRequest
    records: Records
    probabilities: Mapping[int, FloatArray]
    planned: int
    classes: int
    about: dict[str, Any]
    first: dict[str, str]
    bounded: Bounded

    def bounded_by(self, request: CertifyRequest) -> Bounded:
        """Return the bounds of all looks as another request has them: the run's own where these are they."""
        names = ("failure_probability", "bound", "scores", "samples", "gates", "goal")
        same = all(getattr(request, name) == getattr(self.request, name) for name in names)
        whole = request.goal == "fixed" or np.array_equal(self.bounded.samples, self.records.drawn)
        return self.bounded if same and whole else bound_records(self.records, request, every_look=True)


def request_of(described: dict[str, Any], folder: Path) -> CertifyRequest:
    """Return the request that a run's description holds; RunError if it holds none."""
    try:
        return from_json(CertifyRequest, described["request"])
    except (KeyError, TypeError) as error:
        raise _lacks(folder, error) from None


def _lacks(folder: Path, error: Exception) -> RunError:
    return RunError(f"{folder}/{DESCRIPTION} lacks {error}: only a run that began to sample can be read")


def data_of(described: dict[str, Any]) -> tuple[int, int]:
    """Return how many inputs and classes the data have; KeyError or TypeError where it is not told."""
    inputs, names = described["data"]["inputs"], described["data"]["class_names"]
    if not isinstance(inputs, int) or not isinstance(names, list) or len(names) < 2 or inputs < 0:
        raise TypeError("a number of inputs and at least 2 class names")
    return inputs, len(names)


def named(model: Any) -> tuple[str | None, str | None]:
    """Return the name and checksum of a described model; KeyError or TypeError where these are missing."""
    return (None, None) if model is None else (_printable(model["name"]), _printable(model["checksum"]))


def _printable(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError("a name that can be printed")
    return value


def remember_planned(store: Store, inputs: int | str, indices: list[int]) -> None:
    """Keep the numbers of all inputs that requests for `inputs` of them are about, a shard's share or not."""
    text = json.dumps(indices, separators=(",", ":"))
    if store.get(f"{PLANNED} {inputs}") != text:
        store.put(f"{PLANNED} {inputs}", text)


def planned_inputs(store: Store, inputs: int | str, described: dict[str, Any]) -> list[int]:
    """Return the numbers that `remember_planned` kept; ValueError if they are none, or not so many."""
    planned = parse_json((store.get(f"{PLANNED} {inputs}") or "").encode())
    if not isinstance(planned, list) or not set(map(type, planned)) <= {int}:
        raise ValueError("no list of numbers")
    if len(set(planned)) < len(planned) or (planned and not 0 <= min(planned) <= max(planned) < 2**63):
        raise ValueError("a number twice, or out of range")
    if len(planned) != (asked := len(spread(data_of(described)[0], inputs))):
        raise ValueError(f"{len(planned)} of {asked} inputs")
    return planned


def read_sampled(folder: Path) -> dict[str, Any]:
    """Return what a run of certmix certify by sampling says of itself; RunError if it is another run."""
    described = read_run(folder)
    study = str(described["identity"].get("study", CERTIFY))
    made = f"{folder} is a run of {command_of(study)}"
    if study in (f"certify-{name}" for name in DETERMINISTIC):
        raise RunError(
            f"{made}, which draws no samples: repeat it for another --alpha, check it with certmix verify, "
            "or name a run of certmix certify by sampling (docs/margin-certificates.md)"
        )
    if study != CERTIFY:
        raise RunError(f"{made}: name a run of certmix certify")
    return described


def open_run(folder: Path, sigma: float | None = None, *, ballots: bool = False) -> RunContents:
    """Return what a run of certmix certify by sampling holds, but for inputs that it left unfinished.

    Its own request says whether ballots are read, or `ballots`.

    RunError if it is another run, or has not begun to sample; ParameterError for another `sigma`.
    """
    described = read_sampled(folder)
    request = request_of(described, folder)
    _refuse_other_sigma(folder, sigma, request.sigma)
    try:
        (inputs, classes), name = data_of(described), _printable(described["data"]["name"])
        names = {role: named(model) for role, model in described["models"].items()}
        about = {"data": name, "robust": names["robust"][0], "standard": names["standard"][0]}
        about["settings"] = described["data"].get("settings")
        checksum = names["standard"][1]
    except (AttributeError, KeyError, TypeError) as error:
        raise _lacks(folder, error) from None
    with closing(Store(folder / DATABASE, classes, read_only=True)) as store:
        held = store.records(ballots=ballots or request.gated)
        bounded = bound_records(held, request)
        records = bounded.records
        probabilities, first = store.standard(checksum) if checksum else {}, began_with(store)
    planned = max(inputs_of(request, inputs), len(records))
    return RunContents(request, records, probabilities, planned, classes, about, first, bounded)


def inputs_of(request: Any, inputs: int) -> int:
    """Return how many of so many inputs a request is about."""
    return inputs if request.inputs == "all" else min(int(request.inputs), inputs)


def _refuse_other_sigma(source: str | Path, given: float | None, own: float | None) -> None:
    if given not in (None, own):
        made = "other noise" if own is None else own
        raise ParameterError(f"sigma = {given}: {source} was made with {made}: drop --sigma")


class KnownLog(NamedTuple):
    """What is known of how a log was made; `run` and `classes` are those of a run's own ``records.tsv``."""

    run: CertifyRequest | None
    classes: int
    sigma: float | None
    bound: str | None
    extent: Extent


def known_of(log: PublishedLog, sigma: float | None, rows: int | None) -> KnownLog:
    """Return what a log, the ``run.json`` beside it, and its user say; only a log of its name has a run.

    ParameterError if the user and the log differ.
    """
    path, run, planned, classes = Path(log.source), None, None, 0
    if path.name == LOG and log.decimals == _DECIMALS and os.path.exists(path.parent / DESCRIPTION):
        described = read_run(path.parent, "certify")
        if "request" in described and "data" in described:
            run = request_of(described, path.parent)
            try:
                inputs, classes = data_of(described)
            except (KeyError, TypeError) as error:
                raise _lacks(path.parent, error) from None
            planned = inputs_of(run, inputs)
    own, bound = log.sigma, log.bound
    if run is not None:
        own, bound = run.sigma if own is None else own, bound or run.bound_at(run.gate)
    if log.gate and bound in (None, ONE_SIDED):  # of votes that abstain, q = 1 - p says nothing
        bound = bound_behind_gate(ONE_SIDED)
    if own is not None:
        _refuse_other_sigma(log.source, sigma, own)
        sigma = own
    return KnownLog(run, classes, sigma, bound, expected_rows(log.index, planned, rows))


@dataclass(frozen=True)
class Stored:
    """Bounds of the robust classifier's inputs, (m,), and what is known of them.

    `kind` is ``"log"``, ``"run's log"``, ``"class counts"`` or ``"run folder"``; `selected` is -1 where a log
    abstains; the failure probability of `bounds` is NaN where it is unknown.  A log has the radii of the
    robust classifier alone, counts have `frequencies` (m, c) and the samples of each input.  `planned` is how
    many rows there should be; it and `bound` are None if unknown.
    """

    source: str
    kind: str
    smoothing: Smoothing
    label: IntArray
    selected: IntArray
    bounds: ConfidenceBounds
    radius: FloatArray | None
    frequencies: FloatArray | None
    planned: int | None
    samples: IntArray | None
    bound: str | None
    notes: tuple[str, ...]
    details: tuple[str, ...] = ()
    as_printed: bool = False
    feature_scale: tuple[float, ...] = ()

    @property
    def radius_alone(self) -> bool:
        """Whether a log's bound is not one-sided, so that its radii do not say p and q."""
        return self.radius is not None and self.bound not in (None, ONE_SIDED)

    @property
    def right(self) -> np.ndarray:
        """bool (m,): the class is the label."""
        return self.selected == self.label

    def of(self, rows: IntArray) -> Stored:
        """Return what is known of some inputs."""
        bounds, lost = self.bounds, np.broadcast_to(self.bounds.lost, self.label.shape)
        some = replace(bounds, p_lower=bounds.p_lower[rows], q_upper=bounds.q_upper[rows], lost=lost[rows])
        names = ("label", "selected", "radius", "frequencies", "samples")
        held = {name: one[rows] for name in names if (one := getattr(self, name)) is not None}
        return replace(self, bounds=some, **held)


def radii_at(stored: Stored, alpha: float, certificate: str) -> CertifiedRadii:
    """Return certified radii; a log's own at alpha = 1, where both certificates are them.

    Going through a probability and back would miss radii that lie exactly on a table's threshold.  Refused is
    any other radius of a log whose bound is not one-sided: p = Phi(radius / sigma) and q = 1 - p would claim
    more than the log's bounds did.
    """
    if stored.radius is None or alpha != 1.0 or certificate not in BY_RADIUS:
        if stored.radius_alone:
            own = stored.kind == "run's log"
            run = f"the run folder {Path(stored.source).parent}" if own else "the folder of its run"
            raise ParameterError(
                f"{stored.source} rests on the bound {stored.bound}, not a one-sided one: its radii do not "
                f"say p and q: name {run}, or use --alpha 1 with --certificate exact or smoothing"
            )
        slack = 0.0 if stored.as_printed else margin_slack_of(alpha)
        return certify_radii(
            stored.bounds, sigma=stored.smoothing, alpha=alpha, certificate=certificate, margin_slack=slack
        )
    status = np.where(stored.radius > 0, Status.CERTIFIED, Status.ABSTAIN)
    norm, level = stored.smoothing.norm, stored.smoothing.scale
    return CertifiedRadii(certificate, norm, level, 1.0, stored.radius, status.astype(np.int64))


def refuse_empty(stored: Stored) -> None:
    """Refuse a file without rows."""
    if len(stored.label) == 0:
        raise ParameterError(f"{stored.source} holds no rows: name a log that is not empty")


def refuse_of_files(folder: str | Path, **options: object) -> None:
    """Refuse options of logs and class counts that were given with a run folder."""
    for name, value in options.items():
        if value:
            option = name.replace("_", "-")
            raise ParameterError(f"{folder} is a run folder: --{option} is for files; drop it")


def refuse_of_runs(file: str | Path, **options: object) -> None:
    """Refuse options of run folders that were given with a log or class counts."""
    for name, value in options.items():
        if value is not None:
            option = name.replace("_", "-")
            raise ParameterError(f"{file} holds no ballots and no g: --{option} is for run folders; drop it")


class Reading(NamedTuple):
    """How a log or class counts are read: the options of `recertify`."""

    sigma: float | None = None
    failure_probability: float | None = None
    bound: str | None = None
    as_printed: bool = False
    assume_selected: bool = False
    rows: int | None = None
    noise: str | None = None
    scale: float | None = None

    def smoothing(self, source: str) -> Smoothing:
        """Return the noise of a log of probabilities; a splitting's curve is that of uniform noise."""
        if self.noise in (None, GAUSSIAN):
            level = self.scale if self.sigma is None else self.sigma
            if level is None:
                raise ParameterError(f"{source} does not say its noise: give --noise and --scale, or --sigma")
            return Smoothing.of(level)
        if self.scale is None or self.sigma is not None:
            raise ParameterError(f"{source} does not say how much {self.noise} noise: give --scale alone")
        return Smoothing("uniform" if self.noise == "splitting" else str(self.noise), self.scale)

    def level(self, source: str, known: float | None) -> float:
        """Return the noise level, which a source may know."""
        sigma = self.sigma if known is None else known
        if sigma is None:
            raise ParameterError(f"{source} does not say its noise level: give --sigma")
        if not (sigma > 0 and math.isfinite(sigma)):
            raise ParameterError(f"sigma = {sigma}: the noise level must be a positive number")
        return sigma


def read_stored(path: str | Path, how: Reading) -> Stored:
    """Return what a log or a file of class counts holds."""
    found = read_published(path)
    if isinstance(found, ClassCounts):
        if how.as_printed:
            raise ParameterError(f"{path} holds counts, not printed radii: drop --as-printed")
        if how.noise is not None or how.scale is not None:
            told = f"{path} holds counts: noise and scale are for logs of p_lower"
            raise ParameterError(f"{told}: leave --noise and --scale out")
        return _from_counts(found, how)
    if how.assume_selected:
        raise ParameterError(f"{path} is a log, not a file of class counts: drop --assume-selected")
    return _from_log(found, how)


def _from_log(log: PublishedLog, how: Reading) -> Stored:
    """Take p = Phi(radius / sigma), q = 1 - p: what a log of the robust classifier alone proves."""
    if log.of_probabilities:
        return _from_probabilities(log, how)
    if how.noise is not None or how.scale is not None:
        raise ParameterError(
            f"{log.source} has radii, not p_lower: noise and scale are for logs of probabilities: leave "
            "--noise and --scale out"
        )
    log, repeated = distinct_rows(log)
    known, as_printed = known_of(log, how.sigma, how.rows), how.as_printed
    own, level = known.run is not None, how.level(log.source, known.sigma)
    stated = math.nan if known.run is None else known.run.of_one_input
    for name, said in (("failure_probability", stated), ("bound", known.bound)):
        if (given := getattr(how, name)) not in (None, said):
            option = f"--{name.replace('_', '-')}"
            raise ParameterError(
                f"{option} {given}: {log.source} holds no counts, so what its radii rest on cannot be "
                f"changed; drop {option}, or name a run folder or class counts"
            )
    radius = np.where(log.abstained, 0.0, log.radius if as_printed or own else log.lowest)
    with np.errstate(over="ignore"):  # p is capped below
        scaled = radius / level
    p = np.minimum(ndtr(scaled), 1.0 - 2.0**-53)
    p = np.where(scaled > 0, p if as_printed else p - _ROUNDING, 0.0)
    notes: list[str] = []
    details = _rows_note(len(log), known.extent, log.cut_off)
    largest = float(np.max(log.radius[~log.abstained], initial=0.0)) / level
    if largest > MOST_SIGMAS:
        notes.append(Doubt(
            f"is sigma = {level:g} right? The largest radius of the log would be {largest:.3g} sigma, for "
            "which 10^10 samples an input are not enough; with too small a sigma every figure is too high"
        ))  # fmt: skip
    if known.bound is None:
        notes.append(ASSUMED)
    if repeated:
        details.append(f"Repeated rows, equal to an earlier one and counted once: {repeated:,}.")
    if as_printed:
        notes.append(
            "Radii are taken as printed, rounded to nearest: they are not rounded down, "
            "and may exceed what was proved."
        )
    elif own:
        details.append("Radii are the log's own, which were rounded down when it was written.")
    else:
        details.append("Each radius is the lowest that prints as the log's does.")
    return Stored(
        source=log.source, kind="run's log" if own else "log", smoothing=Smoothing.of(level), label=log.label,
        selected=np.where(log.abstained, -1, log.predict),
        bounds=ConfidenceBounds(p, 1.0 - p, stated, "log", {}), radius=radius, frequencies=None,
        planned=known.extent.rows, samples=None, bound=known.bound, notes=tuple(notes),
        details=tuple(details), as_printed=as_printed, feature_scale=log.scales,
    )  # fmt: skip


def _from_probabilities(log: PublishedLog, how: Reading) -> Stored:
    """Take a log's own lower bounds p, and q = 1 - p."""
    for name in ("failure_probability", "bound"):
        if getattr(how, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ParameterError(f"{option}: {log.source} holds no counts: drop {option}")
    log, repeated = distinct_rows(log)
    p = np.minimum(log.radius if how.as_printed else log.lowest, 1.0 - 2.0**-53)
    p = np.where(log.predict < 0, 0.0, p)
    extent = expected_rows(log.index, None, how.rows)
    details = _rows_note(len(log), extent, log.cut_off)
    details += [f"Repeated rows, equal to an earlier one and counted once: {repeated:,}."] * bool(repeated)
    told = "as printed" if how.as_printed else "the lowest that prints as the log's does"
    return Stored(
        source=log.source, kind="log", smoothing=how.smoothing(log.source), label=log.label,
        selected=np.where(log.abstained, -1, log.predict),
        bounds=ConfidenceBounds(p, 1.0 - p, math.nan, "log", {}), radius=None, frequencies=None,
        planned=extent.rows, samples=None, bound=ONE_SIDED,
        notes=(f"Each p is {told}, a one-sided bound, so that q = 1 - p.",), details=tuple(details),
        as_printed=how.as_printed,
    )  # fmt: skip


def _rows_note(rows: int, extent: Extent, cut_off: bool) -> list[str]:
    of = f" of {extent.rows:,}" if extent.rows else ""
    notes = [f"Rows: {rows:,}{of} ({extent.why})."]
    return [*notes, "The last line is incomplete, and left out."] if cut_off else notes


def _from_counts(found: ClassCounts, how: Reading) -> Stored:
    """Take the most voted class, and pay for choosing it by the counts that bound it."""
    delta = 0.001 if how.failure_probability is None else how.failure_probability
    level, name, rows = how.level(found.source, None), how.bound or ONE_SIDED, how.rows
    selected, classes = found.counts.argmax(1), found.counts.shape[1]
    share = 1 if how.assume_selected else (2 if name == ONE_SIDED else classes)
    bounds = bound_counts(found.counts, selected, delta / share, name)
    samples = found.counts.sum(1)
    extent = Extent(rows, "as stated") if rows else Extent(None, "how many there should be is not known")
    chosen = "Each input's class is the most voted one of the counts that also bound it: "
    if share == 1:
        chosen += (
            "the failure probability holds only if other samples chose the same class beforehand, "
            "as --assume-selected states."
        )
    else:
        chosen += f"to allow for that choice the bounds use {delta:g} / {share}."
    details = _rows_note(len(found), extent, found.cut_off)
    if samples.min() != samples.max():
        details.append(f"Samples of an input: {samples.min():,} to {samples.max():,}.")
    details.append("The number of samples is taken to have been fixed before they were drawn.")
    return Stored(
        source=found.source, kind="class counts", smoothing=Smoothing.of(level), label=found.label,
        selected=selected, bounds=replace(bounds, failure_probability=delta), radius=None,
        frequencies=found.counts / samples[:, None], planned=rows, samples=samples, bound=name,
        notes=(chosen,), details=tuple(details),
    )  # fmt: skip


def of_each(
    sources: Sequence[Any], sigmas: Sequence[float], name: str = "sigma"
) -> list[tuple[Any, float | None]]:
    """Return each source with its noise level, None where none is given; `name` is the option's."""
    if len(sigmas) not in (0, 1, len(sources)):
        found = f"{len(sigmas)} noise levels for {len(sources)} sources"
        raise ParameterError(f"{found}: give {name} once for all or for each")
    levels = list(sigmas) if len(sigmas) > 1 else [*sigmas, None][:1] * len(sources)
    return list(zip(sources, levels, strict=True))


def recertify(source: str | Path, **how: Any) -> Summary:
    """Return the table of a run folder, a published log or class counts; `how` is that of `recertified`."""
    return recertified(source, **how).summary


def recertified(
    source: str | Path,
    *,
    sigma: float | None = None,
    as_printed: bool = False,
    assume_selected: bool = False,
    rows: int | None = None,
    noise: str | None = None,
    scale: float | None = None,
    **changes: Any,
) -> Evaluation:
    """Return the table of a run folder, a published log or class counts, with curves and outcomes.

    `changes` are of the request, None as the run has it, else alpha 1, all certificates and round columns.
    ParameterError or RunError if the source cannot be read, or an option does not apply to it.
    """
    of_runs = {name: changes.get(name) for name in ("gate", "standard_temperature", "tuned")}
    given = {name: value for name, value in changes.items() if value is not None}
    if not os.path.isdir(source):
        refuse_of_runs(source, **of_runs)
        bounded = changes.get("failure_probability"), changes.get("bound")
        how = Reading(sigma, *bounded, as_printed, assume_selected, rows, noise, scale)
        stored = read_stored(source, how)
        named = BY_RADIUS if stored.radius_alone else tuple(stored.smoothing.certificates)
        usual = {"alpha": 1.0, "certificates": named, "radii": _columns_of(stored), "goal": "fixed"}
        if stored.smoothing.sigma is None:
            usual |= {"noise": stored.smoothing.kind, "scale": stored.smoothing.scale}
        return _tabulate(stored, CertifyRequest(stored.smoothing.sigma, **{**usual, **given}))
    refuse_of_files(
        source, as_printed=as_printed, assume_selected=assume_selected, rows=rows, noise=noise, scale=scale
    )
    if is_enumerated(Path(source)):
        return _recounted(Path(source), {**given, **({} if sigma is None else {"sigma": sigma})})
    run = open_run(Path(source), sigma, ballots=bool({"gate", "tuned"} & given.keys()))
    request = run.request.replace(**given)
    notes, details = expectations(request, run.classes)
    notes += choice_notes(run.first, request)
    seen = run.bounded_by(request)  # no input is left out for want of more samples
    if waiting := seen.would_go_on(request):
        details.append(
            f"Inputs that these settings would sample further, judged by the samples there are: {waiting:,}."
        )
    about = {name: run.about[name] for name in ("data", "robust", "standard")}
    about |= about_scale(run.about["settings"], request.radii, notes, [*details, NOT_CHECKED], request.norm)
    return evaluate(run.records, run.probabilities, request, run.planned, bounded=seen, **about)


RECOUNTED = ("alpha", "radii", "gate", "standard_temperature")
"""What may be other of a run of votes on all cases."""


def is_enumerated(folder: Path) -> bool:
    """Whether a folder holds a run of votes on all cases."""
    identity = read_run(folder)["identity"]
    return isinstance(identity, dict) and identity.get("study") == f"{CERTIFY}-{EXACT}"


@contextmanager
def open_enumerated(folder: Path) -> Iterator[tuple[Enumerated, Store, dict[str, Any]]]:
    """Open a run of votes on all cases: request, numbers and what it says; RunError if it cannot be."""
    described = read_run(folder)
    try:
        request = from_json(Enumerated, described["request"])
        _, classes = data_of(described)
    except (KeyError, TypeError) as error:
        raise _lacks(folder, error) from None
    with closing(Store(folder / DATABASE, classes, read_only=True)) as store:
        yield request, store, described


def _recounted(folder: Path, given: dict[str, Any]) -> Evaluation:
    """Return the table of a run of votes on all cases, with other settings."""
    for name in given.keys() - set(RECOUNTED):
        raise ParameterError(
            f"{name.replace('_', ' ')} = {given[name]}: {folder} has all votes of each input, and one "
            f"certificate that follows: leave it out"
        )
    with open_enumerated(folder) as (request, store, described):
        names = {role: named(model)[0] for role, model in described["models"].items()}
        about = {**names, "data": named(described["data"])[0]}
        asked = request.replace(**given)
        for index in sorted(store.known(request.cell))[:1]:
            asked.refuse_wider(store.read(request.cell, [index]).shape[1])
        planned = planned_inputs(store, request.inputs, described)
        found = evaluate_proved(asked, store, planned, described, **about)
    summary = replace(found.summary, details=(*found.summary.details, NOT_CHECKED))
    return replace(found, summary=summary)


def _columns_of(stored: Stored) -> tuple[float, ...]:
    """Return columns up to the largest radius of the robust classifier alone."""
    largest = float(np.max(radii_at(stored, 1.0, "exact").radius, initial=0.0))
    return usual_radii(largest if 0 < largest < math.inf else 3 * stored.smoothing.scale)


def _tabulate(stored: Stored, request: CertifyRequest) -> Evaluation:
    """Return the table of a log or of class counts, with its curves."""
    plan, count = request.rows(), len(stored.label)
    clean = float(stored.right.mean()) if count else None
    radii = [radii_at(stored, row.alpha, row.certificate) for row in plan]
    most = MOST_SIGMAS * stored.smoothing.scale
    right = [np.where(stored.right, found.radius, 0.0) for found in radii]
    table = tuple(
        replace(
            table_row(row.classifier, found, stored.right, request.radii, clean if row.alpha == 1 else None),
            alpha=row.alpha,
            mean_radius_interval=mean_interval(held, most) if held.max() <= most else None,
        )
        for row, found, held in zip(plan, radii, right, strict=True)
        if count
    )
    samples, notes, details = stored.samples if count else None, list(stored.notes), list(stored.details)
    if not count:
        notes.insert(0, Doubt(f"{stored.source} holds no rows: its table is empty"))
    elif stored.frequencies is None:
        details.append(
            f"Clean accuracy (robust) is the share of right predictions among all {count:,} rows; the "
            f"{int(np.sum(stored.selected < 0)):,} abstentions count as wrong. A log says nothing of the "
            "standard classifier, and so of the mix."
        )
    delta = stored.bounds.failure_probability
    curves = tuple(
        Curve(row.classifier, found.certificate, found.radius[stored.right & (found.radius > 0)], count,
              clean if row.alpha == 1 else None, None, row.alpha)
        for row, found in zip(plan, radii, strict=True)
        if count
    )  # fmt: skip
    outcomes = Outcomes(np.arange(count), stored.label, stored.selected, radii=tuple(radii))
    return Evaluation(Summary(
        request.sigma, request.alpha, count, None if math.isnan(delta) else delta, request.radii,
        CleanAccuracy(None, clean, None), table, complete=count > 0 and stored.planned in (None, count),
        goal=None, planned_inputs=stored.planned, bound=stored.bound,
        samples=None if samples is None else int(samples.max()),
        mean_samples=None if samples is None else float(samples.mean()), data=stored.source,
        abstained=int(np.sum(radii[0].status == Status.ABSTAIN)),
        **{**noise_told(request), **about_scale(
            {"feature_scale": list(stored.feature_scale) or None}, request.radii, notes, details, request.norm
        )},
    ), curves, outcomes)  # fmt: skip
