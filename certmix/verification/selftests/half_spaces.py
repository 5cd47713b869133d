"""Smoothed classifiers in closed form: mixtures of half-spaces, and the points that try to break them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from certmix.types import FloatArray
from certmix.verification.selftests.draws import directions

__all__ = ["DIMENSION", "Scores", "attacks", "draw_scores"]

DIMENSION = 4


@dataclass(frozen=True)
class Scores:
    """hbar_y and hbar_i, each a mean of indicators of half-spaces: functions with values in [0, 1].

    ``h_y(x + sigma z) = sum_k w_k Phi(a_k - u_k . z)`` and
    ``h_i(x + sigma z) = sum_k v_k Phi(b_k + e_k . z)``, for one pair of
    classes; the weights add up to at most 1.
    """

    w: FloatArray
    a: FloatArray
    u: FloatArray
    v: FloatArray
    b: FloatArray
    e: FloatArray

    def at(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return h_y and h_i at points z (m, d), in noise levels from x."""
        return ndtr(self.a - z @ self.u.T) @ self.w, ndtr(self.b + z @ self.e.T) @ self.v


def draw_scores(random: np.random.Generator, terms: int) -> Scores:
    """Return a pair of mixtures; directions are close to one another, so that one point hurts all."""
    share = np.ones(1) if terms == 1 else random.dirichlet(np.ones(terms)) * random.uniform(0.9, 1)
    axis = directions(random, (1, DIMENSION))
    around = axis + random.uniform(0, 0.5) * random.normal(size=(2 * terms, DIMENSION))
    around = np.repeat(axis, 2, 0) if terms == 1 else around
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    other = np.ones(1) if terms == 1 else random.dirichlet(np.ones(terms)) * random.uniform(0.5, 1)
    own = random.uniform(0.5, 3.5, terms)
    rival = -own - random.exponential(1.0, terms) if random.random() < 0.8 else random.uniform(-5, 0, terms)
    return Scores(share, own, around[:terms], other, rival, around[terms:])


def attacks(random: np.random.Generator, scores: Scores) -> FloatArray:
    """Return unit vectors (m, d) to move along: each normal, their means, and random ones."""
    normals = np.vstack([scores.u, scores.e])
    slopes = np.vstack([scores.w @ scores.u, scores.v @ scores.e, scores.w @ scores.u + scores.v @ scores.e])
    tried = np.vstack([normals, slopes, -slopes, random.normal(size=(24, DIMENSION))])
    unit: FloatArray = tried / np.maximum(np.linalg.norm(tried, axis=1, keepdims=True), 1e-300)
    return unit
