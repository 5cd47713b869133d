"""Make radii.json: certified radii and Clopper-Pearson quantiles in 40-digit arithmetic.

    python make_radii.py

Tool: mpmath 1.3.0 (the version found is written into the file), working with
100 digits.  Uses nothing of certmix: only the equations of Theorems 3.5 and
3.7, of the exact certificate, and of Clopper and Pearson.  Inputs are float64
and are taken as the exact binary numbers that they are.  Some seconds.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import mpmath
from mpmath import mp, mpf

DIGITS = 100
TARGET = Path(__file__).with_name("radii.json")
TABLE = [  # rows of the published table of reference values: p, q, alpha, sigma
    (0.99, 0.01, 0.76, 0.5),
    (0.9, 0.05, 0.76, 0.5),
    (0.95, 0.02, 0.9, 0.25),
    (0.8, 0.1, 0.67, 1.0),
    (0.999, 0.0002, 0.55, 1.0),
    (0.7, 0.2, 1.0, 0.25),
    (0.9999, 0.00001, 0.51, 0.12),
    (0.6, 0.3, 0.76, 0.5),
]
ALPHAS = (0.5, 0.5 + 1e-9, 0.51, 0.76, 0.99, 1 - 1e-12, 1.0)
SIGMAS = (0.12, 0.25, 0.5, 1.0)
P_VALUES = (1e-300, 1e-100, 1e-17, 1e-9, 0.01, 0.3, 0.5, 0.500001, 0.6, 0.76, 0.9, 0.99)
P_VALUES += (1 - 1e-6, 1 - 1e-9, 1 - 1e-12, 1 - 1e-15, 1 - 1e-16, 1.0)
Q_VALUES = (0.0, 5e-324, 1e-300, 1e-200, 1e-100, 1e-30, 1e-16, 1e-9, 1e-4, 0.01, 0.05, 0.2, 0.4)


def quantile(u: mpf) -> mpf:
    """Phi^-1, by Newton on log Phi (concave: monotone from the left)."""
    if u == 0 or u == 1:
        return mpf("-inf") if u == 0 else mpf("inf")
    if u > mpf(1) / 2:
        return -quantile(1 - u)
    x = -mp.sqrt(-2 * mp.log(u))
    for _ in range(200):
        step = mp.log(mp.ncdf(x) / u) * mp.ncdf(x) / mp.npdf(x)
        x -= step
        if abs(step) < mpf(10) ** -90:
            break
    return x


def lipschitz(p: mpf, q: mpf, alpha: mpf, sigma: mpf, unit: mpf) -> mpf:
    """Theorem 3.5 with equal constants unit / sigma."""
    return max(mpf(0), sigma * (alpha * (p - q) + alpha - 1) / (2 * alpha * unit))


def smoothing(p: mpf, q: mpf, alpha: mpf, sigma: mpf) -> mpf:
    """Theorem 3.7."""
    low, high = alpha * p, alpha * q + (1 - alpha)
    return mpf(0) if low <= high else sigma / 2 * (quantile(low) - quantile(high))


def exact(p: mpf, q: mpf, alpha: mpf, sigma: mpf) -> mpf:
    """sigma t with Phi(Phi^-1(p) - t) - Phi(Phi^-1(q) + t) = (1 - alpha) / alpha."""
    mu = (1 - alpha) / alpha
    if not p - q > mu:
        return mpf(0)
    a, b = quantile(p), quantile(q)
    if mu == 0:
        return sigma * (a - b) / 2
    if p == 1 or q == 0:
        return (
            mpf("inf")
            if p == 1 and q == 0
            else sigma * (quantile(1 - mu) - b if p == 1 else a - quantile(mu))
        )
    low, high = mpf(0), a - quantile(mu)
    for step in range(400):
        t = (low + high) / 2
        if step > 30:  # Newton from the middle, kept inside the bracket
            slope = mp.npdf(a - t) + mp.npdf(b + t)
            guess = t + (mp.ncdf(a - t) - mp.ncdf(b + t) - mu) / slope
            t = guess if low < guess < high else t
        if mp.ncdf(a - t) - mp.ncdf(b + t) > mu:
            low = t
        else:
            high = t
        if step > 30 and (high - low < mpf(10) ** -60 * high or _settled(a, b, mu, t)):
            break
    return sigma * t


def _settled(a: mpf, b: mpf, mu: mpf, t: mpf) -> bool:
    slope = mp.npdf(a - t) + mp.npdf(b + t)
    return abs(mp.ncdf(a - t) - mp.ncdf(b + t) - mu) < slope * t * mpf(10) ** -60


def radii_inputs() -> list[tuple[float, float, float, float]]:
    """The table, extremes, the closed form, near-threshold and random cases."""
    rng = random.Random(20240607)
    cases = list(TABLE)
    extremes = [x for x in itertools.product(P_VALUES, Q_VALUES, ALPHAS) if x[0] > x[1]]
    worthy = [x for x in extremes if x[0] - x[1] > (1 - x[2]) / x[2]]
    cases += [(*x, rng.choice(SIGMAS)) for x in rng.sample(worthy, 70)]
    cases += [(*x, rng.choice(SIGMAS)) for x in rng.sample([x for x in extremes if x not in worthy], 12)]
    cases += [(p, 1 - p, a, 1.0) for p in (0.7, 0.99, 1 - 2.0**-40) for a in (0.51, 0.76, 1 - 1e-12, 1.0)]
    for excess in (1e-15, 1e-12, 1e-9, 1e-6, 1e-3):  # margins barely above the threshold
        for alpha, q in ((0.76, 0.05), (0.9, 0.2), (1 - 1e-12, 1e-13), (0.99, 0.49), (0.51, 1e-4)):
            cases.append((min(1.0, ((1 - alpha) / alpha + q) * (1 + excess)), q, alpha, 0.5))
    for alpha in (0.5 + 1e-12, 0.5 + 1e-9, 0.51, 0.76, 1 - 1e-9, 1 - 1e-12, 1 - 2.0**-53):  # ends of [0, 1]
        cases += [(1 - x, 0.0, alpha, 1.0) for x in (1e-15, 1e-9, 0.01) if 1 - x > (1 - alpha) / alpha]
        cases += [(1.0, x, alpha, 1.0) for x in (1e-300, 1e-13, 0.01) if 1 - x > (1 - alpha) / alpha]
    cases += [(1.0, q, 1 - 2.0**-40, 0.25) for q in (0.5, 0.9, 1 - 1e-9)]  # p + q > 1
    cases += [(1 - 1e-11, q, 1 - 1e-13, 0.25) for q in (0.6, 0.999, 1 - 1.02e-11)]
    cases += [(0.97, 0.6, 0.9, 0.5), (0.9, 0.8, 0.99, 0.5)]
    while len(cases) < 220:
        p, alpha = rng.uniform(0.3, 1), rng.uniform(0.5, 1)
        q = rng.uniform(0, min(p, 1 - p)) * 10 ** rng.choice((0, 0, -3, -8))
        if p - q > (1 - alpha) / alpha:
            cases.append((p, q, alpha, rng.uniform(0.12, 1)))
    return cases


def beta_cdf(a: int, b: int, x: mpf) -> mpf:
    """I_x(a, b) by the continued fraction, on the side where it converges fast."""
    if x > mpf(a + 1) / (a + b + 2):
        return 1 - beta_cdf(b, a, 1 - x)
    front = mp.exp(mp.loggamma(a + b) - mp.loggamma(a) - mp.loggamma(b) + a * mp.log(x) + b * mp.log1p(-x))
    c, d = mpf(1), 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 200_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 / (1 + even * d), 1 + even / c
        value *= d * c
        d, c = 1 / (1 + odd * d), 1 + odd / c
        value *= d * c
        if abs(d * c - 1) < mpf(10) ** -70:
            return front * value / a
    raise ArithmeticError(f"no convergence at a={a}, b={b}, x={x}")


def beta_quantile(a: int, b: int, delta: mpf, start: mpf) -> mpf:
    """The x with I_x(a, b) = delta: secant steps on the logit scale, within a shrinking bracket."""
    low, high = mpf("-1e9"), mpf("1e9")
    z, aim = mp.log(start / (1 - start)), mp.log(delta / (1 - delta))
    for _ in range(300):
        x = 1 / (1 + mp.exp(-z))
        value = beta_cdf(a, b, x)
        low, high = (z, high) if value < delta else (low, z)
        density = mp.exp(
            mp.loggamma(a + b) - mp.loggamma(a) - mp.loggamma(b) + a * mp.log(x) + b * mp.log1p(-x)
        )
        step = (mp.log(value / (1 - value)) - aim) * value * (1 - value) / density
        z = z - step if low < z - step < high else (low + high) / 2
        if abs(step) < mpf(10) ** -50:
            return 1 / (1 + mp.exp(-z))
    raise ArithmeticError(f"no quantile at a={a}, b={b}, delta={delta}")


def clopper_pearson(k: int, n: int, delta: float) -> tuple[mpf, mpf]:
    """Lower and upper bound, each failing with probability delta at most."""
    d, start = mpf(delta), mpf(k + 1) / (n + 2)
    low = mpf(0) if k == 0 else d ** (mpf(1) / n) if k == n else beta_quantile(k, n - k + 1, d, start)
    if k == n:
        return low, mpf(1)
    return low, (-mp.expm1(mp.log(d) / n) if k == 0 else 1 - beta_quantile(n - k, k + 1, d, 1 - start))


def count_inputs() -> list[tuple[int, int, float]]:
    """Small and huge n, ends and middle, from likely to tiny failure probabilities."""
    pairs = [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (1, 100), (50, 100), (99, 100), (0, 100)]
    pairs += [(997, 1000), (62_345, 100_000), (99_999, 100_000), (100_000, 100_000)]
    cases = [(k, n, d) for (k, n), d in itertools.product(pairs, (0.3, 0.025, 0.001, 1e-12))]
    n = 10**9
    return cases + [(k, n, d) for k in (0, 1, 999_999, n // 2, n - 3, n) for d in (0.001, 1e-12)]


def as_text(x: mpf) -> str:
    return "inf" if mp.isinf(x) else mp.nstr(x, 40, strip_zeros=True)


def main() -> None:
    """Write the file."""
    mp.dps = DIGITS
    tight = 1 / mp.sqrt(2 * mp.pi)
    radii, bounds = [], []
    for case in radii_inputs():
        p, q, alpha, _ = exactly = [mpf(x) for x in case]
        row: dict[str, object] = dict(zip(("p", "q", "alpha", "sigma"), case, strict=True))
        row["lipschitz-paper"] = as_text(lipschitz(*exactly, 2 * tight))
        row["lipschitz"] = as_text(lipschitz(*exactly, tight))
        row["smoothing"] = as_text(smoothing(*exactly))
        row["exact"] = as_text(exact(*exactly))
        row["excess"] = mp.nstr(p - q - (1 - alpha) / alpha, 5)
        radii.append(row)
    for k, n, delta in count_inputs():
        low, high = clopper_pearson(k, n, delta)
        bounds.append({"k": k, "n": n, "delta": delta, "lower": as_text(low), "upper": as_text(high)})
    made_by = f"make_radii.py, mpmath {mpmath.__version__}, {DIGITS} digits, 40 kept"
    parts = [json.dumps({"made_by": made_by})[:-1]]
    for name, rows in (("radii", radii), ("clopper_pearson", bounds)):
        parts.append(f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]")
    TARGET.write_text(",\n".join(parts) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
