"""The softmax margin's closed form against brute force."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certmix.errors import ParameterError
from certmix.margins.margins import softmax_margin_lower

BOUNDS = st.lists(st.floats(-30, 30, allow_subnormal=False), min_size=1, max_size=9)


def margin(d):
    """min_i h_y - h_i for differences d_j = z_y - z_j, in 400 digits."""
    with mpmath.workdps(400):
        e = [mpmath.exp(-mpmath.mpf(float(x))) for x in d]
        return min((1 - t) / (1 + sum(e)) for t in e)


@settings(max_examples=80, deadline=None)
@given(BOUNDS, st.integers(0, 2**32 - 1))
def test_no_logits_within_the_bounds_have_a_smaller_margin(bounds, seed):
    lower = mpmath.mpf(float(softmax_margin_lower([bounds])[0]))
    rng = np.random.default_rng(seed)
    assert lower <= margin(bounds)
    for scale in (1e-6, 1.0, 20.0):
        above = np.asarray(bounds) + scale * rng.exponential(size=len(bounds)) * rng.integers(
            0, 2, len(bounds)
        )
        assert lower <= margin(above)


@settings(max_examples=40, deadline=None)
@given(BOUNDS)
def test_the_bound_is_attained_or_approached(bounds):
    """Positive: by the bounds themselves.  Else: where every other rival's logit is far below."""
    lower, least = float(softmax_margin_lower([bounds])[0]), int(np.argmin(bounds))
    worst = list(bounds)
    if bounds[least] <= 0:
        worst = [b if j == least else max(b, 60.0) for j, b in enumerate(bounds)]
    assert float(margin(worst)) == pytest.approx(lower, rel=1e-12, abs=1e-15)


def test_what_is_unknown_gives_nothing():
    values = softmax_margin_lower(
        [[np.nan, 3.0], [-np.inf, 3.0], [np.inf, np.inf], [0.0, 5.0], [-800.0, 2.0]]
    )
    assert values[0] == -1.0 and values[1] == -1.0 and values[4] == -1.0
    assert 1 - 1e-13 < values[2] < 1.0
    assert -1e-300 < values[3] < 0.0
    for shape in ((3,), (2, 0)):
        with pytest.raises(ParameterError, match="one column a rival"):
            softmax_margin_lower(np.zeros(shape))
