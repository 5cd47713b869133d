"""Requirements: their grammar, and verdicts on figures whose bounds are known in closed form."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from certmix.bounds import clopper_pearson
from certmix.errors import ParameterError
from certmix.verification.checks import Outcome
from certmix.verification.guarantees.claim import Terms
from certmix.verification.guarantees.requirements import Requirement, parse_requirement
from certmix.verification.judge import Figures, figure, judge, most_that_can_be_shown

HOLDS, FAILS, UNCHECKED = Outcome.HOLDS, Outcome.FAILS, Outcome.UNCHECKED


def figures(radii, right=None, largest=1.0, robust=None):
    """Return figures of a mix with these radii (right answers everywhere unless said)."""
    radii = np.asarray(radii, float)
    right = np.ones(len(radii), bool) if right is None else np.asarray(right, bool)
    alone = radii if robust is None else np.asarray(robust, float)
    return Figures(
        np.arange(len(radii)), {"mixed": right, "robust": right, "standard": right},
        {"mixed": radii, "robust": alone}, {"mixed": largest, "robust": largest},
    )  # fmt: skip


def outcome(text, found):
    return judge(parse_requirement(text), found).outcome


shares = st.floats(0, 1)
radius_values = st.floats(0, 1e3) | st.sampled_from([8 / 255, 1 / 255, 0.5])


@given(
    st.sampled_from(["mixed", "robust", "standard"]),
    st.sampled_from(["certified_accuracy", "clean_accuracy", "mean_certified_radius"]),
    radius_values, shares, st.sampled_from(["lower bound", "value"]),
    st.sampled_from([(None, None), ("class", "ship"), ("class", ""), ("site", "north west >= 2"), ("s-1", "\u00e9")]),
)  # fmt: skip
def test_a_requirement_reads_back_from_its_text(classifier, quantity, radius, threshold, side, part):
    if classifier == "standard":
        quantity = "clean_accuracy"
    asked = Requirement(
        classifier, quantity, radius if quantity == "certified_accuracy" else None, threshold, side, *part
    )
    assert parse_requirement(str(asked)) == asked


@given(st.text(max_size=60))
def test_any_text_is_a_requirement_or_refused_in_one_line(text):
    found = None
    with contextlib.suppress(ParameterError):
        found = parse_requirement(text)
    if found is None:
        with pytest.raises(ParameterError, match=r"\A.*\Z"):
            parse_requirement(text)
    else:
        assert parse_requirement(str(found)) == found


@pytest.mark.parametrize(
    "text, expected",
    [
        ("clean_accuracy > 0.5", "only '>='"),
        ("clean_accuracy <= 0.5", "only '>='"),
        ("clean_accuracy >= 50%", "0.4 for 40 %"),
        ("clean_accuracy >= 50", "share of 1"),
        ("clean_accuracy@0.5 >= 0.5", "leave @RADIUS out"),
        ("certified_accuracy >= 0.5", "add @RADIUS"),
        ("standard.certified_accuracy@0.5 >= 0.5", "nothing is certified of g"),
        ("robust.accuracy >= 0.5", "quantity 'accuracy' is unknown"),
        ("worst.clean_accuracy >= 0.5", "classifier 'worst' is unknown"),
        ("clean_accuracy >= 0.5 on average", "side 'average' is unknown"),
        ("certified_accuracy@1/0 >= 0.5", "finite"),
        ("mean_certified_radius >= 1e999", "finite"),
        ("clean_accuracy >= 0,5", "a point in decimals"),
        ("clean_accuracy of ship >= 0.5", "of class ship"),
        ("clean_accuracy of each >= 0.5", "of each class"),
        ("__import__('os').system('x')", "write for example"),
        ("clean_accuracy >= (0.5)", "write for example"),
    ],
)
def test_what_is_not_understood_is_refused_with_a_remedy(text, expected):
    with pytest.raises(ParameterError, match=r"requirement .*") as error:
        parse_requirement(text)
    assert expected in str(error.value)


def test_values_and_radii_exactly_at_their_limits_count():
    found = figures([0.5] * 57 + [0.0] * 43)
    assert outcome("certified_accuracy@0.5 >= 0.57 on value", found) is HOLDS
    assert outcome("certified_accuracy@0.5 >= 0.5700001 on value", found) is FAILS
    assert outcome("certified_accuracy@0.5 >= 1/3 on value", figures([0.5, 0.0, 0.0])) is HOLDS
    found = figures([8 / 255, np.nextafter(8 / 255, 0), 0.0, 0.0])
    assert figure(parse_requirement("certified_accuracy@8/255 >= 0"), found)[0] == 0.25
    assert figure(parse_requirement("certified_accuracy@0 >= 0"), found)[0] == 0.5


def test_the_lower_bound_is_one_sided_clopper_pearson():
    """With all m right it is 0.05^(1/m); the requirement flips there, though the value is 1."""
    found, edge = figures([0.5] * 20), 0.05 ** (1 / 20)
    assert outcome(f"certified_accuracy@0.5 >= {edge - 1e-9:.12f}", found) is HOLDS
    assert outcome(f"certified_accuracy@0.5 >= {edge + 1e-9:.12f}", found) is FAILS
    assert outcome(f"certified_accuracy@0.5 >= {edge + 1e-9:.12f} on value", found) is HOLDS
    assert math.isclose(most_that_can_be_shown(20), edge, rel_tol=1e-9)
    one = figures([0.5] + [0.0] * 9)
    assert math.isclose(
        figure(parse_requirement("certified_accuracy@0.5 >= 0"), one)[1], 1 - 0.95**0.1, rel_tol=1e-9
    )


def test_each_quantity_and_classifier_is_its_own():
    found = Figures(
        np.arange(4), {"mixed": np.array([1, 1, 1, 0], bool), "robust": np.array([1, 1, 0, 0], bool),
                       "standard": np.array([1, 1, 1, 1], bool)},
        {"mixed": np.array([0.25, 0.5, 0, 0]), "robust": np.array([0.5, 1.0, 0, 0])},
        {"mixed": 1.0, "robust": 2.0},
    )  # fmt: skip
    values = {
        "clean_accuracy": 0.75, "robust.clean_accuracy": 0.5, "standard.clean_accuracy": 1.0,
        "certified_accuracy@0.5": 0.25, "robust.certified_accuracy@0.5": 0.5,
        "mean_certified_radius": 0.1875, "robust.mean_certified_radius": 0.375,
    }  # fmt: skip
    for name, value in values.items():
        assert math.isclose(figure(parse_requirement(f"{name} >= 0"), found)[0], value, rel_tol=1e-12), name
        assert outcome(f"{name} >= {value - 1e-9} on value", found) is HOLDS
        if value < 1:
            assert outcome(f"{name} >= {value + 1e-9} on value", found) is FAILS


def test_the_bound_of_a_mean_radius():
    """Below the mean and nearing it, whatever the order; radii beyond the largest count as the largest."""
    rng = np.random.default_rng(0)
    few, many = (figures(rng.random(m) * 0.5) for m in (30, 3000))
    asked = parse_requirement("mean_certified_radius >= 0.2")
    value, lower = figure(asked, many)
    assert 0 < figure(asked, few)[1] < lower < value
    assert lower > 0.235
    assert (judge(asked, many).outcome, judge(asked, few).outcome) == (HOLDS, FAILS)
    radii = np.sort(np.r_[np.ones(100), np.zeros(100)])[::-1]  # in this order large ones would come first
    value, lower = figure(asked, figures(radii))
    assert 0.35 < lower < value <= 0.5
    assert figure(asked, figures([5.0] * 50, largest=1.0))[1] == figure(asked, figures([1.0] * 50))[1]


def test_coverage_of_the_mean_radius_bound():
    """Of 400 samples with mean 1/2, at most 5 % may have a bound above it (Hoeffding's slack allowed)."""
    rng = np.random.default_rng(1)
    asked = parse_requirement("mean_certified_radius >= 0")
    missed = sum(figure(asked, figures(rng.random(60)))[1] > 0.5 for _ in range(400))
    assert missed <= 400 * 0.05 + 20


def test_unbounded_radii_have_an_unbounded_mean_and_a_finite_bound():
    one = judge(parse_requirement("mean_certified_radius >= 0.5"), figures([math.inf] * 50))
    assert one.outcome is HOLDS
    assert one.as_dict()["value"] is None
    assert 0.5 < one.lower <= 1


def test_what_is_unknown_is_unchecked():
    without_g = Figures(
        np.arange(2), {"robust": np.ones(2, bool)}, {"mixed": np.ones(2), "robust": np.ones(2)},
        {"mixed": 1.0, "robust": 1.0},
    )  # fmt: skip
    assert outcome("clean_accuracy >= 0", without_g) is UNCHECKED
    assert outcome("robust.clean_accuracy >= 0", without_g) is HOLDS
    assert outcome("robust.clean_accuracy >= 0", figures([])) is UNCHECKED


@given(st.integers(0, 60), st.integers(0, 60), shares)
@settings(deadline=None)
def test_printed_figures_never_contradict_the_verdict(hits, more, threshold):
    total = hits + more
    if total == 0:
        return
    asked = Requirement("mixed", "certified_accuracy", 0.5, threshold)
    judged = judge(asked, figures([0.5] * hits + [0.0] * more))
    shown = float(judged.message.split("lower bound ")[1].split(";")[0])
    assert shown <= judged.lower
    assert (shown >= threshold) == (judged.outcome is HOLDS)


def test_a_hopeless_requirement_says_so():
    judged = judge(parse_requirement("clean_accuracy >= 0.99"), figures([0.5] * 20))
    assert "no lower bound exceeds 0.8608" in judged.message


# Parts of the inputs, and several requirements at one confidence.


def test_a_part_is_judged_on_its_own_inputs():
    found = replace(figures([0.5, 0.5, 0.0, 0.5, 0.0]), groups={"site": np.array(["a", "a", "a", "b", "b"])})
    value, lower = figure(parse_requirement("certified_accuracy@0.5 of site a >= 0"), found)
    assert (value, lower) == (2 / 3, float(clopper_pearson.lower_bound(2, 3, 0.05)))
    radius = parse_requirement("mean_certified_radius of site b >= 0.24 on value")
    assert judge(radius, found).outcome is HOLDS and judge(radius, found).inputs == 2
    none = judge(parse_requirement("clean_accuracy of site c >= 0"), found)
    assert none.outcome is UNCHECKED and "none of the 5 inputs" in none.message
    told = judge(parse_requirement("clean_accuracy of site b >= 0.9"), found).message
    assert told.startswith("2 inputs: ") and "no lower bound exceeds 0.2236" in told


@pytest.mark.parametrize("delta", [0.0, 0.001, 0.2])
@pytest.mark.parametrize("inputs, missed", [(1, 0.05), (20, 0.05), (60, 0.003)])
def test_the_bound_of_a_certified_share_holds_for_the_true_one(inputs, missed, delta):
    """Exact: certificates are false as often as they may be, wherever the mix is not robust."""
    lowest = [
        figure(
            parse_requirement("certified_accuracy@0.5 >= 0"),
            replace(figures([0.5] * k + [0.0] * (inputs - k)), failure_probability=delta), missed,
        )[1]
        for k in range(inputs + 1)
    ]  # fmt: skip
    worst = 0.0
    for true in np.linspace(0, 0.999, 60):
        chances = binom.pmf(np.arange(inputs + 1), inputs, true + delta * (1 - true))
        worst = max(worst, float(chances[np.array(lowest) > true].sum()))
    assert 0.2 * missed * (delta < missed) <= worst <= missed * (1 + 1e-9)


def test_certificates_that_may_be_false_lower_every_certified_bound_and_no_other():
    sure, unsure = figures([0.5] * 50), replace(figures([0.5] * 50), failure_probability=0.01)
    for text, lower in (
        ("certified_accuracy@0.5 >= 0", True),
        ("mean_certified_radius >= 0", True),
        ("clean_accuracy >= 0", False),
    ):
        asked = parse_requirement(text)
        assert (figure(asked, unsure)[1] < figure(asked, sure)[1]) is lower
        assert figure(asked, unsure)[0] == figure(asked, sure)[0]


def test_requirements_share_one_confidence():
    """Two thresholds of one figure have one bound; figures that are held against as they are have none."""
    texts = [
        "clean_accuracy >= 0.5",
        "clean_accuracy >= 0.6",
        "clean_accuracy of class a >= 0.5",
        "robust.clean_accuracy >= 0.7 on value",
    ]
    asked = [parse_requirement(text) for text in texts]
    for terms, bounds in ((Terms(), 2), (Terms(bounds=7), 7), (Terms(joint="verdict", bounds=7), 1)):
        assert terms.sharing(asked) == bounds
        assert Fraction(terms.missed(bounds)) * bounds <= Fraction(1, 20) + Fraction(1, 10**16)
    assert Terms().sharing(asked[3:]) == 0
    alone, shared = (judge(asked[0], figures([0.5] * 50), missed) for missed in (0.05, 0.025))
    assert shared.lower < alone.lower and shared.as_dict()["confidence"] == 0.975
