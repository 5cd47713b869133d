"""What users write is taken as it is meant, printed as it was written, and doubted aloud where it is odd."""

from __future__ import annotations

import json
import warnings
from fractions import Fraction

import numpy as np
import pytest

import certmix
from certmix.certification.request.proved import Margin
from certmix.errors import ParameterError
from certmix.runs.attack_request import AttackRequest
from certmix.runs.settings import norm_name

SPELLINGS = {
    "linf": ("linf", "Linf", "LINF", "inf", "l_inf", "L-inf", "infinity", "\u221e", float("inf"), np.inf),
    "l2": ("l2", "L2", "l_2", "2", 2, 2.0, np.int64(2)),
    "l1": ("l1", "L1", "1", 1),
}
"""Norm -> how it is written."""


@pytest.fixture
def nets(problem):
    return f"{problem.folder / 'nets.py'}:linear"


@pytest.mark.parametrize("norm", SPELLINGS)
def test_norms_in_any_usual_spelling(norm):
    for spelt in SPELLINGS[norm]:
        assert norm_name(spelt) == AttackRequest(norm=spelt).norm == norm
    assert norm_name("lp") == "lp" and norm_name(None) is None
    assert Margin(0.76, norm="Linf").norm == "linf"
    with pytest.raises(ParameterError, match="'l3' is unknown"):
        AttackRequest(norm="l3")


@pytest.mark.parametrize(
    "words",
    [("attack", "--steps", 2), ("certify", "--alpha", 0.76, "--certificate", "margin", "--radii", "0,0.01")],
)
def test_commands_take_norms_in_any_spelling(command, problem, nets, words):
    given = ("--inputs", 2, "--robust", nets, "--data", problem.folder / "points.npz", "--format", "json")
    g = () if words[0] == "attack" else ("--standard", nets)
    outputs = [
        command(*words, "--norm", spelt, *given, *g, "--output", f"run-{spelt}") for spelt in ("linf", "Inf")
    ]
    assert [done.code for done in outputs] == [0, 0], outputs[1].err
    assert outputs[0].out == outputs[1].out
    done = command(*words, "--norm", "l9", *given, *g)
    assert done.code == 2 and "'l9' is not one of" in done.err


@pytest.mark.parametrize(
    "given, printed", [(0.2, "0.2"), (8 / 255, "8/255"), (0.5 / 255, "0.00196"), (0.4, "0.4")]
)
def test_eps_is_printed_as_it_was_given(given, printed):
    assert f"linf eps {printed}" in AttackRequest(eps=given).words()


@pytest.mark.parametrize("written", ["32/255", "0.25"])
def test_sigma_may_be_a_quotient(command, problem, written):
    options = list(problem.options)
    options[options.index("--sigma") + 1] = written
    done = command("certify", *options, "--inputs", 2, "--samples", 200, "--format", "json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["sigma"] == pytest.approx(float(Fraction(*map(Fraction, written.split("/")))))


def warned(command, problem, *more: object) -> list[str]:
    done = command("certify", *problem.options, "--inputs", 4, "--samples", 200, *more)
    assert done.code == 0, done.err
    return [line for line in done.err.splitlines() if line.startswith("Warning: ")]


def test_noise_far_above_the_range_is_warned_of(command, problem):
    assert any("--sigma 128/255" in line for line in warned(command, problem, "--sigma", 128))
    for more in (
        ("--sigma", 1),
        ("--sigma", 128, "--input-range", "0,255"),
        ("--sigma", 128, "--input-range", "none"),
    ):
        assert not any("input range" in line for line in warned(command, problem, *more))


def test_a_failure_probability_that_says_little_is_warned_of(command, problem):
    assert any(
        "failure probability 0.999" in line
        for line in warned(command, problem, "--failure-probability", 0.999)
    )
    assert not any("says little" in line for line in warned(command, problem, "--failure-probability", 0.05))


ODD = """

def wrong():
    net = linear()
    with torch.no_grad():
        net.weight.neg_()
        net.bias.neg_()
    return net
"""


def test_a_model_that_is_wrong_on_everything_is_warned_of_before_it_is_attacked(command, problem, nets):
    path = problem.folder / "nets.py"
    path.write_text(path.read_text() + ODD)
    more = ("attack", "--steps", 1, "--inputs", "all", "--data", problem.folder / "points.npz")
    wrong, right = command(*more, "--robust", f"{path}:wrong"), command(*more, "--robust", nets)
    assert "is right on 0 of 12 inputs, near chance" in wrong.err, wrong.err
    assert right.code == 0 and "near chance" not in right.err


@pytest.mark.parametrize(
    ("whole", "real"), [(np.int64, np.float32), (np.int32, np.float64), (np.uint8, np.longdouble)]
)
def test_numbers_of_other_libraries_are_taken(problem, nets, whole, real, tmp_path):
    sources = {"data": str(problem.folder / "points.npz"), "robust": nets, "standard": nets}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = certmix.certify(
            sigma=real(0.25), alpha=real(0.75), inputs=whole(2), samples=whole(200), seed=whole(3), output=tmp_path / "run",
            failure_probability=real(0.0078125), radii=[real(0.0), real(0.5)], batch_size=whole(50), **sources,
        )  # fmt: skip
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["request"]["seed"] == 3 and described["request"]["alpha"] == 0.75
    assert result.summary.inputs == 2 and result.summary.alpha == 0.75
