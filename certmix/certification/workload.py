"""What the workers of an engine do for `certify`: images in, records out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from certmix.certification.request import CertifyRequest
from certmix.certification.rounds import Job, sample, sampler_of
from certmix.engines import Handler
from certmix.engines.interface import Take
from certmix.models.checks import resolve_robust
from certmix.runs import ImageRecord
from certmix.runs.elsewhere import Named
from certmix.runs.sources import Loaded, Sources
from certmix.sampling import Sampler
from certmix.sampling.passes import Passes

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
    passes: Passes

    def open(self, device: str | None) -> Handler:
        """Return what samples jobs to the end."""
        return partial(self._sample, sampler_of(self.request, self.loaded, self.passes))

    def name(self, item: Job) -> str:
        """Return what to call a job's image."""
        return f"image {item.index}"

    def _sample(self, sampler: Sampler, jobs: list[Job], seconds: float, take: Take) -> list[Job]:
        sample(self.request, self.loaded, jobs, lambda *found: take(Drawn(*found)), sampler=sampler)
        return []


@dataclass(frozen=True)
class Elsewhere:
    """Sampling in another process, which loads data and model itself and checks that they are the same."""

    request: CertifyRequest
    named: Named
    passes: Passes

    @classmethod
    def of(cls, request: CertifyRequest, sources: Sources, loaded: Loaded, passes: Passes) -> Elsewhere:
        """Return the work that samples as a driver would that has loaded these sources."""
        robust = sources.robust
        if not isinstance(robust, torch.nn.Module):
            robust = resolve_robust(robust, request.sigma)
        anywhere = replace(passes, device=torch.device(passes.device.type))
        return cls(request, Named.of(sources, robust, loaded, passes.device, request.sigma), anywhere)

    def open(self, device: str | None) -> Handler:
        """Load data and robust model, and return what samples jobs until time is up.

        Raises
        ------
        RunError
            If they are not what the driver loaded.
        """
        passes = replace(self.passes, device=torch.device(device or self.passes.device))
        loaded = self.named.load(passes.device)
        return _Timed(self.request, loaded, sampler_of(self.request, loaded, passes))

    def name(self, item: Job) -> str:
        """Return what to call a job's image."""
        return f"image {item.index}"


class _Timed:
    """Samples jobs until time is up; each record is handed over once, as it is then."""

    def __init__(self, request: CertifyRequest, loaded: Loaded, sampler: Sampler) -> None:
        self.request, self.loaded, self.sampler = request, loaded, sampler

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
            self.request, self.loaded, jobs, keep, sampler=self.sampler,
            enough=lambda: time.monotonic() >= end,
        )  # fmt: skip
        take(Drawn(list(newest.values()), finished, drawn))
        return self._rest(jobs, newest, {record.index for record in finished})

    def _rest(self, jobs: list[Job], newest: dict[int, ImageRecord], finished: set[int]) -> list[Job]:
        indices: Any = self.loaded.dataset.indices
        named = [(job, int(indices[job.position])) for job in jobs]
        return [replace(job, record=newest.get(i, job.record)) for job, i in named if i not in finished]
