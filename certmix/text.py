"""How a figure is printed: with fewer digits, without ever claiming more than was proved."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from typing import TypeGuard

from certmix.errors import ParameterError

UNKNOWN = "-"
_EXACT = Context(prec=800)  # wide enough for every finite float and 400 digits


def floor_digits(x: float, digits: int) -> str:
    """Return x rounded towards minus infinity, with this many digits after the point.

    What is rounded is the shortest decimal that reads back as x, so that 0.29, stored a little lower, stays
    0.29.  ParameterError if x is not finite, or digits are not 0 to 400.

    >>> floor_digits(0.12367, 3), floor_digits(0.29, 2)
    ('0.123', '0.29')
    """
    return _rounded(_decimal(x), digits, ROUND_FLOOR)


def ceil_digits(x: float, digits: int) -> str:
    """Return x rounded towards plus infinity; otherwise as `floor_digits`."""
    return _rounded(_decimal(x), digits, ROUND_CEILING)


def nearest_digits(x: float, digits: int) -> str:
    """Return x rounded to the nearest; for figures that are no bounds."""
    return _rounded(_decimal(x), digits, ROUND_HALF_EVEN)


def floor_percent(share: float, digits: int = 1) -> str:
    """Return a share of 1 in percent, rounded down."""
    return _rounded(_decimal(share).scaleb(2, _EXACT), digits, ROUND_FLOOR)


def ceil_percent(share: float, digits: int = 1) -> str:
    """Return a share of 1 in percent, rounded up."""
    return _rounded(_decimal(share).scaleb(2, _EXACT), digits, ROUND_CEILING)


def known(value: float | None) -> TypeGuard[float]:
    """Return whether value is a finite number."""
    return value is not None and math.isfinite(value)


def accuracy(share: float | None) -> str:
    """Return a share of 1 in percent with one decimal, rounded down, or a dash."""
    return floor_percent(share) if known(share) else UNKNOWN


def interval_ends(interval: tuple[float, float], digits: int = 1) -> tuple[str, str]:
    """Return an interval's ends in percent, the lower rounded down and the upper up."""
    low, high = interval
    return (
        floor_percent(low, digits) if known(low) else UNKNOWN,
        ceil_percent(high, digits) if known(high) else UNKNOWN,
    )


def plain_decimal(x: float) -> str:
    """Return the shortest decimal that reads back as x, without exponent or trailing zeros."""
    text = format(_decimal(x), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def as_given(x: float) -> str:
    """Return a radius as it is spoken of: k/255 where it is that and no short decimal, else its decimal.

    >>> as_given(8 / 255), as_given(0.5), as_given(0.2)
    ('8/255', '0.5', '0.2')
    """
    decimal, levels = plain_decimal(x), round(255 * x) if abs(x) < 1e6 else 0
    return f"{levels}/255" if len(decimal) > 8 and levels / 255 == x else decimal


def _decimal(x: float) -> Decimal:
    value = float(x)
    if not math.isfinite(value):
        raise ParameterError(f"cannot print {value} as a decimal: it must be finite, show it as unknown")
    return Decimal(repr(value + 0.0))  # + 0.0 turns -0.0 into 0.0


def _rounded(value: Decimal, digits: int, rounding: str) -> str:
    if not 0 <= digits <= 400:
        raise ParameterError(f"digits = {digits} is not in 0..400: ask for fewer digits after the point")
    rounded = value.quantize(Decimal(1).scaleb(-digits), rounding=rounding, context=_EXACT)
    return format(abs(rounded) if rounded.is_zero() else rounded, "f")
