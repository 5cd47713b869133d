"""What all other suites rest on: float64 rounds to nearest, keeps subnormals, and its libraries are right."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from certmix.kernels import jit
from certmix.margins.layers import gamma
from certmix.selftests.cases import EPS, cases, seeds

SMALLEST, NORMAL = 2.0**-1074, 2.0**-1022
UNITS = 8  # units in the last place that elementary functions may be wrong by: what the bounds give away


@jit()
def compiled(x, y):
    return x + y, x - y, x * y, x / y


def by_numpy(x, y):
    with np.errstate(all="ignore"):
        return x + y, x - y, x * y, x / y


def by_torch(x, y):
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    return tuple(one.numpy() for one in (a + b, a - b, a * b, a / b))


ENGINES = {"numpy": by_numpy, "numba": compiled, "torch": by_torch}


@pytest.mark.parametrize("name", ENGINES)
def test_subnormals_are_kept(name):
    """Some processors, and some libraries behind one's back, flush them to zero."""
    engine = ENGINES[name]
    assert np.all(engine(np.full(8, NORMAL), np.full(8, 2.0))[3].view(np.int64) == 1 << 51)
    assert np.all(engine(np.full(8, SMALLEST), np.full(8, 2.0))[2].view(np.int64) == 2)


@pytest.mark.parametrize("name", ENGINES)
def test_rounding_is_to_nearest(name):
    """1 + u = 1 and 1 + 3u = 1 + 4u (to even), and both mirrored; u half a unit."""
    u = EPS / 2
    x, y = np.array([1.0, 1.0, -1.0, -1.0]), np.array([u, 3 * u, -u, -3 * u])
    assert ENGINES[name](x, y)[0].tolist() == [1.0, 1 + 4 * u, -1.0, -1 - 4 * u]


@pytest.mark.parametrize("name", ENGINES)
@cases
@given(seeds)
def test_operations_are_correctly_rounded(name, random):
    x, y = random.normal(size=(2, 4)) * 10.0 ** random.uniform(-30, 30, (2, 4))
    y[2:] = -x[2:] * (1 + 1e-12 * random.normal(size=2))  # sums that cancel
    found = ENGINES[name](x, y)
    for k, (a, b) in enumerate(zip(map(Fraction, x.tolist()), map(Fraction, y.tolist()), strict=True)):
        assert [float(one[k]) for one in found] == [float(one) for one in (a + b, a - b, a * b, a / b)]


@cases
@given(st.one_of(st.floats(0, 1), st.floats(0, 320).map(lambda e: 10.0**-e)))
def test_nextafter_gives_the_neighbour(x):
    """On which all rounding outwards rests."""
    bits = np.float64(x).view(np.int64)
    assert np.nextafter(x, 2.0).view(np.int64) == bits + 1
    assert x == 0 or np.nextafter(x, 0.0).view(np.int64) == bits - 1


def torch_exp(x):
    return torch.tensor(x, dtype=torch.float64).exp().item()


def torch_log(x):
    return torch.tensor(x, dtype=torch.float64).log().item()


FUNCTIONS = [
    (lambda x: np.exp(x), mpmath.exp, "wide"), (torch_exp, mpmath.exp, "wide"),
    (lambda x: np.log(x), mpmath.log, "positive"), (torch_log, mpmath.log, "positive"),
    (lambda x: np.log1p(x), mpmath.log1p, "small"), (lambda x: np.expm1(x), mpmath.expm1, "small"),
    (lambda x: np.sqrt(x), mpmath.sqrt, "positive"),
]  # fmt: skip


@cases
@given(st.floats(-12, 0), st.floats(-3, 3), st.floats(-700, 700))
def test_elementary_functions_are_right(power, factor, wide):
    small = factor * 10.0**power
    at = {"wide": wide, "small": max(small, -0.9), "positive": abs(small) + SMALLEST}
    with mpmath.workdps(60):
        for function, true, kind in FUNCTIONS:
            exact, found = true(mpmath.mpf(at[kind])), function(np.float64(at[kind]))
            assert abs(mpmath.mpf(float(found)) - exact) <= UNITS * np.spacing(max(abs(float(exact)), NORMAL))


@cases
@given(st.one_of(st.floats(1e-300, 1, exclude_max=True), st.floats(0.31, 300).map(lambda e: 10.0**-e)))
def test_the_normal_law_is_right(p):
    """Within what the kernels give away on each quantile, and on each probability."""
    x = float(ndtri(p))
    with mpmath.workdps(60):
        true = mpmath.mpf(x)
        for _ in range(3):
            true -= (mpmath.ncdf(true) - mpmath.mpf(p)) / mpmath.npdf(true)
        assert abs(mpmath.mpf(x) - true) <= 8 * EPS * (1 + abs(x)) * (1 if p < 0.5 else max(1, EPS / (1 - p)))
        cdf = mpmath.ncdf(mpmath.mpf(x))
        assert abs(mpmath.mpf(float(ndtr(x))) - cdf) <= EPS * ((4 + x * x) * cdf if x < 0 else UNITS / 2)


@cases
@given(seeds)
def test_dot_products_stay_within_their_error_bound(random):
    """torch's matrix products and convolutions, which bound propagation counts on (Higham)."""
    count, terms = 4, 36
    w, x = random.normal(size=(2, count, terms)) * 10.0 ** random.uniform(-6, 6, (2, count, terms))
    matrix = torch.bmm(torch.from_numpy(w[:, None]), torch.from_numpy(x[:, :, None])).flatten().numpy()
    kernel, inputs = torch.from_numpy(w).reshape(count, 4, 3, 3), torch.from_numpy(x)
    image = torch.nn.functional.conv2d(inputs.reshape(1, count * 4, 3, 3), kernel, groups=count).flatten()
    for k in range(count):
        parts = [Fraction(a) * Fraction(b) for a, b in zip(w[k].tolist(), x[k].tolist(), strict=True)]
        allowed = Fraction(gamma(terms + 8)) * sum(map(abs, parts))
        for found in (matrix[k], image[k]):
            assert abs(Fraction(float(found)) - sum(parts)) <= allowed
