"""The one opening of a run: in memory, in a folder, or in a worker, with the models it was made with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from certmix.errors import RunError
from certmix.runs.behaviour import hold, like, probe, refuse_changed
from certmix.runs.folder import Identity, Run, StudyIdentity, default_folder
from certmix.runs.sources import Loaded, Sources, absolute, load_models
from certmix.sampling.enumerated import Views


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
    say: Callable[[str], None] = lambda message: None,
) -> Iterator[Run]:
    """Open a run, by default in ``runs/<identity>``, and describe it.

    `description` returns what ``run.json`` is to say; it is called once the models are known to be the run's,
    and may still refuse: nothing has been written by then.  `sigma`, `wanted` and `step` are as for
    `certmix.runs.behaviour.hold`; `say` receives warnings.  ModelError if a model is not the one that the run
    was made with, RunError if the folder cannot be used or holds another run.
    """
    path = None
    if not in_memory:
        path = Path(output) if output is not None else default_folder(identity)
        if not fresh:
            refuse_changed(path, loaded.models)
    with Run(path, identity, classes, fresh=fresh and path is not None, say=say) as run:
        new = {}
        if path is not None:
            new = hold(run.store, loaded, device, path, sigma, wanted=wanted, step=step)
        described = description(run)
        for key, value in new.items():
            run.store.put(key, value)
        run.begin(described)
        yield run


@dataclass(frozen=True)
class Named:
    """Data and robust model as a driver loaded them; picklable."""

    sources: Sources
    robust: str | nn.Module
    checksums: dict[str, str]
    logits: str
    views: Views | None = None

    @classmethod
    def of(
        cls,
        sources: Sources,
        robust: str | nn.Module,
        loaded: Loaded,
        device: torch.device | str = "cpu",
        sigma: float | None = None,
        views: Views | None = None,
    ) -> Named:
        """Return what names data and robust model, whose inputs have noise `sigma`, or none, of a driver."""
        shown = absolute(sources.as_dict())
        found = {key: shown[key] for key in shown if isinstance(shown[key], str) or key.endswith("_files")}
        named = sources.replace(**{**found, "split": sources.split, "standard": None})
        if isinstance(robust, str) and named.robust is not None:
            robust = named.robust
        logits = probe(loaded.robust, loaded.dataset, device, sigma)
        return cls(named, robust, _checksums(loaded), logits, views)

    def load(self, device: torch.device) -> Loaded:
        """Load them, on one thread and without the standard model; RunError if they are not the driver's."""
        torch.set_num_threads(1)
        loaded = load_models(self.sources, self.robust, device, lambda message: None, views=self.views)
        for what, found in _checksums(loaded).items():
            if found != self.checksums[what]:
                raise RunError(
                    f"a worker loaded another {what} than the driver (checksum {found[:12]}, not "
                    f"{self.checksums[what][:12]}): give all workers the same files and the same versions"
                )
        if told := like(self.logits, loaded.robust, loaded.dataset, device):
            raise RunError(
                f"a worker loaded another robust model than the driver ({told}): give all workers the same "
                "files, environment and versions"
            )
        return loaded


def _checksums(loaded: Loaded) -> dict[str, str]:
    return {"data": loaded.dataset.checksum, "robust model": loaded.robust.checksum}
