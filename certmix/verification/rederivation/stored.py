"""Reading a run folder without trusting it: what cannot be read is refused, the rest is only typed.

Whether the values agree with each other, with the data and with what was
published is for `certmix.verification.rederivation.rederive` to say.
"""

from __future__ import annotations

import sqlite3
import zlib
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certmix.bounds.statistics import ScoreStatistics
from certmix.errors import RunError
from certmix.plain_json import parse_json
from certmix.records import ImageRecord, read_run
from certmix.records.folder import DATABASE, DESCRIPTION, VECTORS
from certmix.types import FloatArray, IntArray

__all__ = ["STUDIES", "StoredRun", "StoredVectors", "read_description", "read_samples", "read_vectors"]

STUDIES = ("certify", "certify-margin", "certify-lipschitz-constant")
"""The studies whose runs can be derived again."""

_NEEDED = ("identity", "request", "sources", "data", "models", "versions", "device", "threads")
_MOST_CLASSES, _MOST_BYTES = 1 << 20, 1 << 26
_UNREADABLE = (
    sqlite3.Error, zlib.error, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError,
    ValueError,
)  # fmt: skip


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
        Checksum of a standard model -> index -> (probabilities (c,), stored prediction).
    meta
        What the database remembers besides.
    """

    folder: Path
    description: dict[str, Any]
    classes: int
    images: dict[int, ImageRecord]
    standard: dict[str, dict[int, tuple[FloatArray, int]]]
    meta: dict[str, str]


@dataclass(frozen=True)
class StoredVectors:
    """A run without samples as it lies on disk: ``cells`` maps name -> index -> float64 numbers."""

    folder: Path
    description: dict[str, Any]
    classes: int
    cells: dict[str, dict[int, FloatArray]]


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
            f"{run} is a run of certmix {study}: only runs of certmix certify can be derived again"
        )
    for name in _NEEDED:
        if name not in description:
            raise RunError(f"{run}/{DESCRIPTION} lacks {name!r}: only a run that began can be checked")
    for name in ("identity", "request", "sources", "data", "models", "versions"):
        if not isinstance(description[name], dict):
            raise RunError(f"{run}/{DESCRIPTION}: {name!r} is not an object: restore the file")
    return description, study


def _classes(run: Path, description: dict[str, Any]) -> int:
    names, inputs = description["data"].get("class_names"), description["data"].get("inputs")
    if not isinstance(names, list) or not 2 <= len(names) <= _MOST_CLASSES or not _is_whole(inputs):
        raise RunError(f"{run}/{DESCRIPTION}: classes or inputs of the data are missing: restore the file")
    return len(names)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database to read only; anything it cannot answer, or answers with nonsense, is a RunError."""
    if not path.is_file():
        raise RunError(f"{path} is missing: name the folder of a certmix run, or restore it")
    waiting = path.with_name(f"{path.name}-wal").exists()
    mode = "mode=ro" if waiting else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)) as database:
            yield database
    except _UNREADABLE as error:
        wrong = " ".join(str(error).split())[:200]
        raise RunError(f"{path}: not a readable run database ({wrong}): restore it") from None


def read_samples(run: Path) -> StoredRun:
    """Return what the folder of a sampled run holds.

    Raises
    ------
    RunError
        If it cannot be read as such.
    """
    run = Path(run)
    description, _ = read_description(run)
    classes = _classes(run, description)
    with _database(run / DATABASE) as database:
        meta = {_text(key): _text(value) for key, value in database.execute("SELECT key, value FROM meta")}
        columns = "idx, label, input_checksum, selection, estimation, scores, seconds, device"
        rows = database.execute(f"SELECT {columns} FROM images ORDER BY idx").fetchall()
        images = {_whole(row[0]): _image(row, classes) for row in rows}
        standard: dict[str, dict[int, tuple[FloatArray, int]]] = {}
        for checksum, idx, prediction, text in database.execute(
            "SELECT checksum, idx, prediction, probabilities FROM standard"
        ):
            numbers = np.array([float(x) for x in parse_json(text.encode())], np.float64)
            if numbers.shape != (classes,):
                raise ValueError(f"{numbers.size} probabilities of image {idx}")
            standard.setdefault(_text(checksum), {})[_whole(idx)] = numbers, _whole(prediction)
    return StoredRun(run, description, classes, images, standard, meta)


def _image(row: tuple[Any, ...], classes: int) -> ImageRecord:
    idx, label, checksum, selection, estimation, scores, seconds, device = row
    looks = {_whole(int(n)): _votes(votes, classes) for n, votes in parse_json(estimation.encode()).items()}
    soft = {_whole(int(n)): _scores(text, classes) for n, text in parse_json(scores.encode()).items()}
    chosen = _votes(parse_json(selection.encode()), classes)
    return ImageRecord(
        _whole(idx), _whole(label), _text(checksum), chosen, looks, float(seconds), _text(device), soft
    )


def _votes(packed: Any, classes: int) -> IntArray:
    counts = np.zeros(classes, np.int64)
    for key, value in packed.items():
        if not 0 <= int(key) < classes:
            raise ValueError(f"class {key} of {classes}")
        counts[int(key)] = _whole(value)
    return counts


def _scores(text: str, classes: int) -> ScoreStatistics:
    """The statistics as they were written; their sums are checked elsewhere."""
    plain = parse_json(zlib.decompressobj().decompress(b64decode(text, validate=True), _MOST_BYTES))
    if (plain["version"], plain["scale"]) != (1, 65536):
        raise ValueError(f"score statistics of version {plain['version']}, scale {plain['scale']}")
    arrays = [np.array(plain[name]) for name in ("deviations", "totals", "squares")]
    bins = [np.array(plain[name]) for name in ("bin_counts", "bin_excess")]
    selected, rivals = _whole(plain["selected"]), tuple(_whole(rival) for rival in plain["rivals"])
    shapes = [array.shape for array in (*arrays, *bins)]
    if shapes != [(classes,)] * 3 + [(1 + len(rivals), 64)] * 2:
        raise ValueError(f"score statistics of shapes {shapes}")
    if any(array.dtype.kind != "i" for array in (*arrays, *bins)):
        raise ValueError("score statistics that are no whole numbers")
    if len({selected, *rivals}) < 1 + len(rivals) or not all(0 <= i < classes for i in (selected, *rivals)):
        raise ValueError(f"score statistics of classes {selected} and {rivals}")
    return ScoreStatistics(selected, rivals, _whole(plain["samples"]), *arrays, *bins)


def _whole(value: Any) -> int:
    if not _is_whole(value) or not -(2**62) < value < 2**62:
        raise ValueError(f"{value!r} where a whole number belongs")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} where text belongs")
    return value


def read_vectors(run: Path) -> StoredVectors:
    """Return what the folder of a run without samples holds.

    Raises
    ------
    RunError
        If it cannot be read as such.
    """
    run = Path(run)
    description, _ = read_description(run)
    classes = _classes(run, description)
    cells: dict[str, dict[int, FloatArray]] = {}
    with _database(run / VECTORS) as database:
        for cell, idx, raw in database.execute("SELECT cell, idx, vector FROM vectors ORDER BY cell, idx"):
            if not isinstance(raw, bytes) or len(raw) % 8:
                raise ValueError(f"cell {cell!r} is damaged")
            cells.setdefault(_text(cell), {})[_whole(idx)] = np.frombuffer(raw, "<f8").astype(np.float64)
    return StoredVectors(run, description, classes, cells)
