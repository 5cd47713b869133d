"""A finding as two files that anyone can check again: a point and what is said of it.  No torch."""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.archives import read_arrays
from certmix.atomic import write_atomically
from certmix.errors import DataError, RunError
from certmix.plain_json import parse_json
from certmix.verification.falsification.attack import trial_of
from certmix.verification.falsification.claims import Claims
from certmix.verification.falsification.judge import Attacked, Target
from certmix.verification.falsification.request import FalsifyRequest

__all__ = ["Finding", "read_finding", "write_finding"]

VERSION = 1


@dataclass(frozen=True)
class Finding:
    """A finding as it was written: the point, float32, and the rest as plain data."""

    path: Path
    point: NDArray[np.float32]
    said: dict[str, Any]


def write_finding(
    folder: Path, run: Path, one: Attacked, claims: Claims, request: FalsifyRequest, target: Target
) -> Path:
    """Write ``finding-IMAGE-...json`` and the ``.npz`` beside it; return the path of the first."""
    identity = (claims.run or {}).get("identity", {})
    said: dict[str, Any] = {
        "format_version": VERSION,
        "certmix": version("certmix"),
        "run": str(Path(run).resolve()),
        "data_checksum": identity.get("data_checksum"),
        "robust_checksum": identity.get("robust_checksum"),
        "image": one.claim.index,
        "predicted": one.claim.predicted,
        "certificate": claims.certificate,
        "alpha": claims.alpha,
        "norm": claims.norm,
        "sigma": claims.sigma,
        "certificate_failure_probability": claims.failure_probability,
        "certified_radius": one.claim.radius if math.isfinite(one.claim.radius) else None,
        "distance": one.distance,
        "worst_standard_classifier": {"one_hot": one.rival},
        "threshold": one.threshold,
        "margin": one.margin,
        "margin_upper": one.upper,
        "samples": one.samples,
        "votes": None if one.counts is None else one.counts.tolist(),
        "request": request.as_dict(),
        "device": target.device.type,
    }
    if claims.sigma is not None:
        trial = trial_of(claims, request)
        said |= {"failure_probability": trial.failure_probability, "noise_seed": trial.seed}
    buffer = io.BytesIO()
    np.savez(buffer, point=one.point)
    said["point_checksum"] = _checksum(one.point)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"finding-{one.claim.index}-{claims.certificate}-alpha{claims.alpha:g}-seed{request.seed}"
    write_atomically(folder / f"{name}.npz", buffer.getvalue())
    write_atomically(folder / f"{name}.json", (json.dumps(said, indent=2, allow_nan=False) + "\n").encode())
    return folder / f"{name}.json"


def read_finding(path: str | Path) -> Finding:
    """Read a finding by either of its files.

    Raises
    ------
    RunError, DataError
        If a file is missing, of another kind or a newer version, or the point is not the one described.
    """
    path = Path(path).with_suffix(".json")
    try:
        said = parse_json(path.read_bytes())
        newest, checksum = int(said["format_version"]), str(said["point_checksum"])
        rival = int(said["worst_standard_classifier"]["one_hot"])
        complete = {"run", "image", "predicted", "alpha", "certificate", "robust_checksum"} <= set(said)
        if said["sigma"] is not None:
            complete &= {"samples", "failure_probability", "noise_seed", "votes", "device"} <= set(said)
        if not complete or rival < 0:
            raise ValueError("what it is about is missing")
    except (OSError, ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} is no finding ({_one_line(error)}): name the .json of certmix falsify"
        ) from None
    if newest > VERSION:
        raise RunError(f"{path}: format version {newest}, this certmix reads up to {VERSION}: update certmix")
    points = path.with_suffix(".npz")
    try:
        with points.open("rb") as file:
            point = np.asarray(read_arrays(file, ["point"])[0]["point"], np.float32)
    except Exception as error:  # damaged archives raise errors of many kinds
        raise DataError(f"{points} holds no point ({_one_line(error)}): restore it") from None
    if _checksum(point) != checksum:
        raise DataError(f"{points} is not the point that {path.name} describes: restore both")
    return Finding(path, point, said)


def _checksum(point: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(point).tobytes()).hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())
