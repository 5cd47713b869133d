"""Theorem 3.7: Gaussian-smoothed functions with values in [0, 1], in closed form."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from certmix.radii import constant, exact_radius, gaussian_lipschitz_radius, smoothing_radius
from certmix.radii.lipschitz import PAPER_CONSTANT
from certmix.types import FloatArray
from certmix.verification.selftests.draws import alphas, probability_pairs, shown, sigmas
from certmix.verification.selftests.half_spaces import attacks, draw_scores
from certmix.verification.selftests.mixing import lead, pair_of_half_spaces
from certmix.verification.selftests.tally import Tally

__all__ = ["run"]

ROUNDING = 1e-13
TIES = 1e-12
"""What the logits of the mix may be off by."""
STEPS = (1.0, 0.7, 0.3)
CLASSES, RIVAL = 3, 1
"""The rival, and a third class that takes what two half-spaces leave: nothing is claimed of it."""


def run(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """Mixtures of half-spaces, pairs of half-spaces under the mix, order and largest radii."""
    for k in range(2 * cases):
        _mixture(random, tally, 1 + k % 3)
    weights = alphas(random, cases // 8 + 1)
    _pairs(random, cases, tally, weights)
    _tight_alone(random, cases, tally)
    _order(random, cases, tally, weights)


def _mixture(random: np.random.Generator, tally: Tally, terms: int) -> None:
    """The margin at points of the ball, the ones that hurt most among them."""
    scores, alpha = draw_scores(random, terms), float(random.uniform(0.55, 1.0))
    p, q = (float(one[0]) for one in scores.at(np.zeros((1, scores.u.shape[1]))))
    radius, mu = float(smoothing_radius(p, q, 1.0, alpha)), constant.margin_threshold(alpha)
    if radius == 0:
        return
    ways = attacks(random, scores)
    own, rival = scores.at(np.vstack([radius * step * ways for step in STEPS]))
    tally.record(
        "smoothed functions keep margin mu within the radius", own - rival - mu + ROUNDING,
        lambda _: shown(alpha=alpha, p=p, q=q, radius=radius), unit="margin",
    )  # fmt: skip


def _pairs(random: np.random.Generator, cases: int, tally: Tally, weights: FloatArray) -> None:
    """The mix of two disjoint half-spaces with every g, along the worst direction."""
    p, q = probability_pairs(random, cases)
    for alpha in weights.tolist():
        t = smoothing_radius(p, q, 1.0, alpha)
        chosen = np.isfinite(t) & (t > 0) & (q <= 1 - p)
        h = pair_of_half_spaces(ndtri(p[chosen]), ndtri(q[chosen]), t[chosen], CLASSES)
        for vertex in np.eye(CLASSES):
            slack = lead(np.tile(vertex, (len(h), 1)), h, alpha, np.zeros(len(h), np.int64), RIVAL)
            tally.record(
                "the mix keeps its class within the radius", slack + TIES,
                lambda k, alpha=alpha, chosen=chosen: shown(alpha=alpha, p=p[chosen][k], q=q[chosen][k]),
                unit="logits",
            )  # fmt: skip


def _tight_alone(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """At alpha = 1 the radius is the largest possible: the half-spaces tie just outside."""
    p, q = random.uniform(0.5, 1 - 1e-9, cases), random.random(cases)
    q = np.minimum(q, 1 - p)
    t = smoothing_radius(p, q, 1.0, 1.0)
    h = pair_of_half_spaces(ndtri(p), ndtri(q), t * (1 + 1e-3) + 1e-9, CLASSES)
    tally.record(
        "at alpha = 1 half-spaces flip just outside", h[:, 1] - h[:, 0],
        lambda k: shown(p=p[k], q=q[k]), unit="margin", strict=True,
    )  # fmt: skip


def _order(random: np.random.Generator, cases: int, tally: Tally, weights: FloatArray) -> None:
    """exact >= Theorem 3.7 >= Theorem 3.5 with the paper's constant, up to what rounding down takes."""
    p, q = probability_pairs(random, cases)
    for alpha in weights.tolist():
        for sigma in np.unique(sigmas(random, 2)).tolist():
            exact, here = exact_radius(p, q, sigma, alpha), smoothing_radius(p, q, sigma, alpha)
            below = gaussian_lipschitz_radius(p, q, sigma, alpha, PAPER_CONSTANT)
            room = 1e-12 * sigma * (1 + np.nan_to_num(here / sigma, posinf=0.0))
            with np.errstate(invalid="ignore"):
                first = np.where(exact == here, 0.0, exact - here)
                second = np.where(here == below, 0.0, here - below)
            tally.record(
                "it lies between the exact radius and the paper's Lipschitz radius",
                np.minimum(first, second) / sigma + room / sigma,
                lambda k, alpha=alpha, sigma=sigma: shown(alpha=alpha, sigma=sigma, p=p[k], q=q[k]),
                unit="sigma",
            )  # fmt: skip
