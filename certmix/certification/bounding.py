"""From stored counts to bounds, and from bounds to radii: what tables rest on.  No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.bounds import BOUNDS, bound_counts, bound_scores
from certmix.bounds.layers import LayerBounds, bound_layers, layered_radii
from certmix.bounds.noise import allow_for_noise
from certmix.bounds.sequential import look_bounds, score_look_bounds
from certmix.bounds.statistics import MOST_SAMPLES, SUMS, ScoreStatistics, start, update
from certmix.certification.request import CertifyRequest
from certmix.certification.stopping import Rule, Walk
from certmix.errors import ModelError, ParameterError
from certmix.radii import certify_radii, margin_slack_of
from certmix.runs import ImageRecord
from certmix.sampling.schedule import looks
from certmix.types import CertifiedRadii, ConfidenceBounds, FloatArray, IntArray

__all__ = ["Bounded", "bound_records", "radii_of", "unanimous"]

_TOGETHER = 2000
"""Images whose counts are in memory with all zeros at a time."""

_rule = lru_cache(maxsize=8)(Rule)


@dataclass(frozen=True)
class Bounded:
    """Bounds of images (m,), the samples behind them, and who still waits for samples."""

    bounds: ConfidenceBounds | LayerBounds
    samples: IntArray
    waiting: NDArray[np.bool_]


def bound_records(
    records: Sequence[ImageRecord], request: CertifyRequest, *, every_look: bool = False
) -> Bounded:
    """Return the bounds of images, what they rest on, and which images still want samples.

    For sequential goals the stopping rule is walked again over the stored
    looks, so that a table depends on the request and the counts alone, even
    where another request has drawn more.  With `every_look` all stored looks
    are used, which is as valid, and no image waits.

    Raises
    ------
    ModelError
        If the bound needs one function, and the model's rows depend on their place.
    """
    bound = BOUNDS[request.bound_name]
    if not bound.averaged and any(record.places > 1 for record in records):
        others = " or ".join(sorted(name for name, one in BOUNDS.items() if one.averaged))
        raise ModelError(
            f"the model's logits depend on a row's place in the batch, where bound {request.bound_name} does "
            f"not hold: use {others} (docs/noise.md#rows-of-a-batch)"
        )
    selected = np.array([record.selected for record in records], np.int64)
    if request.goal != "fixed":
        labels = np.array([record.label for record in records], np.int64)
        walk = _walk(records, Walk(_rule(request), selected, labels), every_look)
        split = bound.split(request.failure_probability)
        bounds = ConfidenceBounds(walk.p, walk.q, request.failure_probability, request.bound_name, split)
        bounds = allow_for_noise(bounds, *_noise_of(records))
        return Bounded(bounds, walk.samples, walk.active & (not every_look))
    evidence: list[Mapping[int, Any]] = [_evidence(record, request) for record in records]
    present = np.array([request.samples in looks for looks in evidence])
    if not present.all():
        nothing = np.zeros(len(records))
        unknown = ConfidenceBounds(nothing, nothing + 1, request.failure_probability, request.bound_name, {})
        return Bounded(unknown, np.zeros(len(records), np.int64), ~present)
    complete = _fixed_bounds([looks[request.samples] for looks in evidence], selected, request)
    complete = allow_for_noise(complete, *_noise_of(records))
    return Bounded(complete, np.full(len(records), request.samples), ~present)


def _noise_of(records: Sequence[ImageRecord]) -> tuple[FloatArray, FloatArray]:
    """What the noise and the grid cost each image: probability, and l2 distance."""
    return np.array([r.noise_error for r in records]), np.array([r.lost for r in records])


def _evidence(record: ImageRecord, request: CertifyRequest) -> Mapping[int, Any]:
    """What bounds are computed from, by number of samples: votes or score statistics."""
    return record.estimation if request.scores == "hard" else record.scores


def _fixed_bounds(
    complete: list[Any], selected: IntArray, request: CertifyRequest
) -> ConfidenceBounds | LayerBounds:
    delta = request.failure_probability
    if request.scores == "hard":
        return bound_counts(np.stack(complete), selected, delta, request.bound_name)
    if BOUNDS[request.bound_name].distribution:
        return bound_layers(complete, delta)
    return bound_scores(complete, delta, request.bound_name)


def _walk(records: Sequence[ImageRecord], walk: Walk, every_look: bool) -> Walk:
    """Take every image as far as its stored looks go, and the rule unless every look counts."""
    request = walk.rule.request
    evidence = [_evidence(record, request) for record in records]
    for number, samples in enumerate(walk.rule.looks):
        waiting = range(len(records)) if every_look else np.flatnonzero(walk.active).tolist()
        rows = np.array([i for i in waiting if samples in evidence[i]], np.int64)
        if len(rows) == 0:
            break
        for part in np.array_split(rows, math.ceil(len(rows) / _TOGETHER)):
            found = [evidence[i][samples] for i in part.tolist()]
            if request.scores == "hard":
                walk.step(number, part, np.stack(found))
            else:
                walk.step_scores(number, part, found)
    return walk


def unanimous(request: CertifyRequest, classes: int) -> ConfidenceBounds | LayerBounds:
    """Return the bounds of one image whose samples all agree fully."""
    delta, bound, one = request.failure_probability, request.bound_name, np.eye(1, classes, dtype=np.int64)
    selected, hard = np.zeros(1, np.int64), request.scores == "hard"
    if request.goal == "fixed":
        agreed = one[0] * request.samples if hard else _agreed(classes, request.samples)
        return _fixed_bounds([agreed], selected, request)
    pairs = [
        look_bounds(bound, k, one * n, selected, delta)
        if hard
        else score_look_bounds(bound, k, [_agreed(classes, n)], delta)
        for k, n in enumerate(looks(request.samples))
    ]
    p, q = np.max([p for p, _ in pairs], axis=0), np.min([q for _, q in pairs], axis=0)
    return ConfidenceBounds(p, q, delta, bound, BOUNDS[bound].split(delta))


def _agreed(classes: int, samples: int) -> ScoreStatistics:
    """Statistics of samples that all give class 0 the score 1."""
    if samples > MOST_SAMPLES:
        raise ParameterError(f"samples = {samples}: of soft scores at most {MOST_SAMPLES} are drawn")
    one = update(start(classes, 0, (1,)), np.eye(1, classes))
    sums: dict[str, Any] = {name: getattr(one, name) * samples for name in SUMS}
    return replace(one, samples=samples, **sums)


def radii_of(
    bounds: ConfidenceBounds | LayerBounds, *, sigma: float, alpha: float, certificate: str
) -> CertifiedRadii:
    """Return the certified radii of bounds of means, or of distributions (``exact`` only), as published."""
    slack = margin_slack_of(alpha)
    if isinstance(bounds, LayerBounds):
        found = layered_radii(bounds, sigma=sigma, alpha=alpha, margin_slack=slack)
        return replace(found, certificate=certificate)
    return certify_radii(bounds, sigma=sigma, alpha=alpha, certificate=certificate, margin_slack=slack)
