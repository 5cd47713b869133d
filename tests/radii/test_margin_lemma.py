"""Lemma 3.2: a margin of (1 - alpha) / alpha keeps the mix whatever g says; a smaller one does not."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

SLACK = 1e-9
alphas = st.one_of(st.floats(0.5, 1.0), st.sampled_from([0.5, 0.76, 1.0]))
quick = settings(deadline=None, max_examples=150)


@st.composite
def simplex_points(draw, classes=4):
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return np.eye(classes)[draw(st.integers(0, classes - 1))]
    weights = np.array(draw(st.lists(st.floats(1e-6, 1.0), min_size=classes, max_size=classes)))
    return weights**kind / (weights**kind).sum()


def mix(g, h, alpha):
    """The mixed classifier's logits, -inf where both say 0."""
    with np.errstate(divide="ignore"):
        return np.log((1 - alpha) * g + alpha * h)


def margins(h, y):
    """h_y - h_i for the rivals i."""
    return h[y] - np.delete(h, y)


def threshold(alpha):
    return (1 - alpha) / alpha


def with_margin(start, y, aim):
    """Move `start` towards class y until its margin is `aim` (or its own, if that is larger)."""
    own = margins(start, y).min()
    return start if own >= aim else start + (aim - own) / (1 - own) * (np.eye(4)[y] - start)


@quick
@given(simplex_points(), simplex_points(), simplex_points(), alphas, st.integers(0, 3), st.floats(0, 1))
def test_margin_above_threshold_keeps_the_mix(g, start, noise, alpha, y, spare):
    mu = threshold(alpha)
    assume(mu < 1 - 1e-6)
    h = with_margin(start, y, mu + SLACK + spare * (1 - mu - SLACK))
    moved = with_margin(0.5 * (h + noise), y, mu + SLACK)
    for robust in (h, moved):
        assert margins(robust, y).min() > mu + SLACK / 2
        for standard in (g, *np.eye(4)):
            logits = mix(standard, robust, alpha)
            assert logits[y] > np.delete(logits, y).max()


@quick
@given(simplex_points(), alphas, st.integers(0, 3))
def test_margin_below_threshold_is_flipped_by_one_vertex(h, alpha, y):
    below = margins(h, y).min() - threshold(alpha)
    assume(below < -SLACK)
    rival = np.delete(np.arange(4), y)[margins(h, y).argmin()]
    logits = mix(np.eye(4)[rival], h, alpha)
    assert logits[rival] > logits[y]


@quick
@given(simplex_points(), simplex_points(), alphas, st.integers(0, 3))
def test_only_the_range_of_g_is_used(g, start, alpha, y):
    """g need not sum to one: any values in [0, 1] are covered."""
    assume(threshold(alpha) < 1 - 1e-6)
    h = with_margin(start, y, threshold(alpha) + SLACK)
    anything = np.clip(g * 7, 0, 1)
    anything[y] = 0.0
    logits = mix(anything, h, alpha)
    assert logits[y] > np.delete(logits, y).max()


def test_margin_exactly_at_the_threshold_only_ties():
    alpha = 0.8  # threshold 1/4
    logits = mix(np.array([0.0, 1.0, 0.0]), np.array([0.5, 0.25, 0.25]), alpha)
    assert abs(logits[0] - logits[1]) < 1e-15
    logits = mix(np.array([0.0, 0.0, 1.0]), np.array([0.625, 0.125, 0.25]), alpha)
    assert logits[0] > logits[2]
