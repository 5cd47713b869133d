"""All checks of a run without samples: sources, logits, radii, and every table that it published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from certmix.certification.deterministic import STUDIES
from certmix.certification.deterministic_request import DeterministicRequest
from certmix.errors import CertmixError
from certmix.runs import StudyIdentity
from certmix.runs.settings import settings
from certmix.types import Dataset
from certmix.verification.checks import CheckResult
from certmix.verification.rederivation.coverage import check_stored
from certmix.verification.rederivation.printed import check_newest
from certmix.verification.rederivation.published import Published, read_published
from certmix.verification.rederivation.reload import reload, standard_checksum
from certmix.verification.rederivation.sources import (
    Faults,
    certified_data,
    check_answers,
    check_data,
    check_models,
    judged,
    name_faults,
    unchecked,
)  # fmt: skip
from certmix.verification.rederivation.stored import StoredVectors, no_request, read_vectors
from certmix.verification.rederivation.vector_claims import RadiiRow, match_claim, read_radii
from certmix.verification.rederivation.vectors_figures import check_figures, standard_checksums

__all__ = ["recheck_vectors", "rederive_vectors", "vector_request"]


def vector_request(run: StoredVectors) -> DeterministicRequest:
    """Return the request in a run's description; RunError if it is none."""
    try:
        return settings(DeterministicRequest, run.description["request"])
    except (CertmixError, TypeError, ValueError) as error:
        raise no_request(run.folder, error) from None


def rederive_vectors(
    folder: Path,
    dataset: Dataset | None,
    models: Mapping[str, nn.Module] | None,
    device: torch.device | str = "cpu",
) -> list[CheckResult]:
    """Return the checks of a run without samples; see `rederive`."""
    run, published = read_vectors(folder), read_published(folder)
    request = vector_request(run)
    reloaded = reload(run.description, dataset, models, device)
    data = certified_data(run.description, reloaded)
    stored = (index for rows in run.cells.values() for index in rows)
    asked = [match_claim(found, request, standard_checksums(run))[0] for found in published]
    return [
        *_check_identity(run, request),
        check_data(run.description, reloaded),
        *check_models(run.description, reloaded),
        *check_answers(folder, run.description, reloaded, device),
        check_stored(stored, data, [request, *asked], run.begun),
        *_stored_checks(run, published, request, data),
        check_newest(folder, request.name(standard_checksum(run.description)), published),
    ]


def recheck_vectors(folder: Path, dataset: Dataset | None) -> list[CheckResult]:
    """Return the checks of an interrupted run without samples that need no models."""
    run, published = read_vectors(folder), read_published(folder, interrupted=True)
    return _stored_checks(run, published, vector_request(run), dataset)


def _stored_checks(
    run: StoredVectors, published: list[Published], request: DeterministicRequest, data: Dataset | None
) -> list[CheckResult]:
    """Return the checks of logits, and of tables against them."""
    claims = [match_claim(found, request, standard_checksums(run)) for found in published]
    logs = [read_radii(found.folder) for found in published]
    return [
        _check_labels(published, logs, data),
        _check_logits(run),
        _check_requests(run, request, published, claims),
        *check_figures(run, published, claims, logs, data),
    ]


def _check_labels(
    published: list[Published], logs: list[list[RadiiRow]], dataset: Dataset | None
) -> CheckResult:
    """Every label in every log is that of the data set."""
    if dataset is None:
        return unchecked("labels", "the data set cannot be loaded")
    known = dict(zip(dataset.indices.tolist(), dataset.labels.tolist(), strict=True))
    faults: Faults = [
        (
            row.index,
            f"image {row.index} has label {known.get(row.index)}, results/{found.name} says {row.label}",
        )
        for found, log in zip(published, logs, strict=True)
        for row in log
        if known.get(row.index) != row.label
    ]
    return judged("labels", faults, f"{sum(map(len, logs)):,} labels are those of the data set")


def _check_identity(run: StoredVectors, request: DeterministicRequest) -> list[CheckResult]:
    stored = run.description["identity"]
    robust = run.description["models"].get("robust") or {}
    study = next(study for study, name in STUDIES.items() if name == request.certificate)
    parts = {
        "study": study, "data_checksum": run.description["data"].get("checksum"),
        "robust_checksum": robust.get("checksum"), **request.identity(),
    }  # fmt: skip
    faults: Faults = [
        (None, f"identity says {name} = {stored.get(name)}, the rest of run.json {parts.get(name)}")
        for name in {**stored, **parts}
        if stored.get(name) != parts.get(name)
    ]
    first = judged("identity", faults, "identity, request, data and models agree in run.json")
    inner = {name: value for name, value in parts.items() if name != "study"}
    own = StudyIdentity(study, "", inner).folder_name().rpartition("-")[2]
    named = re.fullmatch(rf"{study}-.+-([0-9a-f]{{8}})", run.folder.resolve().name)
    wrong: Faults = (
        [(None, f"the folder is named {named[1]}, its identity gives {own}")]
        if named and named[1] != own
        else []
    )
    return [
        first,
        judged("identity digest", wrong, f"{own}; {'as in' if named else 'not in'} the folder's name"),
    ]


def _check_logits(run: StoredVectors) -> CheckResult:
    faults: Faults = [
        (index, f"image {index}: {cell} are not {run.classes} finite numbers")
        for cell, rows in run.cells.items()
        if "logits" in cell
        for index, values in rows.items()
        if values.shape != (run.classes,) or not np.isfinite(values).all()
    ]
    return judged("logits", faults, f"{len(run.cells.get('robust logits', {})):,} images have finite logits")


def _check_requests(
    run: StoredVectors,
    request: DeterministicRequest,
    published: list[Published],
    claims: list[tuple[DeterministicRequest, bool]],
) -> CheckResult:
    if not published:
        return unchecked("published requests", "nothing was published yet")
    faults: Faults = [
        (None, f"results/{found.name} holds the table of another request, run or model")
        for found, (_, confirmed) in zip(published, claims, strict=True)
        if not confirmed
    ]
    for found, (asked, _) in zip(published, claims, strict=True):
        norm = request.norm if request.certificate == "margin" else asked.norm
        bound = request.bound_method if request.certificate == "margin" else None
        fields = {"norm": norm, "bound": bound, "sigma": None, "failure_probability": None}
        faults += name_faults(found, asked, run.description, **fields)
    return judged(
        "published requests", faults,
        f"{len(published)} tables carry the digests of their requests and the names in run.json",
    )  # fmt: skip
