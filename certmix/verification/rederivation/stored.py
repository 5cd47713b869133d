"""Reading a run folder without trusting it: what cannot be read is refused, the rest is only typed.

Whether the values agree with each other, with the data and with what was
published is for `certmix.verification.rederivation.rederive` to say.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification.begun import BEGUN
from certmix.errors import RunError
from certmix.runs import ImageRecord, Store, read_run
from certmix.runs.folder import DATABASE, DESCRIPTION
from certmix.runs.identity import command_of
from certmix.types import FloatArray
from certmix.verification.rederivation.stored_values import is_whole

__all__ = [
    "STUDIES", "StoredRun", "StoredVectors", "no_request", "read_description", "read_samples", "read_vectors",
]  # fmt: skip

STUDIES = ("certify", "certify-margin", "certify-lipschitz-constant")
"""The studies whose runs can be derived again."""

_NEEDED = ("identity", "request", "sources", "data", "models", "versions", "device", "threads")
_MOST_CLASSES = 1 << 20


@dataclass(frozen=True)
class StoredRun:
    """A sampled run as it lies on disk.

    Parameters
    ----------
    folder, description
        Where, and its ``run.json``.
    classes
        Number of classes.
    images
        Index -> record.
    standard
        Checksum of a standard model -> index -> probabilities (c,).
    meta
        What the database remembers besides.
    """

    folder: Path
    description: dict[str, Any]
    classes: int
    images: dict[int, ImageRecord]
    standard: dict[str, dict[int, FloatArray]]
    meta: dict[str, str]


@dataclass(frozen=True)
class StoredVectors:
    """A run without samples as it lies on disk.

    ``cells`` maps name -> index -> float64 numbers; ``begun`` is what the database
    says of requests without a table, see `certmix.certification.begun`.
    """

    folder: Path
    description: dict[str, Any]
    classes: int
    cells: dict[str, dict[int, FloatArray]]
    begun: str | None = None


def read_description(run: Path) -> tuple[dict[str, Any], str]:
    """Return a run's ``run.json`` and the study it is of.

    Raises
    ------
    RunError
        If it is missing, unreadable, incomplete, or of a study that cannot be derived again.
    """
    run = Path(run)
    description = read_run(run)
    identity = description.get("identity")
    study = str(identity.get("study", STUDIES[0])) if isinstance(identity, dict) else STUDIES[0]
    if study not in STUDIES:
        raise RunError(
            f"{run} is a run of {command_of(study)}: only runs of certmix certify can be derived again"
        )
    for name in _NEEDED:
        if name not in description:
            raise RunError(f"{run}/{DESCRIPTION} lacks {name!r}: only a run that began can be checked")
    for name in ("identity", "request", "sources", "data", "models", "versions"):
        if not isinstance(description[name], dict):
            raise RunError(f"{run}/{DESCRIPTION}: {name!r} is not an object: restore the file")
    return description, study


def no_request(folder: Path, error: Exception) -> RunError:
    """Return the error of a run whose description holds no request, for the reason in `error`."""
    wrong = " ".join(str(error).split())
    return RunError(f"{folder}/run.json holds no valid request ({wrong}): restore it")


def _opened(run: Path) -> tuple[Path, dict[str, Any], int]:
    """Return a run's folder, description and number of classes."""
    run = Path(run)
    description, _ = read_description(run)
    return run, description, _classes(run, description)


def _classes(run: Path, description: dict[str, Any]) -> int:
    names, inputs = description["data"].get("class_names"), description["data"].get("inputs")
    if not isinstance(names, list) or not 2 <= len(names) <= _MOST_CLASSES or not is_whole(inputs):
        raise RunError(f"{run}/{DESCRIPTION}: classes or inputs of the data are missing: restore the file")
    return len(names)


def _opened_store(run: Path, classes: int | None = None) -> Store:
    path = run / DATABASE
    if not path.is_file():
        raise RunError(f"{path} is missing: name the folder of a certmix run, or restore it")
    return Store(path, classes, read_only=True)


def read_samples(run: Path) -> StoredRun:
    """Return what the folder of a sampled run holds.

    Raises
    ------
    RunError
        If it cannot be read as such.
    """
    run, description, classes = _opened(run)
    with closing(_opened_store(run, classes)) as store:
        standard = {
            cell.removeprefix("standard "): store.standard(cell.removeprefix("standard "))
            for cell in store.cells()
            if cell.startswith("standard ")
        }
        return StoredRun(run, description, classes, store.images(), standard, store.facts())


def read_vectors(run: Path) -> StoredVectors:
    """Return what the folder of a run without samples holds.

    Raises
    ------
    RunError
        If it cannot be read as such.
    """
    run, description, classes = _opened(run)
    with closing(_opened_store(run)) as store:
        cells: dict[str, dict[int, FloatArray]] = {}
        for cell in store.cells():
            indices = sorted(store.known(cell))
            found = np.asarray(store.read(cell, indices), np.float64)
            cells[cell] = dict(zip(indices, found, strict=True))
        return StoredVectors(run, description, classes, cells, store.get(BEGUN))
