"""Choosing a transform for certified accuracy: kernels against numpy, the choice against brute force."""

import numpy as np
import pytest

from certmix.errors import DataError, ParameterError
from certmix.nuts.grid import Grid, TransformSettings
from certmix.nuts.margins import softmax_numpy, transform_numpy
from certmix.studies import nuts_certified_plan as certified
from certmix.studies.nuts_certified_plan import (
    ALPHAS,
    NoisyLogits,
    choose,
    grid_sums,
    score_sums,
)

HOW = ("transform", "soft", "betting")
GRID = Grid(s=(0.5, 20.0), p=(1.0, 2.5, 4.0), c=(-1.0, 0.2))


def noisy(rng, images=5, samples=7, classes=4):
    return rng.normal(size=(images, samples, classes)) * 3


@pytest.mark.parametrize("clamp", ["gelu", "relu", "linear"])
def test_sums_on_the_grid_are_those_of_each_transform(clamp):
    logits = noisy(np.random.default_rng(0))
    found = grid_sums(logits, GRID, clamp=clamp, top_k=3)
    for k, (i, j, h) in enumerate(np.ndindex(GRID.shape)):
        own = TransformSettings(GRID.s[i], GRID.p[j], GRID.c[h], clamp, 3)
        scores = softmax_numpy(transform_numpy(logits.reshape(-1, 4), own)).reshape(logits.shape)
        np.testing.assert_allclose(found.totals[k], scores.sum(1), rtol=1e-12)
        np.testing.assert_allclose(found.squares[k], (scores**2).sum(1), rtol=1e-12)
    assert found.samples == 7
    np.testing.assert_allclose(found.means.sum(-1), 1.0)


def test_the_order_of_images_changes_nothing():
    logits = noisy(np.random.default_rng(1))
    assert np.array_equal(grid_sums(logits[::-1], GRID).totals, grid_sums(logits, GRID).totals[:, ::-1])


def test_a_steep_transform_all_but_counts_votes():
    logits = noisy(np.random.default_rng(2))
    votes = score_sums(logits, lambda z: np.eye(4)[z.argmax(-1)])
    steep = grid_sums(logits, Grid((1e6,), (1.0,), (0.0,)), clamp="linear")
    np.testing.assert_allclose(steep.means, votes.means, atol=1e-6)


def brute_force(margins, robust, standard, labels, floor, alphas):
    """Every candidate at every alpha, image by image; the best under the documented order."""
    found = []
    for k in range(len(robust)):
        for alpha in alphas:
            clean = certified = 0
            for i, y in enumerate(labels):
                mixed = [(1 - alpha) * g + alpha * h for g, h in zip(standard[i], robust[k, i], strict=True)]
                clean += mixed.index(max(mixed)) == y
                certified += robust[k, i].argmax() == y and margins[k, i] > (1 - alpha) / alpha
            if clean / len(labels) >= floor - 1e-12:
                found.append((certified, clean, alpha, -k))
    return max(found) if found else None


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_is_the_brute_force_optimum(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    images, classes, candidates = int(rng.integers(1, 7)), int(rng.integers(2, 5)), int(rng.integers(1, 6))
    robust = rng.dirichlet(np.full(classes, 0.5), (candidates, images))
    standard = rng.dirichlet(np.full(classes, 0.4), images)
    if seed % 3 == 0:  # ties
        robust, standard = np.round(robust * 4) / 4, np.round(standard * 2) / 2
    margins = np.sort(robust, -1)[..., -1] - 0.3
    labels = rng.integers(0, classes, images)
    floor, alphas = float(rng.choice([0.0, 0.3, 0.5, 2 / 3, 1.0])), (0.55, 0.7, 0.8, 0.95, 1.0)
    monkeypatch.setattr(certified, "ALPHAS", alphas)
    wanted = brute_force(margins, robust, standard, labels, floor, alphas)
    found = choose(HOW, margins, robust, standard, labels, floor)
    if wanted is None:
        assert found is None
    else:
        assert found is not None
        assert (found.certified.correct, found.clean.correct, found.alpha, -found.candidate) == wanted


def test_ties_count_candidates_not_alphas():
    robust = np.array([[[0.9, 0.1]]] * 3 + [[[0.4, 0.6]]])
    margins = np.array([[0.7], [0.8], [0.7], [0.2]])
    found = choose(HOW, margins, robust, np.array([[0.5, 0.5]]), np.array([0]), 1.0)
    assert (found.candidate, found.ties, found.alpha) == (0, 3, 1.0)
    assert (found.certified.correct, found.clean.correct) == (1, 1)


def test_alphas_lie_where_certificates_exist():
    assert ALPHAS[0] > 0.5 and ALPHAS[-1] == 1.0 and np.all(np.diff(ALPHAS) > 0)


def test_logits_must_fit_together():
    rng = np.random.default_rng(0)
    good = {
        "standard": rng.normal(size=(3, 4)), "noisy": rng.normal(size=(3, 5, 4)),
        "labels": np.array([0, 3, 1]), "indices": np.arange(3),
    }  # fmt: skip
    assert len(NoisyLogits(**good).labels) == 3
    for change, message in (
        ({"standard": rng.normal(size=(3, 5))}, "noisy logits have shape"),
        ({"noisy": rng.normal(size=(3, 20))}, "noisy logits have shape"),
        ({"labels": np.array([0, 4, 1])}, "labels run"),
        ({"noisy": np.full((3, 5, 4), np.nan)}, "not within"),
    ):
        with pytest.raises(DataError, match=message):
            NoisyLogits(**{**good, **change})


def test_a_grid_beyond_memory_is_refused_before_it_is_tried():
    large = Grid(tuple(range(1, 1001)), tuple(np.linspace(1, 4, 100)), tuple(np.linspace(-1, 0, 100)))
    with pytest.raises(ParameterError, match="smaller grid"):
        grid_sums(np.zeros((10, 1, 5)), large)
    with pytest.raises(ParameterError, match="clamp"):
        grid_sums(np.zeros((1, 1, 2)), GRID, clamp="tanh")
