"""What the other suites rest on: float64 rounds to nearest, keeps subnormals, and its libraries are right."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import torch
from numba import njit
from scipy.special import ndtr, ndtri

from certmix.margins.layers import gamma
from certmix.types import FloatArray
from certmix.verification.selftests import oracle
from certmix.verification.selftests.tally import Tally

__all__ = ["behaviour", "run"]

SMALLEST, NORMAL = 2.0**-1074, 2.0**-1022
UNITS = 8
"""Units in the last place that elementary functions may be wrong by: what the bounds give away."""

_Binary = Callable[[FloatArray, FloatArray], tuple[FloatArray, ...]]


@njit(cache=True)
def _compiled(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    return x + y, x - y, x * y, x / y


def _numpy(x: FloatArray, y: FloatArray) -> tuple[FloatArray, ...]:
    with np.errstate(all="ignore"):
        return x + y, x - y, x * y, x / y


def _torch(x: FloatArray, y: FloatArray) -> tuple[FloatArray, ...]:
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    return tuple(one.numpy() for one in (a + b, a - b, a * b, a / b))


ENGINES: dict[str, _Binary] = {"numpy": _numpy, "numba": _compiled, "torch": _torch}


def behaviour() -> dict[str, str]:
    """Return in words what each library's float64 does, and torch's float32."""
    found = {}
    for name, engine in ENGINES.items():
        rounding = "round to nearest" if _rounds_to_nearest(engine) else "another rounding mode"
        found[f"float64 ({name})"] = f"{rounding}, subnormals {'kept' if _keeps(engine) else 'flushed to 0'}"
    half = torch.full((8,), 2.0**-126, dtype=torch.float32) / 2
    found["float32 (torch)"] = f"subnormals {'kept' if bool((half > 0).all()) else 'flushed to 0'}"
    return found


def _keeps(engine: _Binary) -> bool:
    """Whether subnormals come out, and go in."""
    quotient = engine(np.full(8, NORMAL), np.full(8, 2.0))[3]
    doubled = engine(np.full(8, SMALLEST), np.full(8, 2.0))[2]
    return bool(np.all(quotient.view(np.int64) == 1 << 51) and np.all(doubled.view(np.int64) == 2))


def _rounds_to_nearest(engine: _Binary) -> bool:
    """1 + u = 1, 1 + 3u = 1 + 4u (to even), and both mirrored; u half a unit."""
    u = 2.0**-53
    x, y = np.array([1.0, 1.0, -1.0, -1.0]), np.array([u, 3 * u, -u, -3 * u])
    return engine(x, y)[0].tolist() == [1.0, 1 + 4 * u, -1.0, -1 - 4 * u]


def run(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """Compare sums, products, elementary functions and dot products with exact arithmetic."""
    for name, engine in ENGINES.items():
        right = [_rounds_to_nearest(engine), _keeps(engine)]
        words = ["rounding to nearest", "subnormals"].__getitem__
        tally.record(f"{name} rounds to nearest and keeps subnormals", np.array(right) - 1.0, words, unit="")
        _operations(random, cases, tally, name, engine)
    _neighbours(random, cases, tally)
    _functions(random, cases, tally)
    _quantiles(random, cases, tally)
    _dot_products(random, cases, tally)


def _operations(random: np.random.Generator, cases: int, tally: Tally, name: str, engine: _Binary) -> None:
    x = random.normal(size=cases) * 10.0 ** random.uniform(-30, 30, cases)
    y = random.normal(size=cases) * 10.0 ** random.uniform(-30, 30, cases)
    y = np.where(random.random(cases) < 0.5, -x * (1 + 1e-12 * random.normal(size=cases)), y)
    found = engine(x, y)
    for k, (a, b) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        exact = Fraction(a), Fraction(b)
        true = [exact[0] + exact[1], exact[0] - exact[1], exact[0] * exact[1], exact[0] / exact[1]]
        wrong = sum(float(one) != float(got[k]) for one, got in zip(true, found, strict=True))
        tally.record(
            f"{name}: + - * / are correctly rounded", [-wrong], lambda _, a=a, b=b: f"{a!r}, {b!r}",
            unit="operations",
        )  # fmt: skip


def _neighbours(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """`nextafter` steps to the next number, on which all rounding outwards rests."""
    x = np.concatenate([random.uniform(0, 1, cases), 10.0 ** -random.uniform(0, 320, cases), [0.0, 1.0]])
    above, below = np.nextafter(x, 2.0), np.nextafter(above_zero := np.maximum(x, SMALLEST), 0.0)
    up = above.view(np.int64) - x.view(np.int64) == 1
    down = above_zero.view(np.int64) - below.view(np.int64) == 1
    tally.record("nextafter gives the neighbour", (up & down) - 1.0, lambda k: f"{x[k]!r}", unit="")


def _functions(random: np.random.Generator, cases: int, tally: Tally) -> None:
    small = random.normal(size=cases) * 10.0 ** -random.uniform(0, 12, cases)
    wide, positive = random.uniform(-700, 700, cases), np.abs(small) + SMALLEST
    table: list[tuple[str, Callable, FloatArray, Callable[[Decimal], Decimal]]] = [
        ("numpy exp", np.exp, wide, lambda v: v.exp()),
        ("torch exp", lambda v: torch.from_numpy(v).exp().numpy(), wide, lambda v: v.exp()),
        ("numpy log", np.log, positive, lambda v: v.ln()),
        ("torch log", lambda v: torch.from_numpy(v).log().numpy(), positive, lambda v: v.ln()),
        ("numpy log1p", np.log1p, np.maximum(small, -0.9), lambda v: (1 + v).ln()),
        ("numpy expm1", np.expm1, small, lambda v: v.exp() - 1),
        ("numpy sqrt", np.sqrt, positive, lambda v: v.sqrt()),
    ]
    for name, function, values, true in table:
        with localcontext() as context:
            context.prec = oracle.DIGITS
            exact = [true(Decimal(v)) for v in values.tolist()]
        away = [_units(got, one) for got, one in zip(function(values).tolist(), exact, strict=True)]
        tally.record(
            "elementary functions are right", UNITS - np.array(away),
            lambda k, name=name, values=values: f"{name}({values[k]!r})", unit=f"of {UNITS} ulp",
        )  # fmt: skip


def _units(found: float, true: Decimal) -> float:
    """Distance from the truth in units in the last place of the truth."""
    size = abs(float(true))
    return float(abs(Decimal(found) - true) / Decimal(float(np.spacing(max(size, NORMAL)))))


def _quantiles(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """Phi and its inverse, within what the kernels give away on each quantile."""
    p = np.concatenate([random.random(cases), 10.0 ** -random.uniform(1, 300, cases // 4 + 1), [1e-300]])
    x, budget = ndtri(p), 8 * 2.0**-52
    true = [oracle.quantile(Decimal(v), s) for v, s in zip(p.tolist(), x.tolist(), strict=True)]
    away = np.array([float(abs(Decimal(v) - t)) for v, t in zip(x.tolist(), true, strict=True)])
    tally.record(
        "the normal quantile is right", 1 - away / (budget * (1 + np.abs(x))), lambda k: f"ndtri({p[k]!r})",
        unit="of 8 eps",
    )  # fmt: skip
    near = np.concatenate([random.uniform(-8, 8, cases), [0.0, 8.0, -8.0]])
    wrong = [
        abs(float(Decimal(float(v)) - oracle.cdf(Decimal(u))))
        for u, v in zip(near.tolist(), ndtr(near), strict=True)
    ]
    tally.record(
        "the normal distribution function is right", 1 - np.array(wrong) / (UNITS * 2.0**-53),
        lambda k: f"ndtr({near[k]!r})", unit=f"of {UNITS} units near 1",
    )  # fmt: skip


def _dot_products(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """torch's matrix products and convolutions stay within Higham's bound, which propagation counts on."""
    count, terms = cases // 8 + 4, 36
    w, x = random.normal(size=(2, count, terms)) * 10.0 ** random.uniform(-6, 6, (2, count, terms))
    matrix = torch.bmm(torch.from_numpy(w[:, None]), torch.from_numpy(x[:, :, None])).flatten().numpy()
    kernel = torch.from_numpy(w).reshape(count, 4, 3, 3)
    inputs = torch.from_numpy(x).reshape(1, count * 4, 3, 3)
    image = torch.nn.functional.conv2d(inputs, kernel, groups=count).flatten().numpy()
    for k in range(count):
        parts = [Fraction(a) * Fraction(b) for a, b in zip(w[k].tolist(), x[k].tolist(), strict=True)]
        allowed = Fraction(gamma(terms + 8)) * sum(map(abs, parts))
        for name, found in (("matrix product", matrix), ("convolution", image)):
            used = float(abs(Fraction(float(found[k])) - sum(parts)) / allowed)
            tally.record(
                "dot products stay within their error bound", [1 - used], lambda _, n=name: n,
                unit="of the bound",
            )  # fmt: skip
