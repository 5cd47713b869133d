"""The normal distribution in decimal arithmetic: a judge that shares no code with the kernels.

Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/15 + ...), a series of positive terms for
x > 0.  Negative x subtract: as many digits are added as are lost.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache

__all__ = ["DIGITS", "cdf", "density", "exact_distance", "margin_at", "quantile", "softmax_margin"]

DIGITS = 50
_ZERO, _ONE = Decimal(0), Decimal(1)
_LIMIT = 40


@lru_cache(maxsize=64)
def _root_of_two_pi(digits: int) -> Decimal:
    """sqrt(2 pi), pi by the arithmetic-geometric mean."""
    with localcontext() as context:
        context.prec = digits + 10
        a, b, t, p = _ONE, _ONE / Decimal(2).sqrt(), Decimal("0.25"), _ONE
        for _ in range(digits.bit_length() + 1):
            a, b, before = (a + b) / 2, (a * b).sqrt(), a
            t, p = t - p * (before - a) ** 2, 2 * p
        return ((a + b) ** 2 / (2 * t)).sqrt()


def density(x: Decimal, digits: int = DIGITS) -> Decimal:
    """Return phi(x)."""
    with localcontext() as context:
        context.prec = digits
        return (-x * x / 2).exp() / _root_of_two_pi(digits)


def cdf(x: Decimal) -> Decimal:
    """Return Phi(x) to about `DIGITS` significant digits; 0 and 1 beyond -40 and 40."""
    if abs(x) > _LIMIT:
        return _ZERO if x < 0 else _ONE
    digits = DIGITS + 10 + int(x * x / 4)
    with localcontext() as context:
        context.prec = digits
        size, square = abs(x), x * x
        term = total = size
        odd, smallest = 1, Decimal(10) ** -(digits + 2)
        while term > smallest * (total or _ONE):
            odd += 2
            term = term * square / odd
            total += term
        half = density(x, digits) * total
        return Decimal("0.5") + half if x >= 0 else Decimal("0.5") - half


def quantile(p: Decimal, start: float) -> Decimal:
    """Return Phi^-1(p), 0 < p < 1, by Halley steps from an approximation.

    For p > 1/2 the complement is solved, so that no digits of 1 - p are lost.
    """
    if p > Decimal("0.5"):
        return -quantile(_ONE - p, -start)
    with localcontext() as context:
        context.prec = DIGITS + 10
        x = Decimal(start)
        for _ in range(4):
            error = (cdf(x) - p) / density(x, DIGITS + 10)
            x -= error / (1 + x * error / 2)
            if abs(error) < Decimal(10) ** (5 - DIGITS // 2):
                break
        return x


def margin_at(a: Decimal | None, b: Decimal | None, t: Decimal) -> Decimal:
    """Return Phi(a - t) - Phi(b + t); None stands for a = inf and b = -inf."""
    with localcontext() as context:
        context.prec = DIGITS
        return (_ONE if a is None else cdf(a - t)) - (_ZERO if b is None else cdf(b + t))


def exact_distance(a: Decimal | None, b: Decimal | None, mu: Decimal, start: Decimal) -> Decimal:
    """Return the root t of ``margin_at(a, b, t) = mu`` by Newton steps from near it, 0 if there is none."""
    with localcontext() as context:
        context.prec = DIGITS
        if margin_at(a, b, _ZERO) <= mu:
            return _ZERO
        t = start
        for _ in range(12):
            slope = (_ZERO if a is None else density(a - t)) + (_ZERO if b is None else density(b + t))
            step = (margin_at(a, b, t) - mu) / slope
            t = max(t + step, _ZERO)
            if abs(step) <= abs(t) * Decimal(10) ** -25:
                break
        return t


def softmax_margin(differences: list[float]) -> Decimal:
    """Return the least of h_y - h_i, h the softmax of logits with z_y - z_j = these differences."""
    with localcontext() as context:
        context.prec = DIGITS
        odds = [(-Decimal(one)).exp() for one in differences]
        return (_ONE - max(odds)) / (_ONE + sum(odds))
