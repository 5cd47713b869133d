"""Rounding directions: every kernel against decimal arithmetic, which it must never exceed."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
from scipy.special import ndtr, ndtri

from certmix import text
from certmix.certification.evaluate import table_row
from certmix.margins import margins
from certmix.radii import CERTIFICATES, constant
from certmix.types import CertifiedRadii
from certmix.verification.selftests import oracle
from certmix.verification.selftests.draws import alphas, probability_pairs, shown, sigmas
from certmix.verification.selftests.tally import Tally

__all__ = ["run"]

CLOSE, SPENT = Decimal("1e-10"), Decimal("2e-12")
"""What rounding down may take: a part of the radius, and of sigma with every quantile's size."""

Truth = Callable[[float, float, float], "Decimal | None"]


def run(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """Radii of every certificate, the softmax margin, constants, figures as printed."""
    p, q = probability_pairs(random, cases)
    weights = random.permutation(np.resize(alphas(random, cases), len(p)))
    noise = sigmas(random, len(p))
    with localcontext() as context:
        context.prec = oracle.DIGITS
        context.Emax, context.Emin = 10**6, -(10**6)
        for name, truth in TRUTHS.items():
            for row in zip(p.tolist(), q.tolist(), noise.tolist(), weights.tolist(), strict=True):
                _radius(tally, name, truth, *row)
        for _ in range(cases):
            _softmax(random, tally)
            _constant(random, tally)
    _printed(random, cases, tally)
    _columns(random, tally)


def _quantile(p: Decimal) -> Decimal | None:
    """Phi^-1, None at 0 and 1."""
    if p <= 0 or p >= 1:
        return None
    half = Decimal("0.5")
    return oracle.quantile(p, float(ndtri(float(p)) if p <= half else -ndtri(float(1 - p))))


def _exact(p: float, q: float, alpha: float) -> Decimal | None:
    """The root t, None for infinity."""
    mu = (1 - Decimal(alpha)) / Decimal(alpha)
    if Decimal(p) - Decimal(q) <= mu:
        return Decimal(0)
    if (p == 1 and q == 0) or (mu == 0 and (p == 1 or q == 0)):
        return None
    start = CERTIFICATES["exact"].radius(p, q, 1.0, alpha)
    found = Decimal(float(start)) if np.isfinite(start) else Decimal(1)
    return oracle.exact_distance(_quantile(Decimal(p)), _quantile(Decimal(q)), mu, found)


def _smoothing(p: float, q: float, alpha: float) -> Decimal | None:
    """(Phi^-1(alpha p) - Phi^-1(alpha q + 1 - alpha)) / 2."""
    if p <= q:
        return Decimal(0)
    a = Decimal(alpha)
    high, low = _quantile(a * Decimal(p)), _quantile(a * Decimal(q) + (1 - a))
    if high is None and p == 0:
        return Decimal(0)
    return None if high is None or low is None else max(Decimal(0), (high - low) / 2)


def _lipschitz(unit: str) -> Truth:
    """(p - q - mu) / (2 unit), the unit computed in decimal arithmetic."""

    def truth(p: float, q: float, alpha: float) -> Decimal:
        root = 1 / oracle.density(Decimal(0))  # sqrt(2 pi)
        steepness = 1 / root if unit == "tight" else 2 / root
        gap = Decimal(p) - Decimal(q) - (1 - Decimal(alpha)) / Decimal(alpha)
        return max(Decimal(0), gap / (2 * steepness))

    return truth


TRUTHS: dict[str, Truth] = {
    "exact": _exact, "smoothing": _smoothing, "lipschitz": _lipschitz("tight"),
    "lipschitz-paper": _lipschitz("paper"),
}  # fmt: skip
"""The distance in noise levels that each certificate stands for, without rounding."""


def _radius(tally: Tally, name: str, truth: Truth, p: float, q: float, sigma: float, alpha: float) -> None:
    found, true = float(CERTIFICATES[name].radius(p, q, sigma, alpha)), truth(p, q, alpha)

    def case(_: int) -> str:
        return f"{shown(p=p, q=q, sigma=sigma, alpha=alpha)}, radius {found!r}"

    if true is None:
        tally.record(
            f"{name}: infinite where it should be", [0.0 if found == math.inf else -1.0], case, unit=""
        )
        return
    if not math.isfinite(found):
        tally.record(f"{name}: never above the true radius", [-math.inf], case, unit="of it")
        return
    got = Decimal(found) / Decimal(sigma)
    over = (true - got) / (true or 1)
    tally.record(f"{name}: never above the true radius", [float(over)], case, unit="of it")
    size = 1 + sum(abs(float(v)) for v in ndtri([p, q, alpha]) if np.isfinite(v))
    room = CLOSE * true + SPENT * Decimal(size)
    tally.record(f"{name}: nor far below it", [float(room - (true - got))], case, unit="sigma")


def _softmax(random: np.random.Generator, tally: Tally) -> None:
    """The margin that bounds of logit differences allow; for l <= 0 its infimum is tanh(l / 2)."""
    rivals = int(random.integers(1, 9))
    lower = random.normal(size=rivals) * 10.0 ** random.uniform(-8, 1.5)
    if random.random() < 0.7:
        lower = np.abs(lower)
    found = Decimal(float(margins.softmax_margin_lower(lower[None])[0]))
    least = Decimal(float(lower.min()))
    growth = least.exp()
    true = oracle.softmax_margin(lower.tolist()) if least > 0 else (growth - 1) / (growth + 1)
    slack = (true - found) / abs(true) if true else true - found
    tally.record(
        "softmax margins are rounded down", [float(slack)], lambda _: f"differences {lower.tolist()}",
        unit="of it",
    )  # fmt: skip


def _constant(random: np.random.Generator, tally: Tally) -> None:
    """The closed form for a constant of the logits."""
    z, steep = random.normal(size=4) * 10.0 ** random.uniform(-1, 1.5), 10.0 ** random.uniform(-3, 3)
    alpha, of = float(random.choice(alphas(random, 4))), str(random.choice(["logits", "each-logit"]))
    found = Decimal(float(constant.constant_radius([z], alpha, steep, of)[0][0]))
    mu = (1 - Decimal(alpha)) / Decimal(alpha)
    gaps = sorted(Decimal(float(z.max())) - Decimal(v) for v in z.tolist())[1:]
    odds = [(-gap).exp() for gap in gaps]
    speed = (Decimal(2).sqrt() if of == "logits" else Decimal(2)) * Decimal(steep)
    inner = (1 - mu) / (max(odds) + mu * sum(odds))
    true = max(Decimal(0), inner.ln() / speed) if inner > 0 else Decimal(0)
    tally.record(
        "radii from a constant are rounded down", [float((true - found) / (true or 1))],
        lambda _: f"{shown(alpha=alpha, constant=steep)}, {of}, logits {z.tolist()}", unit="of it",
    )  # fmt: skip


def _printed(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """Figures as printed claim no more than the numbers."""
    for x in [
        *random.random(cases).tolist(),
        *(10.0 ** -random.uniform(0, 9, cases)).tolist(),
        0.29,
        1.0,
        0.0,
    ]:
        true = Decimal(repr(x))
        for shown_as, scale in ((text.floor_digits(x, 3), 1), (text.floor_percent(x), 100)):
            under = true * scale - Decimal(shown_as)
            room = Decimal("0.001") if scale == 1 else Decimal("0.1")
            tally.record(
                "figures are printed rounded down", [float(under) if under < room else -1.0],
                lambda _, x=x, s=shown_as: f"{x!r} as {s}", unit="as printed",
            )  # fmt: skip


def _columns(random: np.random.Generator, tally: Tally) -> None:
    """A radius counts in a column that it equals, and not in the next number above."""
    columns = tuple(np.sort(random.uniform(0.01, 2, 7)).tolist())
    radius = np.array([*columns, *(math.nextafter(c, 0) for c in columns), 0.0])
    radii = CertifiedRadii("exact", "l2", 1.0, 1.0, radius, np.where(radius > 0, 2, 1))
    row = table_row("mixed", radii, radius >= 0, (0.0, *columns))
    wanted = [np.sum(radius > 0), *(np.sum(radius >= c) for c in columns)]
    counted = np.array(row.certified_accuracy) * len(radius)
    tally.record(
        "a column counts the radii that reach it", 1e-9 - np.abs(counted - wanted),
        lambda k: f"column {(0.0, *columns)[k]!r}", unit="images",
    )  # fmt: skip
    t = np.linspace(0, 2, 9)
    away = np.abs(ndtr(t) - [float(oracle.cdf(Decimal(v))) for v in t.tolist()])
    tally.record("the judge agrees with scipy", 1e-15 - away, lambda k: f"Phi({t[k]})", unit="probability")
