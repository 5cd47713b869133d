"""Deriving again what a run says: from its request, its numbers and its data, by a second implementation.

Nothing printed is read: every bound, radius and figure is computed from the
stored numbers by `certmix.verification.plain`, and what the product derives of
the same numbers is held against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from certmix.certification.proved import STUDIES as PROVED
from certmix.certification.request import CertifyRequest
from certmix.errors import CertmixError
from certmix.models.spec import LoadedModel
from certmix.runs import Identity, StudyIdentity, read_run
from certmix.runs.behaviour import differs, logits_key, told_changes
from certmix.runs.identity import NOISE_VERSION
from certmix.runs.sources import Loaded
from certmix.sampling import resolve_device
from certmix.types import Dataset
from certmix.verification.checks import CheckResult, Faults, Outcome, judged, unchecked
from certmix.verification.figures import check_figures
from certmix.verification.numbers import check_numbers
from certmix.verification.stored import ROLES, Reloaded, Run, load, opened, reload

MODEL_CHECKS = tuple(f"{role} model {what}" for role in ROLES for what in ("checksum", "logits"))
"""Checks that fail where a model is not the one that a run was made with."""


def rederive(
    run: Path,
    *,
    dataset: Dataset | None = None,
    models: Mapping[str, nn.Module] | None = None,
    device: str = "cpu",
) -> list[CheckResult]:
    """Check a run folder against its data, its models and its own numbers, without sampling anything.

    Every bound, radius and figure is computed again by
    `certmix.verification.plain`, which shares no bound or radius code with the
    run.  The rule that says when sampling stops, and the keys of the noise,
    are the run's own.

    Parameters
    ----------
    run
        Folder of a run of ``certmix certify``, sampled or not.  It is only read.
    dataset, models
        The data set, and modules by role (``robust``, ``standard``), of a run
        made from Python objects; None loads what ``run.json`` names.
    device
        Where the models' logits are computed again.

    Returns
    -------
    list[CheckResult]
        One a check, under names that do not change between runs.  UNCHECKED
        where something that is needed cannot be loaded, or is not there yet.

    Raises
    ------
    RunError
        If the folder cannot be read, or is of another study.
    """
    chosen, loaded = resolve_device(device), load(Path(run))
    reloaded = reload(loaded.description, dataset, models, chosen)
    data = reloaded.dataset
    if data is not None and len(data) != loaded.description["data"]["inputs"]:
        data = None  # its images are others
    return [
        *_check_identity(loaded),
        _check_data(loaded.description, reloaded),
        *_check_models(loaded.description, reloaded),
        *_check_answers(loaded, reloaded, chosen),
        *check_numbers(loaded, data),
        *check_figures(loaded, data),
    ]


def recheck(run: Path, dataset: Dataset) -> list[CheckResult]:
    """Check what an interrupted run holds, or one of other models, before it is continued.

    These are the checks of `rederive` that need no models.  Which images there
    are is not among them: an interrupted run may lack some.

    Raises
    ------
    RunError
        If the folder cannot be read, or is of another study.
    """
    if "request" not in read_run(Path(run)):
        return []  # it was stopped before its first image
    loaded = load(Path(run))
    found = [*check_numbers(loaded, dataset), *check_figures(loaded, dataset)]
    return [one for one in found if one.check != "images"]


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
        pattern = r".+-sigma[0-9.e+-]+-seed\d+-([0-9a-f]{8})"
    else:
        study = next(study for study, name in PROVED.items() if name == request.certificate)
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
        own = Identity(**parts).folder_name()
    else:
        own = StudyIdentity(parts.pop("study"), "", parts).folder_name()
    own, named = own.rpartition("-")[2], re.fullmatch(pattern, run.folder.resolve().name)
    wrong: Faults = (
        [(None, f"the folder is named {named[1]}, its identity gives {own}")]
        if named and named[1] != own
        else []
    )
    where = "as in the folder's name" if named else "the folder's name was chosen and holds none"
    return [first, judged("identity digest", wrong, f"{own}; {where}")]


def _check_data(description: dict[str, Any], reloaded: Reloaded) -> CheckResult:
    """Is the data set the one that was certified?"""
    check, data, stored = "data checksum", reloaded.dataset, description["data"]
    if data is None:
        return unchecked(check, f"the data set cannot be loaded: {reloaded.problems['data']}")
    claims = {
        "checksum": data.checksum, "inputs": len(data), "class_names": list(data.class_names),
        "input_range": None if data.input_range is None else list(data.input_range),
    }  # fmt: skip
    faults: Faults = [
        (None, f"{name} of {data.name} is {str(value)[:70]}, run.json says {str(stored.get(name))[:70]}")
        for name, value in claims.items()
        if stored.get(name) != value
    ]
    if description["identity"].get("data_checksum") != data.checksum:
        faults.append((None, f"{data.name} has the checksum {data.checksum[:12]}..., the identity another"))
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
            faults: Faults = [
                (
                    None,
                    f"{model.name} is not the model of the run: "
                    + told_changes({**stored, "checksum": claim}, model),
                )
                for claim in dict.fromkeys(claims)
                if claim != model.checksum
            ]
            if model.doubt and not faults:
                same = f"{model.name} has the checksum of the run, which does not vouch for it"
                yield unchecked(check, f"{same}: {model.doubt}")
            else:
                yield judged(check, faults, f"{model.name}: {model.checksum[:12]}...")


def _check_answers(run: Run, reloaded: Reloaded, device: torch.device) -> Iterator[CheckResult]:
    """Do the models give the logits that the run keeps, of the fixed inputs and of all its images?"""
    data = reloaded.dataset
    for role in ROLES:
        check, model = f"{role} model logits", reloaded.models.get(role)
        stored = run.description["models"].get(role)
        if not isinstance(stored, dict):
            continue
        if model is None or model.checksum != stored.get("checksum"):
            yield unchecked(check, "the model is another, or cannot be loaded")
        elif data is None or data.checksum != run.description["data"].get("checksum"):
            yield unchecked(check, "the data set is another, or cannot be loaded")
        else:
            yield _answers(run.folder, role, model, data, device)


def behaviour(folder: Path, loaded: Loaded, device: torch.device) -> list[CheckResult]:
    """Return the same of data and models that are loaded, of those among them that a run knows."""
    found = []
    for role, model in loaded.models.items():
        if model is None:
            continue
        with closing(opened(folder, loaded.dataset.classes)) as store:
            known = store.get(logits_key(model.checksum)) is not None
        if known:
            found.append(_answers(folder, role, model, loaded.dataset, device))
    return found


def _answers(folder: Path, role: str, model: LoadedModel, data: Dataset, device: torch.device) -> CheckResult:
    check = f"{role} model logits"
    try:
        with closing(opened(folder, data.classes)) as store:
            told = differs(store, role, model, data, device)
    except CertmixError as error:
        return unchecked(check, str(error))
    faults: Faults = [(None, f"{model.name} is not the model of the run: {told}")] if told else []
    return judged(check, faults, f"{model.name} gives the logits that the run keeps")
