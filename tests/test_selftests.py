"""The shipped property tests can fail: each planted fault is seen by the test that is about it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import Phase, settings

from certmix import bounds
from certmix.bounds import BOUNDS, clopper_pearson
from certmix.margins import linear_bounds, margins
from certmix.models import mixture
from certmix.radii import CERTIFICATES, constant, theorems
from certmix.sampling.noise import Noise, NoiseKey
from certmix.selftests import (
    SUITES,
    test_arithmetic,
    test_lipschitz,
    test_margin_lemma,
    test_propagation,
    test_radii,
    test_sampling,
    test_scores,
    test_votes,
)
from certmix.selftests.cases import CASES

FAILED = (AssertionError, ExceptionGroup)  # hypothesis groups what several examples raise


def times(function, factor):
    return lambda *given, **named: function(*given, **named) * factor


def radius_of(name, change):
    """A certificate of the table whose radii are changed."""
    rule = CERTIFICATES[name]
    return lambda plant: plant.setitem(CERTIFICATES, name, replace(rule, radius=change(rule.radius)))


def without_mu(rule):
    return lambda p, q, sigma, alpha, **named: rule(p, q, sigma, 1.0 if alpha > 0.5 else 0.5, **named)


def to_nearest(rule):
    return lambda *given, **named: np.nextafter(rule(*given, **named) * (1 + 1e-12), np.inf)


def bound_of(name, compute):
    return lambda plant: plant.setitem(
        BOUNDS, name, replace(BOUNDS[name], compute=compute(BOUNDS[name].compute))
    )


def at_twice_delta(compute):
    """Each side at the whole failure probability instead of half."""
    return lambda counts, selected, delta: compute(counts, selected, min(2 * delta, 0.999))


def plug_in(_):
    def compute(statistics, delta):
        means = np.stack([one.means() for one in statistics])
        return means[:, 0], means[:, 1:].max(1)

    return compute


def attribute(module, name, planted):
    return lambda plant: plant.setattr(module, name, planted)


def swapped(standard, robust, alpha, standard_temperature=1.0):
    return mixture.mix_outputs(standard, robust, 1.0 - alpha, standard_temperature=standard_temperature)


def without_offset(layer, box):
    lines = honest_relax(layer, box)
    return replace(lines, offset=torch.zeros_like(lines.offset))


honest_fill, honest_expm1, honest_softmax = Noise.fill, np.expm1, margins.softmax_margin_lower
honest_relax = linear_bounds.relax


def louder(self, out, steps, *rest):
    honest_fill(self, out, steps, *rest)
    centre = torch.from_numpy(self.grid.value(steps.numpy()))
    out.sub_(centre).mul_(1.25).add_(centre)


HOLDS, TRUE, LARGEST = (
    test_radii.test_the_mix_of_two_half_spaces_holds_inside,
    test_radii.test_strictly_below_the_true_radius_and_close_to_it,
    test_radii.test_exact_is_the_largest_radius,
)
FAULTS = {
    "exact radius x 1.01": (radius_of("exact", lambda rule: times(rule, 1.01)), HOLDS, {"name": "exact"}),
    "exact radius x 0.99": (radius_of("exact", lambda rule: times(rule, 0.99)), LARGEST, {}),
    "exact radius without mu": (radius_of("exact", without_mu), HOLDS, {"name": "exact"}),
    **{
        f"{name} not rounded down": (radius_of(name, to_nearest), TRUE, {"name": name}) for name in CERTIFICATES
    },
    "Theorem 3.7 x 1.01": (radius_of("smoothing", lambda rule: times(rule, 1.01)), TRUE, {"name": "smoothing"}),
    "Theorem 3.5 x 1.01": (
        attribute(theorems, "lipschitz_radius", times(theorems.lipschitz_radius, 1.01)),
        test_lipschitz.test_equals_the_formula_from_strictly_below, {},
    ),
    "a threshold of 0": (
        attribute(constant, "margin_threshold", lambda alpha: 0.0),
        test_margin_lemma.test_at_the_threshold_the_mix_ties_and_above_it_holds, {},
    ),
    "weights swapped": (
        attribute(mixture, "mix_logits", swapped),
        test_margin_lemma.test_at_the_threshold_the_mix_ties_and_above_it_holds, {},
    ),
    "softmax margins not rounded down": (
        attribute(margins, "softmax_margin_lower", times(honest_softmax, 1 + 1e-13)),
        test_lipschitz.test_softmax_margins_are_rounded_down, {},
    ),
    "lower bounds not rounded down": (
        attribute(clopper_pearson, "_down", lambda x: x * (1 + 1e-13)), test_votes.test_both_sides_in_fractions, {},
    ),
    "upper bounds not rounded up": (
        attribute(clopper_pearson, "_up", lambda x: x * (1 - 1e-13)), test_votes.test_both_sides_in_fractions, {},
    ),
    **{
        f"{name} at twice the failure probability": (
            bound_of(name, at_twice_delta), test_votes.test_joint_coverage,
            {"name": name, "delta": 0.1, "trials": 14, "classes": 3},
        )
        for name in ("clopper-pearson", "clopper-pearson-two-sided")
    },
    "looks that spend everything each": (
        attribute(bounds, "share", lambda number: 1.0), test_votes.test_all_looks_hold_at_once,
        {"name": "clopper-pearson", "delta": 0.3},
    ),
    "plug-in means": (
        bound_of("hoeffding", plug_in), test_scores.test_joint_coverage,
        {"name": "hoeffding", "delta": 0.1, "values": test_scores.HALVES, "rivals": [1]},
    ),
    "a relaxation without its offset": (
        attribute(linear_bounds, "relax", without_offset), test_propagation.test_attacks_stay_above_the_bounds,
        {"norm": "linf"},
    ),
    "noise of another level": (
        attribute(Noise, "fill", louder), test_sampling.test_true_probability_and_distance_lie_within_the_bounds,
        {"sigma": 0.5},
    ),
    "noise that repeats": (
        attribute(NoiseKey, "words", (7, 0, 0, 0, 0)),
        test_sampling.test_votes_depend_on_seed_input_and_stream_alone, {},
    ),
    "a coarse expm1": (
        attribute(np, "expm1", lambda x: np.float64(honest_expm1(np.float32(x)))),
        test_arithmetic.test_elementary_functions_are_right, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault, monkeypatch):
    plant, test, arguments = FAULTS[fault]
    plant(monkeypatch)
    chosen = "_hypothesis_internal_use_settings"
    if hasattr(test, chosen):  # the same cases each time, and the smallest failing case is not asked for
        held = getattr(test, chosen)
        usual = held.max_examples * 50 // CASES
        same = settings(held, max_examples=usual, phases=[Phase.generate], derandomize=True)
        monkeypatch.setattr(test, chosen, same)
    with pytest.raises(FAILED):
        test(**arguments)


def test_numbers_flushed_to_zero_are_seen():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals")
    try:
        with pytest.raises(AssertionError):
            test_arithmetic.test_subnormals_are_kept("torch")
    finally:
        torch.set_flush_denormal(False)


# ---------------------------------------------------------------- the command


def test_text_names_the_machine_and_each_suite(command, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k threshold")  # the user's own: no test is left out for it
    done = command("selftest", "--suite", "margin-lemma", "--cases", 3, "--seed", 4)
    assert done.code == 0, done.err
    assert "torch: " in done.out
    assert "holds  margin-lemma     3 tests" in done.out
    assert "votes" not in done.out
    assert done.err.strip().endswith("1 suites, 3 tests: all hold")


def test_a_fault_gives_exit_code_1_and_the_failing_case(command, monkeypatch):
    monkeypatch.setattr(constant, "margin_threshold", lambda alpha: 0.0)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-n 2")  # other processes would not have the fault
    few = ("selftest", "--suite", "margin-lemma", "--cases", 5)
    text, data = command(*few), command(*few, "--format", "json")
    assert text.code == 1, text.err
    assert "Do not trust" in text.err
    assert "FAILS  margin-lemma" in text.out
    assert "alpha=" in text.out
    found = json.loads(data.out)
    assert (data.code, found["outcome"], found["suites"][0]["outcome"]) == (1, "fails", "fails")
    assert "test_the_threshold_is_not_below_mu" in found["suites"][0]["failures"]


def test_errors_are_one_line(command):
    for arguments in (("--cases", 0), ("--seed", -1), ("--suite", "exat")):
        done = command("selftest", *arguments)
        assert (done.code, done.out) == (2, "")


def test_help_lists_the_suites_and_each_has_a_module(command):
    shown = command("selftest", "--help").out
    assert all(name in shown for name in SUITES)
    modules = [test_arithmetic, test_margin_lemma, test_lipschitz, test_radii, test_votes, test_scores]
    found = {module.__name__.rsplit(".test_", 1)[1] for module in (*modules, test_propagation, test_sampling)}
    assert found == {name.replace("-", "_") for name in SUITES}
