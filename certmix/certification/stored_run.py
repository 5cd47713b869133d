"""A run folder as it lies on disk: its request, its finished images, g's probabilities.  No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certmix.certification.bounding import bound_records
from certmix.certification.deterministic_request import DETERMINISTIC
from certmix.certification.expect import began_with
from certmix.certification.request import CertifyRequest
from certmix.errors import RunError
from certmix.runs import ImageRecord, Store, read_run
from certmix.runs.folder import DATABASE, DESCRIPTION
from certmix.runs.formats import PublishedLog
from certmix.runs.from_json import from_json
from certmix.runs.identity import CERTIFY, command_of
from certmix.types import FloatArray

__all__ = [
    "LOG",
    "NOT_CHECKED",
    "RunContents",
    "data_of",
    "named",
    "open_run",
    "open_sampled",
    "request_of",
    "run_of_log",
]

NOT_CHECKED = "Models not checked: none is loaded here (certmix verify compares them with the run)."
"""What commands say that read a run without its models."""
LOG = "records.tsv"
"""A run's own log, beside its run.json."""
_DECIMALS = 6


@dataclass(frozen=True)
class RunContents:
    """A run folder, read: its own request, finished images, g's probabilities by index, its first choices."""

    request: CertifyRequest
    records: tuple[ImageRecord, ...]
    probabilities: dict[int, FloatArray]
    planned: int
    classes: int
    about: dict[str, Any]
    first: dict[str, str]


def request_of(described: dict[str, Any], folder: Path) -> CertifyRequest:
    """Return the request that a run's description holds.

    Raises
    ------
    RunError
        If it holds none.
    """
    try:
        return from_json(CertifyRequest, described["request"])
    except (KeyError, TypeError) as error:
        raise _lacks(folder, error) from None


def _lacks(folder: Path, error: Exception) -> RunError:
    return RunError(f"{folder}/{DESCRIPTION} lacks {error}: only a run that began to sample can be read")


def data_of(described: dict[str, Any]) -> tuple[int, int]:
    """Return how many inputs and classes the data have that a description tells of.

    Raises
    ------
    KeyError, TypeError
        If one is missing or of another type.
    """
    inputs, names = described["data"]["inputs"], described["data"]["class_names"]
    if not isinstance(inputs, int) or not isinstance(names, list) or len(names) < 2 or inputs < 0:
        raise TypeError("a number of inputs and at least 2 class names")
    return inputs, len(names)


def named(model: Any) -> tuple[str | None, str | None]:
    """Return the name and checksum of a model (or data) described in ``run.json``, nothing for no model.

    Raises
    ------
    KeyError, TypeError
        If it has none that can be printed.
    """
    return (None, None) if model is None else (_printable(model["name"]), _printable(model["checksum"]))


def _printable(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError("a name that can be printed")
    return value


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
        (inputs, classes), name = data_of(described), _printable(described["data"]["name"])
        names = {role: named(model) for role, model in described["models"].items()}
        about = {"data": name, "robust": names["robust"][0], "standard": names["standard"][0]}
        checksum = names["standard"][1]
    except (AttributeError, KeyError, TypeError) as error:
        raise _lacks(folder, error) from None
    store = Store(folder / DATABASE, classes, read_only=True)
    records, probabilities = list(store.images().values()), store.standard(checksum) if checksum else {}
    first = began_with(store)
    store.close()
    if records:
        waiting = bound_records(records, request).waiting
        records = [record for record, waits in zip(records, waiting, strict=True) if not waits]
    planned = inputs if request.images == "all" else min(int(request.images), inputs)
    return RunContents(
        request, tuple(records), probabilities, max(planned, len(records)), classes, about, first
    )


def open_sampled(folder: Path) -> RunContents:
    """Return what the folder of a run of certmix certify holds; any other run is named by its own command.

    Raises
    ------
    RunError
        If it is no run, one that draws no samples or is of another command, or has not begun to sample.
    """
    study = str(read_run(folder)["identity"].get("study", CERTIFY))
    made = f"{folder} is a run of {command_of(study)}"
    if study in (f"certify-{name}" for name in DETERMINISTIC):
        raise RunError(
            f"{made}, which draws no samples: repeat it for another --alpha, check it with certmix verify, "
            "or name a run of certmix certify by sampling (docs/margin-certificates.md)"
        )
    if study != CERTIFY:
        raise RunError(f"{made}: name a run of certmix certify")
    return open_run(folder)


def run_of_log(log: PublishedLog) -> dict[str, Any] | None:
    """Return the ``run.json`` beside a run's own ``records.tsv``, None for any other log."""
    path = Path(log.source)
    if path.name != LOG or log.decimals != _DECIMALS or not (path.parent / DESCRIPTION).exists():
        return None
    described = read_run(path.parent, "certify")
    if "request" not in described or "data" not in described:
        return None
    request = request_of(described, path.parent)
    try:
        data_of(described)
    except (KeyError, TypeError) as error:
        raise _lacks(path.parent, error) from None
    return {**described, "request": request.as_dict()}
