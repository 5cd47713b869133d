"""Random cases with their edges: probabilities, mixing weights and noise levels."""

from __future__ import annotations

import numpy as np

from certmix.types import FloatArray

__all__ = ["ALPHAS", "SIGMAS", "alphas", "directions", "probability_pairs", "shown", "sigmas", "simplex"]

ALPHAS = (0.5, 0.5 + 2.0**-53, 0.5 + 1e-9, 0.51, 0.76, 0.99, 1 - 1e-12, 1 - 2.0**-53, 1.0)
"""Edges of the mixing weight: mu is 1, almost 1, almost 0 and 0."""

SIGMAS = (1e-250, 1e-9, 0.12, 0.25, 0.5, 1.0, 1e9, 1e250)

_PAIRS = (
    (1.0, 0.0), (1.0, 1e-300), (1 - 2.0**-53, 0.0), (0.5, 0.5), (0.5, 0.0), (0.0, 0.0), (0.99, 0.01),
    (0.6, 0.4), (0.3, 0.07), (1e-300, 0.0), (0.2, 0.8), (0.9999, 1e-5), (1 - 2.0**-53, 2.0**-53),
)  # fmt: skip
"""(p, q): certainty, ties, nothing at all, the wrong way round."""


def alphas(random: np.random.Generator, count: int) -> FloatArray:
    """Return the edges and `count` mixing weights in [1/2, 1]."""
    return np.concatenate([ALPHAS, random.uniform(0.5, 1.0, count)])


def sigmas(random: np.random.Generator, count: int) -> FloatArray:
    """Return noise levels (count,): a quarter at the edges, the others from 0.01 to 10."""
    drawn = 10.0 ** random.uniform(-2, 1, count)
    return np.where(random.random(count) < 0.25, random.choice(SIGMAS, count), drawn)


def probability_pairs(random: np.random.Generator, count: int) -> tuple[FloatArray, FloatArray]:
    """Return p and q, (edges + count,) each, with p + q <= 1 beyond the edges."""
    kind = random.integers(0, 3, count)
    near_one, tiny = 1 - 10.0 ** -random.uniform(0.5, 15, count), 10.0 ** -random.uniform(0, 280, count)
    p = np.choose(kind, [random.random(count), near_one, np.where(kind == 2, 1 - tiny, 0.5)])
    share = np.choose(random.integers(0, 3, count), [np.ones(count), random.random(count), tiny])
    q = np.minimum(p, 1 - p) * share
    edges = np.array(_PAIRS)
    return np.concatenate([edges[:, 0], p]), np.concatenate([edges[:, 1], q])


def simplex(random: np.random.Generator, count: int, classes: int) -> FloatArray:
    """Return points of the simplex (count, classes): spread out, peaked, and vertices."""
    spread = random.dirichlet(np.ones(classes), count)
    peaked = random.dirichlet(np.full(classes, 0.1), count)
    vertex = np.eye(classes)[random.integers(0, classes, count)]
    kind = random.integers(0, 3, (count, 1))
    return np.where(kind == 0, spread, np.where(kind == 1, peaked, vertex))


def directions(random: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Return l2 unit vectors along the last axis."""
    vectors = random.normal(size=shape)
    unit: FloatArray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def shown(**values: float | FloatArray) -> str:
    """Return names and values in full, for a failing case."""
    return ", ".join(f"{name} {float(value)!r}" for name, value in values.items())
