"""Types of estimates, and the relaxed radius against Theorem 3.5 and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from certmix.errors import ParameterError
from certmix.margins.estimates import HOLDS, NOT_ESTABLISHED, LipschitzEstimate, estimated_radius
from certmix.types import CertifiedRadii

ALPHA = 0.8


def estimate(outputs, slopes, *, eps=0.1, of="probabilities", ratio="relaxed", halfway=None):
    outputs = np.asarray(outputs, np.float64)
    by_restart = np.asarray(slopes, np.float64)
    by_restart = by_restart if by_restart.ndim == 3 else by_restart[None]
    half = by_restart if halfway is None else np.asarray(halfway, np.float64)
    return LipschitzEstimate(of, ratio, "l2", eps, 10, outputs.argmax(1), outputs, by_restart, half)


def test_the_binding_rival_need_not_be_the_runner_up():
    found = estimated_radius(estimate([[0.9, 0.06, 0.04]], [[1.0, 1.0, 4.0]]), ALPHA)
    # (0.8 (0.9 - 0.04) - 0.2) / (0.8 (1 + 4)), below that of the runner-up
    assert found.quotient[0] == pytest.approx((0.8 * 0.86 - 0.2) / 4.0, rel=1e-12)


def test_eps_is_what_holds_and_below_it_nothing():
    outputs = [[0.9, 0.1], [0.9, 0.1], [0.55, 0.45]]
    found = estimated_radius(estimate(outputs, [[1.0, 1.0], [6.0, 6.0], [0.0, 0.0]]), ALPHA)
    assert found.quotient == pytest.approx([0.275, 0.275 / 6, 0.0])  # (0.8 - 0.25) / 2
    assert found.radius.tolist() == [0.1, 0.0, 0.0]
    assert found.status == (HOLDS, NOT_ESTABLISHED, NOT_ESTABLISHED)
    for eps, holds in ((0.2499999, True), (0.2500001, False)):
        one = estimate([[1.0, 0.0]], [[2.0, 2.0]], eps=eps)
        assert estimated_radius(one, 1.0).holds.tolist() == [holds]


def test_a_zero_constant_does_not_divide():
    with np.errstate(all="raise"):
        found = estimated_radius(estimate([[0.9, 0.1], [0.5, 0.5]], np.zeros((2, 2))), ALPHA)
    assert found.quotient.tolist() == [np.inf, 0.0]
    assert found.radius.tolist() == [0.1, 0.0]


def test_both_say_that_they_are_estimates():
    constants = estimate([[0.9, 0.1]], [[1.0, 1.0]])
    for one in (constants, estimated_radius(constants, ALPHA)):
        assert "not certified" in repr(one)
        assert not isinstance(one, CertifiedRadii)


def test_own_rivals_spread_and_gain():
    slopes = [[[4.0, 1.0, 2.0]], [[3.0, 2.0, 2.0]]]
    found = estimate([[0.7, 0.2, 0.1]], slopes, halfway=[[[2.0, 1.0, 2.0]], [[3.0, 0.0, 1.5]]])
    assert found.slopes.tolist() == [[4.0, 2.0, 2.0]]
    assert (found.own.tolist(), found.rivals.tolist()) == ([4.0], [2.0])
    assert found.spread.tolist() == [0.25]  # 4 against 3, and 2 against 1, of 4
    assert found.gain.tolist() == [0.25]  # 4 from 3, and 2 from 1, of 4
    alone = estimate([[0.2, 0.8]], [[3.0]], ratio="yang")  # one constant for all classes has no rivals
    assert alone.own.tolist() == [3.0] and np.isnan(alone.rivals).all()


@pytest.mark.parametrize("change, alpha, told", [
    ({"of": "logits"}, ALPHA, "relaxed ones of probabilities"), ({"ratio": "each"}, ALPHA, "relaxed ones of"),
    *(({}, alpha, "1/2 <= alpha <= 1") for alpha in (0.49, 1.01, np.nan)),
])  # fmt: skip
def test_what_gives_no_radius(change, alpha, told):
    with pytest.raises(ParameterError, match=told):
        estimated_radius(estimate([[0.9, 0.1]], [[1.0, 1.0]], **change), alpha)
