"""Can the stored numbers have come about, and is the failure probability spent once only?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from certmix.bounds import BOUNDS
from certmix.bounds.statistics import ScoreStatistics
from certmix.certification.deterministic_request import ROBUST
from certmix.certification.request import CertifyRequest
from certmix.files import digest_of
from certmix.runs import ImageRecord
from certmix.sampling.grid import Grid
from certmix.sampling.law import noise_error
from certmix.sampling.noise import STREAMS, NoiseKey
from certmix.types import Dataset
from certmix.verification import plain
from certmix.verification.checks import CheckResult, Faults, Outcome, judged, unchecked
from certmix.verification.plain import SLACK
from certmix.verification.stored import Run, is_whole

STEPS = 65536


def check_numbers(run: Run, data: Dataset | None) -> list[CheckResult]:
    request = run.request
    if isinstance(request, CertifyRequest):
        return [
            *_check_inputs(run.images, data), _check_counts(run, request), _check_looks(run),
            _check_design(run, request), _check_separate(run, request), _check_noise(run, request, data),
            _check_budget(run, request), _check_outputs(run),
        ]  # fmt: skip
    faults: Faults = [
        (index, f"image {index}: {cell} are not {run.classes} finite numbers")
        for cell, rows in run.cells.items()
        if "logits" in cell
        for index, values in rows.items()
        if values.shape != (run.classes,) or not np.isfinite(values).all()
    ]
    return [judged("logits", faults, f"{len(run.cells.get(ROBUST, {})):,} images have finite logits")]


def _check_inputs(images: Mapping[int, ImageRecord], data: Dataset | None) -> list[CheckResult]:
    """Is every stored image what the data set holds under its index, with its label?"""
    if data is None:
        return [unchecked(name, "the data set cannot be loaded") for name in ("labels", "input checksums")]
    places = {int(index): place for place, index in enumerate(data.indices)}
    labels: Faults = []
    sums: Faults = []
    for index, record in images.items():
        if index not in places:
            labels.append((index, f"image {index} is stored, but not in the data set"))
            continue
        found, values = data.labels[places[index]], np.ascontiguousarray(data.read(places[index]))
        if found != record.label:
            labels.append((index, f"image {index} has label {found}, the run says {record.label}"))
        if digest_of(values.tobytes()) != record.input_checksum:
            sums.append((index, f"image {index} is not what the run stored a checksum of"))
    return [
        judged("labels", labels, f"{len(images):,} labels are those of the data set"),
        judged("input checksums", sums, f"{len(images):,} inputs are those that were sampled"),
    ]


def _check_counts(run: Run, request: CertifyRequest) -> CheckResult:
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
    soft = request.scores == "soft"
    unit = STEPS if soft else 1
    # Every soft score is rounded by a step at most, and a row adds up to 1 within 2^-20.
    rounding = request.selection_samples * (classes + 1) if soft else 0
    total = int(record.selection.sum())
    if record.selection.min() < 0 or abs(total - request.selection_samples * unit) > rounding:
        yield (f"selection adds up to {total / unit:g}, {request.selection_samples} samples were asked for")
    votes = dict(sorted(record.estimation.items()))
    for n, counts in votes.items():
        if n < 1 or counts.min() < 0 or int(counts.sum()) != n:
            yield f"votes of {n} samples add up to {counts.sum()}, the least is {counts.min()}"
    for (before, fewer), (after, more) in pairwise(votes.items()):
        if np.any(more < fewer):
            yield f"a class has fewer votes after {after} samples than after {before}"
    if not soft:
        if record.scores:
            yield "soft scores in a run of votes"
        return
    kept = dict(sorted(record.scores.items()))
    if set(kept) != {0, *record.estimation}:
        yield f"scores after {sorted(kept)} samples, votes after {sorted(record.estimation)}"
    for n, found in kept.items():
        if found.samples != n or found.selected != record.selected or not _consistent(found):
            yield f"scores of {n} samples contradict themselves or the selection"
    for (_, earlier), (after, later) in pairwise(kept.items()):
        same = (earlier.rivals, earlier.deviations.tolist()) == (later.rivals, later.deviations.tolist())
        sums = ("totals", "squares", "bin_counts", "bin_excess")
        if not same or any(np.any(getattr(later, name) < getattr(earlier, name)) for name in sums):
            yield f"a sum of scores is less after {after} samples than before"


def _consistent(found: ScoreStatistics) -> bool:
    """Whether sums, squares and bins can be of one set of scores in [0, 1]."""
    n, width = found.samples, STEPS // 64
    followed = [found.selected, *found.rivals]
    totals = (found.bin_counts * (width * np.arange(64)) + found.bin_excess).sum(1)
    pairs = zip(found.totals.tolist(), found.squares.tolist(), strict=True)
    return bool(
        all(0 <= t <= n * STEPS and t * t <= n * s and s <= t * STEPS for t, s in pairs)
        and min(found.bin_counts.min(), found.bin_excess.min()) >= 0
        and np.all(found.bin_counts.sum(1) == n)
        and np.all(found.bin_excess <= found.bin_counts * width)
        and np.all(totals == found.totals[followed])
        and abs(int(found.totals.sum()) - n * STEPS) <= n * (len(found.totals) + 1)
    )


def _check_looks(run: Run) -> CheckResult:
    """Counts were kept at the looks of the schedule and, with a fixed size, at that size; none left out."""
    fixed, faults = int(run.meta.get("fixed_samples", 0)), Faults()
    for index, record in run.images.items():
        found, due = set(record.estimation), set(plain.looks(record.drawn))
        if extra := sorted(found - due - {fixed}):
            faults.append((index, f"image {index} was looked at after {extra[0]} samples, which is no look"))
        elif due - found:
            faults.append((index, f"image {index} lacks its look at {min(due - found)} samples"))
    first = ", ".join(str(plain.look(k)) for k in range(3))
    return judged("look schedule", faults, f"{first}, ...: all looks lie on it")


def _check_design(run: Run, request: CertifyRequest) -> CheckResult:
    """A fixed-size bound speaks of the one number of samples that was settled before sampling."""
    fixed, first, delta = (run.meta.get(name) for name in ("fixed_samples", "bound", "failure_probability"))
    faults: Faults = []
    if request.goal == "fixed" and str(request.samples) != fixed:
        planned = fixed or "sequential looks"
        faults.append((None, f"a bound of fixed size {request.samples}, the run was planned for {planned}"))
    if first is None:
        faults.append((None, "the database does not say which bound the run began with"))
    changed = [request.bound_name] if request.bound_name != first else []
    if delta is not None and str(request.failure_probability) != delta:
        changed.append(str(request.failure_probability))
    note = f"; tables by {', '.join(changed)} are valid if not chosen by results" if changed else ""
    size = f"fixed size {fixed}" if fixed else "sequential looks"
    return judged("fixed design", faults, f"planned with {size}, bound {first}{note}")


def _check_separate(run: Run, request: CertifyRequest) -> CheckResult:
    """Selection and estimation samples have different keys, and no sample's number leaves its 32 bits."""
    most = max((record.drawn for record in run.images.values()), default=0)
    some = next(iter(run.images), 0)
    keys = {NoiseKey(request.seed, some, stream).words for stream in STREAMS}
    faults: Faults = []
    if len(keys) < len(STREAMS) or max(most, request.selection_samples) > 2**32:
        faults.append((some, f"image {some}: selection and estimation share noise"))
    return judged("separate samples", faults, "selection and estimation have streams of noise of their own")


def _check_noise(run: Run, request: CertifyRequest, data: Dataset | None) -> CheckResult:
    """Each image gives away at least the noise's distance from the Gaussian, and its own from the grid."""
    stored = run.description.get("noise")
    if not isinstance(stored, dict) or not is_whole(stored.get("coordinates")):
        return CheckResult("noise", Outcome.FAILS, "run.json does not say which noise was drawn")
    eps, grid = noise_error(request.sigma, stored["coordinates"]), Grid.of(request.sigma)
    averaged, faults = BOUNDS[request.bound_name].averaged, Faults()
    for index, record in run.images.items():
        if not record.noise_error >= eps or record.places < 1:
            text = f"its bounds allow for {record.noise_error:g}, the noise's error is {eps:g}"
            faults.append((index, f"image {index}: {text}"))
        if record.places > 1 and not averaged:
            text = f"bound {request.bound_name} does not hold over {record.places} places of a batch"
            faults.append((index, f"image {index}: {text}"))
    for place, index in enumerate(data.indices.tolist() if data is not None else ()):
        kept = run.images.get(index)
        if data is None or kept is None:
            continue
        values = data.read(place)
        if values.size != stored["coordinates"]:
            faults.append((index, f"image {index} has {values.size:,} values, run.json says otherwise"))
        elif not kept.lost >= (lost := grid.nearest(values).lost) * (1 - 1e-9):
            faults.append((index, f"image {index} is {lost:g} from the grid, its radii lose {kept.lost:g}"))
    return judged("noise", faults, f"bounds allow for eps = {eps:.3g} of the noise, radii for the grid")


def _check_budget(run: Run, request: CertifyRequest) -> CheckResult:
    """The parts that p, q and all looks may spend add up to the failure probability at most."""
    stored, check = run.description.get("failure_budget"), "failure budget"
    if not isinstance(stored, dict) or not isinstance(stored.get("split"), dict):
        return CheckResult(check, Outcome.FAILS, "run.json says nothing of how it is spent")
    bound, delta, sequential = (
        BOUNDS[request.bound_name],
        request.failure_probability,
        request.goal != "fixed",
    )
    if bound.distribution:
        each = delta / 2 / (2 if run.classes > 2 else 1)
        parts = {"own": delta / 2, "each rival": each, "rest": each}
    else:
        parts = {part: delta / len(bound.parts) for part in bound.parts}
    faults: Faults = []
    schedule = "certmix.sampling.schedule" if sequential else None
    claims = {"failure_probability": delta, "bound": request.bound, "looks": schedule}
    for name, value in claims.items():
        if stored.get(name) != value:
            faults.append((None, f"the budget says {name} = {stored.get(name)}, the request {value}"))
    if stored["split"] != parts:
        faults.append((None, f"it is split as {stored['split']}, {request.bound} splits it as {parts}"))
    spent = sum(value for name, value in parts.items() if name != "rest" or run.classes > 2)
    if spent > delta * (1 + 1e-12):
        faults.append((None, f"the parts add up to {spent}, more than {delta}"))
    shares = math.fsum(plain.share(k) for k in range(len(plain.looks(10**9))))
    if sequential and not bound.time_uniform and shares > 1:
        faults.append((None, f"the looks' shares add up to {shares}"))
    written = " + ".join(f"{value:g} ({name})" for name, value in parts.items())
    over = f", looks to 10^9 samples spend {shares:.6f} of it" if schedule else ""
    return judged(check, faults, f"{delta:g} = {written}{over}")


def _check_outputs(run: Run) -> CheckResult:
    """Stored outputs of the standard model are probabilities."""
    faults: Faults = [
        (index, f"image {index}: outputs of the standard model are not probabilities")
        for index, values in run.standard.items()
        if not (values.min() >= 0 and abs(values.sum() - 1) <= SLACK)
    ]
    return judged("standard outputs", faults, f"{len(run.standard):,} outputs are probabilities")
