"""Radii against 40-digit values, never above them, and against the equations written plainly."""

import json
import math
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from certmix.radii import CERTIFICATES, exact_radius
from certmix.verification.plain import RADII

GOLDEN = json.loads((Path(__file__).parents[1] / "reference" / "radii.json").read_text())["radii"]
EPS = 2.0**-52
NAMES = sorted(CERTIFICATES)
TABLE = """
0.99   0.01    0.76 0.5  0.208116110696337   0.416232221392674   0.341030800412578   0.959811811084739
0.9    0.05    0.76 0.5  0.167383401233583   0.334766802467167   0.266926736505794   0.524859329126938
0.95   0.02    0.9  0.25 0.128290627666878   0.256581255333757   0.280395718199073   0.426660199303829
0.8    0.1     0.67 1    0.130007959020041   0.260015918040081   0.175740698338888   0.382622382129626
0.999  0.0002  0.55 1    0.113185660364474   0.226371320728949   0.124827665564394   1.94630028866449
0.7    0.2     1    0.25 0.0783321335822188  0.156664267164438   0.170752718285119   0.170752718285119
0.9999 0.00001 0.51 0.12 0.00294070256743607 0.00588140513487214 0.00299982904104214 0.222700709371725
0.6    0.3     0.76 0.5  0                   0                   0                   0
"""
TABLE_COLUMNS = ("lipschitz-paper", "lipschitz", "smoothing", "exact")


def radius(name, p, q, sigma, alpha):
    return float(np.ravel(CERTIFICATES[name].radius(p, q, sigma, alpha))[0])


def promised_margin(row, true):
    """What rounding down may cost: some units of rounding of each quantile that enters."""
    p, q, sigma, alpha = (row[key] for key in ("p", "q", "sigma", "alpha"))
    quantiles = ndtri([p, q, (1 - alpha) + alpha * q, (1 - alpha) / alpha, alpha])
    size = np.abs(quantiles[np.isfinite(quantiles)]).sum() + 1
    return 64 * EPS * sigma * size + 64 * EPS * true


@pytest.mark.parametrize("name", NAMES)
def test_table_of_reference_values(name):
    for line in TABLE.strip().splitlines():
        p, q, alpha, sigma, *values = (float(word) for word in line.split())
        expected, got = values[TABLE_COLUMNS.index(name)], radius(name, p, q, sigma, alpha)
        half_digit = 0.5 * 10.0 ** (math.floor(math.log10(expected)) - 14) if expected else 0.0
        assert got <= expected + half_digit, line
        assert got == pytest.approx(expected, rel=1e-12, abs=0), line


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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("alpha", [0.5, 0.5 + 1e-6, 0.51, 0.76, 0.99, 1 - 1e-6, 1.0])
def test_agrees_with_the_plain_equation(name, alpha):
    rng = np.random.default_rng(11)  # q = 1 - p, in general position, tiny, near one; nothing with p + q > 1
    p = np.concatenate([rng.uniform(0.5, 1, 60), 1 - 10.0 ** -rng.uniform(1, 15, 40), [1e-5, 1e-200, 0.5]])
    share = np.concatenate([rng.uniform(0, 1, 40), 10.0 ** -rng.uniform(0, 280, len(p) - 60), np.ones(20)])
    q = np.minimum(p, 1 - p) * share
    got = CERTIFICATES[name].radius(p, q, 0.5, alpha)
    plain = [RADII[name](*pair, 0.5, alpha) for pair in zip(p, q, strict=True)]
    assert got.shape == p.shape
    np.testing.assert_allclose(got, plain, rtol=1e-10, atol=2e-13)
    assert np.any(got > 0) or alpha == 0.5


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
