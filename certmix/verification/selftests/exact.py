"""The exact certificate: no point inside breaks it, and a pair of half-spaces reaches it."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from certmix.radii import constant, exact_radius, gaussian_lipschitz_radius
from certmix.types import FloatArray
from certmix.verification.selftests.draws import ALPHAS, alphas, probability_pairs, shown, sigmas
from certmix.verification.selftests.half_spaces import attacks, draw_scores
from certmix.verification.selftests.mixing import lead, pair_of_half_spaces
from certmix.verification.selftests.tally import Tally

__all__ = ["run"]

ROUNDING = 1e-13
TIES = 1e-12
"""What the logits of the mix may be off by."""
CLASSES, RIVAL = 3, 1
"""The rival, and a third class that takes what two half-spaces leave: nothing is claimed of it."""
STEPS = (1.0, 0.7, 0.3)


def run(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """The half-space pair under the mix, arbitrary smoothed functions, edges, order."""
    weights = alphas(random, cases // 4 + 1)
    p, q = probability_pairs(random, cases)
    for alpha in weights.tolist():
        _pair(tally, alpha, p, q)
        _order(tally, alpha, p, q, float(sigmas(random, 1)[0]))
    for k in range(2 * cases):
        _mixture(random, tally, 1 + k % 3)
    _edges(tally)


def _pair(tally: Tally, alpha: float, p: FloatArray, q: FloatArray) -> None:
    """At the closed radius the margin is mu; inside no g flips the mix, outside one does."""
    t, mu = exact_radius(p, q, 1.0, alpha), constant.margin_threshold(alpha)
    some = np.isfinite(t) & (t > 0) & (q <= 1 - p)
    p, q, t = p[some], q[some], t[some]
    a, b, selected = ndtri(p), ndtri(q), np.zeros(len(p), np.int64)

    def case(k: int) -> str:
        return shown(alpha=alpha, p=p[k % len(p)], q=q[k % len(p)], t=t[k % len(p)])

    at = pair_of_half_spaces(a, b, t, CLASSES)
    away = np.abs(at[:, 0] - at[:, 1] - mu)
    tally.record("half-spaces have margin mu at the radius", 1e-12 - away, case, unit="margin")
    inside = pair_of_half_spaces(a, b, t * (1 - 1e-3) - 1e-7, CLASSES)
    for vertex in np.eye(CLASSES):
        slack = lead(np.tile(vertex, (len(p), 1)), inside, alpha, selected, RIVAL)
        tally.record("no g flips the mix just inside", slack + TIES, case, unit="logits")
    outside = pair_of_half_spaces(a, b, t * (1 + 1e-3) + 1e-7, CLASSES)
    g = np.tile(np.eye(CLASSES)[RIVAL], (len(p), 1))
    slack = TIES - lead(g, outside, alpha, selected, RIVAL)
    tally.record("one g flips it just outside", slack, case, unit="logits")


def _mixture(random: np.random.Generator, tally: Tally, terms: int) -> None:
    """Points of the ball, for mixtures of half-spaces: any function with these means is covered."""
    scores, alpha = draw_scores(random, terms), float(random.uniform(0.51, 1.0))
    p, q = (float(one[0]) for one in scores.at(np.zeros((1, scores.u.shape[1]))))
    radius, mu = float(exact_radius(p, q, 1.0, alpha)), constant.margin_threshold(alpha)
    if radius == 0:
        return
    ways = attacks(random, scores)
    own, rival = scores.at(np.vstack([radius * step * ways for step in STEPS]))
    tally.record(
        "no smoothed function falls below mu within the radius", own - rival - mu + ROUNDING,
        lambda _: shown(alpha=alpha, p=p, q=q, radius=radius), unit="margin",
    )  # fmt: skip


def _order(tally: Tally, alpha: float, p: FloatArray, q: FloatArray, sigma: float) -> None:
    """At least the tight Lipschitz radius, no more with a smaller alpha, and in proportion to sigma."""
    t, large = exact_radius(p, q, 1.0, alpha), exact_radius(p, q, sigma, alpha)
    below = gaussian_lipschitz_radius(p, q, 1.0, alpha)
    less = exact_radius(p, q, 1.0, max(0.5, alpha - 0.01))
    room = 1e-12 * (1 + np.where(np.isfinite(t), t, 0.0))

    def case(k: int) -> str:
        return shown(alpha=alpha, sigma=sigma, p=p[k], q=q[k])

    with np.errstate(invalid="ignore"):
        slack = np.where(np.isinf(t), 1.0, np.minimum(t - below, t - less) + room)
        scaled = np.where(large / sigma == t, 0.0, np.abs(large / sigma - t))
    tally.record("it is no less than Theorem 3.5 or a smaller alpha give", slack, case, unit="sigma")
    tally.record("it grows in proportion to sigma", room - scaled, case, unit="sigma")


def _edges(tally: Tally) -> None:
    """Certainty, alpha = 1/2, ties and margins at the threshold."""
    rows = [(1.0, 0.0, alpha, math.inf if alpha > 0.5 else 0.0) for alpha in ALPHAS]
    rows += [(p, q, 0.5, 0.0) for p, q in ((1.0, 0.0), (1.0, 1e-300), (0.99, 0.01))]
    rows += [(0.5, 0.5, alpha, 0.0) for alpha in ALPHAS] + [(0.2, 0.8, alpha, 0.0) for alpha in ALPHAS]
    rows += [(0.625, 0.375, 0.8, 0.0), (0.5, 0.25, 0.8, 0.0), (0.75, 0.25, 2 / 3, 0.0)]
    wrong = [abs(found - true) if found != true else 0.0 for found, true in map(_edge, rows)]
    tally.record(
        "certainty, alpha = 1/2, ties and margins at mu", -np.array(wrong),
        lambda k: shown(**dict(zip(("p", "q", "alpha", "expected"), rows[k], strict=True))), unit="sigma",
    )  # fmt: skip


def _edge(row: tuple[float, float, float, float]) -> tuple[float, float]:
    p, q, alpha, true = row
    return float(exact_radius(p, q, 0.5, alpha)), true
