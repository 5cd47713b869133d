"""Theorem 3.5: classifiers of known Lipschitz constants, moved by the radius in their worst direction."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from certmix.radii import CERTIFICATES, constant, lipschitz
from certmix.types import FloatArray
from certmix.verification.selftests.draws import alphas, directions, probability_pairs, shown
from certmix.verification.selftests.mixing import lead
from certmix.verification.selftests.tally import Tally

__all__ = ["run"]

ROUNDING = 1e-13
DUAL = {"l2": 2.0, "linf": 1.0, "l1": np.inf}
"""The norm of weights that is dual to the norm of the radii."""


def run(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """Linear probabilities in three norms, two-class mixes, linear logits, half-spaces."""
    weights = alphas(random, cases // 4 + 1)
    for alpha in weights.tolist():
        for dual in DUAL.values():
            _linear(random, tally, alpha, dual)
            _two_classes(random, tally, alpha, dual)
        for of in constant.CONSTANTS_OF:
            _logits(random, tally, alpha, of)
    _gaussian(random, cases, tally, weights)
    _zero(tally)


def _linear(random: np.random.Generator, tally: Tally, alpha: float, dual: float) -> None:
    """h_i(x) = b_i + w_i . x: a rival i gains r |w_y - w_i| at distance r, at most r (|w_y| + |w_i|)."""
    classes, mu = 5, constant.margin_threshold(alpha)
    b = np.concatenate([[mu + (1 - mu) * random.random()], random.uniform(0, 0.2, classes - 1)]).clip(0, 1)
    w = random.normal(size=(classes, 6)) * 10.0 ** random.uniform(-2, 2)
    w[1] = -w[0] * random.uniform(0.1, 3)
    steep = np.linalg.norm(w, ord=dual, axis=1)
    radius = float(lipschitz.lipschitz_radius([b[0]], [b[1:]], alpha, steep[0], steep[1:])[0])
    left = b[0] - b[1:] - radius * np.linalg.norm(w[0] - w[1:], ord=dual, axis=1)
    if radius > 0:
        tally.record(
            "the margin of a linear h is mu within the radius", np.min(left) - mu + ROUNDING,
            lambda _: shown(alpha=alpha, radius=radius), unit="margin",
        )  # fmt: skip
    alone = float(lipschitz.lipschitz_radius([b[0]], [[b[1]]], alpha, steep[0], [steep[1]])[0])
    if alone > 1e-6 / steep[0]:
        beyond = b[0] - b[1] - alone * (1 + 1e-6) * (steep[0] + steep[1])
        tally.record(
            "a linear h with opposed weights leaves it just outside", mu - beyond,
            lambda _: shown(alpha=alpha, radius=alone), unit="margin", strict=True,
        )  # fmt: skip


def _two_classes(random: np.random.Generator, tally: Tally, alpha: float, dual: float) -> None:
    """h = (1/2 + s, 1/2 - s), s linear: the mix with the worst g holds inside and flips outside."""
    mu, w = constant.margin_threshold(alpha), random.normal(size=6)
    if mu > 0.999:
        return
    steep = float(np.linalg.norm(w, ord=dual))
    start = (mu + (1 - mu) * random.uniform(0.05, 1)) / 2
    radius = float(lipschitz.lipschitz_radius([0.5 + start], [[0.5 - start]], alpha, steep, [steep])[0])
    s = start - np.array([1 - 1e-9, 1 + 1e-3]) * radius * steep
    h, g = np.stack([0.5 + s, 0.5 - s], 1).clip(0, 1), np.array([[0.0, 1.0]] * 2)
    slack = lead(g, h, alpha, np.zeros(2, np.int64)) * [1, -1]
    tally.record(
        "two classes: the mix holds inside and flips outside", slack,
        lambda k: shown(alpha=alpha, radius=radius, s=s[k]), unit="logits", strict=True,
    )  # fmt: skip


def _logits(random: np.random.Generator, tally: Tally, alpha: float, of: str) -> None:
    """Logits, or probabilities, that move as fast as their constant allows, all at once where they may."""
    classes = 2 if of == "logits" else int(random.integers(2, 7))
    z, steep = random.normal(size=classes) * 4, 10.0 ** random.uniform(-2, 2)
    radius = float(constant.constant_radius([z], alpha, steep, of)[0][0])
    if not radius > 1e-9 / steep:
        return
    top, mu = int(z.argmax()), constant.margin_threshold(alpha)

    def margin(distance: float) -> float:
        if of == "probabilities":
            h = constant.softmax_probabilities(z[None])[0]
            return h[top] - np.delete(h, top).max() - 2 * steep * distance
        reach = steep * distance / (np.sqrt(2) if of == "logits" else 1.0)
        moved = z + reach * np.where(np.arange(classes) == top, -1.0, 1.0)
        h = constant.softmax_probabilities(moved[None])[0]
        return h[top] - np.delete(h, top).max()

    values = shown(alpha=alpha, constant=steep, radius=radius)
    tally.record(
        f"a constant of {of}: the margin is mu within the radius", margin(radius) - mu + ROUNDING,
        lambda _: f"{values}, logits {z.tolist()}", unit="margin",
    )  # fmt: skip
    if 1e-6 < mu < 0.999 or alpha == 1:
        tally.record(
            f"a constant of {of}: it is less just outside", mu - margin(radius * (1 + 1e-3)),
            lambda _: f"{values}, logits {z.tolist()}", unit="margin", strict=True,
        )  # fmt: skip


def _gaussian(random: np.random.Generator, cases: int, tally: Tally, weights: FloatArray) -> None:
    """Smoothed half-spaces, which reach the tight constant at their edge."""
    p, q = probability_pairs(random, cases)
    a, b = ndtri(p), ndtri(q)
    for alpha in weights.tolist():
        for name in ("lipschitz", "lipschitz-paper"):
            t = CERTIFICATES[name].radius(p, q, 1.0, alpha)
            left = ndtr(a - t) - ndtr(b + t) - constant.margin_threshold(alpha) + ROUNDING
            tally.record(
                f"{name}: half-spaces keep margin mu within the radius", np.where(t > 0, left, 0.0),
                lambda k, alpha=alpha: shown(alpha=alpha, p=p[k], q=q[k]), unit="margin",
            )  # fmt: skip
    u = directions(random, (cases, 4))
    step = 1e-5 * u @ u[0]
    slope = (ndtr(step) - ndtr(-step)) / 2e-5
    tally.record(
        "no half-space is steeper than the tight constant", lipschitz.TIGHT_CONSTANT - slope + 1e-10,
        lambda k: f"direction {u[k].tolist()}", unit="1 / sigma",
    )  # fmt: skip
    tally.record(
        "and one reaches it", 1e-8 - abs(lipschitz.TIGHT_CONSTANT - slope.max()), unit="1 / sigma",
    )  # fmt: skip


def _zero(tally: Tally) -> None:
    """Constants of 0 do not divide; a tie is not certified."""
    sure = lipschitz.lipschitz_radius([0.9, 0.4], [[0.05], [0.4]], 0.75, 0.0, 0.0)
    right = [sure[0] == np.inf, sure[1] == 0.0]
    tally.record("constants of 0 and ties", np.array(right) - 1.0, lambda k: f"radius {sure[k]}", unit="")
