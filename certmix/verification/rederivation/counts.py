"""Can the stored counts have come about, and is the failure probability spent once only?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from certmix.bounds import BOUNDS
from certmix.bounds.statistics import ScoreStatistics
from certmix.certification.request import CertifyRequest
from certmix.runs import ImageRecord
from certmix.sampling.grid import Grid
from certmix.sampling.law import noise_error
from certmix.sampling.noise import STREAMS, NoiseKey
from certmix.types import Dataset
from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.plain.bounds import look, looks, share
from certmix.verification.rederivation.sources import judged
from certmix.verification.rederivation.stored import StoredRun
from certmix.verification.rederivation.stored_values import is_whole

__all__ = [
    "check_budget",
    "check_counts",
    "check_design",
    "check_looks",
    "check_noise",
    "check_separate",
    "insane",
]

Fault = tuple[int | None, str]
_STEPS = 65536
_BUDGET_SLACK = 1e-12


def check_counts(run: StoredRun, request: CertifyRequest) -> CheckResult:
    """Counts are at least 0, add up to the number of samples, and grow from look to look."""
    faults = [(index, f"image {index}: {fault}") for index, record in run.images.items()
              for fault in insane(record, request, run.classes)]  # fmt: skip
    return judged("counts", faults, f"counts of {len(run.images):,} images add up and grow")


def insane(record: ImageRecord, request: CertifyRequest, classes: int) -> Iterator[str]:
    """Say in what way an image's counts cannot have come about."""
    if not 0 <= record.label < classes:
        yield f"label {record.label} of {classes} classes"
    if not (record.seconds >= 0 and math.isfinite(record.seconds)):
        yield f"{record.seconds} seconds of sampling"
    unit = 1 if request.scores == "hard" else _STEPS
    expected, rounding = request.selection_samples * unit, 0
    if (
        request.scores == "soft"
    ):  # every score is rounded by a step at most, and a row adds up to 1 within 2^-20
        rounding = request.selection_samples * (classes + 1)
    if record.selection.min() < 0 or abs(int(record.selection.sum()) - expected) > rounding:
        found = record.selection.sum() / unit
        yield f"selection adds up to {found:g}, {request.selection_samples} samples were asked for"
    votes = dict(sorted(record.estimation.items()))
    for n, counts in votes.items():
        if n < 1 or counts.min() < 0 or int(counts.sum()) != n:
            yield f"votes of {n} samples add up to {counts.sum()}, the least is {counts.min()}"
    for (before, fewer), (after, more) in pairwise(votes.items()):
        if np.any(more < fewer):
            yield f"a class has fewer votes after {after} samples than after {before}"
    if request.scores == "soft":
        yield from _insane_scores(record)
    elif record.scores:
        yield "soft scores in a run of votes"


def _insane_scores(record: ImageRecord) -> Iterator[str]:
    kept = dict(sorted(record.scores.items()))
    if set(kept) != {0, *record.estimation}:
        yield f"scores after {sorted(kept)} samples, votes after {sorted(record.estimation)}"
    for n, found in kept.items():
        if found.samples != n or found.selected != record.selected or not _consistent(found):
            yield f"scores of {n} samples contradict themselves or the selection"
    for (_, fewer), (after, more) in pairwise(kept.items()):
        same = (fewer.rivals, fewer.deviations.tolist()) == (more.rivals, more.deviations.tolist())
        sums = ("totals", "squares", "bin_counts", "bin_excess")
        if not same or any(np.any(getattr(more, name) < getattr(fewer, name)) for name in sums):
            yield f"a sum of scores is less after {after} samples than before"


def _consistent(found: ScoreStatistics) -> bool:
    """Whether sums, squares and bins can be of one set of scores in [0, 1]."""
    n, width = found.samples, _STEPS // 64
    followed = [found.selected, *found.rivals]
    totals = (found.bin_counts * (width * np.arange(64)) + found.bin_excess).sum(1)
    pairs = zip(found.totals.tolist(), found.squares.tolist(), strict=True)
    return bool(
        all(0 <= t <= n * _STEPS and t * t <= n * s and s <= t * _STEPS for t, s in pairs)
        and min(found.bin_counts.min(), found.bin_excess.min()) >= 0
        and np.all(found.bin_counts.sum(1) == n)
        and np.all(found.bin_excess <= found.bin_counts * width)
        and np.all(totals == found.totals[followed])
        and abs(int(found.totals.sum()) - n * _STEPS) <= n * (len(found.totals) + 1)
    )


def check_looks(run: StoredRun, fixed: int | None) -> CheckResult:
    """Counts were kept at the looks of the schedule and, with a fixed size, at that size; none left out."""
    faults: list[Fault] = []
    for index, record in run.images.items():
        found, due = set(record.estimation), set(looks(record.drawn))
        extra = sorted(found - due - {fixed})
        if extra:
            faults.append((index, f"image {index} was looked at after {extra[0]} samples, which is no look"))
        elif due - found:
            faults.append((index, f"image {index} lacks its look at {min(due - found)} samples"))
    return judged("look schedule", faults, f"{look(0)}, {look(1)}, {look(2)}, ...: all looks lie on it")


def check_design(run: StoredRun, fixed: int | None, requests: list[CertifyRequest]) -> CheckResult:
    """A fixed-size bound speaks of the one number of samples that was settled before sampling."""
    faults: list[Fault] = [
        (
            None,
            f"a bound of fixed size {request.samples}, the run was planned for {fixed or 'sequential looks'}",
        )
        for request in requests
        if request.goal == "fixed" and request.samples != fixed
    ]
    first = run.meta.get("bound")
    if requests and first is None:
        faults.append((None, "the database does not say which bound the run began with"))
    delta = run.meta.get("failure_probability")
    changed = sorted({request.bound_name for request in requests if request.bound_name != first})
    changed += sorted({str(r.failure_probability) for r in requests} - {delta}) if delta is not None else []
    note = f"; tables by {', '.join(changed)} are valid if not chosen by results" if changed else ""
    size = f"fixed size {fixed}" if fixed else "sequential looks"
    return judged("fixed design", faults, f"planned with {size}, bound {first}{note}")


def check_separate(run: StoredRun, request: CertifyRequest) -> CheckResult:
    """Selection and estimation samples have different keys, and no sample's number leaves its 32 bits."""
    most = max((record.drawn for record in run.images.values()), default=0)
    some = next(iter(run.images), 0)
    keys = {NoiseKey(request.seed, some, stream).words for stream in STREAMS}
    faults: list[Fault] = []
    if len(keys) < len(STREAMS) or max(most, request.selection_samples) > 2**32:
        faults.append((some, f"image {some}: selection and estimation share noise"))
    return judged("separate samples", faults, "selection and estimation have streams of noise of their own")


def check_noise(run: StoredRun, request: CertifyRequest, dataset: Dataset | None) -> CheckResult:
    """Each image gives away at least the noise's distance from the Gaussian, and its own from the grid."""
    stored = run.description.get("noise")
    if not isinstance(stored, dict) or not is_whole(stored.get("coordinates")):
        return CheckResult("noise", Outcome.FAILS, "run.json does not say which noise was drawn")
    eps, grid = noise_error(request.sigma, stored["coordinates"]), Grid.of(request.sigma)
    faults: list[Fault] = [
        (index, f"image {index}: its bounds allow for {record.noise_error:g}, the noise's error is {eps:g}")
        for index, record in run.images.items()
        if not record.noise_error >= eps or record.places < 1
    ]
    faults += [
        (
            index,
            f"image {index}: bound {request.bound_name} does not hold over {record.places} places of a batch",
        )
        for index, record in run.images.items()
        if record.places > 1 and not BOUNDS[request.bound_name].averaged
    ]
    for place, index in enumerate(dataset.indices.tolist() if dataset is not None else ()):
        if dataset is None or (record := run.images.get(index)) is None:
            continue
        values = dataset.read(place)
        if values.size != stored["coordinates"]:
            faults.append((index, f"image {index} has {values.size:,} values, run.json says otherwise"))
        elif not record.lost >= (lost := grid.nearest(values).lost) * (1 - 1e-9):
            faults.append((index, f"image {index} is {lost:g} from the grid, its radii lose {record.lost:g}"))
    return judged("noise", faults, f"bounds allow for eps = {eps:.3g} of the noise, radii for the grid")


def check_budget(description: dict[str, Any], request: CertifyRequest, classes: int) -> CheckResult:
    """The parts that p, q and all looks may spend add up to the failure probability at most."""
    stored = description.get("failure_budget")
    if not isinstance(stored, dict) or not isinstance(stored.get("split"), dict):
        return CheckResult("failure budget", Outcome.FAILS, "run.json says nothing of how it is spent")
    delta, split, parts = request.failure_probability, stored["split"], _split(request, classes)
    faults: list[Fault] = []
    schedule = None if request.goal == "fixed" else "certmix.sampling.schedule"
    claims = {"failure_probability": delta, "bound": request.bound, "looks": schedule}
    for name, value in claims.items():
        if stored.get(name) != value:
            faults.append((None, f"the budget says {name} = {stored.get(name)}, the request {value}"))
    if split != parts:
        faults.append((None, f"it is split as {split}, {request.bound} splits it as {parts}"))
    spent = sum(value for name, value in parts.items() if name != "rest" or classes > 2)
    if spent > delta * (1 + _BUDGET_SLACK):
        faults.append((None, f"the parts add up to {spent}, more than {delta}"))
    shares = math.fsum(share(k) for k in range(len(looks(10**9))))
    if request.goal != "fixed" and not BOUNDS[request.bound_name].time_uniform and shares > 1:
        faults.append((None, f"the looks' shares add up to {shares}"))
    over = f", looks to 10^9 samples spend {shares:.6f} of it" if schedule else ""
    return judged("failure budget", faults, f"{delta:g} = {_written(parts)}{over}")


def _split(request: CertifyRequest, classes: int) -> dict[str, float]:
    delta, half = request.failure_probability, request.failure_probability / 2
    if BOUNDS[request.bound_name].distribution:
        each = half / (2 if classes > 2 else 1)
        return {"own": half, "each rival": each, "rest": each}
    parts = BOUNDS[request.bound_name].parts
    return {part: delta / len(parts) for part in parts}


def _written(parts: dict[str, float]) -> str:
    return " + ".join(f"{value:g} ({name})" for name, value in parts.items())
