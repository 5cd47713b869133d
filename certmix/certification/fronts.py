"""Certified against clean accuracy over alpha, of what a certification holds.  No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from certmix.certification.evaluate import Evaluation, View
from certmix.certification.request.parts import Row
from certmix.certification.request.sampled import CertifyRequest
from certmix.models.temperature import sharpened
from certmix.radii import Smoothing, margin_slack_of
from certmix.runs.records import Answers, Records
from certmix.types import ConfidenceBounds, FloatArray

ALPHAS = np.linspace(0.5, 1.0, 101)
_ROUNDING = 1e-9
"""Given away of a margin, so that none counts which the certificate does not hold."""


class Front(NamedTuple):
    """Shares of inputs (101,), over `ALPHAS`: the mix is right, and certified at a radius."""

    name: str
    clean: FloatArray
    certified: FloatArray


class Fronts(NamedTuple):
    """The fronts at `at_radius` (0: any above 0), and (clean, certified) of h, g and the table's mixes."""

    at_radius: float
    lines: tuple[Front, ...]
    points: Mapping[str, tuple[float, float]]


def fronts_of(
    found: Evaluation, standard: Mapping[int, FloatArray], request: CertifyRequest
) -> Fronts | None:
    """Return the fronts of votes, with g as asked and one-hot, and of the tuned row; None without g."""
    records = Records.of(found.records)
    g = Answers.of(standard).rows(records.indices) if len(records) else None
    if g is None or any(not isinstance(view.bounds, ConfidenceBounds) for view in found.views.values()):
        return None
    at = next((radius for radius in request.radii if radius > 0), 0.0)
    *asked, last = request.rows()
    mixed = asked[-1] if last.classifier == "gated" else last
    wanted = {_name(mixed): mixed, _name(cold := mixed._replace(temperature=0.0)): cold}
    wanted |= {_name(last): last} if last.classifier == "gated" else {}
    column = request.radii.index(at) if at in request.radii else 0
    points = {
        _point(row.classifier, row.alpha or 1.0): (row.clean_accuracy or 0.0, row.certified_accuracy[column])
        for row in found.summary.rows
        if row.certificate == "exact"
    }
    clean = found.summary.clean_accuracy.standard
    points |= {} if clean is None else {"g alone": (clean, 0.0)}
    lines = tuple(
        _front(name, row, found.views[row.gate], records.behind(row.gate), g, at, request.smoothing)
        for name, row in wanted.items()
    )
    return Fronts(at, lines, points)


def _name(row: Row) -> str:
    votes = f"votes behind gate {row.gate:g}" if row.gate else "votes"
    cold = {0.0: "g one-hot", 1.0: "g as it is"}.get(row.temperature, f"g at T = {row.temperature:g}")
    return f"{votes}, {cold}"


def _point(classifier: str, alpha: float) -> str:
    if classifier == "robust":
        return "h alone"
    return f"{'mixed' if classifier == 'mixed' else 'mixed, gated'}, \u03b1 = {alpha:g}"


def _front(
    name: str, row: Row, view: View, behind: Records, g: FloatArray, at: float, noise: Smoothing
) -> Front:
    bounds, labels = view.bounds, behind.labels
    assert isinstance(bounds, ConfidenceBounds)
    held = np.sort(np.where(view.selected == labels, margins_at(bounds, at, noise), -1.0))
    certified = (len(held) - np.searchsorted(held, needed(ALPHAS), "right")) / len(held)
    sharp, h = sharpened(g, row.temperature), behind.frequencies
    clean = [np.mean(((1 - alpha) * sharp + alpha * h).argmax(1) == labels) for alpha in ALPHAS.tolist()]
    return Front(name, np.array(clean), certified)


def margins_at(bounds: ConfidenceBounds, at: float, noise: float | Smoothing) -> FloatArray:
    """Return lower bounds of h's margins (m,) at a radius, -1 where there is none."""
    smoothing = Smoothing.of(noise)
    lost = np.broadcast_to(bounds.lost, bounds.p_lower.shape)
    away = (at * math.sqrt(smoothing.stretch) + lost) / (1.0 if smoothing.entry.whole else smoothing.scale)
    own, rival = smoothing.moved(bounds.p_lower, away), smoothing.moved(bounds.q_upper, away, up=True)
    return np.asarray(own - rival - _ROUNDING)


def needed(alphas: FloatArray) -> FloatArray:
    """Return the margin that h must exceed at each mixing weight."""
    return (1 - alphas) / alphas + np.array([margin_slack_of(alpha) for alpha in alphas.tolist()])
