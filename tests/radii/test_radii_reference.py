"""Radii against 40-digit values, never above them, and against the equations written plainly."""

import json
import math
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from certmix.radii import CERTIFICATES, exact_radius

GOLDEN = json.loads((Path(__file__).parents[1] / "reference" / "radii.json").read_text())["radii"]
EPS = 2.0**-52
NAMES = sorted(CERTIFICATES)


def radius(name, p, q, sigma, alpha):
    return float(np.ravel(CERTIFICATES[name].radius(p, q, sigma, alpha))[0])


def promised_margin(row, true):
    """What rounding down may cost: some units of rounding of each quantile that enters."""
    p, q, sigma, alpha = (row[key] for key in ("p", "q", "sigma", "alpha"))
    quantiles = ndtri([p, q, (1 - alpha) + alpha * q, (1 - alpha) / alpha, alpha])
    size = np.abs(quantiles[np.isfinite(quantiles)]).sum() + 1
    return 64 * EPS * sigma * size + 64 * EPS * true


@pytest.mark.parametrize("name", NAMES)
def test_strictly_below_the_true_radius_and_close_to_it(name):
    """In decimal arithmetic; strictly, so that the radius speaks of the closed ball.

    1e-10 relative, and the rounding margin.  Margins p - q barely above the threshold give radii of
    1e-16 ... 1e-9, of which that takes a visible part or all: the absolute bound holds there.
    """
    over = []
    with localcontext() as context:
        context.prec = 60
        for row in GOLDEN:
            got, true = radius(name, row["p"], row["q"], row["sigma"], row["alpha"]), float(row[name])
            exact = Decimal(row[name].replace("inf", "Infinity"))
            assert not math.isnan(got), row
            if Decimal(got) > exact or (got > 0 and Decimal(got) == exact and math.isfinite(got)):
                over.append((row["p"], row["q"], row["sigma"], row["alpha"], got, row[name]))
            if math.isinf(true):
                assert got == math.inf, row
                continue
            tiny = promised_margin(row, true)
            assert tiny < 2e-12 * row["sigma"] * (1 + true / row["sigma"])
            assert abs(got - true) <= 1e-10 * true + tiny, (row, got)
            assert true <= 1e-3 or got >= true * (1 - 1e-10), (row, got)
    assert not over, f"{len(over)} of {len(GOLDEN)} not below the truth: {over}"


def test_golden_file_covers_the_extremes():
    values = {key: {row[key] for row in GOLDEN} for key in ("p", "q", "alpha", "sigma")}
    assert len(GOLDEN) >= 200
    assert min(values["p"]) <= 1e-300
    assert {1.0, 1 - 1e-16} <= values["p"]
    assert {0.0, 1e-300} <= values["q"]
    assert {0.5, 0.5 + 1e-9, 0.51, 0.76, 0.99, 1 - 1e-12, 1.0} <= values["alpha"]
    assert {0.12, 0.25, 0.5, 1.0} <= values["sigma"]


def test_smoothing_formula_does_not_cancel():
    """alpha q + 1 - alpha, taken from left to right, loses a tiny q: 3e-6 at alpha = 1, q = 1.7e-12."""
    p, q = 0.9, 1.7e-12
    assert radius("smoothing", p, q, 1.0, 1.0) == pytest.approx(0.5 * (ndtri(p) - ndtri(q)), rel=1e-13)


@pytest.mark.parametrize(
    "name, limit", [("lipschitz-paper", 0.42877), ("lipschitz", 0.85753), ("smoothing", 0.7063)]
)
def test_largest_possible_radius_at_alpha_076(name, limit):
    """sigma = 1, p -> 1: the older certificates are bounded, the exact one is not."""
    best = radius(name, 1.0, 0.0, 1.0, 0.76)
    assert best == pytest.approx(limit, abs=1e-5)
    p = 1 - 10.0 ** -np.arange(1, 16)
    below = CERTIFICATES[name].radius(p, 1 - p, 1.0, 0.76)
    assert np.all(np.diff(below) >= 0)
    assert below[-1] <= best
    assert below[-1] == pytest.approx(best, rel=1e-9)
    assert exact_radius(1 - 1e-15, 1e-15, 1.0, 0.76) > 7
