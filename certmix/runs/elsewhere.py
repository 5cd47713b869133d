"""What another process needs to load the same data and robust model, and to know that they are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from certmix.errors import RunError
from certmix.runs.behaviour import like, probe
from certmix.runs.sources import Loaded, Sources, load_models


@dataclass(frozen=True)
class Named:
    """Data and robust model as a driver loaded them; picklable."""

    sources: Sources
    robust: str | nn.Module
    data_checksum: str
    robust_checksum: str
    logits: str

    @classmethod
    def of(
        cls,
        sources: Sources,
        robust: str | nn.Module,
        loaded: Loaded,
        device: torch.device | str = "cpu",
        sigma: float | None = None,
    ) -> Named:
        """Return what names the data and the robust model that a driver loaded from `sources`.

        `sigma` is the noise level of the model's inputs, None where it sees none.
        """
        shown = sources.as_dict()
        absolute = {key: shown[key] for key in shown if isinstance(shown[key], str) or key.endswith("_files")}
        named = sources.replace(**{**absolute, "split": sources.split, "standard": None})
        if isinstance(robust, str) and named.robust is not None:
            robust = named.robust
        logits = probe(loaded.robust, loaded.dataset, device, sigma)
        return cls(named, robust, loaded.dataset.checksum, loaded.robust.checksum, logits)

    def load(self, device: torch.device, say: Callable[[str], None] = lambda message: None) -> Loaded:
        """Load them here, without the standard model; torch gets one thread.

        Raises
        ------
        RunError
            If they are not what the driver loaded.
        """
        torch.set_num_threads(1)
        loaded = load_models(self.sources, self.robust, device, say)
        for what, found, expected in (
            ("data", loaded.dataset.checksum, self.data_checksum),
            ("robust model", loaded.robust.checksum, self.robust_checksum),
        ):
            if found != expected:
                raise RunError(
                    f"a worker loaded another {what} than the driver (checksum {found[:12]}, not "
                    f"{expected[:12]}): give all workers the same files and the same versions"
                )
        if told := like(self.logits, loaded.robust, loaded.dataset, device):
            raise RunError(
                f"a worker loaded another robust model than the driver ({told}): give all workers the same "
                "files, environment and versions"
            )
        return loaded
