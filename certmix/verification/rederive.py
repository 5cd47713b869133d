"""Checking what a run says against its request, its numbers, its data and its models."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from certmix.bounds import BOUNDS
from certmix.certification import publish
from certmix.certification.analysis.published import differences
from certmix.certification.describe import PLOTTER, dimension_of, study_of
from certmix.certification.request.population import Population
from certmix.certification.request.proved import ROBUST, Enumerated
from certmix.certification.request.sampled import CertifyRequest
from certmix.errors import CertmixError, ParameterError
from certmix.files import digest_of
from certmix.models.spec import LoadedModel
from certmix.runs import Identity, Store, StudyIdentity, read_run
from certmix.runs.behaviour import differs, key_of, told_changes
from certmix.runs.folder import NOISE_VERSION
from certmix.runs.records import Answers, Records, having, places_of
from certmix.runs.sources import Loaded
from certmix.sampling import resolve_device
from certmix.sampling.ballots import LEVELS
from certmix.sampling.grid import Grid
from certmix.sampling.law import noise_error
from certmix.sampling.noise import STREAMS, NoiseKey
from certmix.sampling.schedule import look, looks, share
from certmix.types import Dataset
from certmix.verification.checks import CheckResult, Faults, Outcome, judged, unchecked
from certmix.verification.figures import check_figures
from certmix.verification.proofs.population import check_claim, check_draws
from certmix.verification.stored import (
    ROLES,
    Reloaded,
    Run,
    impossible,
    is_whole,
    load,
    opened,
    other_noise,
    reload,
)

MODEL_CHECKS = tuple(f"{role} model {what}" for role in ROLES for what in ("checksum", "logits"))
"""Checks that fail where a model is not the one that a run was made with."""
TABLE, PUBLISHED = "certified-accuracy.json", "published files"
"""A run's table, and the check of all that lies in the folder beside the numbers."""


ROUNDING = 1e-9
"""How far the probabilities of a standard model may be from adding up to 1: nothing certified rests on it."""


def rederive(
    run: Path | Run,
    *,
    dataset: Dataset | None = None,
    models: Mapping[str, nn.Module] | None = None,
    device: str = "cpu",
    run_code: bool = False,
) -> list[CheckResult]:
    """Check a run folder against its data, its models and its own numbers, without sampling anything.

    The rule that says when sampling stops, and the keys of the noise, are the run's own.  `dataset` and
    `models` by role (``robust``, ``standard``) are those of a run made from Python objects; None loads what
    ``run.json`` names, code only with `run_code`.  Results are UNCHECKED where something that is needed
    cannot be loaded, may not run, or is not there yet.  RunError if the folder cannot be read, or is of
    another study.
    """
    chosen, loaded = resolve_device(device), load(run)
    reloaded = reload(loaded.folder, loaded.description, dataset, models, chosen, run_code)
    data = reloaded.dataset
    if data is not None and len(data) != loaded.description["data"]["inputs"]:
        data = None  # its inputs are others
    return [
        *_check_identity(loaded),
        _check_data(loaded, reloaded),
        *_check_models(loaded.description, reloaded),
        *_check_answers(loaded, reloaded, chosen),
        *check_numbers(loaded, data),
        *_check_what_follows(loaded, data),
        check_published(loaded),
    ]


def recheck(run: Path, dataset: Dataset) -> list[CheckResult]:
    """Check what an interrupted run, or one of other models, holds, before it is continued: no models."""
    if "request" not in read_run(Path(run)):
        return []  # it was stopped before its first input
    loaded = load(Path(run))
    found = [*check_numbers(loaded, dataset), *_check_what_follows(loaded, dataset)]
    return [one for one in found if one.check != "inputs"]


def _check_what_follows(run: Run, data: Dataset | None) -> list[CheckResult]:
    return check_claim(run, run.request) if isinstance(run.request, Population) else check_figures(run, data)


def check_published(run: Run) -> CheckResult:
    """Are the tables, log and plots in a run's folder what certmix makes of its numbers?"""
    check, again = PUBLISHED, "restore it, or repeat the run's command, which writes it again"
    versions, drawn, plots = run.description["versions"], version(PLOTTER), dict[str, Any]()
    try:
        evaluation = run.evaluation
        if not evaluation.summary.complete:
            return unchecked(check, "the run is not finished: its tables may be of fewer inputs")
        with publish.opened(run.folder, run.description) as (request, store):
            if alike := versions.get(PLOTTER) == drawn:
                plots = publish.plots_of(evaluation, request, store, run.description)
        texts = publish.texts_in(request, evaluation)
    except CertmixError as error:
        return unchecked(check, f"nothing follows from the numbers: {error}")
    try:
        found = differences(run.folder, texts, plots)
    except CertmixError as error:
        return unchecked(check, str(error))
    told, own = versions.get("certmix"), version("certmix")
    first = "".join(f"{one}: {one.remedy(again)}" for one in found[:1])
    if found and told != own:
        return unchecked(check, f"written by certmix {told}, this is {own}, and {first}")
    if any((one.cell, one.there) == ("complete", "False") for one in found):
        return unchecked(check, f"written before all inputs were done: {first}")
    table = "population-claim.json" if isinstance(run.request, Population) else TABLE
    if not found and not os.path.isfile(run.folder / table):
        return CheckResult(check, Outcome.HOLDS, "no table lies in the folder: certmix show prints it")
    less = "" if alike else f"; not the plots: they are of {PLOTTER} {versions.get(PLOTTER)}, this is {drawn}"
    faults: Faults = [(one.input, f"{one}: {one.remedy(again)}") for one in found]
    return judged(check, faults, f"tables, log and plots are what the numbers give{less}")


# Is the run of these data and models?


def _check_identity(run: Run) -> list[CheckResult]:
    """Does the identity repeat what request, data and models say, and does the folder's name?"""
    stored, data, request = run.description["identity"], run.description["data"], run.request
    robust = run.description["models"].get("robust") or {}
    sums = {"data_checksum": data.get("checksum"), "robust_checksum": robust.get("checksum")}
    if isinstance(request, CertifyRequest):
        parts = {
            "data": data.get("name"), "robust": robust.get("name"), **sums, "sigma": request.sigma,
            "seed": request.seed, "selection_samples": request.selection_samples,
            "precision": request.precision, "scores": request.kept, "noise_version": NOISE_VERSION,
        }  # fmt: skip
        parts |= {} if request.scale is None else {"noise": request.noise, "scale": request.scale}
        pattern = r".+-[a-z]+[0-9.e+-]+-seed\d+-([0-9a-f]{8})"
    else:
        study = study_of(request)
        parts = {"study": study, **sums, **request.identity()}
        pattern = rf"{study}-.+-([0-9a-f]{{8}})"
    faults: Faults = [
        (None, f"identity says {name} = {stored.get(name)}, the rest of run.json {parts.get(name)}")
        for name in {**stored, **parts}
        if stored.get(name) != parts.get(name) or name not in parts
    ]
    first = judged("identity", faults, "identity, request, data and models agree in run.json")
    if faults:
        return [first, unchecked("identity digest", "the identity contradicts the rest of run.json")]
    if isinstance(request, CertifyRequest):
        try:
            own = Identity(**parts).folder_name()
        except ParameterError as error:
            return [first, unchecked("identity digest", str(error))]
    else:
        own = StudyIdentity(parts.pop("study"), "", parts).folder_name()
    own, named = own.rpartition("-")[2], re.fullmatch(pattern, run.folder.resolve().name)
    if named and named[1] != own:
        faults = [(None, f"the folder is named {named[1]}, its identity gives {own}")]
    where = "as in the folder's name" if named else "the folder's name was chosen and holds none"
    return [first, judged("identity digest", faults, f"{own}; {where}")]


def _check_data(run: Run, reloaded: Reloaded) -> CheckResult:
    """Is the data set the one that was certified, and are its inputs as large as radii take them to be?"""
    check, data, stored = "data checksum", reloaded.dataset, run.description["data"]
    if data is None:
        return unchecked(check, f"the data set cannot be loaded: {reloaded.problems['data']}")
    claims = {
        "checksum": data.checksum, "inputs": len(data),
        "input_range": None if data.input_range is None else list(data.input_range),
    }  # fmt: skip
    faults: Faults = [
        (None, f"{name} of {data.name} is {str(value)[:70]}, run.json says {str(stored.get(name))[:70]}")
        for name, value in claims.items()
        if stored.get(name) != value
    ]
    if stored.get("class_names") != list(data.class_names):  # labels of a private file, maybe
        faults.append((None, f"class_names of {data.name} are not those that run.json says"))
    if run.description["identity"].get("data_checksum") != data.checksum:
        faults.append((None, f"{data.name} has the checksum {data.checksum[:12]}..., the identity another"))
    request = run.request
    if isinstance(request, CertifyRequest | Population) and request.smoothing.needs_dimension:
        told, own = request.dimension, dimension_of(request, data)
        if told != own:
            faults.append((None, f"inputs of {data.name} have the dimension {own}, run.json says {told}"))
    return judged(check, faults, f"{data.name}, {len(data):,} inputs: {data.checksum[:12]}...")


def _check_models(description: dict[str, Any], reloaded: Reloaded) -> Iterator[CheckResult]:
    """Have the models the weights, code and normalisation that the run recorded?"""
    for role in ROLES:
        check, stored = f"{role} model checksum", description["models"].get(role)
        model = reloaded.models.get(role)
        if stored is None and role == "standard":
            yield CheckResult(check, Outcome.HOLDS, "the run was made without one")
        elif not isinstance(stored, dict):
            yield CheckResult(check, Outcome.FAILS, f"run.json names no {role} model")
        elif model is None:
            yield unchecked(check, f"{stored.get('name')} cannot be loaded: {reloaded.problems[role]}")
        else:
            claims = [str(stored.get("checksum"))]
            if role == "robust":
                claims.append(str(description["identity"].get("robust_checksum")))
            wrong = f"{model.name} is not the model of the run: "
            faults: Faults = [
                (None, wrong + told_changes({**stored, "checksum": claim}, model))
                for claim in dict.fromkeys(claims)
                if claim != model.checksum
            ]
            if model.doubt and not faults:
                same = f"{model.name} has the checksum of the run, which does not vouch for it"
                yield unchecked(check, f"{same}: {model.doubt}")
            else:
                yield judged(check, faults, f"{model.name}: {model.checksum[:12]}...")


def _check_answers(run: Run, reloaded: Reloaded, device: torch.device) -> Iterator[CheckResult]:
    """Do the models give the logits that the run keeps, of the fixed inputs and of all its inputs?"""
    data = reloaded.dataset
    for role in ROLES:
        model, stored = reloaded.models.get(role), run.description["models"].get(role)
        if not isinstance(stored, dict):
            continue
        if model is None or model.checksum != stored.get("checksum"):
            yield unchecked(f"{role} model logits", "the model is another, or cannot be loaded")
        elif data is None or data.checksum != run.description["data"].get("checksum"):
            yield unchecked(f"{role} model logits", "the data set is another, or cannot be loaded")
        else:
            with closing(opened(run.folder, data.classes)) as store:
                yield _answers(store, role, model, data, device)


def behaviour(folder: Path, loaded: Loaded, device: torch.device) -> list[CheckResult]:
    """Check the logits of data and models that are loaded, of those among them that a run knows."""
    data = loaded.dataset
    with closing(opened(folder, data.classes)) as store:
        return [
            _answers(store, role, model, data, device)
            for role, model in loaded.models.items()
            if model is not None and store.get(key_of(model)) is not None
        ]


def _answers(store: Store, role: str, model: LoadedModel, data: Dataset, device: torch.device) -> CheckResult:
    check = f"{role} model logits"
    try:
        told = differs(store, role, model, data, device)
    except CertmixError as error:
        return unchecked(check, str(error))
    faults: Faults = [(None, f"{model.name} is not the model of the run: {told}")] if told else []
    return judged(check, faults, f"{model.name} gives the logits that the run keeps")


# Can the stored numbers have come about, and is the failure probability spent once only?


def check_numbers(run: Run, data: Dataset | None) -> list[CheckResult]:
    """Return the checks of what is stored; `data` None where the data set cannot be loaded."""
    request = run.request
    if isinstance(request, Population):
        return check_draws(run, request, data)
    if isinstance(request, CertifyRequest):
        *inputs, noise = _check_inputs(run, request, data)
        # Selection and estimation samples have different keys, and no sample's number leaves its 32 bits.
        most = max((look for look, held in run.records.votes.items() if len(held.rows)), default=0)
        some = int(run.records.indices[0]) if len(run.records) else 0
        keys = {NoiseKey(request.seed, some, stream).words for stream in STREAMS}
        shared = len(keys) < len(STREAMS) or max(most, request.selection_samples) > 2**32
        twice: Faults = [(some, f"input {some}: selection and estimation share noise")] * shared
        answers = Answers.of(run.standard)
        table = answers.vectors if len(answers) else np.zeros((0, run.classes))
        good = (table >= 0).all(1) & (np.abs(table.sum(1) - 1) <= ROUNDING)
        odd: Faults = [
            (index, f"input {index}: outputs of the standard model are not probabilities")
            for index in answers.indices[~good].tolist()
        ]
        return [
            *inputs, _check_design(run, request),
            judged("separate samples", twice, "selection and estimation have streams of noise of their own"),
            noise, _check_budget(run, request),
            judged("standard outputs", odd, f"{len(run.standard):,} outputs are probabilities"),
        ]  # fmt: skip
    faults: Faults = [
        (index, f"input {index}: {cell} are not {run.classes} finite numbers")
        for cell, rows in run.cells.items()
        if "logits" in cell
        for index, values in rows.items()
        if values.shape != (run.classes,) or not np.isfinite(values).all()
    ]
    if isinstance(request, Enumerated):
        held, most = run.cells.get(request.cell, {}), run.classes * LEVELS
        wrong = [i for i, told in held.items() if not np.isin(told, np.arange(most)).all()]
        faults += [(i, f"input {i}: an answer that no class can give") for i in wrong]
        return [judged("answers", faults, f"{len(held):,} inputs have answers to all of their cases")]
    return [judged("logits", faults, f"{len(run.cells.get(ROBUST, {})):,} inputs have finite logits")]


def _check_inputs(run: Run, request: CertifyRequest, data: Dataset | None) -> Iterator[CheckResult]:
    """Is every input what the data set holds?  Can its counts have come about, at the looks?"""
    records = run.records
    stored, many = run.description.get("noise"), f"{len(records):,}"
    coordinates: Any = stored.get("coordinates") if isinstance(stored, dict) else None
    eps = noise_error(request.smoothing, coordinates) if is_whole(coordinates) else 0.0
    averaged, kind = BOUNDS[request.bound].averaged, request.smoothing
    # Of noise that replaces values nothing is rounded.
    grid = None if kind.entry.law is None else Grid.of(kind, None if data is None else data.scale)
    fixed = int(run.meta.get("fixed_samples", 0))
    first = ", ".join(str(look(k)) for k in range(3))
    good = {
        "labels": f"{many} labels are those of the data set",
        "input checksums": f"{many} inputs are those that were sampled",
        "counts": f"counts of {many} inputs add up and grow",
        "look schedule": f"{first}, ...: all looks lie on it",
        "noise": f"bounds allow for eps = {eps:.3g} of the noise, radii for the grid",
    }
    faults: dict[str, Faults] = {check: [] for check in good}

    def wrong(check: str, row: int, text: str) -> None:
        faults[check].append((index := int(records.indices[row]), f"input {index}{text}"))

    if is_whole(coordinates):
        faults["noise"] += other_noise(run, request)
    for row, fault in impossible(records, request, run.classes):
        wrong("counts", row, f": {fault}")
    for row, text in _off_schedule(records, fixed):
        wrong("look schedule", row, text)
    # Bounds must give away the noise's distance from what is meant, radii the input's from the grid.
    error, batch = records.noise_error, records.places
    for row in np.flatnonzero(~(error >= eps) | (batch < 1)).tolist():
        wrong("noise", row, f": its bounds allow for {error[row]:g}, the noise's error is {eps:g}")
    for row in np.flatnonzero((batch > 1) & (not averaged)).tolist():
        told = f"bound {request.bound} does not hold over {batch[row]} places of a batch"
        wrong("noise", row, f": {told}")
    places = [] if data is None else places_of(np.asarray(data.indices), records.indices).tolist()
    for row, place in enumerate(places):
        assert data is not None
        if place < 0:
            wrong("labels", row, " is stored, but not in the data set")
            continue
        label, values = data.labels[place], np.ascontiguousarray(data.read(place))
        if label != records.labels[row]:
            wrong("labels", row, f" has label {label}, the run says {records.labels[row]}")
        if digest_of(values.tobytes()) != records.checksum_of(row):
            wrong("input checksums", row, " is not what the run stored a checksum of")
        if values.size != coordinates:
            wrong("noise", row, f" has {values.size:,} values, run.json says otherwise")
        elif grid is not None and not grid.is_within(values, lost := float(records.lost[row])):
            wrong("noise", row, f" is {grid.nearest(values).lost:g} from the grid, its radii lose {lost:g}")
    for check, text in good.items():
        if data is None and check in ("labels", "input checksums"):
            yield unchecked(check, "the data set cannot be loaded")
        elif check == "noise" and not is_whole(coordinates):
            yield CheckResult(check, Outcome.FAILS, "run.json does not say which noise was drawn")
        else:
            yield judged(check, faults[check], text)


def _off_schedule(records: Records, fixed: int) -> Iterator[tuple[int, str]]:
    """Yield (row, what is wrong) of inputs that were looked at elsewhere than at the schedule's looks, to the
    last of theirs, and at the fixed size; or not at one of them."""
    due = looks(max(records.votes, default=0))
    extra, lacking = (np.zeros(len(records), np.int64) for _ in range(2))
    for n in sorted({*due, *records.votes}, reverse=True):
        has = having(records.votes, n, len(records))
        if n in due:
            lacking[(records.drawn >= n) & ~has] = n
        elif n != fixed:
            extra[has] = n
    for row in np.flatnonzero(extra + lacking).tolist():
        if extra[row]:
            yield row, f" was looked at after {extra[row]} samples, which is no look"
        else:
            yield row, f" lacks its look at {lacking[row]} samples"


def _check_design(run: Run, request: CertifyRequest) -> CheckResult:
    """A fixed-size bound speaks of the one number of samples that was settled before sampling."""
    fixed, first, delta = (run.meta.get(name) for name in ("fixed_samples", "bound", "failure_probability"))
    faults: Faults = []
    if request.goal == "fixed" and str(request.samples) != fixed:
        planned = fixed or "sequential looks"
        faults.append((None, f"a bound of fixed size {request.samples}, the run was planned for {planned}"))
    if first is None:
        faults.append((None, "the database does not say which bound the run began with"))
    changed = [request.bound] if request.bound != first else []
    if delta is not None and str(request.of_one_input) != delta:
        changed.append(str(request.of_one_input))
    note = f"; tables by {', '.join(changed)} are valid if not chosen by results" if changed else ""
    size = f"fixed size {fixed}" if fixed else "sequential looks"
    return judged("fixed design", faults, f"planned with {size}, bound {first}{note}")


def _check_budget(run: Run, request: CertifyRequest) -> CheckResult:
    """The parts that p, q and all looks may spend add up to the failure probability at most."""
    stored, check = run.description.get("failure_budget"), "failure budget"
    if not isinstance(stored, dict) or not isinstance(stored.get("split"), dict):
        return CheckResult(check, Outcome.FAILS, "run.json says nothing of how it is spent")
    name = request.bound_at(request.gate)
    bound, delta = BOUNDS[name], request.of_one_input
    if bound.distribution:
        each = delta / 2 / (2 if run.classes > 2 else 1)
        parts = {"own": delta / 2, "each rival": each, "rest": each}
    else:
        parts = {part: delta / len(bound.parts) for part in bound.parts}
    schedule = None if request.goal == "fixed" else "certmix.sampling.schedule"
    claims: dict[str, Any] = {"failure_probability": delta, "bound": name, "looks": schedule}
    faults: Faults = [
        (None, f"the budget says {name} = {stored.get(name)}, the request {value}")
        for name, value in claims.items()
        if stored.get(name) != value
    ]
    halves = {"p": delta / 2, "q": delta / 2}
    others = {f"gate {g:g}": {"bound": request.bound_at(g), "split": halves} for g in request.gates[1:] if g}
    told = stored.get("other_rows")
    told = {gate: one for gate, one in told.items() if gate != "gate 0"} if isinstance(told, dict) else None
    if told != others:
        faults.append((None, f"rows behind other gates have {told}, they should have {others}"))
    if stored["split"] != parts:
        faults.append((None, f"it is split as {stored['split']}, {name} splits it as {parts}"))
    spent = sum(value for name, value in parts.items() if name != "rest" or run.classes > 2)
    if spent > delta * (1 + 1e-12):
        faults.append((None, f"the parts add up to {spent}, more than {delta}"))
    shares = sum(Fraction(share(k)) for k in range(len(looks(10**9))))
    if schedule and not bound.time_uniform and shares > 1:
        faults.append((None, f"the looks' shares add up to {float(shares)}"))
    written = " + ".join(f"{value:g} ({name})" for name, value in parts.items())
    over = f", looks to 10^9 samples spend {float(shares):.6f} of it" if schedule else ""
    return judged(check, faults, f"{delta:g} = {written}{over}")
