"""Drawing what a guarantee lacks, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from certmix.certification.certify import run_certify
from certmix.certification.deterministic import run_deterministic
from certmix.certification.deterministic_request import DeterministicRequest
from certmix.certification.request import CertifyRequest
from certmix.errors import Interrupted
from certmix.runs.folder import DATABASE
from certmix.runs.sources import Loaded, Sources
from certmix.verification.guarantee.copying import copy_stored
from certmix.verification.guarantee.guarantees import Guarantee
from certmix.verification.guarantee.planning import Plan, stored_images

__all__ = ["Sampling", "draw", "untouched"]

STOPPED = "interrupted before all samples of the guarantee were drawn"


@dataclass(frozen=True)
class Sampling:
    """What was done.

    Parameters
    ----------
    reused_images, drawn_images
        Images whose stored samples were enough, and those that more was drawn (or computed) for.
    reused_samples, drawn_samples
        Samples that lay there for all these images, selection included, and those that were drawn.
    why
        Sentences that say what was done for what reason.
    """

    reused_images: int
    drawn_images: int
    reused_samples: int
    drawn_samples: int
    why: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**vars(self), "why": list(self.why)}


def draw(
    guarantee: Guarantee,
    sources: Sources,
    loaded: Loaded,
    planned: Plan,
    *,
    fresh: bool,
    device: str,
    batch_size: int | None,
    progress: Callable[[Any], None] | None,
    say: Callable[[str], None],
) -> Sampling:
    """Draw what is lacking by `run_certify` or `run_deterministic`, which reuse all that is stored.

    Raises
    ------
    Interrupted
        If it was interrupted; what was drawn is kept.
    """
    request, classes = guarantee.asked, loaded.dataset.classes
    if not fresh:
        copy_stored(guarantee, loaded, planned)
    lacking = planned.indices if fresh else planned.lacking
    reused = len(planned.indices) - len(lacking)
    work: dict[str, Any] = {
        "output": planned.folder, "fresh": fresh, "device": device, "batch_size": batch_size,
        "progress": progress, "say": say,
    }  # fmt: skip
    if isinstance(request, DeterministicRequest):
        if not run_deterministic(request, sources, **work).summary.complete:
            raise Interrupted(STOPPED)
        return Sampling(reused, len(lacking), 0, 0, planned.why)
    before = {} if fresh else samples_of(planned, request, classes)
    if not run_certify(request, sources, **work).summary.complete:
        raise Interrupted(STOPPED)
    reused_samples, total = sum(before.values()), sum(samples_of(planned, request, classes).values())
    return Sampling(reused, len(lacking), reused_samples, total - reused_samples, planned.why)


def samples_of(planned: Plan, request: CertifyRequest, classes: int) -> dict[int, int]:
    """Return how many samples of each image of a plan are stored, those of the selection included."""
    if not (planned.folder / DATABASE).is_file():
        return {}
    images, _ = stored_images(planned.folder, classes, None)
    found = {index: images[index] for index in planned.indices if index in images}
    return {index: record.drawn + request.selection_samples for index, record in found.items()}


def untouched(guarantee: Guarantee, loaded: Loaded, planned: Plan) -> Sampling:
    """Return what is reported where nothing had to be done."""
    request, stored = guarantee.asked, 0
    if isinstance(request, CertifyRequest):
        stored = sum(samples_of(planned, request, loaded.dataset.classes).values())
    return Sampling(len(planned.indices), 0, stored, 0, planned.why)
