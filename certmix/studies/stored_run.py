"""A run folder as it lies on disk: its request, its finished images, g's probabilities.  No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certmix.errors import RunError
from certmix.records import ImageRecord, Store, read_run
from certmix.records.folder import DATABASE, DESCRIPTION
from certmix.records.formats import PublishedLog
from certmix.studies.evaluate import bound_records
from certmix.studies.request import CertifyRequest
from certmix.types import FloatArray

__all__ = ["LOG", "RunContents", "open_run", "request_of", "run_of_log"]

LOG = "records.tsv"
"""A run's own log, beside its run.json."""
_DECIMALS = 6


@dataclass(frozen=True)
class RunContents:
    """A run folder, read: its own request, finished images, and g's probabilities by index."""

    request: CertifyRequest
    records: tuple[ImageRecord, ...]
    probabilities: dict[int, FloatArray]
    planned: int
    classes: int
    about: dict[str, Any]


def request_of(described: dict[str, Any], folder: Path) -> CertifyRequest:
    """Return the request that a run's description holds.

    Raises
    ------
    RunError
        If it holds none.
    """
    try:
        stored = dict(described["request"])
        return CertifyRequest(
            **{**stored, **{name: tuple(stored[name]) for name in ("certificates", "radii")}}
        )
    except (KeyError, TypeError) as error:
        raise _lacks(folder, error) from None


def _lacks(folder: Path, error: Exception) -> RunError:
    return RunError(f"{folder}/{DESCRIPTION} lacks {error}: only a run that began to sample can be read")


def open_run(folder: Path) -> RunContents:
    """Return what a run folder holds; images that its own request left unfinished are left out.

    Raises
    ------
    RunError
        If it is not the folder of a run that has begun to sample.
    """
    described = read_run(folder, "certify")
    request = request_of(described, folder)
    try:
        inputs = int(described["data"]["inputs"])
        classes, models = len(described["data"]["class_names"]), described["models"]
        about = {"data": described["data"]["name"], "robust": models["robust"]["name"], "standard": None}
        checksum = models["standard"] and models["standard"]["checksum"]
        about["standard"] = models["standard"] and models["standard"]["name"]
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{folder}/{DESCRIPTION} lacks {error}: only a run that began to sample can be read"
        ) from None
    store = Store(folder / DATABASE, classes, read_only=True)
    records, probabilities = list(store.images().values()), store.standard(checksum) if checksum else {}
    store.close()
    if records:
        waiting = bound_records(records, request).waiting
        records = [record for record, waits in zip(records, waiting, strict=True) if not waits]
    planned = inputs if request.images == "all" else min(int(request.images), inputs)
    return RunContents(request, tuple(records), probabilities, max(planned, len(records)), classes, about)


def run_of_log(log: PublishedLog) -> dict[str, Any] | None:
    """Return the ``run.json`` beside a run's own ``records.tsv``, None for any other log."""
    path = Path(log.source)
    if path.name != LOG or log.decimals != _DECIMALS or not (path.parent / DESCRIPTION).exists():
        return None
    described = read_run(path.parent, "certify")
    return described if "request" in described and "data" in described else None
