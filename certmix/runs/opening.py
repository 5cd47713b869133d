"""The one opening of a run: in memory or in a folder, with the models that it was made with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from certmix.runs.behaviour import hold, refuse_changed
from certmix.runs.folder import Run, default_folder
from certmix.runs.identity import Identity, StudyIdentity
from certmix.runs.sources import Loaded


@contextmanager
def open_run(
    identity: Identity | StudyIdentity,
    loaded: Loaded,
    device: torch.device,
    description: Callable[[Run], dict[str, Any]],
    *,
    output: str | Path | None = None,
    in_memory: bool = False,
    fresh: bool = False,
    classes: int | None = None,
    sigma: float | None = None,
    wanted: Collection[int] | None = None,
    step: int = 100,
) -> Iterator[Run]:
    """Open a run and describe it.

    Parameters
    ----------
    identity
        What its numbers depend on.
    loaded, device
        Data and models, and where these are.
    description
        Returns what ``run.json`` is to say; called once the models are known to be the run's, it may
        still refuse. Nothing has been written of this request by then.
    output, in_memory, fresh
        Folder, by default ``runs/<identity>``; nothing on disk; start over.
    classes
        Number of classes, of a run that is sampled.
    sigma, wanted, step
        As for `certmix.runs.behaviour.hold`.

    Raises
    ------
    ModelError
        If a model is not the one that the run was made with.
    RunError
        If the folder cannot be used, or holds another run.
    """
    path = None
    if not in_memory:
        path = Path(output) if output is not None else default_folder(identity)
        if not fresh:
            refuse_changed(path, loaded.models)
    with Run(path, identity, classes, fresh=fresh and path is not None) as run:
        new = {}
        if path is not None:
            new = hold(run.store, loaded, device, path, sigma, wanted=wanted, step=step)
        described = description(run)
        for key, value in new.items():
            run.store.put(key, value)
        run.begin(described)
        yield run
