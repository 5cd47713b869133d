"""Is a run about the data and the models that it names, and does its description agree with itself?"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from certmix.certification.deterministic_request import DeterministicRequest
from certmix.certification.request import CertifyRequest
from certmix.errors import CertmixError
from certmix.models.spec import LoadedModel
from certmix.runs import Identity, Store
from certmix.runs.behaviour import differs, logits_key, told_changes
from certmix.runs.folder import DATABASE
from certmix.runs.identity import NOISE_VERSION
from certmix.runs.sources import Loaded
from certmix.types import Dataset
from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.rederivation.published import Published
from certmix.verification.rederivation.reload import ROLES, Reloaded, standard_checksum

__all__ = [
    "MODEL_CHECKS", "Faults", "certified_data", "check_answers", "check_behaviour", "check_data",
    "check_identity", "check_inputs", "check_models", "judged", "name_faults", "unchecked",
]  # fmt: skip


MODEL_CHECKS = tuple(f"{role} model {what}" for role in ROLES for what in ("checksum", "logits"))
"""Checks that fail where a model is not the one that a run was made with."""

Faults = list[tuple[int | None, str]]
"""What is wrong: the image concerned or None, and a sentence."""


def judged(check: str, faults: Iterable[tuple[int | None, str]], good: str) -> CheckResult:
    """Return HOLDS with `good`, or FAILS with the first of the faults and all images concerned."""
    found = list(faults)
    if not found:
        return CheckResult(check, Outcome.HOLDS, good)
    more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
    images = dict.fromkeys(image for image, _ in found if image is not None)
    return CheckResult.about(check, Outcome.FAILS, f"{found[0][1]}{more}", images)


def unchecked(check: str, why: str) -> CheckResult:
    """Return UNCHECKED with the reason, in one line."""
    return CheckResult(check, Outcome.UNCHECKED, " ".join(why.split()))


def check_identity(folder: Path, description: dict[str, Any], request: CertifyRequest) -> list[CheckResult]:
    """Does the identity repeat what request, data and models say, and does the folder's name?"""
    stored = description["identity"]
    robust = description["models"].get("robust") or {}
    parts = {
        "data": description["data"].get("name"), "data_checksum": description["data"].get("checksum"),
        "robust": robust.get("name"), "robust_checksum": robust.get("checksum"), "sigma": request.sigma,
        "seed": request.seed, "selection_samples": request.selection_samples,
        "precision": request.precision, "scores": request.kept, "noise_version": NOISE_VERSION,
    }  # fmt: skip
    faults: Faults = [
        (None, f"identity says {name} = {stored.get(name)}, the rest of run.json {value}")
        for name, value in parts.items()
        if stored.get(name) != value
    ]
    faults += [
        (None, f"identity holds {name!r}, which belongs to no run") for name in stored if name not in parts
    ]
    first = judged("identity", faults, "identity, request, data and models agree in run.json")
    if faults:
        return [first, unchecked("identity digest", "the identity contradicts the rest of run.json")]
    return [first, _digest(folder, Identity(**parts).folder_name())]


def _digest(folder: Path, expected: str) -> CheckResult:
    """A folder with a run's default name must carry the digest of its identity."""
    name, own = Path(folder).resolve().name, expected.rpartition("-")[2]
    found = re.fullmatch(r".+-sigma[0-9.e+-]+-seed\d+-([0-9a-f]{8})", name)
    if found is None:
        return CheckResult(
            "identity digest", Outcome.HOLDS, f"{own}; the folder's name was chosen and holds none"
        )
    faults = [] if found[1] == own else [(None, f"the folder is named {found[1]}, its identity gives {own}")]
    return judged("identity digest", faults, f"{own}, as in the folder's name")


def certified_data(description: dict[str, Any], reloaded: Reloaded) -> Dataset | None:
    """Return the data set; None where it cannot be loaded, or is of another size: its images are others."""
    data = reloaded.dataset
    return None if data is None or len(data) != description["data"]["inputs"] else data


def check_data(description: dict[str, Any], reloaded: Reloaded) -> CheckResult:
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


def check_models(description: dict[str, Any], reloaded: Reloaded) -> list[CheckResult]:
    """Have the models the weights, code and normalisation that the run recorded?"""
    found = []
    for role in ROLES:
        check, stored = f"{role} model checksum", description["models"].get(role)
        model = reloaded.models.get(role)
        if stored is None and role == "standard":
            found.append(CheckResult(check, Outcome.HOLDS, "the run was made without one"))
        elif not isinstance(stored, dict):
            found.append(CheckResult(check, Outcome.FAILS, f"run.json names no {role} model"))
        elif model is None:
            found.append(
                unchecked(check, f"{stored.get('name')} cannot be loaded: {reloaded.problems[role]}")
            )
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
                found.append(unchecked(check, f"{same}: {model.doubt}"))
                continue
            found.append(judged(check, faults, f"{model.name}: {model.checksum[:12]}..."))
    return found


def check_answers(
    folder: Path, description: dict[str, Any], reloaded: Reloaded, device: torch.device | str
) -> list[CheckResult]:
    """Do the models give the logits that the run keeps, of the fixed inputs and of all its images?"""
    found, data = [], reloaded.dataset
    for role in ROLES:
        check, model = f"{role} model logits", reloaded.models.get(role)
        stored = description["models"].get(role)
        if not isinstance(stored, dict):
            continue
        if model is None or model.checksum != stored.get("checksum"):
            found.append(unchecked(check, "the model is another, or cannot be loaded"))
        elif data is None or data.checksum != description["data"].get("checksum"):
            found.append(unchecked(check, "the data set is another, or cannot be loaded"))
        else:
            found.append(_answers(folder, role, model, data, device))
    return found


def check_behaviour(folder: Path, loaded: Loaded, device: torch.device | str) -> list[CheckResult]:
    """Return the same of data and models that are loaded, of those among them that a run knows."""
    return [
        _answers(folder, role, model, loaded.dataset, device)
        for role, model in loaded.models.items()
        if model is not None and _knows(folder, model, loaded.dataset)
    ]


def _store(folder: Path, dataset: Dataset) -> Store:
    return Store(folder / DATABASE, dataset.classes, read_only=True)


def _knows(folder: Path, model: LoadedModel, dataset: Dataset) -> bool:
    with closing(_store(folder, dataset)) as store:
        return store.get(logits_key(model.checksum)) is not None


def _answers(
    folder: Path, role: str, model: LoadedModel, dataset: Dataset, device: torch.device | str
) -> CheckResult:
    check = f"{role} model logits"
    try:
        with closing(_store(folder, dataset)) as store:
            told = differs(store, role, model, dataset, device)
    except CertmixError as error:
        return unchecked(check, str(error))
    faults: Faults = [(None, f"{model.name} is not the model of the run: {told}")] if told else []
    return judged(check, faults, f"{model.name} gives the logits that the run keeps")


def name_faults(
    found: Published,
    asked: CertifyRequest | DeterministicRequest,
    description: dict[str, Any],
    **wanted: Any,
) -> Faults:
    """Compare what a table says of data, models and the fields in `wanted` with ``run.json``.

    The name of a standard model that is no longer the run's is not kept there, and not compared.
    """
    models, checksum = description["models"], standard_checksum(description)
    robust = models.get("robust")
    wanted |= {
        "data": description["data"].get("name"),
        "robust": robust.get("name") if isinstance(robust, dict) else None,
    }
    if found.name == asked.name(""):
        wanted["standard"] = None
    elif found.name == asked.name(checksum):
        wanted["standard"] = models["standard"].get("name")
    return [
        (None, f"results/{found.name}: {name} = {getattr(found.summary, name)}, the run's is {value}")
        for name, value in wanted.items()
        if getattr(found.summary, name) != value
    ]


def check_inputs(
    labels: Mapping[int, int], checksums: Mapping[int, str], dataset: Dataset | None
) -> list[CheckResult]:
    """Is every stored image what the data set holds under its index, with its label?"""
    if dataset is None:
        return [unchecked(name, "the data set cannot be loaded") for name in ("labels", "input checksums")]
    places = {int(index): place for place, index in enumerate(dataset.indices)}
    known = [index for index in labels if index in places]
    wrong: Faults = [
        (index, f"image {index} has label {dataset.labels[places[index]]}, the run says {labels[index]}")
        for index in known
        if dataset.labels[places[index]] != labels[index]
    ]
    found = [judged("labels", wrong, f"{len(known):,} labels are those of the data set")]
    if checksums:
        changed: Faults = [
            (index, f"image {index} is not what the run stored a checksum of")
            for index in known
            if _checksum(dataset, places[index]) != checksums[index]
        ]
        found.append(judged("input checksums", changed, f"{len(known):,} inputs are those that were sampled"))
    return found


def _checksum(dataset: Dataset, place: int) -> str:
    return hashlib.sha256(np.ascontiguousarray(dataset.read(place)).tobytes()).hexdigest()
