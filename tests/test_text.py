from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certmix.errors import ParameterError
from certmix.text import (
    as_given,
    ceil_digits,
    ceil_percent,
    floor_digits,
    floor_percent,
    plain_decimal,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
DIGITS = st.integers(0, 12)


@given(FINITE, DIGITS)
def test_floor_is_below_and_ceil_above_within_one_unit(x: float, digits: int) -> None:
    exact, unit = Fraction(repr(x)), Fraction(1, 10**digits)
    low, high = floor_digits(x, digits), ceil_digits(x, digits)
    assert exact - unit < Fraction(low) <= exact <= Fraction(high) < exact + unit
    assert float(low) <= x <= float(high)
    assert "e" not in low.lower()
    assert len(low.partition(".")[2]) == digits


@given(st.integers(-(10**6), 10**6), st.integers(0, 6))
def test_a_number_with_these_digits_already_stays(whole: int, digits: int) -> None:
    x = float(Decimal(whole).scaleb(-digits))
    assert Decimal(floor_digits(x, digits)) == Decimal(ceil_digits(x, digits)) == Decimal(repr(x))


@given(st.integers(1, 20_000), st.data())
def test_percent_of_a_count_encloses_the_fraction(inputs: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, inputs))
    low, high = (Decimal(f(count / inputs)) for f in (floor_percent, ceil_percent))
    assert low * inputs <= 100 * count <= high * inputs
    assert high - low == (Decimal(0) if (1000 * count) % inputs == 0 else Decimal("0.1"))


@pytest.mark.parametrize(
    ("x", "digits", "low", "high"),
    [
        (0.29, 2, "0.29", "0.29"),
        (0.12367, 3, "0.123", "0.124"),
        (0.1 + 0.2, 2, "0.30", "0.31"),
        (-0.001, 2, "-0.01", "0.00"),
        (-0.0, 1, "0.0", "0.0"),
        (5e-324, 3, "0.000", "0.001"),
        (3.0, 0, "3", "3"),
    ],
)
def test_known_roundings(x: float, digits: int, low: str, high: str) -> None:
    assert (floor_digits(x, digits), ceil_digits(x, digits)) == (low, high)


@given(FINITE)
def test_plain_decimal_reads_back_without_exponent(x: float) -> None:
    text = plain_decimal(x)
    assert float(text) == x
    assert set(text) <= set("-.0123456789")


@pytest.mark.parametrize("x", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("call", [plain_decimal, floor_percent, ceil_percent, lambda x: floor_digits(x, 2)])
def test_what_is_not_finite_is_refused(call: object, x: float) -> None:
    with pytest.raises(ParameterError, match="finite"):
        call(x)
    with pytest.raises(ParameterError, match="digits = -1"):
        ceil_digits(0.5, -1)


@given(
    st.one_of(
        st.floats(0, 1e9),
        st.integers(0, 255).map(lambda k: k / 255),
        st.integers(1, 999).map(lambda k: k / 1000),
    )
)
def test_a_radius_reads_back_as_it_was_given(x: float) -> None:
    text = as_given(x)
    above, _, below = text.partition("/")
    assert float(above) / float(below or 1) == x


def test_decimals_stay_decimals_and_grey_levels_grey_levels() -> None:
    assert [as_given(k / 10) for k in range(1, 11)] == [f"{k / 10:g}" for k in range(1, 11)]
    levels = [k for k in range(1, 256) if k % 51]
    assert [as_given(k / 255) for k in levels] == [f"{k}/255" for k in levels]
