"""`assert_certified`: what it says when it fails, and that models come back as they were."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from planes import INPUTS, LABELS, NET, plane, points
from scipy.special import ndtri
from torch import nn

import certmix
from certmix.bounds.clopper_pearson import lower_bound
from certmix.errors import CertmixWarning, ParameterError
from certmix.models.smoothed import SmoothedClassifier
from certmix.radii import MARGIN_SLACK
from certmix.verification import asserting

EASY = points(np.tile([[2.0, 0.0], [-2.0, 0.0]], (20, 1)), np.tile([0, 1], 20))
SETTINGS = {"sigma": 0.5, "alpha": 0.76, "samples": 400, "goal": "fixed", "inputs": "all"}
GIVEN = {"certificate": "lipschitz-constant", "lipschitz_constant": 2**0.5, "inputs": "all"}


def check(model=None, **options):
    model = plane(NET) if model is None else model
    return certmix.assert_certified(model, **{"data": EASY, **SETTINGS, **options})


def message(*given, **options):
    with pytest.raises(AssertionError) as caught:
        check(*given, **options)
    return str(caught.value)


def test_the_threshold_is_what_decides():
    """40 of 40 inputs: the point is 1, the lower bound 0.05^(1/40)."""
    limit = (float(lower_bound(40, 40, 0.05)) - 0.001) / 0.999 - 1e-12
    result = check(radius=0.3, at_least=limit)
    assert result.summary.rows[1].certified_accuracy == (1.0,)
    assert (result.summary.alpha, result.summary.radii, result.folder) == (0.76, (0.3,), None)
    assert result.summary.standard is None
    assert "is below" in message(radius=0.3, at_least=limit + 1e-9)
    check(radius=0.3, at_least=1.0, on="point")


def test_the_radius_is_what_decides():
    """All 400 votes agree far from the boundary: the radius is the largest that they can show."""
    p = 0.001 ** (1 / 400)
    largest = 0.5 * (ndtri(p) - ndtri((1 + 0.24 / 0.76 + MARGIN_SLACK) / 2))
    check(radius=largest * (1 - 1e-9), at_least=0.9, seed=2)
    check(radius=0, at_least=0.9)
    alone = 0.9 * 0.5 * ndtri(p)  # without alpha the model alone: twice the votes' quantile, nothing off
    assert alone > largest and check(radius=alone, at_least=0.9, alpha=None).summary.alpha == 1.0
    text = message(radius=largest * (1 + 1e-9), at_least=0.1)
    assert "value 0.0000, lower bound 0.0000" in text
    assert "40 inputs are not certified" in text


def test_a_failure_says_what_fell_short_and_why():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = message(data=points(INPUTS, LABELS), radius=0.1, at_least=0.9)
    first, setting, short = text.splitlines()[:3]
    assert first.startswith("not certified_accuracy@0.1 >= 0.9: value 0.2000, lower bound 0.0092")
    for part in ("5 inputs of points", "alpha 0.76", "sigma 0.5", "failure probability 0.001", "400 samples"):
        assert part in setting
    assert short.startswith("  4 inputs are not certified at 0.1: 20 (radius 0.0")
    assert "40 (class 0, label 1)" in short
    assert "10 (no radius)" in short


def test_many_inputs_are_counted_and_abstentions_named():
    listed = r"40 inputs are not certified at 3: (\d+ \(radius 0\.\d{3}\), ){7}\d+ .*, and 32 more"
    assert re.search(listed, message(radius=3.0, at_least=0.5))
    on_the_edge = points([[0.0, 0.0]] * 3, [0] * 3)
    assert "no class established" in message(data=on_the_edge, radius=0.1, at_least=0.5)


def test_warnings_are_warnings_when_it_holds_and_lines_when_not():
    options = {"inputs": 101, "at_least": 0.5}
    with pytest.warns(CertmixWarning, match="101 inputs asked for, there are 40") as seen:
        check(radius=0.3, **options)
    assert seen[0].filename == __file__ or "test_asserting" in seen[0].filename
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "101 inputs asked for" in message(radius=3, **options)


def test_a_mix_brings_its_parts_and_alpha():
    mix = certmix.MixedClassifier(plane(NET), plane(NET), 0.9)
    result = check(mix, radius=0.3, at_least=0.9, alpha=None)
    assert result.summary.alpha == 0.9
    assert result.summary.standard == result.summary.robust == "Linear"
    for options, found in (
        ({"alpha": 0.8}, "alpha = 0.8: the model has 0.9"),
        ({"standard": plane(NET), "alpha": None}, "leave standard out"),
    ):
        with pytest.raises(ParameterError, match=found):
            check(mix, radius=0.3, at_least=0.9, **options)
    other = certmix.MixedClassifier(plane(NET), plane(NET), 0.9, form="logits")
    with pytest.raises(ParameterError, match="logits has no certificates"):
        check(other, radius=0.3, at_least=0.9, alpha=None)


def test_a_smoothed_classifier_brings_its_noise():
    smooth = SmoothedClassifier(plane(NET), 0.25)
    assert check(smooth, radius=0.1, at_least=0.9, sigma=None).summary.sigma == 0.25
    with pytest.raises(ParameterError, match="sigma = 0.5: the model has 0.25"):
        check(smooth, radius=0.1, at_least=0.9)


def test_a_smoothed_mix_brings_gate_temperature_and_all_else():
    smooth = SmoothedClassifier(plane(NET), 0.5, gate=0.6)
    mix = certmix.SmoothedMixture(plane(NET), smooth, 0.9, standard_temperature=0)
    result = check(mix, radius=0.1, at_least=0.5, alpha=None, sigma=None)
    row = result.summary.rows[1]
    assert (row.alpha, row.gate, row.standard_temperature) == (0.9, 0.6, 0.0)
    assert result.summary.sigma == 0.5 and result.summary.standard == "Linear"
    assert check(smooth, radius=0.1, at_least=0.5, sigma=None).summary.rows[1].gate == 0.6
    warm = certmix.MixedClassifier(plane(NET), plane(NET), 0.9, standard_temperature=0.5)
    assert check(warm, radius=0.1, at_least=0.5, alpha=None).summary.rows[1].standard_temperature == 0.5
    for options, found in (
        ({"gate": 0.9}, "gate = 0.9: the model has 0.6"),
        ({"standard_temperature": 1.0}, "standard_temperature = 1.0: the model has 0"),
        ({"standard": plane(NET)}, "leave standard out"),
    ):
        with pytest.raises(ParameterError, match=found):
            check(mix, radius=0.1, at_least=0.5, alpha=None, sigma=None, **options)


def test_the_model_is_left_as_it_was():
    net = nn.Sequential(plane(NET), nn.Dropout(0.0)).train()
    net[0].bias.requires_grad_(False)
    check(net, radius=0.3, at_least=0.9)
    message(net, radius=3, at_least=0.9)
    assert net.training and net[1].training
    assert net[0].weight.requires_grad and not net[0].bias.requires_grad
    net(torch.zeros(1, 2)).sum().backward()
    assert net[0].weight.grad is not None


def test_without_samples():
    """z_0 - z_1 = 2 x_0, and its constant: radius log((1 - mu) e^l / (1 + mu)) / (sqrt(2) L) at alpha 0.76."""
    mu, distance = 0.24 / 0.76 + MARGIN_SLACK, 2.0
    exact = (2 * distance + np.log((1 - mu) / (1 + mu))) / 2
    plain = {"data": EASY, "alpha": 0.76, "at_least": 0.9, **GIVEN}
    result = certmix.assert_certified(plane(NET), radius=exact * (1 - 1e-9), **plain)
    assert result.records == ()
    with pytest.raises(AssertionError, match="certificate lipschitz-constant") as caught:
        certmix.assert_certified(plane(NET), radius=exact * (1 + 1e-6), **plain)
    assert "failure probability" not in str(caught.value)


class Counting(nn.Module):
    """Counts the rows it sees."""

    def __init__(self):
        super().__init__()
        self.net, self.rows = plane(NET), 0

    def forward(self, x):
        self.rows += len(x)
        return self.net(x)


def test_samples_are_kept_and_used_again(tmp_path):
    net = Counting()
    first = check(net, radius=0.3, at_least=0.9, runs=tmp_path)
    drawn = net.rows
    again = check(net, radius=0.2, at_least=0.9, alpha=0.9, runs=tmp_path)
    assert drawn >= 40 * 500
    assert net.rows - drawn < 100
    assert first.folder == again.folder
    assert first.folder.parent == tmp_path
    kept = certmix.assert_certified(plane(NET), radius=0.1, at_least=0.5, runs=tmp_path, data=EASY, **GIVEN)
    assert kept.folder.parent == tmp_path and kept.folder != first.folder


def test_an_interrupted_run_asserts_nothing(monkeypatch):
    monkeypatch.setattr("certmix.certification.run.fill", lambda *given, **named: False)
    with pytest.raises(KeyboardInterrupt):
        check(radius=0.3, at_least=0.0)


@pytest.mark.parametrize(
    "options, found",
    [
        ({"on": "lower"}, "on = 'lower': use lower-bound or point"),
        ({"at_least": 40}, "threshold 40"),
        ({"radius": -1}, "radius = -1"),
        ({"sgima": 1}, "did you mean sigma"),
        ({"sigma": None}, "no noise level"),
        ({"certificate": "margin", "sigma": None}, "goal = 'fixed' is not for certificate margin"),
        ({"alpha": 0.3}, "alpha = 0.3"),
    ],
)
def test_bad_options_are_refused(options, found):
    with pytest.raises(ParameterError, match=found) as caught:
        check(**{"radius": 0.3, "at_least": 0.5, **options})
    assert "\n" not in str(caught.value)


def test_a_planted_radius_is_what_is_judged(monkeypatch):
    """It judges radii of the mix, not those of h alone, and right answers only."""
    honest = asserting.certify_given

    def planted(*given, **options):
        result = honest(*given, **options)
        seen = result.outcomes
        wrong = np.where(np.arange(40) < 10, 1 - seen.labels, seen.robust)
        far = replace(seen.radii[1], radius=np.full(40, 9.0))
        outcomes = replace(seen, robust=wrong, radii=(seen.radii[0], far))
        return replace(result, evaluation=replace(result.evaluation, outcomes=outcomes))

    monkeypatch.setattr(asserting, "certify_given", planted)
    assert "value 0.7500" in message(radius=9.0, at_least=1.0)
    check(radius=9.0, at_least=0.75, on="point")
