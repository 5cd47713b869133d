"""From stored counts to radii and figures by the plain bounds and radii alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.bounds import BOUNDS
from certmix.certification.request import CertifyRequest
from certmix.certification.stopping import Rule
from certmix.runs import ImageRecord
from certmix.types import FloatArray, IntArray
from certmix.verification.plain.bounds import VOTE_BOUNDS, looks, share
from certmix.verification.plain.radii import RADII, layers_radius, slack_of
from certmix.verification.plain.scores import SCORE_BOUNDS, PlainLayers, bound_layers

__all__ = ["Derived", "derive", "evidence"]

STEPS = 65536


@dataclass(frozen=True)
class Derived:
    """Bounds of images (m,), the samples behind them, and who would still wait for samples.

    ``layers`` is empty unless the bound is one of distributions; p and q are 0 and 1 then.
    """

    p: FloatArray
    q: FloatArray
    layers: tuple[PlainLayers, ...]
    samples: IntArray
    waiting: NDArray[np.bool_]
    lost: FloatArray | float = 0.0

    def radii(self, certificate: str, sigma: float, alpha: float) -> FloatArray:
        """Return the radii (m,) of one certificate about the inputs, 0 where nothing is certified."""
        slack = slack_of(alpha)
        if self.layers:
            found = [layers_radius(image, sigma, alpha, slack) for image in self.layers]
        else:
            pairs = zip(self.p.tolist(), self.q.tolist(), strict=True)
            found = [RADII[certificate](p, q, sigma, alpha, slack) for p, q in pairs]
        return np.maximum(0.0, np.array(found) - self.lost)

    def established(self) -> NDArray[np.bool_]:
        """Return for which images (m,) a class is established at all: p > q."""
        if self.layers:
            return np.array([layers_radius(image, 1.0, 1.0) > 0 for image in self.layers])
        return self.p > self.q


def evidence(record: ImageRecord, request: CertifyRequest) -> Mapping[int, Any]:
    """Return what bounds are computed from, by number of samples: votes, or statistics of scores."""
    return record.estimation if request.scores == "hard" else record.scores


def derive(records: Sequence[ImageRecord], request: CertifyRequest) -> Derived:
    """Return the bounds that stored counts give under a request.

    Where sampling stops by itself, the study's own rule says at which look:
    any rule would do, since all looks' bounds hold together.  The bounds that
    it sees are the plain ones.
    """
    eps, lost = (np.array([getattr(r, name) for r in records]) for name in ("noise_error", "lost"))
    return replace(_allowing(_drawn(records, request), eps), lost=lost)


def _allowing(drawn: Derived, eps: FloatArray) -> Derived:
    """Bounds of the Gaussian smoothing: every mean under the drawn noise is within eps of it."""
    layers = tuple(_layers_allowing(one, e) for one, e in zip(drawn.layers, eps.tolist(), strict=False))
    return replace(drawn, p=np.maximum(drawn.p - eps, 0.0), q=np.minimum(drawn.q + eps, 1.0), layers=layers)


def _layers_allowing(one: PlainLayers, eps: float) -> PlainLayers:
    rivals = tuple(np.minimum(rival + eps, 1.0) for rival in one.rivals)
    return PlainLayers(np.maximum(one.own - eps, 0.0), rivals, min(one.rest + eps, 1.0))


def _drawn(records: Sequence[ImageRecord], request: CertifyRequest) -> Derived:
    """The same of the noise that was drawn."""
    if request.goal != "fixed":
        return _walk(records, request)
    found: list[Any] = [evidence(record, request).get(request.samples) for record in records]
    missing = np.array([counts is None for counts in found], bool)
    samples = np.where(missing, 0, request.samples).astype(np.int64)
    name, delta, count = request.bound_name, request.failure_probability, len(records)
    if missing.any():
        return Derived(np.zeros(count), np.ones(count), (), samples, missing)
    if BOUNDS[name].distribution:
        layers = tuple(bound_layers(kept, delta) for kept in found)
        return Derived(np.zeros(count), np.ones(count), layers, samples, missing)
    pairs = [_pair(record, counts, request, delta) for record, counts in zip(records, found, strict=True)]
    p, q = np.array(pairs, np.float64).reshape(count, 2).T
    return Derived(p, q, (), samples, missing)


def _pair(record: ImageRecord, counts: Any, request: CertifyRequest, delta: float) -> tuple[float, float]:
    own = BOUNDS[request.bound_name].plain  # of a bound that somebody has added
    if request.scores == "soft":
        return (own or SCORE_BOUNDS[request.bound_name])(counts, delta)
    return (own or VOTE_BOUNDS[request.bound_name])(counts, record.selected, delta)


def _walk(records: Sequence[ImageRecord], request: CertifyRequest) -> Derived:
    """Look after look: the best bounds so far, until the rule is content or counts are missing."""
    count, rule = len(records), Rule(request)
    p, q, samples = np.zeros(count), np.ones(count), np.zeros(count, np.int64)
    active = np.array([record.selected == record.label for record in records], bool)
    kept = [evidence(record, request) for record in records]
    for number, n in enumerate(looks(request.samples)):
        rows = np.array([i for i in np.flatnonzero(active).tolist() if n in kept[i]], np.int64)
        if not len(rows):
            break
        uniform = BOUNDS[request.bound_name].time_uniform
        delta = request.failure_probability * (1.0 if uniform else share(number))
        pairs = [_pair(records[i], kept[i][n], request, delta) for i in rows.tolist()]
        p[rows] = np.maximum(p[rows], [pair[0] for pair in pairs])
        q[rows] = np.minimum(q[rows], [pair[1] for pair in pairs])
        samples[rows] = n
        mean, spread = _moments([kept[i][n] for i in rows.tolist()], [records[i] for i in rows.tolist()])
        active[rows] = rule.goes_on(number, mean, spread, p[rows], q[rows])
    return Derived(p, q, (), samples, active)


def _moments(found: list[Any], records: list[ImageRecord]) -> tuple[FloatArray, FloatArray | None]:
    """Mean score of the selected class, and for soft scores the deviation of one."""
    if isinstance(found[0], np.ndarray):
        pairs = zip(found, records, strict=True)
        return np.array([counts[record.selected] / counts.sum() for counts, record in pairs]), None
    mean = np.array([kept.totals[kept.selected] / (kept.samples * STEPS) for kept in found])
    square = np.array([kept.squares[kept.selected] / (kept.samples * STEPS**2) for kept in found])
    return mean, np.sqrt(np.maximum(square - mean**2, 1e-6))
