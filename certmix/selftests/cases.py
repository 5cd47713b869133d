"""What the suites share: random cases with their edges, enumeration, half-spaces, the mix."""

from __future__ import annotations

import itertools
import os

import numpy as np
import torch
from hypothesis import Phase, settings
from hypothesis import strategies as st
from scipy.special import gammaln, ndtr

from certmix.models import mixture

CASES = int(os.environ.get("CERTMIX_SELFTEST_CASES", "50"))
"""Random cases of a property; `certmix selftest --cases` sets it."""

cases = settings(
    deadline=None, max_examples=CASES, database=None, phases=(Phase.explicit, Phase.generate, Phase.shrink)
)

few = settings(cases, max_examples=max(2, CASES // 10))  # of what runs networks

EPS = 2.0**-52

near_one = st.floats(0.0, 15.9).map(lambda x: 1 - 10.0**-x)
tiny = st.floats(0.0, 300.0).map(lambda x: 10.0**-x)
probabilities = st.one_of(st.floats(0, 1), near_one, tiny, st.sampled_from([0.0, 0.5, 1.0]))
alphas = st.one_of(
    st.floats(0.5, 1),
    near_one.filter(lambda x: x > 0.5),
    st.floats(0.4, 12.0).map(lambda x: min(1.0, 0.5 + 10.0**-x)),
    st.sampled_from([0.5, 0.5 + 2.0**-53, 0.51, 0.76, 1 - 2.0**-53, 1.0]),
)
sigmas = st.one_of(st.floats(0.05, 4), st.sampled_from([1e-250, 1e-9, 1e9, 1e250]))
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def simplex_pairs(draw):
    """(p, q) with p + q <= 1, as two classes of one distribution have."""
    p = draw(probabilities)
    room = min(p, 1 - p)
    return p, min(room, draw(st.one_of(st.just(room), tiny.map(lambda x: x * room), st.just(0.0))))


def all_counts(trials, kinds):
    """Every way to spread `trials` samples over `kinds`, (m, kinds)."""
    bars = itertools.combinations(range(trials + kinds - 1), kinds - 1)
    cuts = np.array([(-1, *b, trials + kinds - 1) for b in bars])
    return np.diff(cuts, axis=1) - 1


def multinomial(counts, laws):
    """The probability of each row of counts under each row of laws, (laws, counts)."""
    ways = gammaln(counts.sum(1) + 1) - gammaln(counts + 1).sum(1)
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(laws), -1e5)
    return np.exp(ways + logs @ counts.T)


def logits_of(probabilities):
    """Float64 logits of rows of probabilities, all finite."""
    with np.errstate(divide="ignore"):
        return torch.from_numpy(np.maximum(np.log(probabilities), -1e4))


def lead(standard, robust, alpha, chosen, rival=None):
    """By how much class `chosen` leads all others, or one, in certmix's own mix of g and h (m, c)."""
    mixed = mixture.mix_logits(logits_of(standard), logits_of(robust), alpha).numpy()
    rows = np.arange(len(mixed))
    own = mixed[rows, chosen]
    if rival is not None:
        return own - mixed[:, rival]
    mixed[rows, chosen] = -np.inf
    return own - mixed.max(1)


def pair_of_half_spaces(a, b, t, classes):
    """h (m, classes) of two disjoint half-spaces, t noise levels on along their normal.

    Class 0 answers on {u.z <= a}, class 1 on {u.z >= -b}, the others share the rest.
    """
    selected, rival = ndtr(a - t), ndtr(b + t)
    rest = np.maximum(0.0, 1 - selected - rival) / max(classes - 2, 1)
    return np.column_stack([selected, rival, *[rest] * (classes - 2)])
