"""Statistics of scores: exact, rounded outwards, the same for every batch size and order."""

import zlib
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certmix.bounds.statistics import (
    BIN_STEPS,
    BINS,
    ROW_SLACK,
    SCALE,
    from_vector,
    plan,
    start,
    to_vector,
    update,
)
from certmix.errors import ParameterError

quick = settings(deadline=None, max_examples=40)


@st.composite
def score_rows(draw, classes=4):
    """Rows that add up to 1, with exact zeros and ones among them."""
    seed, n = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 30))
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(classes, draw(st.sampled_from([0.05, 1.0, 30.0]))), n)
    hard = rng.random(n) < 0.2
    rows[hard] = np.eye(classes)[rng.integers(0, classes, hard.sum())]
    return rows


def empty():
    return start(4, selected=2, rivals=[0, 3])


@quick
@given(score_rows(), st.data())
def test_batches_and_order_do_not_matter(rows, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    order = np.array(data.draw(st.permutations(range(len(rows)))), int)
    whole = update(empty(), rows)
    parts = empty()
    for batch in np.split(rows[order], cuts):
        parts = update(parts, batch)
    assert to_vector(whole).tolist() == to_vector(parts).tolist()


@quick
@given(score_rows())
def test_sums_are_those_of_scores_rounded_outwards(rows):
    """The selected class never above, the others never below, by less than one step a sample."""
    kept = update(empty(), rows)
    assert kept.samples == len(rows)
    for label in range(4):
        exact = sum((Fraction(x) for x in rows[:, label]), Fraction(0))
        step, total = Fraction(1, SCALE), Fraction(int(kept.totals[label]), SCALE)
        if label == 2:
            assert exact - len(rows) * step <= total <= exact
        else:
            assert exact <= total <= exact + len(rows) * step
        rounded = [Fraction(x) * SCALE for x in rows[:, label]]
        rounded = [r.__floor__() if label == 2 else r.__ceil__() for r in rounded]
        assert kept.squares[label] == sum(r * r for r in rounded)
        if label != 1:
            row = [2, 0, 3].index(label)
            places = [min(r // BIN_STEPS, BINS - 1) for r in rounded]
            assert kept.bin_counts[row].tolist() == [places.count(k) for k in range(BINS)]
            for k in range(BINS):
                inside = [r - k * BIN_STEPS for r, place in zip(rounded, places, strict=True) if place == k]
                assert kept.bin_excess[row, k] == sum(inside)


def test_one_and_zero_stay_exact_in_any_dtype():
    for kind in (np.float16, np.float32, np.float64):
        rows = np.array([[0.5, 0.25, 0.25], [0.125, 0.875, 0.0]], kind)
        assert update(start(3, 0), rows).means().tolist() == [0.3125, 0.5625, 0.125]
    kept = update(start(3, 0, [1]), np.eye(3)[[0, 0, 1]])
    assert kept.totals.tolist() == [2 * SCALE, SCALE, 0]
    assert kept.bin_counts[0, -1] == 2
    assert kept.bin_excess[0, -1] == 2 * BIN_STEPS


def test_float32_softmax_is_accepted_and_coarser_ones_are_not():
    z = np.random.default_rng(0).normal(size=(200, 1000)).astype(np.float32) * 4
    soft = np.exp(z - z.max(1, keepdims=True))
    soft /= soft.sum(1, keepdims=True)
    assert update(start(1000, 5), soft).samples == 200
    with pytest.raises(ParameterError, match="float64"):
        update(start(1000, 5), soft.astype(np.float16))


@quick
@given(score_rows(), st.integers(0, 3))
def test_plan_takes_the_largest_means(rows, followed):
    if len(rows) == 0:
        return
    chosen = plan(update(start(4, 0), rows), followed)
    steps = rows * SCALE
    upper = np.ceil(steps)
    upper[:, 0] = np.floor(steps[:, 0])
    order = np.argsort(-upper.sum(0), kind="stable").tolist()
    assert [chosen.selected, *chosen.rivals] == order[: 1 + followed]
    assert chosen.samples == 0
    assert not chosen.totals.any()
    spread = np.sqrt((len(rows) * (upper / SCALE).var(0) + 1 / 16) / (len(rows) + 1))
    np.testing.assert_allclose(chosen.deviations / SCALE, spread, atol=2 / SCALE)


@quick
@given(score_rows())
def test_round_trips(rows):
    kept = update(plan(update(start(4, 0), np.eye(4)), 2), rows)
    again = from_vector(to_vector(kept))
    assert to_vector(again).tolist() == to_vector(kept).tolist()
    assert all(getattr(again, name).dtype == np.int64 for name in ("totals", "squares", "bin_counts"))
    assert to_vector(update(again, rows)).tolist() == to_vector(update(kept, rows)).tolist()


def test_size_of_a_thousand_classes():
    rows = np.random.default_rng(1).dirichlet(np.full(1000, 0.02), 400)
    assert len(zlib.compress(to_vector(update(start(1000, 3, [5, 9]), rows)), 1)) < 20_000


HEAD = ("version", "scale", "selected", "samples", "classes", "followed", "rival")
WHERE = {name: k for k, name in enumerate(HEAD)} | {
    "deviation": 7,
    "total": 10,
    "square": 13,
    "bin": 16,
    "excess": 144,
}


@pytest.mark.parametrize("name", WHERE)
def test_tampered_numbers_are_refused(name):
    good = to_vector(update(start(3, 1, [0]), np.eye(3)))
    from_vector(good)
    for wrong in (-1, 2**40):
        bad = good.copy()
        bad[WHERE[name]] = wrong
        with pytest.raises(ValueError):
            from_vector(bad)


@pytest.mark.parametrize("cut", [0, 3, 6, 7, -1])
def test_vectors_cut_off_are_refused(cut):
    with pytest.raises(ValueError):
        from_vector(to_vector(update(start(3, 1, [0]), np.eye(3)))[:cut])


@pytest.mark.parametrize("make", [
    *(lambda scores=scores: update(start(3, 0), scores) for scores in (
        [[0.5, 0.5]], [0.5, 0.3, 0.2], [[1.5, -0.5, 0.0]], [[np.nan, 0.5, 0.5]], [[0.5, 0.3, 0.1]],
        [[0.5, 0.3, 0.2 + 2 * ROW_SLACK]],
    )),
    *(lambda given=given: start(*given) for given in (
        (1, 0), (3, 3), (3, -1), (3, 0, [0]), (3, 0, [1, 1]), (3, 0, [3]), (3, 0, [], [1, 2]),
    )),
])  # fmt: skip
def test_bad_scores_starts_are_refused(make):
    with pytest.raises(ParameterError) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_sums_cannot_overflow():
    n = 1 << 30
    sums = {"totals": [n * SCALE, 0], "squares": [n * SCALE**2, 0],
            "bin_counts": [[*[0] * (BINS - 1), n]], "bin_excess": [[0] * (BINS - 1) + [n * BIN_STEPS]]}  # fmt: skip
    full = replace(start(2, 0), samples=n, **{name: np.array(values) for name, values in sums.items()})
    assert from_vector(to_vector(full)).samples == n
    with pytest.raises(ParameterError, match="overflow"):
        update(full, [[1.0, 0.0]])
