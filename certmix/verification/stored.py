"""A run folder read without trusting it: what cannot be read is refused, the rest is for checks to say."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from certmix.certification.deterministic_request import ROBUST, DeterministicRequest, margin_cell
from certmix.certification.proved import STUDIES as PROVED
from certmix.certification.request import CertifyRequest
from certmix.errors import CertmixError, RunError
from certmix.models.spec import LoadedModel, load_model, wrap_model
from certmix.runs import ImageRecord, Store, read_run
from certmix.runs.folder import DATABASE, DESCRIPTION
from certmix.runs.identity import CERTIFY, command_of
from certmix.runs.settings import settings
from certmix.runs.source_names import named_split
from certmix.runs.sources import Sources, load_data
from certmix.types import Dataset, FloatArray

ROLES = ("robust", "standard")


@dataclass(frozen=True)
class Run:
    """A run of ``certmix certify`` as it lies on disk.

    Parameters
    ----------
    folder, description, request
        Where, its ``run.json``, and the request in that.
    classes
        Number of classes.
    images
        Index -> record, of a sampled run.
    cells
        Name -> index -> float64 numbers, of a run without samples.
    standard
        Index -> outputs (c,) of the standard model in ``run.json``: probabilities, or logits without samples.
    meta
        What the database remembers besides.
    """

    folder: Path
    description: dict[str, Any]
    request: CertifyRequest | DeterministicRequest
    classes: int
    images: dict[int, ImageRecord] = field(default_factory=dict)
    cells: dict[str, dict[int, FloatArray]] = field(default_factory=dict)
    standard: dict[int, FloatArray] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)

    @property
    def standard_checksum(self) -> str | None:
        """Of the run's standard model, None without one."""
        stored = self.description["models"].get("standard")
        return str(stored.get("checksum")) if isinstance(stored, dict) else None


def read_description(run: Path) -> tuple[dict[str, Any], str]:
    """Return a run's ``run.json`` and the study it is of.

    Raises
    ------
    RunError
        If it is missing, unreadable, incomplete, or of a study that cannot be derived again.
    """
    description = read_run(run)
    identity = description.get("identity")
    study = str(identity.get("study", CERTIFY)) if isinstance(identity, dict) else CERTIFY
    if study not in (CERTIFY, *PROVED):
        raise RunError(
            f"{run} is a run of {command_of(study)}: only runs of certmix certify can be derived again"
        )
    objects = ("identity", "request", "sources", "data", "models", "versions")
    for name in (*objects, "device", "threads"):
        if name not in description:
            raise RunError(f"{run}/{DESCRIPTION} lacks {name!r}: only a run that began can be checked")
    for name in objects:
        if not isinstance(description[name], dict):
            raise RunError(f"{run}/{DESCRIPTION}: {name!r} is not an object: restore the file")
    names, inputs = description["data"].get("class_names"), description["data"].get("inputs")
    if not isinstance(names, list) or not 2 <= len(names) <= 1 << 20 or not is_whole(inputs):
        raise RunError(f"{run}/{DESCRIPTION}: classes or inputs of the data are missing: restore the file")
    return description, study


def load(folder: Path) -> Run:
    """Return what a run folder holds; whether its values agree is for the checks to say.

    Raises
    ------
    RunError
        If it cannot be read as a run that can be derived again.
    """
    description, study = read_description(folder)
    sampled = study == CERTIFY
    kind: Any = CertifyRequest if sampled else DeterministicRequest
    try:
        request = settings(kind, description["request"])
    except (CertmixError, LookupError, TypeError, ValueError) as error:
        wrong = " ".join(str(error).split())
        raise RunError(f"{folder}/run.json holds no valid request ({wrong}): restore it") from None
    run = Run(folder, description, request, len(description["data"]["class_names"]))
    checksum = run.standard_checksum
    with closing(opened(folder, run.classes)) as store:
        meta = store.facts()
        if not sampled:
            names = store.cells()
            known = {cell: sorted(store.known(cell)) for cell in names}
            cells = {
                cell: dict(zip(indices, np.asarray(store.read(cell, indices), np.float64), strict=True))
                for cell, indices in known.items()
            }
            return replace(run, cells=cells, standard=cells.get(f"standard logits {checksum}", {}))
        fixed = meta.get("fixed_samples")
        if fixed is not None and not (fixed.isdecimal() and 0 < len(fixed) < 19):
            raise RunError(f"{folder}: fixed_samples = {fixed!r} in the database: restore it")
        standard = {} if checksum is None else store.standard(checksum)
        return replace(run, images=store.images(), standard=standard, meta=meta)


def opened(folder: Path, classes: int | None = None) -> Store:
    """Return the numbers of a run, to read only; RunError if there are none."""
    path = folder / DATABASE
    if not path.is_file():
        raise RunError(f"{path} is missing: name the folder of a certmix run, or restore it")
    return Store(path, classes, read_only=True)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class Reloaded:
    """Data and models of a run; ``problems`` says by name why something is not there."""

    dataset: Dataset | None
    models: dict[str, LoadedModel | None]
    problems: dict[str, str] = field(default_factory=dict)


def reload(
    description: dict[str, Any],
    dataset: Dataset | None = None,
    models: Mapping[str, nn.Module] | None = None,
    device: torch.device | str = "cpu",
) -> Reloaded:
    """Load the data set and the models that a description names; what is handed over comes first.

    Raises
    ------
    RunError
        If the description does not say what they are.
    """
    given, stored = dict(models or {}), dict(description["sources"])
    objects = stored.pop("objects", [])
    try:
        named = {key: value for key, value in stored.items() if key not in objects}
        sources = settings(Sources, {**named, "split": named_split(stored.get("split"))})
    except (CertmixError, TypeError) as error:
        raise RunError(f"the sources in run.json are not readable ({error}): restore the file") from None
    problems: dict[str, str] = {}
    if dataset is None and "data" in objects:
        problems["data"] = "it was a Python object: hand it over as dataset"
    elif dataset is None:
        try:
            dataset = load_data(sources)
        except CertmixError as error:
            problems["data"] = str(error)
    loaded: dict[str, LoadedModel | None] = dict.fromkeys(ROLES)
    for role in ROLES:
        if role not in given and role in objects:
            problems[role] = f"it was a Python object: hand it over in models[{role!r}]"
        elif role in given or description["models"].get(role) is not None:
            try:
                loaded[role] = _model(sources, role, given.get(role), description, device)
            except CertmixError as error:
                problems[role] = str(error)
    return Reloaded(dataset, loaded, problems)


def _model(
    sources: Sources, role: str, given: nn.Module | None, description: dict[str, Any], device: Any
) -> LoadedModel:
    normalize, files = getattr(sources, f"{role}_normalize"), getattr(sources, f"{role}_files")
    if given is not None:
        return wrap_model(given, device=device, normalize=normalize, files=files)
    spec, weights = getattr(sources, role), getattr(sources, f"{role}_weights")
    if spec is None:  # the shipped one, which the run chose itself
        spec = description["models"][role].get("spec")
    return load_model(
        str(spec), weights=None if weights is None else Path(weights), normalize=normalize, files=files,
        device=device, classes=len(description["data"]["class_names"]),
    )  # fmt: skip


def proved_images(run: Run, request: DeterministicRequest) -> set[int]:
    """Return the images of which a run without samples holds all that its request wants."""
    margins = [margin_cell(alpha) for alpha in request.weights() if request.certificate == "margin"]
    return set.intersection(*(set(run.cells.get(cell, {})) for cell in [ROBUST, *margins]))
