"""A finding as two files that anyone can check again: a point and what is said of it.  No torch."""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from certmix.archives import read_arrays
from certmix.atomic import write_atomically
from certmix.errors import DataError, RunError
from certmix.plain_json import parse_json
from certmix.runs.from_json import from_json
from certmix.verification.falsification.attack import trial_of
from certmix.verification.falsification.claims import Claims
from certmix.verification.falsification.judge import Attacked, Target
from certmix.verification.falsification.request import FalsifyRequest

__all__ = ["Finding", "read_finding", "write_finding"]

T = TypeVar("T")
VERSION = 1


@dataclass(frozen=True)
class Finding:
    """A finding as it was written: the point, float32, and the rest as plain data."""

    path: Path
    point: NDArray[np.float32]
    said: dict[str, Any]


@dataclass(frozen=True)
class _Said:
    """What any finding says, for a replay to go by."""

    run: str
    image: int
    predicted: int
    certificate: str
    alpha: float
    sigma: float | None
    robust_checksum: str | None
    point_checksum: str


@dataclass(frozen=True)
class _Sampled:
    """What it says besides where h is smoothed by noise."""

    samples: int
    failure_probability: float
    noise_seed: int
    votes: tuple[int, ...] | None
    device: str


@dataclass(frozen=True)
class _Rival:
    """The class of the worst g."""

    one_hot: int


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
    path = Path(path)
    try:
        path = path.with_suffix(".json")
        said = parse_json(path.read_bytes())
        _refuse_newer(path, said)
        about = _about(said)
    except (KeyError, TypeError) as error:
        raise _no_finding(path, f"it lacks {error}") from None
    except (OSError, ValueError) as error:
        raise _no_finding(path, _one_line(error)) from None
    points = path.with_suffix(".npz")
    try:
        point = _point(points)
    except Exception as error:  # damaged archives raise errors of many kinds
        raise DataError(f"{points} holds no point ({_one_line(error)}): restore it") from None
    if _checksum(point) != about.point_checksum:
        raise DataError(f"{points} is not the point that {path.name} describes: restore both")
    return Finding(path, point, said)


def _no_finding(path: Path, reason: str) -> RunError:
    return RunError(
        f"{path} is no finding ({reason}): name the .json of certmix falsify, or restore the file"
    )


def _refuse_newer(path: Path, said: Any) -> None:
    """Refuse other versions, and what has none: KeyError, TypeError or ValueError."""
    if not isinstance(said, dict):
        raise ValueError("it is no object")
    found = said["format_version"]
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise TypeError(f"a good 'format_version', holding {ascii(found)[:60]}")
    if found > VERSION:
        raise RunError(
            f"{path}: format version {found!s:.20}, this certmix reads up to {VERSION}: update certmix"
        )


def _about(said: dict[str, Any]) -> _Said:
    """Return what a finding is about; KeyError, TypeError or ValueError if a replay could not go by it."""
    whole = _part(_Said, said)
    rival = from_json(_Rival, said["worst_standard_classifier"])
    if whole.sigma is not None:
        _part(_Sampled, said)
    if min(whole.image, whole.predicted, rival.one_hot) < 0:
        raise ValueError("an image or a class below 0")
    return whole


def _part(kind: type[T], said: dict[str, Any]) -> T:
    return from_json(kind, {one.name: said[one.name] for one in fields(kind)})  # type: ignore[arg-type]


def _point(path: Path) -> NDArray[np.float32]:
    """Return the point of an archive; an error of almost any kind if it holds none."""
    with path.open("rb") as file:
        point = read_arrays(file, ["point"])[0]["point"]
    if point.dtype != np.float32 or not np.isfinite(point).all():
        raise ValueError(f"{point.dtype} of shape {point.shape}, not finite float32")
    return point


def _checksum(point: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(point).tobytes()).hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
