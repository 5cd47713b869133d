"""A run folder read without trusting it: what cannot be read is refused, the rest is for checks to say."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from certmix.bounds.statistics import BINS, SCALE, ScoreStatistics
from certmix.certification import publish
from certmix.certification.evaluate import Evaluation
from certmix.certification.request.population import Population
from certmix.certification.request.proved import DeterministicRequest, needed_cells, standard_logits
from certmix.certification.request.reading import KINDS
from certmix.certification.request.sampled import CertifyRequest
from certmix.errors import CertmixError, RunError, brief
from certmix.models.spec import LoadedModel, load_model, wrap_model
from certmix.radii import SMOOTHINGS
from certmix.runs import InputRecord, Store, read_run
from certmix.runs.folder import CERTIFY, DATABASE, DESCRIPTION, command_of
from certmix.runs.records import Look, Records, having, pieces, places_of
from certmix.runs.settings import settings
from certmix.runs.sources import Sources, load_data, shown_by, with_classes
from certmix.sampling.ballots import LEVELS
from certmix.sampling.enumerated import Views
from certmix.sampling.noise import noise_fingerprint
from certmix.types import Dataset, FloatArray, IntArray
from certmix.verification.checks import Faults

ROLES = ("robust", "standard")


@dataclass(frozen=True)
class Run:
    """A run of ``certmix certify`` as it lies on disk.

    ``records`` are the inputs of a sampled run, ``cells`` the numbers of one without samples, by index;
    ``standard`` outputs (c,) of the standard model, probabilities or, without samples, logits.
    """

    folder: Path
    description: dict[str, Any]
    request: CertifyRequest | DeterministicRequest
    classes: int
    records: Records = field(default_factory=lambda: Records.of(()))
    cells: dict[str, dict[int, FloatArray]] = field(default_factory=dict)
    standard: Mapping[int, FloatArray] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)

    @property
    def standard_checksum(self) -> str | None:
        """Of the run's standard model, None without one."""
        stored = self.description["models"].get("standard")
        return str(stored.get("checksum")) if isinstance(stored, dict) else None

    @cached_property
    def evaluation(self) -> Evaluation:
        """What certmix makes of the numbers, as when it publishes; CertmixError if nothing follows."""
        held = self.records if isinstance(self.request, CertifyRequest) else None
        with publish.opened(self.folder, self.description) as (request, store):
            return publish.derive(request, store, self.description, held)

    @property
    def proved_inputs(self) -> set[int]:
        """The inputs of which a run without samples holds all that its request wants."""
        assert not isinstance(self.request, CertifyRequest)
        return set.intersection(*(set(self.cells.get(cell, {})) for cell in needed_cells(self.request)))


def read_description(run: Path) -> tuple[dict[str, Any], str]:
    """Return a run's ``run.json``, complete, and its study; RunError if it cannot be derived again."""
    description = read_run(run)
    identity = description.get("identity")
    study = str(identity.get("study", CERTIFY)) if isinstance(identity, dict) else CERTIFY
    if study not in KINDS:
        raise RunError(f"{run} is a run of {command_of(study)}: name a run of certmix certify")
    objects = ("identity", "request", "sources", "data", "models", "versions")
    for name in (*objects, "device", "threads"):
        if name not in description:
            raise RunError(f"{run}/{DESCRIPTION} lacks {name!r}: only a run that began can be checked")
        if name in objects and not isinstance(description[name], dict):
            raise RunError(f"{run}/{DESCRIPTION}: {name!r} is not an object: restore the file")
    names, inputs = description["data"].get("class_names"), description["data"].get("inputs")
    if not isinstance(names, list) or not 2 <= len(names) <= 1 << 20 or not is_whole(inputs):
        raise RunError(f"{run}/{DESCRIPTION}: classes or inputs of the data are missing: restore the file")
    return description, study


def load(folder: Path | Run) -> Run:
    """Return what a run folder holds, RunError if it is no run that can be derived again."""
    if isinstance(folder, Run):
        return folder
    description, study = read_description(folder)
    sampled = study == CERTIFY
    kind: Any = KINDS[study]
    try:
        request = settings(kind, description["request"])
    except (CertmixError, LookupError, TypeError, ValueError) as error:
        wrong = brief(error)
        raise RunError(f"{folder}/run.json holds no valid request ({wrong}): restore it") from None
    run = Run(folder, description, request, len(description["data"]["class_names"]))
    checksum = run.standard_checksum
    with closing(opened(folder, run.classes)) as store:
        meta, cells = store.facts(), {}
        if not sampled:
            for cell in store.cells():
                indices = sorted(store.known(cell))
                read = store.read(cell, indices)
                if study != "certify-population":  # whose whole numbers may exceed 2^53
                    read = np.asarray(read, np.float64)
                cells[cell] = dict(zip(indices, read, strict=True))
            return replace(run, cells=cells, standard=cells.get(standard_logits(str(checksum)), {}))
        fixed = meta.get("fixed_samples")
        if fixed is not None and not (fixed.isdecimal() and 0 < len(fixed) < 19):
            raise RunError(f"{folder}: fixed_samples = {fixed!r:.60} in the database: restore it")
        standard = {} if checksum is None else store.standard(checksum)
        return replace(run, records=store.records(ballots=True), standard=standard, meta=meta)


def opened(folder: Path, classes: int | None = None) -> Store:
    """Return the numbers of a run, to read only; RunError if there are none."""
    path = folder / DATABASE
    if not os.path.isfile(path):
        raise RunError(f"{path} is missing: name the folder of a certmix run, or restore it")
    return Store(path, classes, read_only=True)


def other_noise(run: Run, request: CertifyRequest | Population) -> Faults:
    """Return what is wrong with the fingerprint of the noise in ``run.json``."""
    noise = run.description.get("noise")
    told = noise.get("fingerprint") if isinstance(noise, dict) else None
    if told == (own := noise_fingerprint(request.smoothing, "cpu")):
        return []
    return [(None, f"run.json says the noise has the fingerprint {told}, it is {own}")]


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def impossible(records: Records, request: CertifyRequest, classes: int) -> list[tuple[int, str]]:
    """Return (row, in what way its counts cannot be): they add up, and grow from look to look."""
    found, soft = list[tuple[int, str]](), request.scores == "soft"
    unit = SCALE if soft else 1
    # Every soft score is rounded by a step at most, and a row adds up to 1 within 2^-20.
    rounding = request.selection_samples * (classes + 1) if soft else 0
    labels, selection = records.labels, records.selection
    for row in np.flatnonzero((labels < 0) | (labels >= classes)).tolist():
        found.append((row, f"label {labels[row]} of {classes} classes"))
    total, asked = selection.sum(1), request.selection_samples
    off = (selection.min(1) < 0) | (np.abs(total - asked * unit) > rounding)
    for row in np.flatnonzero(off).tolist():
        found.append((row, f"selection adds up to {total[row] / unit:g}, {asked} samples were asked for"))
    for n, look in sorted(records.votes.items()):
        for part in pieces(look.rows, classes):
            votes = look.of(part)
            least, drawn = votes.min(1), votes.sum(1)
            for at in np.flatnonzero((n < 1) | (least < 0) | (drawn != n)).tolist():
                text = f"votes of {n} samples add up to {drawn[at]}, the least is {least[at]}"
                found.append((int(part[at]), text))
    for before, after, rows in _in_turn(records.votes, len(records)):
        for part in pieces(rows, classes):
            fewer, more = records.votes[before].of(part), records.votes[after].of(part)
            text = f"a class has fewer votes after {after} samples than after {before}"
            found += [(row, text) for row in part[(more < fewer).any(1)].tolist()]
    if soft:
        for row, record in enumerate(records):
            found += [(row, text) for text in _scores_faults(record)]
    else:
        scored = {row for look in records.scores.values() for row in look.rows.tolist()}
        found += [(row, "soft scores in a run of votes") for row in scored]
        found += _ballots_faults(records, classes)
    return sorted(found, key=lambda fault: fault[0])


def _in_turn(looks: Mapping[int, Look], inputs: int) -> Iterator[tuple[int, int, IntArray]]:
    """Yield two numbers of samples, and the rows of inputs (m,) whose looks these are, one after another."""
    latest = np.full(inputs, -1)
    for after, look in sorted(looks.items()):
        for before in np.unique(latest[look.rows]).tolist():
            if before >= 0:
                yield before, after, look.rows[latest[look.rows] == before]
        latest[look.rows] = after


def _ballots_faults(records: Records, classes: int) -> Iterator[tuple[int, str]]:
    """Yield of which inputs ballots lack, are not those of the votes, or were cast less often later."""
    inputs, chosen, every = len(records), records.chosen, np.arange(len(records))
    lacking, others = np.full(inputs, chosen is None), np.zeros(inputs, bool)
    for n in {*records.votes, *records.ballots}:
        lacking |= having(records.votes, n, inputs) != having(records.ballots, n, inputs)
    for row in np.flatnonzero(lacking).tolist():
        yield row, "there are no ballots, from which votes behind a gate are counted"
    pairs = [(look, records.ballots[n]) for n, look in records.votes.items() if n in records.ballots]
    if chosen is not None:
        pairs.append((Look(every, every, records.selection), Look(every, every, chosen)))
    for votes, ballots in pairs:
        for part in pieces(votes.rows[~lacking[votes.rows]], classes * LEVELS):
            (keys, cast), counted = _keyed(ballots, part, classes), np.zeros(len(part) * classes, np.int64)
            np.add.at(counted, keys // LEVELS, cast)
            others[part] |= (counted.reshape(-1, classes) != votes.of(part)).any(1)
    for row in np.flatnonzero(others).tolist():
        yield row, "its ballots are not those of its votes"
    for before, after, rows in _in_turn(records.ballots, inputs):
        for part in pieces(rows, classes * LEVELS):
            earlier, later = (_keyed(records.ballots[n], part, classes) for n in (before, after))
            at = places_of(later[0], earlier[0])
            fewer = (at < 0) | (later[1][at] < earlier[1])
            for row in part[np.unique(earlier[0][fewer] // (classes * LEVELS))].tolist():
                yield row, f"a ballot was cast less often after {after} samples than before"


def _keyed(look: Look, rows: IntArray, classes: int) -> tuple[IntArray, IntArray]:
    """Return a number for each input (its place among the rows) and code, and how many cast that ballot."""
    cast = look.kept.take(look.at[np.searchsorted(look.rows, rows)])
    owner = np.repeat(np.arange(len(rows)), np.diff(cast.ends))
    return owner * (classes * LEVELS) + cast.codes, cast.counts


def _scores_faults(record: InputRecord) -> Iterator[str]:
    kept = dict(sorted(record.scores.items()))
    if set(kept) != {0, *record.estimation}:
        yield f"scores after {sorted(kept)} samples, votes after {sorted(record.estimation)}"
    for n, found in kept.items():
        if found.samples != n or found.selected != record.selected or not _consistent(found):
            yield f"scores of {n} samples contradict themselves or the selection"
    for (_, earlier), (after, later) in pairwise(kept.items()):
        same = (earlier.rivals, earlier.deviations.tolist()) == (later.rivals, later.deviations.tolist())
        sums = ("totals", "squares", "bin_counts", "bin_excess")
        if not same or any(np.any(getattr(later, name) < getattr(earlier, name)) for name in sums):
            yield f"a sum of scores is less after {after} samples than before"


def _consistent(found: ScoreStatistics) -> bool:
    """Whether sums, squares and bins can be of one set of scores in [0, 1]."""
    n, width = found.samples, SCALE // BINS
    followed = [found.selected, *found.rivals]
    totals = (found.bin_counts * (width * np.arange(BINS)) + found.bin_excess).sum(1)
    pairs = zip(found.totals.tolist(), found.squares.tolist(), strict=True)
    return bool(
        all(0 <= t <= n * SCALE and t * t <= n * s and s <= t * SCALE for t, s in pairs)
        and min(found.bin_counts.min(), found.bin_excess.min()) >= 0
        and np.all(found.bin_counts.sum(1) == n)
        and np.all(found.bin_excess <= found.bin_counts * width)
        and np.all(totals == found.totals[followed])
        and abs(int(found.totals.sum()) - n * SCALE) <= n * (len(found.totals) + 1)
    )


class Reloaded(NamedTuple):
    """Data and models of a run; ``problems`` says by name why something is not there."""

    dataset: Dataset | None
    models: dict[str, LoadedModel | None]
    problems: dict[str, str]


def reload(
    folder: Path,
    description: dict[str, Any],
    dataset: Dataset | None = None,
    models: Mapping[str, nn.Module] | None = None,
    device: torch.device | str = "cpu",
    run_code: bool = False,
) -> Reloaded:
    """Load data and models that a run's description names, code with `run_code`, and take what is given."""
    given, stored = dict(models or {}), dict(description["sources"])
    objects = stored.pop("objects", [])
    try:
        named = {key: value for key, value in stored.items() if key not in objects}
        sources = Sources.from_dict(named, folder / DESCRIPTION, run_code)
    except (CertmixError, TypeError) as error:
        raise RunError(f"the sources in run.json are not readable ({error}): restore the file") from None
    problems: dict[str, str] = {}
    if dataset is None and "data" in objects:
        problems["data"] = "it was a Python object: hand it over as dataset"
    elif dataset is None:
        try:
            dataset = load_data(sources)
        except CertmixError as error:
            problems["data"] = str(error)
    loaded: dict[str, LoadedModel | None] = dict.fromkeys(ROLES)
    for role in ROLES:
        if role not in given and role in objects:
            problems[role] = f"it was a Python object: hand it over in models[{role!r}]"
            continue
        if role not in given and description["models"].get(role) is None:
            continue
        how, spec = sources.how(role), getattr(sources, role)
        try:
            if role in given:
                del how["weights"]
                loaded[role] = wrap_model(given[role], device=device, **how)
                continue
            if spec is None:  # the shipped one, which the run chose itself
                spec = description["models"][role].get("spec")
            loaded[role] = load_model(
                str(spec), device=device, classes=len(description["data"]["class_names"]),
                named_by=sources.origin, run_code=run_code, **how,
            )  # fmt: skip
        except CertmixError as error:
            problems[role] = str(error)
    robust, asked = loaded["robust"], description["request"]
    kind = SMOOTHINGS.get(str(asked.get("noise")))
    if robust is not None and kind is not None and kind.law is None and dataset is not None:
        loaded["robust"] = shown_by(robust, Views(asked["noise"], asked["scale"]), dataset)
    if dataset is not None:  # as the models that it was certified with tell them apart
        dataset = with_classes(dataset, len(description["data"]["class_names"]))
    return Reloaded(dataset, loaded, problems)
