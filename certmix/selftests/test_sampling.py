"""Noise and votes: linear models, whose smoothed probabilities and distances are known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr
from torch import nn

from certmix.bounds import clopper_pearson
from certmix.models.smoothed import SmoothedClassifier
from certmix.sampling import Sampler, count_votes
from certmix.selftests.cases import few, seeds

RARE = 1e-9  # failure probability of one comparison: with the wrong noise it fails, by chance it does not
SAMPLES, DIMENSION = 2000, 12


def half_space(random, sigma):
    """A linear model of two classes, and the distance of the point 0 to its boundary."""
    model = nn.Linear(DIMENSION, 2).requires_grad_(False)
    w = random.normal(size=DIMENSION)
    w /= np.linalg.norm(w)
    distance = float(sigma * random.uniform(0.1, 2.5))
    model.weight.copy_(torch.from_numpy(np.stack([w, -w])))
    model.bias.copy_(torch.tensor([distance, -distance]))
    return model, distance


@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5, 1.0])
@few
@given(seeds, st.integers(0, 2**31), st.integers(0, 10**6))
def test_true_probability_and_distance_lie_within_the_bounds(sigma, random, seed, index):
    """From noise to radius in one go: at alpha = 1 the distance itself is the largest sound radius."""
    model, distance = half_space(random, sigma)
    counts = count_votes(
        model, torch.zeros(DIMENSION), sigma, SAMPLES, seed, classes=2, index=index, batch_size=500
    )
    true = float(ndtr(distance / sigma))
    assert clopper_pearson.lower_bound(counts[0], SAMPLES, RARE) <= true
    assert clopper_pearson.upper_bound(counts[0], SAMPLES, RARE) >= true
    smooth = SmoothedClassifier(model, sigma, classes=2, seed=seed, batch_size=500)
    found = smooth.certify(torch.zeros(1, DIMENSION), SAMPLES, RARE)
    assert found.classes[0] != 0 or found.radii.radius[0] <= distance


@few
@given(seeds, st.integers(0, 2**31), st.integers(1, 329))
def test_votes_depend_on_seed_input_and_stream_alone(random, seed, stop):
    model, _ = half_space(random, 1.0)
    model.bias.zero_()
    input, samples = torch.zeros(DIMENSION), 330

    def drawn(size, seed=seed, index=3, stream="estimation"):
        sampler = Sampler(model, 2, 1.0, seed, batch_size=size)
        return np.diff(sampler.votes(input, index, range(1, samples + 1), stream=stream)[:, 0], prepend=0)

    first = drawn(100)
    assert all(np.array_equal(drawn(size), first) for size in (7, 330, None))
    for other in (drawn(100, seed=seed + 1), drawn(100, index=4), drawn(100, stream="selection")):
        assert np.mean(other == first) < 0.75
    resumed = Sampler(model, 2, 1.0, seed, batch_size=100).votes(input, 3, [samples], start=stop)
    assert resumed[0, 0] == first[stop:].sum()
