"""Which samples a guarantee still lacks, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certmix.certification import certify, deterministic
from certmix.certification.deterministic_fill import ROBUST, margin_cell, standard_cell
from certmix.certification.deterministic_request import DeterministicRequest
from certmix.certification.evaluate import bound_records
from certmix.certification.request import CertifyRequest
from certmix.certification.unfinished import is_finished
from certmix.data import spread
from certmix.errors import ParameterError, RunError
from certmix.runs import Identity, ImageRecord, Store, StudyIdentity, read_run
from certmix.runs.folder import DATABASE
from certmix.runs.sources import Loaded, Sources, load_models, load_sources
from certmix.sampling import resolve_device
from certmix.verification.guarantee.changes import (
    checksum_of,
    model_changes,
    no_run,
    run_folders,
    standard_changes,
    what_is_done,
)
from certmix.verification.guarantee.guarantees import Guarantee
from certmix.verification.guarantee.places import source_options
from certmix.verification.stored import read_description

__all__ = ["Plan", "identity_of", "load_guaranteed", "plan", "stored_images"]


@dataclass(frozen=True)
class Plan:
    """What is there and what is not.

    Parameters
    ----------
    folder
        Where the run lies, or will.
    stored
        The run whose samples serve, None where there is none.  One that is not `folder` is only read:
        what the guarantee can use of it is copied.
    indices
        Of the images that the guarantee is about.
    lacking
        Those among them that need samples (or bounds), new or more.
    current
        Whether the run was finished for this very request and these models: nothing needs to be done.
    trusted
        Whether the stored run as it lies there can be checked whole before it is continued: of one that was
        interrupted, or made with another standard model or other sources, only what it stores can.
    why
        What will be done and for what reason, one sentence each.
    """

    folder: Path
    stored: Path | None
    indices: tuple[int, ...]
    lacking: tuple[int, ...]
    current: bool
    trusted: bool
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


@dataclass(frozen=True)
class _Stored:
    """A run of the identity, as far as it serves: what it lacks, and whether it is of this very request."""

    folder: Path
    described: dict[str, Any]
    lacking: tuple[int, ...]
    unanswered: int
    same_models: bool
    asked: bool
    trusted: bool

    @property
    def current(self) -> bool:
        """Whether nothing needs to be done."""
        return self.trusted and self.asked and not self.lacking and not self.unanswered

    @property
    def rank(self) -> tuple[Any, ...]:
        """How well it serves: as it is, to be gone on with, with the same g, with few samples to come."""
        begun = self.asked and not self.trusted
        return (self.current, begun, self.same_models, -len(self.lacking), -self.unanswered)


def plan(guarantee: Guarantee, sources: Sources, loaded: Loaded, runs: Path) -> Plan:
    """Return what a guarantee lacks in the folder of runs `runs`, without changing anything.

    Raises
    ------
    RunError
        If runs are there, but none that can be read.
    """
    request, dataset = guarantee.asked, loaded.dataset
    positions = spread(len(dataset), request.images)
    indices = tuple(int(dataset.indices[p]) for p in positions)
    identity = identity_of(request, loaded)
    usual = runs / identity.folder_name()
    found = _readable(run_folders(identity, runs), request, indices, sources, loaded)
    if not found:
        why = (*model_changes(guarantee, loaded), *no_run(identity, usual, request, len(indices)))
        return Plan(usual, None, indices, indices, False, False, why)
    g = loaded.standard
    own = usual.with_name(f"{usual.name}.{request.name('' if g is None else g.checksum)[-8:]}")
    best = max(found, key=lambda one: (one.current, one.folder == own, *one.rank))
    continued = best.current or (best.asked and not best.trusted) or best.folder == own
    now = json.loads(json.dumps(request.as_dict()))
    why = (
        *model_changes(guarantee, loaded),
        *what_is_done(request, best.described["request"], now, best.lacking, len(indices)),
        *standard_changes(best.described, loaded, best.unanswered),
        *([] if continued else [f"{best.folder} is only read: its samples are copied to {own.name}."]),
    )
    folder = best.folder if continued else own
    return Plan(folder, best.folder, indices, best.lacking, best.current, best.trusted, why)


def _readable(
    folders: list[Path],
    request: CertifyRequest | DeterministicRequest,
    indices: tuple[int, ...],
    sources: Sources,
    loaded: Loaded,
) -> list[_Stored]:
    """Return those of the runs that can be read; RunError if none of several can."""
    found, errors = [], []
    for folder in folders:
        try:
            found.append(_stored(folder, request, indices, sources, loaded))
        except RunError as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    return found


def _stored(
    folder: Path,
    request: CertifyRequest | DeterministicRequest,
    indices: tuple[int, ...],
    sources: Sources,
    loaded: Loaded,
) -> _Stored:
    described = _described(folder)
    lacking, unanswered = _lacking(folder, request, indices, loaded)
    same_models = _checksums(described) == _loaded_checksums(loaded)
    same = same_models and described.get("sources") == json.loads(json.dumps(sources.as_dict()))
    asked = same and described["request"] == json.loads(json.dumps(request.as_dict()))
    trusted = same and is_finished(folder)
    return _Stored(folder, described, lacking, unanswered, same_models, asked, trusted)


def identity_of(request: CertifyRequest | DeterministicRequest, loaded: Loaded) -> Identity | StudyIdentity:
    """Return what the stored samples of a request depend on."""
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
        vectors = Store(folder / DATABASE, read_only=True)
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
