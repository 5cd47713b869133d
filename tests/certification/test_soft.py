"""Soft scores: softmax averages instead of votes, through sampling, records and certificates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from planes import INPUTS, LABELS, points
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn

import certmix
from certmix.bounds import bounds_of
from certmix.errors import ParameterError, RunError

WEIGHT = 4.0


def logistic() -> nn.Module:
    """Softmax score of class 0 is 1 / (1 + exp(-2 w x_0))."""
    net = nn.Linear(2, 2, dtype=torch.float32)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[WEIGHT, 0.0], [-WEIGHT, 0.0]]))
        net.bias.zero_()
    return net


def soft(**options) -> certmix.CertifyResult:
    defaults = {
        "data": points(INPUTS, LABELS), "standard": None, "robust": logistic(), "inputs": "all",
        "scores": "soft", "samples": 1000,
    }  # fmt: skip
    return certmix.certify(sigma=0.5, alpha=0.76, **{**defaults, **options})


def true_mean(x: float, temperature: float = 1.0) -> float:
    """E of the score of class 0 at x + N(0, 1/4), by quadrature."""
    return quad(lambda z: norm.pdf(z) / (1 + np.exp(-2 * WEIGHT * (x + 0.5 * z) / temperature)), -9, 9)[0]


@pytest.mark.parametrize(
    ("bound", "goal"),
    [
        pytest.param(bound, goal, marks=[pytest.mark.long] * (goal == "fixed" and k > 0))
        for k, bound in enumerate(bounds_of("soft", distribution=False))
        for goal in ("fixed", "radii")
    ],
)
def test_bounds_hold_the_true_means(bound, goal):
    result = soft(bound=bound, goal=goal, radii=(0.0, 0.1))
    bounds = result.evaluation.bounds
    for record, p, q in zip(result.records, bounds.p_lower, bounds.q_upper, strict=True):
        mean = true_mean(INPUTS[record.index // 10][0])
        selected = mean if record.selected == 0 else 1 - mean
        assert p <= selected
        assert q >= 1 - selected
        if record.drawn == 1000:
            assert selected - p < 0.2


def test_the_temperature_matters_and_names_another_run(tmp_path: Path):
    """Also two temperatures that print alike in six digits."""
    third = soft(score_temperature=1 / 3, goal="fixed", output=tmp_path / "run")
    warm = soft(score_temperature=5.0, goal="fixed")
    assert third.evaluation.bounds.p_lower[0] > warm.evaluation.bounds.p_lower[0]
    assert third.evaluation.bounds.p_lower[0] <= true_mean(INPUTS[0][0], 1 / 3)
    for other in ({"score_temperature": 0.333333}, {"scores": "hard"}):
        with pytest.raises(RunError, match="scores"):
            soft(**other, goal="fixed", output=tmp_path / "run")
    assert soft(score_temperature=1 / 3, goal="fixed", output=tmp_path / "run").summary.inputs == 5


def test_statistics_survive_the_database_and_go_on(tmp_path: Path):
    short = soft(output=tmp_path / "run", samples=300, bound="betting")
    long = soft(output=tmp_path / "run", samples=1200, bound="betting")
    fresh = soft(samples=1200, bound="betting")
    assert long.summary.rows == fresh.summary.rows
    assert short.summary.inputs == long.summary.inputs == 5


def test_distribution_bounds_certify_no_more_than_the_truth():
    """A smoothed logistic score falls below the threshold at a known distance."""
    result = soft(bound="layers", goal="fixed", samples=5000, certificates=("exact",))
    threshold = 0.5 + 0.5 * 0.24 / 0.76
    for record, radius in zip(result.records, result.evaluation.radii[1].radius, strict=True):
        x = abs(INPUTS[record.index // 10][0])
        assert radius == 0 or true_mean(x - radius) > threshold
    assert result.evaluation.radii[1].radius.max() > 0.1
    mean_only = soft(bound="betting-fixed", goal="fixed", samples=5000, certificates=("exact",))
    assert result.evaluation.radii[1].radius[0] > mean_only.evaluation.radii[1].radius[0]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"bound": "clopper-pearson"}, "for soft scores"), ({"scores": "hard", "bound": "betting"}, "for hard scores"),
        ({"score_temperature": 0.0}, "temperature"), ({"bound": "layers", "certificates": ("exact",)}, "--goal fixed"),
        ({"bound": "layers", "goal": "fixed"}, "--certificate exact"),
    ],
)  # fmt: skip
def test_bounds_must_fit_the_scores(options, words):
    with pytest.raises(ParameterError, match=words):
        soft(**options)
