"""What a run claims: classes and radii of its images, as it stores and publishes them.  No torch."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification.bounding import bound_records, radii_of
from certmix.certification.deterministic_request import DETERMINISTIC
from certmix.certification.stored_run import LOG, open_sampled
from certmix.data import spread
from certmix.errors import DataError, ParameterError, RunError
from certmix.radii import CERTIFICATES
from certmix.runs import read_run
from certmix.runs.folder import DESCRIPTION
from certmix.runs.formats import read_log
from certmix.verification.falsification.request import FalsifyRequest

__all__ = ["Claim", "Claims", "read_claims"]


@dataclass(frozen=True)
class Claim:
    """One image's certificate: the mix predicts `predicted` within `radius`, whatever g is.

    ``input_checksum`` is that of the image's float32 bytes, empty where the run keeps none.
    """

    index: int
    predicted: int
    radius: float
    input_checksum: str = ""


@dataclass(frozen=True)
class Claims:
    """The certificates of a run that are attacked, and what they are about.

    Parameters
    ----------
    certificate, alpha, norm
        Of the radii.
    sigma
        Noise level; None where h is the network as it is.
    scores, temperature, precision
        What is averaged over noise, and the arithmetic, as in `CertifyRequest`.
    failure_probability
        Of one certificate; 0 where nothing is random.
    seed
        The run's.
    clipped
        Whether the balls are cut to the input range.
    looked_at
        Images that the certified ones are taken from.
    claims
        Those with a radius > 0.
    run
        ``run.json``; empty for claims that no run made.
    """

    certificate: str
    alpha: float
    norm: str
    sigma: float | None
    failure_probability: float
    looked_at: int
    claims: tuple[Claim, ...]
    scores: str = "hard"
    temperature: float = 1.0
    precision: str = "fp32"
    seed: int = 0
    clipped: bool = False
    run: dict[str, Any] | None = None


def read_claims(folder: str | Path, request: FalsifyRequest) -> Claims:
    """Return the certificates of a run, of the images that a request looks at.

    The images are spread evenly over the run's own, by index: the choice does
    not depend on what was certified.

    Raises
    ------
    RunError
        If the run cannot be read, or its radii cannot.
    ParameterError
        If the run holds no radii of this certificate or alpha.
    """
    if Path(folder).is_file():
        raise RunError(
            f"{folder} is a file: name the folder of a run of certmix certify, whose model is attacked; "
            "a log alone is checked by certmix audit"
        )
    described = read_run(Path(folder))
    studies = {f"certify-{name}": name for name in DETERMINISTIC}
    study = described["identity"].get("study", "certify") if "identity" in described else "certify"
    if study in studies:
        return _deterministic(Path(folder), described, studies[study], request)
    return _sampled(Path(folder), described, request)


def _sampled(folder: Path, described: dict[str, Any], request: FalsifyRequest) -> Claims:
    """Radii from the run's counts, as its own table has them."""
    run = open_sampled(folder)
    own = run.request
    alpha = own.alpha if request.alpha is None else request.alpha
    certificate = request.certificate or own.certificates[0]
    if certificate not in CERTIFICATES:
        raise ParameterError(
            f"certificate {certificate}: {folder} was sampled: use one of {', '.join(CERTIFICATES)}"
        )
    replace(own, certificates=(certificate,))  # refuses what the run's bound does not allow
    chosen = [run.records[i] for i in spread(len(run.records), request.images)] if run.records else []
    radius = np.zeros(0)
    if chosen:
        bounds = bound_records(chosen, own).bounds
        radius = radii_of(bounds, sigma=own.sigma, alpha=alpha, certificate=certificate).radius
    log = _logged(folder) if alpha == 1.0 and certificate == "exact" else {}
    radii = [
        max(float(r), log.get((record.index, record.selected), 0.0))
        for record, r in zip(chosen, radius, strict=True)
    ]
    claims = tuple(
        Claim(record.index, record.selected, r, record.input_checksum)
        for record, r in zip(chosen, radii, strict=True)
        if r > 0
    )
    return Claims(
        certificate, alpha, CERTIFICATES[certificate].norm, own.sigma, own.failure_probability, len(chosen),
        claims, own.scores, own.temperature, own.precision, own.seed, run=described,
    )  # fmt: skip


def _logged(folder: Path) -> dict[tuple[int, int], float]:
    """Return the radii of the run's own log by image and class: what it says in public."""
    if not (folder / LOG).exists():
        return {}
    try:
        log = read_log(folder / LOG)
    except DataError as error:
        raise RunError(str(error)) from None
    rows = zip(log.index.tolist(), log.predict.tolist(), log.radius.tolist(), strict=True)
    return {(index, predicted): radius for index, predicted, radius in rows if predicted >= 0}


def _deterministic(
    folder: Path, described: dict[str, Any], certificate: str, request: FalsifyRequest
) -> Claims:
    """Radii from the run's published table."""
    if request.certificate not in (None, certificate):
        raise ParameterError(
            f"certificate {request.certificate}: {folder} holds {certificate}: leave --certificate out"
        )
    try:
        asked, box = described["request"], described["data"]["input_range"]
        own, norm = float(asked["alpha"]), str(asked["norm"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder}/{DESCRIPTION} lacks {error}: only complete runs can be attacked") from None
    alpha = own if request.alpha is None else request.alpha
    columns = {1.0: "radius_robust"} | ({} if own == 1.0 else {own: "radius_mixed"})
    if alpha not in columns:
        raise ParameterError(
            f"alpha = {alpha:g}: {folder} holds radii at {' and '.join(f'{a:g}' for a in sorted(columns))}: "
            f"use one of them, or repeat certmix certify with --alpha {alpha:g}"
        )
    rows = _table(folder)
    chosen = [rows[i] for i in spread(len(rows), request.images)] if rows else []
    claims = [Claim(int(r["idx"]), int(r["predict"]), float(r[columns[alpha]])) for r in chosen]
    clipped = certificate == "margin" and norm == "linf" and box is not None
    return Claims(
        certificate, alpha, norm, None, 0.0, len(chosen),
        tuple(claim for claim in claims if claim.radius > 0),
        clipped=clipped, run=described,
    )  # fmt: skip


def _table(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a run's table of radii, by index."""
    path = folder / "radii.tsv"
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return sorted(rows, key=lambda row: int(row["idx"]))
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): repeat certmix certify to write it again") from None
