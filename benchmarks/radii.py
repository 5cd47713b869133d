# mypy: disable-error-code="misc, func-returns-value"
"""Exact radii of a million pairs, against Theorem 3.7 by scipy and against a root finder.

python benchmarks/radii.py
"""

from __future__ import annotations

import argparse

import measuring
import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from statsmodels.stats.proportion import proportion_confint

from certmix.bounds import clopper_pearson
from certmix.radii import exact_radius

SIGMA, ALPHA = 0.5, 0.76
MU = (1 - ALPHA) / ALPHA


def theorem(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Theorem 3.7: two passes of the quantile function."""
    return 0.5 * SIGMA * (ndtri(ALPHA * p) + ndtri(ALPHA * (1 - q)))


def root(p: float, q: float) -> float:
    """The exact radius by a bracketing root finder."""
    a, b = ndtri(p), ndtri(q)
    if p - q <= MU:
        return 0.0
    return SIGMA * brentq(lambda t: ndtr(a - t) - ndtr(b + t) - MU, 0.0, (a - b) / 2, xtol=1e-14)


def pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return p in (1/2, 1) and q in (0, 1 - p), most of them near certainty, as runs give them."""
    rng = np.random.default_rng(0)
    p = 1 - 0.5 * rng.beta(0.3, 1.0, count).clip(1e-9)
    return p, (1 - p) * rng.uniform(0, 1, count)


def main() -> None:
    """Print one table a question."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    p, q = pairs(args.pairs)
    few = min(1000, len(p))
    for name, rivals in (("q = 1 - p", 1 - p), ("general q", q)):
        contenders = {
            "Theorem 3.7, two passes of scipy's ndtri": lambda r=rivals: theorem(p, r),
            "exact": lambda r=rivals: exact_radius(p, r, SIGMA, ALPHA),
            f"exact by brentq ({few} pairs)": lambda r=rivals: [
                root(*pair) for pair in zip(p[:few], r[:few], strict=True)
            ],
        }
        work = [len(p), len(p), few]
        print(
            f"\n{name}\n\n"
            + measuring.table(measuring.compare(contenders, rounds=args.rounds, work=work), "pairs")
        )
    samples = 10_000
    counts = np.round(p * samples).astype(np.int64)
    intervals = {
        "statsmodels, two-sided": lambda: proportion_confint(counts, samples, 0.001, method="beta"),
        "certmix, two-sided, rounded outwards": lambda: clopper_pearson.interval(counts, samples, 0.001),
    }
    print(
        "\nClopper-Pearson\n\n"
        + measuring.table(measuring.compare(intervals, rounds=args.rounds, work=len(p)), "intervals")
    )


if __name__ == "__main__":
    main()
