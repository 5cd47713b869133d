"""What the workers of an engine do for `certify`: images in, records out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from certmix.engines import Handler
from certmix.engines.interface import Take
from certmix.errors import RunError
from certmix.records import ImageRecord
from certmix.studies.request import CertifyRequest
from certmix.studies.rounds import Job, sample
from certmix.studies.sources import Loaded, Sources, load_sources

__all__ = ["Drawn", "Elsewhere", "Here"]


@dataclass(frozen=True)
class Drawn:
    """What one round, or one task, brought.

    Parameters
    ----------
    records
        Records that changed, as they are now.
    finished
        Those of them that want no more samples.
    drawn
        Number of samples drawn.
    """

    records: list[ImageRecord]
    finished: list[ImageRecord]
    drawn: int


@dataclass(frozen=True)
class Here:
    """Sampling in this process, with what is loaded; results come round by round."""

    request: CertifyRequest
    loaded: Loaded
    device: torch.device
    batch_size: int | None

    def open(self, device: str | None) -> Handler:
        """Return what samples jobs to the end."""
        return self._sample

    def name(self, item: Job) -> str:
        """Return what to call a job's image."""
        return f"image {item.index}"

    def _sample(self, jobs: list[Job], seconds: float, take: Take) -> list[Job]:
        sample(
            self.request, self.loaded, jobs, lambda *found: take(Drawn(*found)),
            device=self.device, batch_size=self.batch_size,
        )  # fmt: skip
        return []


@dataclass(frozen=True)
class Elsewhere:
    """Sampling in another process, which loads data and model itself and checks that they are the same."""

    request: CertifyRequest
    sources: Sources
    device: str
    batch_size: int | None
    data_checksum: str
    robust_checksum: str

    @classmethod
    def of(
        cls, request: CertifyRequest, sources: Sources, loaded: Loaded, device: str, batch_size: int | None
    ) -> Elsewhere:
        """Return the work that samples as a driver would that has loaded these sources."""
        shown = sources.as_dict()
        absolute = {key: shown[key] for key in shown if isinstance(shown[key], str)}
        named = replace(sources, **{**absolute, "split": sources.split, "standard": None})
        return cls(
            request, named, device, batch_size, loaded.dataset.checksum, loaded.robust.checksum
        )  # fmt: skip

    def open(self, device: str | None) -> Handler:
        """Load data and robust model, and return what samples jobs until time is up.

        Raises
        ------
        RunError
            If they are not what the driver loaded.
        """
        chosen = torch.device(device or self.device)
        torch.set_num_threads(1)
        loaded = load_sources(self.sources, self.request.sigma, chosen, lambda message: None)
        for what, found, expected in (
            ("data", loaded.dataset.checksum, self.data_checksum),
            ("robust model", loaded.robust.checksum, self.robust_checksum),
        ):
            if found != expected:
                raise RunError(
                    f"a worker loaded another {what} than the driver (checksum {found[:12]}, not "
                    f"{expected[:12]}): give all workers the same files and the same versions"
                )
        return _Timed(self, loaded, chosen)

    def name(self, item: Job) -> str:
        """Return what to call a job's image."""
        return f"image {item.index}"


class _Timed:
    """Samples jobs until time is up; each record is handed over once, as it is then."""

    def __init__(self, work: Elsewhere, loaded: Loaded, device: torch.device) -> None:
        self.work, self.loaded, self.device = work, loaded, device

    def __call__(self, jobs: list[Job], seconds: float, take: Take) -> list[Job]:
        newest: dict[int, ImageRecord] = {}
        finished: list[ImageRecord] = []
        drawn, end = 0, time.monotonic() + seconds

        def keep(records: list[ImageRecord], done: list[ImageRecord], count: int) -> None:
            nonlocal drawn
            newest.update((record.index, record) for record in records)
            finished.extend(done)
            drawn += count

        sample(
            self.work.request, self.loaded, jobs, keep, device=self.device, batch_size=self.work.batch_size,
            enough=lambda: time.monotonic() >= end,
        )  # fmt: skip
        take(Drawn(list(newest.values()), finished, drawn))
        return self._rest(jobs, newest, {record.index for record in finished})

    def _rest(self, jobs: list[Job], newest: dict[int, ImageRecord], finished: set[int]) -> list[Job]:
        indices: Any = self.loaded.dataset.indices
        named = [(job, int(indices[job.position])) for job in jobs]
        return [replace(job, record=newest.get(i, job.record)) for job, i in named if i not in finished]
