"""The table of the noise, enumerated and held against ball arithmetic (python-flint)."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from flint import arb, ctx, fmpq
from scipy.special import ndtr

from certmix.radii import SMOOTHINGS, Smoothing
from certmix.sampling.grid import Grid
from certmix.sampling.law import noise_error, noise_law, whole_weights

SIGMAS = [0.12, 0.5, 100.0, *(pytest.param(sigma, marks=pytest.mark.long) for sigma in (1.0, 32.0, 1e-3))]


@cache
def drawn_weights(sigma: float | Smoothing) -> list[int]:
    """How many of the 2^63 equally likely bit strings give each |N|, read off the cells."""
    law = noise_law(sigma)
    mask, size = (1 << law.bits) - 1, 1 << (63 - law.bits)
    weights = [0] * (1 << law.bits)
    for cell, (entry, rest) in enumerate(zip(law.entries.tolist(), law.rest.tolist(), strict=True)):
        threshold = (entry >> law.bits) << 32 | rest
        weights[cell] += threshold
        weights[entry & mask] += size - threshold
    return weights[: law.reach + 1]


BEYOND = {
    "gaussian": lambda x: (x / arb(2).sqrt()).erfc(),
    "laplace": lambda x: (-x).exp(),
    "uniform": lambda x: (1 - x).max(arb(0)),
}
"""P[|X| > x] of noise of scale 1, in balls."""


def total_variation(weights: list[int], steps_per_scale: Fraction, kind: str = "gaussian") -> arb:
    """Half the l1 distance between weights / 2^63 and the law of |round(X / s)|, in balls."""
    ctx.prec = 128
    scale = fmpq(steps_per_scale.numerator, steps_per_scale.denominator)
    beyond = [BEYOND[kind](arb((k + fmpq(1, 2)) / scale)) for k in range(len(weights))]
    exact = [1 - beyond[0], *(a - b for a, b in pairwise(beyond))]
    unit = arb(2) ** 63
    return sum((abs(arb(w) / unit - p) for w, p in zip(weights, exact, strict=True)), beyond[-1]) / 2


@pytest.mark.parametrize(
    "noise",
    [
        *SIGMAS, *(Smoothing("uniform", scale) for scale in (0.12, 0.3, 100.0)), Smoothing("laplace", 0.3),
        *(pytest.param(Smoothing("laplace", scale), marks=pytest.mark.long) for scale in (0.12, 100.0)),
    ],
)  # fmt: skip
def test_the_distance_that_is_claimed_is_proved_by_ball_arithmetic(noise):
    weights, steps, kind = drawn_weights(noise), Grid.of(noise).steps_per_sigma, Smoothing.of(noise).kind
    assert sum(weights) == 2**63
    true, claimed = total_variation(weights, steps, kind), noise_law(noise).total_variation
    assert bool(true < arb(claimed))
    assert claimed < 1.01 * float(true.mid())
    if kind == "uniform":
        moved = [weights[0] + 2**20, *weights[1:-1], weights[-1] - 2**20]
        assert bool(total_variation(moved, steps, kind) > arb(claimed)), "a farther law is noticed"


def test_every_kind_that_adds_noise_is_held_against_its_law():
    assert BEYOND.keys() == {name for name, kind in SMOOTHINGS.items() if kind.law is not None}


def test_a_table_from_plain_float64_is_farther_than_is_claimed():
    steps = Grid.of(0.5).steps_per_sigma
    count = noise_law(0.5).reach + 1
    edges = ndtr((np.arange(count) + 0.5) / float(steps))
    chances = 2 * np.diff(edges, prepend=0.5)
    weights = [int(p * 2.0**63) for p in chances]
    weights[0] += 2**63 - sum(weights)
    assert bool(total_variation(weights, steps) > arb(2 * noise_law(0.5).total_variation))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_no_tail_is_missing(sigma):
    """float32 Box-Muller noise ends at 5.768 sigma; this table has the Gaussian's mass beyond, to 8 sigma."""
    weights, steps = drawn_weights(sigma), float(Grid.of(sigma).steps_per_sigma)
    for reach in (5.76811, 8.0):
        first = int(reach * steps)
        mass = sum(weights[first:]) / 2**63
        assert mass == pytest.approx(2 * ndtr(-(first - 0.5) / steps), rel=1e-3 if reach == 8 else 1e-8)


def test_weights_are_those_of_the_table():
    weights, bound = whole_weights(Smoothing("gaussian", 0.25))
    assert weights == drawn_weights(0.25)
    assert float(bound) < noise_law(0.25).total_variation


def test_the_error_of_an_input_adds_up_over_its_coordinates():
    assert noise_error(0.5, 3072) == pytest.approx(3072 * noise_law(0.5).total_variation, rel=1e-12)
    assert noise_error(0.5, 150_528) < 1e-9
    assert noise_error(0.5, 10**18) == 1.0
