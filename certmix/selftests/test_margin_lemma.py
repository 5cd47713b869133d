"""Lemma 3.2: a margin of (1 - alpha) / alpha keeps the mix whatever g says; a smaller one does not."""

from fractions import Fraction

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from certmix.models import mixture
from certmix.radii import constant
from certmix.selftests.cases import alphas, cases, lead, logits_of, seeds

TIES = 1e-12  # what the mix of exact ties may come out as
CLEAR = 1e-3  # margin beyond the threshold at which float32 logits must show the class too


def simplex(random, count, classes):
    """Points of the simplex: spread out, peaked, and vertices."""
    spread, peaked = (random.dirichlet(np.full(classes, a), count) for a in (1.0, 0.1))
    vertex = np.eye(classes)[random.integers(0, classes, count)]
    kind = random.integers(0, 3, (count, 1))
    return np.where(kind == 0, spread, np.where(kind == 1, peaked, vertex))


def with_margin(start, chosen, margin):
    """Move points (m, c) towards a class each until it leads by `margin`."""
    rows = np.arange(len(start))
    rivals = start.copy()
    rivals[rows, chosen] = -1
    own = start[rows, chosen] - rivals.max(1)
    step = np.clip((margin - own) / np.maximum(1 - own, 1e-300), 0.0, 1.0)[:, None]
    return start + step * (np.eye(start.shape[1])[chosen] - start)


class Half(nn.Module):
    """Gives the first or second half of its input: stored logits as a model."""

    def __init__(self, second):
        super().__init__()
        self.second = second

    def forward(self, inputs):
        half = inputs.shape[1] // 2
        return inputs[:, half:] if self.second else inputs[:, :half]


@cases
@given(alphas)
def test_the_threshold_is_not_below_mu(alpha):
    assert Fraction(constant.margin_threshold(alpha)) >= (1 - Fraction(alpha)) / Fraction(alpha)


@cases
@given(seeds, alphas, st.integers(2, 12), st.sampled_from([0.0, 1e-9, 1e-6, CLEAR]))
def test_at_the_threshold_the_mix_ties_and_above_it_holds(random, alpha, classes, spare):
    mu = constant.margin_threshold(alpha)
    assume(mu + spare <= 1)
    chosen = random.integers(0, classes, 2 * classes + 4)
    h = with_margin(simplex(random, len(chosen), classes), chosen, mu + spare)
    others = np.clip(7 * simplex(random, 2, classes), 0, 1)  # g need not add up to 1: only its range is used
    g = np.vstack([np.eye(classes), simplex(random, 2, classes), others])
    h, chosen = h.repeat(len(g), 0), chosen.repeat(len(g))
    g = np.tile(g, (len(h) // len(g), 1))
    slack = lead(g, h, alpha, chosen)
    assert np.all(slack >= -TIES if spare == 0 else slack > 0)
    if spare < CLEAR:
        return
    standard, robust = logits_of(g).float(), logits_of(h).float()
    mix = mixture.MixedClassifier(Half(False), Half(True), alpha)
    with torch.no_grad():
        assert np.array_equal(mix(torch.cat([standard, robust], 1)).argmax(1).numpy(), chosen)
        assert np.array_equal(mixture.mix_logits(standard, robust, alpha, 0.0).argmax(1).numpy(), chosen)


@cases
@given(seeds, alphas, st.integers(2, 12))
def test_a_millionth_below_the_threshold_one_vertex_flips_the_mix(random, alpha, classes):
    mu = constant.margin_threshold(alpha)
    assume(mu > 1e-5)
    chosen = random.integers(0, classes, 16)
    rivals = random.dirichlet(np.ones(classes - 1), len(chosen))
    own = (mu * (1 - 1e-6) + rivals.max(1)) / (1 + rivals.max(1))
    outside = np.arange(classes) != chosen[:, None]
    h = np.repeat(own[:, None], classes, 1)
    h[outside] = ((1 - own)[:, None] * rivals).ravel()
    g = np.eye(classes)[np.where(outside, h, -1.0).argmax(1)]
    assert np.all(lead(g, h, alpha, chosen) < 0)
