"""A finding as two files that anyone can check again: a point and what is said of it.  No torch."""

from __future__ import annotations

import io
import json
import math
import re
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from certmix.errors import DataError, RunError
from certmix.files import digest_of, parse_json, read_arrays, write_atomically
from certmix.verification.falsify.attack import Attacked, Claims, Target, trial_of
from certmix.verification.request import FalsifyRequest

VERSION = 1
_Whole = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Rival(Struct, frozen=True):
    """The class of the worst g."""

    one_hot: _Whole


class Said(Struct, frozen=True, kw_only=True):
    """What any finding says, for a replay to go by."""

    run: str
    image: _Whole
    predicted: _Whole
    certificate: str
    alpha: Annotated[float, Meta(ge=0.5, le=1)]
    sigma: float | None
    robust_checksum: str | None
    point_checksum: str
    worst_standard_classifier: Rival


class Sampled(Said, frozen=True, kw_only=True):
    """What it says besides where h is smoothed by noise."""

    samples: _Whole
    failure_probability: float
    noise_seed: _Whole
    votes: tuple[_Whole, ...] | None
    device: str


class Finding(NamedTuple):
    """A finding as it was written: the point, float32, and what a replay goes by."""

    path: Path
    point: NDArray[np.float32]
    said: Said


def write_finding(
    folder: Path, run: Path, one: Attacked, claims: Claims, request: FalsifyRequest, target: Target
) -> Path:
    """Write ``finding-IMAGE-...json`` and the ``.npz`` beside it; return the path of the first."""
    identity = (claims.run or {}).get("identity", {})
    claim = one.claim
    said: dict[str, Any] = {
        "format_version": VERSION, "certmix": version("certmix"), "run": str(Path(run).resolve()),
        "data_checksum": identity.get("data_checksum"), "robust_checksum": identity.get("robust_checksum"),
        "image": claim.index, "predicted": claim.predicted, "certificate": claims.certificate,
        "alpha": claims.alpha, "norm": claims.norm, "sigma": claims.sigma,
        "certificate_failure_probability": claims.failure_probability,
        "certified_radius": claim.radius if math.isfinite(claim.radius) else None,
        "distance": one.distance, "worst_standard_classifier": {"one_hot": one.rival},
        "threshold": one.threshold, "margin": one.margin, "margin_upper": one.upper,
        "samples": one.samples, "votes": None if one.counts is None else one.counts.tolist(),
        "request": request.as_dict(), "device": target.device.type,
    }  # fmt: skip
    if claims.sigma is not None:
        trial = trial_of(claims, request)
        said |= {"failure_probability": trial.failure_probability, "noise_seed": trial.seed}
    buffer = io.BytesIO()
    np.savez(buffer, point=one.point)
    said["point_checksum"] = checksum(one.point)
    name = f"finding-{claim.index}-{claims.certificate}-alpha{claims.alpha:g}-seed{request.seed}"
    write_atomically(folder / f"{name}.npz", buffer.getvalue())
    write_atomically(folder / f"{name}.json", (json.dumps(said, indent=2, allow_nan=False) + "\n").encode())
    return folder / f"{name}.json"


def read_finding(path: str | Path) -> Finding:
    """Read a finding by either of its files; RunError or DataError if it is none, or the point is another."""
    path = Path(path)
    try:
        path = path.with_suffix(".json")
        found = parse_json(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("it is no object")
        number = msgspec.convert(found, _Versioned).format_version
        if number > VERSION:
            raise RunError(
                f"{path}: format version {number!s:.20}, this certmix reads up to {VERSION}: update certmix"
            )
        said = msgspec.convert(found, Said if found.get("sigma") is None else Sampled)
    except (OSError, ValueError) as error:  # also what msgspec raises
        reason = re.sub(r"^Object missing required field `(.*)`", r"it lacks '\1'", _one_line(error))
        raise RunError(
            f"{path} is no finding ({reason}): name the .json of certmix falsify, or restore the file"
        ) from None
    points = path.with_suffix(".npz")
    try:
        with points.open("rb") as file:
            point = read_arrays(file, ["point"])[0]["point"]
        if point.dtype != np.float32 or not np.isfinite(point).all():
            raise ValueError(f"{point.dtype} of shape {point.shape}, not finite float32")
    except Exception as error:  # damaged archives raise errors of many kinds
        raise DataError(f"{points} holds no point ({_one_line(error)}): restore it") from None
    if checksum(point) != said.point_checksum:
        raise DataError(f"{points} is not the point that {path.name} describes: restore both")
    return Finding(path, point, said)


class _Versioned(Struct):
    format_version: Annotated[int, Meta(ge=1)]


def checksum(point: NDArray[np.float32]) -> str:
    """Return the checksum of a point's bytes."""
    return digest_of(point.tobytes())


def _one_line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
