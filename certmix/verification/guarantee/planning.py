"""Which samples a guarantee still lacks, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certmix.data import spread
from certmix.errors import ParameterError, RunError
from certmix.records import Identity, ImageRecord, Store, StudyIdentity, VectorStore, read_run
from certmix.records.folder import DATABASE, DESCRIPTION, VECTORS
from certmix.sampling import resolve_device
from certmix.studies import certify, deterministic
from certmix.studies.bounding import bound_records
from certmix.studies.deterministic_fill import ROBUST, margin_cell, standard_cell
from certmix.studies.deterministic_request import DeterministicRequest
from certmix.studies.request import CertifyRequest
from certmix.studies.sources import Loaded, Sources, load_models, load_sources
from certmix.studies.unfinished import is_finished
from certmix.verification.guarantee.changes import (
    checksum_of,
    model_changes,
    no_run,
    run_folder,
    standard_changes,
    what_is_done,
)
from certmix.verification.guarantee.guarantees import Guarantee
from certmix.verification.guarantee.places import source_options
from certmix.verification.rederivation.stored import read_description

__all__ = ["Plan", "load_guaranteed", "plan", "stored_images"]


@dataclass(frozen=True)
class Plan:
    """What is there and what is not.

    Parameters
    ----------
    folder
        Where the run lies, or will.
    indices
        Of the images that the guarantee is about.
    lacking
        Those among them that need samples (or bounds), new or more.
    current
        Whether the run was finished for this very request and these models: nothing needs to be done.
    trusted
        Whether the run as it lies there can be checked whole before it is continued: of one that was
        interrupted, or made with another standard model or other sources, only what it stores can.
    exists
        Whether there is a run.
    why
        What will be done and for what reason, one sentence each.
    """

    folder: Path
    indices: tuple[int, ...]
    lacking: tuple[int, ...]
    current: bool
    trusted: bool
    exists: bool
    why: tuple[str, ...]


def load_guaranteed(guarantee: Guarantee, device: str, say: Callable[[str], None]) -> tuple[Sources, Loaded]:
    """Load data and models that a guarantee names, wherever the working directory is.

    Raises
    ------
    CertmixError
        If something cannot be loaded.
    """
    sources, chosen = Sources(**source_options(guarantee)), resolve_device(device)
    if isinstance(guarantee.request, CertifyRequest):
        return sources, load_sources(sources, guarantee.request.sigma, chosen, say)
    if sources.robust is None:
        raise ParameterError(f"{guarantee.path}: no robust classifier: name one in [robust]")
    return sources, load_models(sources, sources.robust, chosen, say)


def plan(guarantee: Guarantee, sources: Sources, loaded: Loaded, runs: Path) -> Plan:
    """Return what a guarantee lacks in the folder of runs `runs`, without changing anything.

    Raises
    ------
    RunError
        If a run is there that cannot be read.
    """
    request, dataset = guarantee.asked, loaded.dataset
    positions = spread(len(dataset), request.images)
    indices = tuple(int(dataset.indices[p]) for p in positions)
    identity = _identity(request, loaded)
    folder = run_folder(identity, runs)
    if not (folder / DESCRIPTION).is_file():
        why = (*model_changes(guarantee, loaded), *no_run(identity, folder, request, len(indices)))
        return Plan(folder, indices, indices, False, False, False, why)
    described = _described(folder)
    lacking, lacking_g = _lacking(folder, request, indices, loaded)
    before, now = described["request"], json.loads(json.dumps(request.as_dict()))
    same = _checksums(described) == _loaded_checksums(loaded)
    same = same and described.get("sources") == json.loads(json.dumps(sources.as_dict()))
    trusted = same and is_finished(folder)
    why = (
        *model_changes(guarantee, loaded),
        *what_is_done(request, before, now, lacking, len(indices)),
        *standard_changes(described, loaded, lacking_g),
    )
    current = trusted and before == now and not lacking and not lacking_g
    return Plan(folder, indices, lacking, current, trusted, True, why)


def _identity(request: CertifyRequest | DeterministicRequest, loaded: Loaded) -> Identity | StudyIdentity:
    if isinstance(request, CertifyRequest):
        return certify.run_identity(request, loaded)
    return deterministic.run_identity(request, loaded)


def _loaded_checksums(loaded: Loaded) -> dict[str, str | None]:
    standard = loaded.standard
    return {"robust": loaded.robust.checksum, "standard": None if standard is None else standard.checksum}


def _described(folder: Path) -> dict[str, Any]:
    """Return a run's description, with nothing asked for where it was stopped before it began."""
    if "request" in (known := read_run(folder)):
        return read_description(folder)[0]
    return {**known, "request": {}, "models": {}}


def _checksums(described: dict[str, Any]) -> dict[str, Any]:
    return {role: checksum_of(described, role) for role in ("robust", "standard")}


def _lacking(
    folder: Path, request: CertifyRequest | DeterministicRequest, indices: tuple[int, ...], loaded: Loaded
) -> tuple[tuple[int, ...], int]:
    """Return the images that want more, and how many answers of the standard classifier are missing."""
    g = loaded.standard
    if isinstance(request, CertifyRequest):
        images, known = stored_images(folder, loaded.dataset.classes, None if g is None else g.checksum)
        there = [images[i] for i in indices if i in images]
        waiting = bound_records(there, request).waiting.tolist() if there else []
        ready = {record.index for record, waits in zip(there, waiting, strict=True) if not waits}
    else:
        vectors = VectorStore(folder / VECTORS, read_only=True)
        cells = [ROBUST]
        if request.certificate == "margin":
            cells += [margin_cell(alpha) for alpha in request.weights()]
        ready = set.intersection(*(vectors.known(cell) for cell in cells))
        known = set(indices) if g is None else vectors.known(standard_cell(g))
        vectors.close()
    unanswered = 0 if g is None else sum(index not in known for index in indices)
    return tuple(index for index in indices if index not in ready), unanswered


def stored_images(
    folder: Path, classes: int, standard: str | None
) -> tuple[dict[int, ImageRecord], set[int]]:
    """Return the images that a run stores, and which a standard model's outputs are stored of.

    Parameters
    ----------
    folder
        The run's.
    classes
        Number of classes.
    standard
        Checksum of the standard model; None if there is none, and no outputs to look for.

    Raises
    ------
    RunError
        If its database is missing or cannot be read.
    """
    if not (folder / DATABASE).is_file():
        raise RunError(f"{folder} holds no {DATABASE}: restore it, or delete the folder to sample anew")
    store = Store(folder / DATABASE, classes, read_only=True)
    try:
        return store.images(), set() if standard is None else set(store.standard(standard))
    finally:
        store.close()
