"""Attacks inside the certified balls of a run: certificates that are wrong may be found so."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from certmix.certification.unfinished import unfinished
from certmix.errors import RunError
from certmix.runs import Store, VectorStore
from certmix.runs.attacking import Progress
from certmix.runs.behaviour import Original
from certmix.runs.folder import DATABASE, DESCRIPTION, VECTORS
from certmix.runs.sources import Loaded, Sources, load_models
from certmix.sampling import resolve_device
from certmix.types import Dataset
from certmix.verification.falsification.attack import attack_claim
from certmix.verification.falsification.claims import Claim, Claims, read_claims
from certmix.verification.falsification.files import write_finding
from certmix.verification.falsification.judge import Attacked, Target
from certmix.verification.falsification.request import FalsifyRequest
from certmix.verification.falsification.result import Falsification

__all__ = ["attack_claims", "falsify", "input_of", "load_target"]

FOLDER = "falsify"
"""Where findings go within a run's folder."""

Say = Callable[[str], None]


def falsify(
    run: str | Path,
    request: FalsifyRequest | None = None,
    *,
    sources: Sources | None = None,
    output: str | Path | None = None,
    device: str = "auto",
    progress: Callable[[Progress], None] | None = None,
    say: Say = lambda message: None,
) -> Falsification:
    """Attack a run's certificates inside their balls.

    For each certified image a point x' strictly within the radius is searched
    where the margin of h is below mu = (1 - alpha) / alpha: there some g flips
    the mix (Lemma 3.2 is tight).  A smoothed h is judged there on fresh noise,
    by a confidence bound.  That nothing is found proves nothing.

    Parameters
    ----------
    run
        Folder of a run of `certmix.certify`; it is only read, but for findings.
    request
        Which certificates, and the budget; None for the defaults.
    sources
        Data and models, for a run that was made from Python objects.
    output
        Folder for findings; None takes ``falsify`` in the run's folder.
    device, progress, say
        As for `certmix.certify`.

    Returns
    -------
    Falsification
        ``.falsified`` is the verdict.  After a keyboard interrupt it is of
        the attacks that were done.

    Raises
    ------
    CertmixError
        If the run cannot be read, or its data or model are not what they were.
    """
    asked = request or FalsifyRequest()
    claims = read_claims(run, asked)
    told = unfinished(Path(run))
    if told is not None:
        say(told)
    if not claims.claims:
        return Falsification(str(run), claims, asked, ())
    target, dataset = load_target(Path(run), claims, sources, device, say)

    def read(claim: Claim) -> torch.Tensor:
        return input_of(dataset, claim)

    attacked = attack_claims(target, claims, read, asked, progress)
    result = Falsification(str(run), claims, asked, attacked)
    if result.findings:
        folder = Path(run) / FOLDER if output is None else Path(output)
        files = [write_finding(folder, Path(run), one, claims, asked, target) for one in result.findings]
        result = replace(result, files=tuple(map(str, files)))
    return result


def attack_claims(
    target: Target,
    claims: Claims,
    read: Callable[[Claim], torch.Tensor],
    request: FalsifyRequest,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Attacked, ...]:
    """Attack certificates one by one; a keyboard interrupt returns those that are done.

    Parameters
    ----------
    target, claims, request
        The network, what is claimed of it, and the budget.
    read
        Gives the input of a claim, float32.
    progress
        Called after each certificate.
    """
    found: list[Attacked] = []
    start = time.monotonic()
    try:
        for claim in claims.claims:
            found.append(attack_claim(target, claims, claim, read(claim), request))
            if progress is not None:
                wrong = sum(one.found for one in found)
                cell = f"{wrong} found, smallest margin {min(one.margin for one in found):.3f}"
                progress(Progress(len(found), len(claims.claims), cell, time.monotonic() - start))
    except KeyboardInterrupt:
        pass
    return tuple(found)


def load_target(
    run: Path, claims: Claims, sources: Sources | None, device: str, say: Say
) -> tuple[Target, Dataset]:
    """Load a run's data and robust model, and refuse them if they are not what they were.

    Raises
    ------
    CertmixError
        If they cannot be loaded, or their checksums differ from the run's.
    """
    described: dict[str, Any] = claims.run or {}
    try:
        named = Sources.from_dict(described["sources"]) if sources is None else sources
        robust = named.robust if named.robust is not None else described["models"]["robust"]["spec"]
        identity, batch_size = described["identity"], described.get("batch_size")
        expected = str(identity["data_checksum"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{run}/{DESCRIPTION} lacks {error}: only complete runs can be attacked") from None
    chosen = resolve_device(device)
    loaded = load_models(replace(named, standard=None), robust, chosen, say)
    store: Store | VectorStore
    if claims.sigma is None:
        store = VectorStore(run / VECTORS, read_only=True)
    else:
        store = Store(run / DATABASE, loaded.dataset.classes, read_only=True)
    try:
        Original(run, described, store).hold(loaded, chosen)
    finally:
        store.close()
    _same_data(run, loaded, expected)
    data = loaded.dataset
    batch = batch_size if claims.sigma is not None else None
    return Target(loaded.robust.module, data.classes, chosen, data.input_range, batch), data


def _same_data(run: Path, loaded: Loaded, expected: str) -> None:
    if (found := loaded.dataset.checksum) != expected:
        raise RunError(
            f"{loaded.dataset.name} is not the data that {run} was made with (checksum {found[:12]}, "
            f"{expected[:12]} there): restore it, or certify again"
        )


def input_of(dataset: Dataset, claim: Claim) -> torch.Tensor:
    """Return the input that a claim is about.

    Raises
    ------
    RunError
        If the data set lacks it, or it is not what it was.
    """
    places = np.flatnonzero(dataset.indices == claim.index)
    if len(places) != 1:
        raise RunError(f"{dataset.name} holds no image {claim.index}: restore the data of the run")
    values = np.ascontiguousarray(dataset.read(int(places[0])))
    if claim.input_checksum and hashlib.sha256(values.tobytes()).hexdigest() != claim.input_checksum:
        raise RunError(f"image {claim.index} is not what it was when the run was made: restore the data")
    return torch.from_numpy(values)
