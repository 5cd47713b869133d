"""Algorithm 1: the constraint on the inputs it was fitted to, the objective, ties, edges and odd inputs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_nuts import softmax

from certmix.errors import DataError, ParameterError
from certmix.nuts import (
    GRIDS,
    Grid,
    MarginGrid,
    TransformSettings,
    attacked_margin,
    auxiliary_alpha,
    clean_margin,
    fit,
    margin_grid,
    solve_beta,
    transform_numpy,
)
from certmix.nuts.algorithm import LARGEST_THRESHOLD, mixing_weight

SAFE = Grid((0.3, 2.0), (1.0, 3.0), (-0.8, 6.0))
"""With c = 6 every class of a small problem lies where GELU rises: (7) can always be met."""


def problem(inputs=60, classes=5, seed=0, lift=2.5):
    """Clean logits that lean towards the label, attacked ones less, and wrong ones less confident."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, inputs)
    clean = rng.normal(0, 1, (inputs, classes))
    clean[np.arange(inputs), labels] += lift
    attacked = clean + rng.normal(0, 0.4, clean.shape)
    attacked[np.arange(inputs), labels] -= 0.4 * lift
    return clean, attacked, labels


def planted(attacked, clean_wrong, grid=None):
    """Return margins of one grid point, or of several in the order of the last axis but one."""
    grid = grid or Grid((1.0,), (1.0,), (0.0,))
    arrays = (np.sort(np.array(x, dtype=float), -1).reshape(*grid.shape, -1) for x in (attacked, clean_wrong))
    return MarginGrid(grid, "gelu", None, *arrays, inputs=20, rival="second", conditional=False)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 40), st.floats(0, 1))
def test_the_conservative_quantile_keeps_the_constraint_and_is_the_largest(seed, inputs, beta):
    clean, attacked, labels = problem(inputs, seed=seed)
    if not (attacked.argmax(1) == labels).any():
        return
    found = fit(clean, attacked, labels, SAFE, beta)
    right = attacked.argmax(1) == labels
    margins = attacked_margin(transform_numpy(attacked[right], found.settings), labels[right])
    assert np.mean(margins >= found.margin_threshold - 1e-12) == found.constraint_share >= beta - 1e-9
    if found.margin_threshold < LARGEST_THRESHOLD:
        assert np.mean(margins > found.margin_threshold + 1e-12) < beta + 1e-9


def test_linear_interpolation_can_break_the_constraint():
    margins = planted([0.1, 0.2, 0.3, 0.4], [0.05, 0.15, 0.25])
    linear = solve_beta(margins, 0.6, quantile="linear")
    assert linear.margin_threshold == pytest.approx(0.22)
    assert linear.constraint_share == 0.5 < 0.6
    assert linear.objective == pytest.approx(1 / 3)
    conservative = solve_beta(margins, 0.6)
    assert (conservative.margin_threshold, conservative.constraint_share) == (0.2, 0.75)


@pytest.mark.parametrize("number,beta,below", [(100, 0.07, 93), (200, 0.985, 3), (3, 1 / 3, 2), (10, 1.0, 0)])
def test_float_error_in_beta_costs_no_input(number, beta, below):
    attacked = np.arange(number) / (2 * number)
    assert solve_beta(planted(attacked, [0.1]), beta).margin_threshold == attacked[below]


def test_beta_zero_asks_for_nothing():
    found = solve_beta(planted([0.1, 0.2], [0.3, 0.9]), 0.0)
    assert (found.margin_threshold, found.objective, found.saturated) == (LARGEST_THRESHOLD, 0.0, True)


@pytest.mark.parametrize("beta", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("quantile", ["conservative", "linear"])
def test_alpha_and_objective_come_from_one_threshold(beta, quantile):
    clean, attacked, labels = problem()
    found = fit(clean, attacked, labels, SAFE, beta, quantile=quantile, rival="second")
    assert found.alpha == pytest.approx(1 / (1 + found.margin_threshold), rel=1e-15)
    mu = (1 - found.alpha) / found.alpha
    wrong = clean.argmax(1) != labels
    margins = clean_margin(transform_numpy(clean[wrong], found.settings))
    assert found.objective == np.mean(margins >= mu * (1 - 1e-12))
    at = tuple(getattr(found.grid, name).index(getattr(found.settings, name)) for name in "spc")
    assert (found.objectives[at], found.thresholds[at]) == (found.objective, found.margin_threshold)
    assert found.objective == found.objectives[found.feasible].min()


@given(st.floats(0, LARGEST_THRESHOLD))
def test_the_mixing_weight_never_asks_for_more_than_the_threshold(threshold):
    alpha = mixing_weight(threshold)
    assert 0.5 < alpha <= 1
    assert (1 - alpha) / alpha <= threshold
    assert alpha - 1 / (1 + threshold) <= 4.5e-16


def test_the_mix_keeps_what_the_constraint_promises():
    """Lemma 3.2 with the worst one-hot standard model: kept above the threshold, lost below."""
    clean, attacked, labels = problem(200)
    found = fit(clean, attacked, labels, SAFE, 0.9)
    right = attacked.argmax(1) == labels
    mapped, y = transform_numpy(attacked[right], found.settings), labels[right]
    robust = softmax(mapped)
    kept = np.ones(len(y), bool)
    for rival in range(5):
        mix = found.alpha * robust
        mix[:, rival] += 1 - found.alpha
        kept &= mix.argmax(1) == y
    margin = attacked_margin(mapped, y)
    assert kept[margin > found.margin_threshold + 1e-12].all()
    assert not kept[margin < found.margin_threshold - 1e-12].any()
    assert found.constraint_share >= 0.9


def test_the_fit_does_not_depend_on_order():
    clean, attacked, labels = problem(150)
    order = np.random.default_rng(3).permutation(150)
    one = fit(clean, attacked, labels, GRIDS["cifar10"])
    other = fit(clean[order], attacked[order], labels[order], GRIDS["cifar10"])
    for name in one.__struct_fields__:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_the_best_point_by_hand():
    """One point separates the wrong input from the attacked ones, the others do not."""
    grid = Grid((1.0, 2.0, 3.0), (1.0,), (0.0,))
    found = solve_beta(planted([[0.1, 0.2], [0.3, 0.4], [0.2, 0.9]], [[0.2], [0.25], [0.8]], grid), 1.0)
    assert (found.settings.s, found.objective, found.ties, found.on_edge) == (2.0, 0.0, 1, ())


def test_ties_go_to_the_largest_threshold_then_p_then_s_then_bias():
    grid = Grid((1.0, 2.0), (1.0, 2.0), (-0.5, 0.2))
    attacked = np.full((2, 2, 2, 1), 0.4)
    assert solve_beta(planted(attacked, np.zeros((2, 2, 2, 1)), grid), 1.0).settings == TransformSettings(
        1, 1, 0.2
    )
    attacked[:, 0, 1] = 0.3  # p = 1 only with c = -0.5
    assert solve_beta(planted(attacked, np.zeros((2, 2, 2, 1)), grid), 1.0).settings.c == -0.5
    attacked[0, 0] = 0.2  # p = 1 only with s = 2
    assert solve_beta(planted(attacked, np.zeros((2, 2, 2, 1)), grid), 1.0).settings.s == 2.0
    attacked[1, 1, 0] = 0.6
    found = solve_beta(planted(attacked, np.zeros((2, 2, 2, 1)), grid), 1.0)
    assert (found.settings, found.ties) == (TransformSettings(2.0, 2.0, -0.5), 8)
    assert found.on_edge == ("s", "p", "c")


def test_a_transform_that_misclassifies_is_left_out():
    """At a negative quantile no alpha meets (7), however good the objective would look."""
    grid = Grid((1.0, 2.0), (1.0,), (0.0,))
    found = solve_beta(planted([[-0.1, 0.5], [0.0, 0.5]], [[0.1], [0.2]], grid), 1.0)
    assert (found.settings.s, found.alpha, found.objective) == (2.0, 1.0, 1.0)
    assert found.feasible.ravel().tolist() == [False, True]
    with pytest.raises(ParameterError, match=r"beta = 1: every transform"):
        solve_beta(planted([-0.1, 0.5], [0.1]), 1.0)


@pytest.mark.parametrize("conditional", [False, True])
def test_the_label_as_rival_gives_what_a_right_standard_model_mends(conditional):
    clean, attacked, labels = problem(200, lift=1.5)
    standard = np.arange(200) % 3 > 0 if conditional else None
    found = fit(clean, attacked, labels, SAFE, 0.8, rival="label", standard_correct=standard)
    wrong = (clean.argmax(1) != labels) & (True if standard is None else standard)
    mix = found.alpha * softmax(transform_numpy(clean[wrong], found.settings))
    mix[np.arange(wrong.sum()), labels[wrong]] += 1 - found.alpha
    assert found.clean_wrong == wrong.sum() > 20
    assert 0 < found.objective == np.mean(mix.argmax(1) != labels[wrong]) < 1


def test_a_label_in_third_place_is_out_of_reach_of_the_margin():
    """h = (.5, .3, .2): its margin .2 is below q, yet the mix needs .3 to turn to the third class."""
    clean = np.log([[0.5, 0.3, 0.2], [0.7, 0.2, 0.1]])
    raw = Grid((float(np.std(clean[0], ddof=1)),), (1.0,), (0.0,))  # undoes LN of the first input
    attacked = np.log([[0.2, 0.2, 0.6], [0.64, 0.2, 0.16]])
    objectives = []
    for rival in ("second", "label"):
        margins = margin_grid(clean, attacked, [2, 0], raw, clamp="linear", rival=rival)
        margins = dataclasses.replace(margins, attacked=np.full((1, 1, 1, 1), 0.25))
        objectives.append(solve_beta(margins, 1.0).objective)
    assert objectives == [0.0, 1.0]


def test_the_auxiliary_weight_is_algorithm_1_on_one_point():
    clean, attacked, labels = problem()
    point = Grid((1.0,), (1.0,), (0.0,))
    expected = fit(clean, attacked, labels, point, 0.9, clamp="linear").alpha
    assert auxiliary_alpha(attacked, labels, 0.9) == pytest.approx(expected, rel=1e-14)
    right = attacked.argmax(1) == labels
    raw = attacked_margin(attacked, labels)[right]
    linear = auxiliary_alpha(attacked, labels, 0.9, quantile="linear", normalize=False)
    assert linear == pytest.approx(1 / (1 + np.percentile(raw, 10)), rel=1e-12)


def test_no_attacked_input_right_is_an_error():
    clean, _, labels = problem()
    attacked = -np.eye(5)[labels]
    for call in (
        lambda: fit(clean, attacked, labels, SAFE),
        lambda: auxiliary_alpha(attacked, labels),
        lambda: fit(np.empty((0, 5)), np.empty((0, 5)), np.empty(0, int), SAFE),
    ):
        with pytest.raises(DataError, match="attacked inputs is classified right"):
            call()


@pytest.mark.parametrize(
    "change,found",
    [({"beta": 1.01}, "beta"), ({"beta": math.nan}, "beta"), ({"quantile": "median"}, "quantile"),
     ({"clamp": "tanh"}, "clamp"), ({"top_k": 1}, "top_k"), ({"rival": "third"}, "rival")],
)  # fmt: skip
def test_options_out_of_range_are_refused(change, found):
    with pytest.raises(ParameterError, match=found):
        fit(*problem(), SAFE, **change)


def test_what_does_not_fit_together_or_into_memory_is_refused():
    clean, attacked, labels = problem()
    with pytest.raises(DataError, match="one row of each"):
        fit(clean, attacked[:-1], labels, SAFE)
    with pytest.raises(DataError, match="standard_correct"):
        fit(clean, attacked, labels, SAFE, standard_correct=labels)
    many = Grid(*(tuple(np.linspace(1, 2, 200).tolist()),) * 3)
    with pytest.raises(ParameterError, match="2 GiB"):
        fit(*problem(), many)
