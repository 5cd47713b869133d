"""All checks of a sampled run: sources, counts, and every table that it published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from certmix.certification.begun import BEGUN
from certmix.certification.request import CertifyRequest
from certmix.errors import CertmixError, RunError
from certmix.types import Dataset
from certmix.verification.checks import CheckResult
from certmix.verification.plain.bounds import SLACK
from certmix.verification.rederivation.counts import (
    check_budget,
    check_counts,
    check_design,
    check_looks,
    check_noise,
    check_separate,
)  # fmt: skip
from certmix.verification.rederivation.coverage import check_stored
from certmix.verification.rederivation.printed import check_newest
from certmix.verification.rederivation.published import Published, match_request, read_published
from certmix.verification.rederivation.reload import reload, standard_checksum
from certmix.verification.rederivation.samples_figures import check_figures
from certmix.verification.rederivation.sources import (
    certified_data,
    check_answers,
    check_data,
    check_identity,
    check_inputs,
    check_models,
    judged,
    name_faults,
    unchecked,
)  # fmt: skip
from certmix.verification.rederivation.stored import StoredRun, no_request, read_samples

__all__ = ["recheck_samples", "rederive_samples", "stored_request"]


def stored_request(run: StoredRun) -> CertifyRequest:
    """Return the request in a run's description; RunError if it is none."""
    try:
        stored = dict(run.description["request"])
        return CertifyRequest(**{**stored, **{k: tuple(stored[k]) for k in ("certificates", "radii")}})
    except (CertmixError, LookupError, TypeError, ValueError) as error:
        raise no_request(run.folder, error) from None


def rederive_samples(
    folder: Path,
    dataset: Dataset | None,
    models: Mapping[str, nn.Module] | None,
    device: torch.device | str = "cpu",
) -> list[CheckResult]:
    """Return the checks of a sampled run; see `certmix.verification.rederivation.rederive.rederive`."""
    run, published = read_samples(folder), read_published(folder)
    request = stored_request(run)
    reloaded = reload(run.description, dataset, models, device)
    requests = [match_request(found, request, run.standard)[0] for found in published]
    data = certified_data(run.description, reloaded)
    return [
        *check_identity(folder, run.description, request),
        check_data(run.description, reloaded),
        *check_models(run.description, reloaded),
        *check_answers(folder, run.description, reloaded, device),
        check_stored(run.images, data, [request, *requests], run.meta.get(BEGUN)),
        *_stored_checks(run, published, request, data),
        check_newest(folder, request.name(standard_checksum(run.description)), published),
    ]


def recheck_samples(folder: Path, dataset: Dataset | None) -> list[CheckResult]:
    """Return the checks of an interrupted sampled run that need no models."""
    run, published = read_samples(folder), read_published(folder, interrupted=True)
    return _stored_checks(run, published, stored_request(run), dataset)


def _stored_checks(
    run: StoredRun, published: list[Published], request: CertifyRequest, data: Dataset | None
) -> list[CheckResult]:
    """Return the checks of counts, and of tables against them."""
    fixed = _fixed(run)
    matched = [match_request(found, request, run.standard) for found in published]
    requests = [asked for asked, _ in matched]
    return [
        *check_inputs(
            {index: record.label for index, record in run.images.items()},
            {index: record.input_checksum for index, record in run.images.items()}, data,
        ),
        check_counts(run, request),
        check_looks(run, fixed),
        check_design(run, fixed, list(dict.fromkeys([request, *requests]))),
        check_separate(run, request),
        check_noise(run, request, data),
        check_budget(run.description, request, run.classes),
        _check_outputs(run),
        _check_requests(run, published, matched, request),
        *check_figures(run, published, requests, data),
    ]  # fmt: skip


def _fixed(run: StoredRun) -> int | None:
    text = run.meta.get("fixed_samples")
    if text is not None and not (text.isdecimal() and 0 < len(text) < 19):
        raise RunError(f"{run.folder}: fixed_samples = {text!r} in the database: restore it")
    return None if text is None else int(text)


def _check_outputs(run: StoredRun) -> CheckResult:
    """Stored outputs of standard models are probabilities."""
    faults = [
        (index, f"image {index}: outputs of the standard model are not probabilities")
        for outputs in run.standard.values()
        for index, values in outputs.items()
        if not (values.min() >= 0 and abs(values.sum() - 1) <= SLACK)
    ]
    return judged(
        "standard outputs", faults, f"{sum(map(len, run.standard.values())):,} outputs are probabilities"
    )


def _check_requests(
    run: StoredRun,
    published: list[Published],
    matched: list[tuple[CertifyRequest, bool]],
    request: CertifyRequest,
) -> CheckResult:
    """Each folder carries the digest of the request inside, which is of this run's data and models."""
    check = "published requests"
    if not published:
        return unchecked(check, "nothing was published yet")
    faults: list[tuple[int | None, str]] = []
    unknown = []
    for found, (asked, confirmed) in zip(published, matched, strict=True):
        if not confirmed and asked.goal == "radius":
            unknown.append(found.name)
        elif not confirmed:
            faults.append((None, f"results/{found.name} holds the table of another request, run or model"))
        same = {name: getattr(request, name) for name in ("sigma", "seed", "selection_samples")}
        faults += name_faults(found, asked, run.description, norm="l2", **same)
    if unknown and not faults:
        return unchecked(
            check, f"results/{unknown[0]} was made with a relative precision that is not recorded"
        )
    return judged(
        check,
        faults,
        f"{len(published)} tables carry the digests of their requests and the names in run.json; "
        "notes are not checked",
    )
