"""The table of bounds: what is refused, edges, and that one entry is all that a new bound takes."""

import subprocess
import sys

import numpy as np
import pytest

from certmix.bounds import BOUNDS, bound_counts, bounds_of
from certmix.errors import ParameterError

ADDED = """
import sys

import numpy as np
from certmix.bounds import BOUNDS, Bound
from certmix.bounds.clopper_pearson import lower_bound


def alone(counts, selected, failure_probability):
    p = lower_bound(counts[np.arange(len(counts)), selected], counts.sum(1), failure_probability)
    return p, np.nextafter(1.0 - p, 1.0)


BOUNDS["alone"] = Bound("alone", "as Clopper-Pearson", "hard", alone, parts=("p",))

from certmix_cli.main import main

sys.argv = ["certmix", *sys.argv[1:]]
main()
"""


def test_a_bound_is_one_entry(tmp_path):
    """It is in --help, in a run with repeated looks and in its table, as clopper-pearson would be."""
    script = tmp_path / "added.py"
    script.write_text(ADDED)

    def run(*words):
        done = subprocess.run(
            [sys.executable, script, *words], capture_output=True, text=True, cwd=tmp_path, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "alone" in run("certify", "--help")
    common = (
        "certify",
        "--sigma",
        "0.5",
        "--alpha",
        "0.76",
        "--images",
        "3",
        "--samples",
        "300",
        "--workers",
        "1",
    )
    own, usual = (
        " ".join(run(*common, "--bound", bound, "--output", bound).split())
        for bound in ("alone", "clopper-pearson")
    )
    assert "bound alone" in own
    assert own.replace("alone", "clopper-pearson") == usual


def test_entries_describe_themselves():
    for scores in ("hard", "soft"):
        own = [name for name, one in BOUNDS.items() if one.scores == scores]
        assert list(bounds_of(scores)) == own
        assert list(bounds_of(scores, distribution=False)) == [n for n in own if not BOUNDS[n].distribution]
    for name, bound in BOUNDS.items():
        assert (bound.name, bound.scores in ("hard", "soft")) == (name, True)
        assert bound.meaning
        assert bound.time_uniform == (name in ("beta-binomial", "betting"))


def test_simplex_step_where_it_matters():
    """Two classes, loose lower bound: 1 - U of the only rival is the better p; q never exceeds 1 - p."""
    counts = np.array([[50, 50], [1000, 0], [990, 10]])
    bounds = bound_counts(counts, np.zeros(3, np.int64), 0.001, "clopper-pearson-two-sided")
    assert np.all(bounds.q_upper <= np.nextafter(1 - bounds.p_lower, 2))
    even = np.array([[40, 1, 1, 1], [10, 30, 30, 30]])
    shared = bound_counts(even, np.array([0, 0]), 0.001, "clopper-pearson-two-sided")
    assert shared.q_upper[0] < 1 - shared.p_lower[0]


def test_selected_class_need_not_be_the_most_voted():
    counts = np.array([[100, 900]])
    for name in bounds_of("hard"):
        bounds = bound_counts(counts, np.array([0]), 0.01, name)
        assert bounds.p_lower[0] < 0.1 < 0.85 < bounds.q_upper[0]


@pytest.mark.parametrize("name", bounds_of("hard"))
def test_huge_counts_and_tiny_failure(name):
    counts = np.array([[10**9 - 5, 5], [10**9, 0], [0, 10**9]])
    bounds = bound_counts(counts, np.zeros(3, np.int64), 1e-12, name)
    assert np.all((bounds.p_lower >= 0) & (bounds.p_lower < 1))
    assert 1 - 1e-7 < bounds.p_lower[0] < bounds.p_lower[1]
    assert bounds.p_lower[2] <= 1e-7
    assert bounds.q_upper[2] == 1
    assert np.all(bounds.q_upper > 0)


@pytest.mark.parametrize("name", bounds_of("hard"))
@pytest.mark.parametrize("counts, selected", [
    ([[9.0, 1.0]], [0]), ([[9, 1]], [0.0]), ([[9, 1]], [2]), ([[9, 1]], [-1]), ([9, 1], [0]), ([[9]], [0]),
    ([[9, 1]], [0, 1]), ([[0, 0]], [0]), ([[9, -1]], [0]), ([[9, 1]], 0),
])  # fmt: skip
def test_bad_counts_are_refused(name, counts, selected):
    with pytest.raises(ParameterError) as caught:
        bound_counts(np.array(counts), np.array(selected), 0.01, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", bounds_of("hard"))
@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-3, 2.0, float("nan")])
def test_bad_failure_probability(name, delta):
    with pytest.raises(ParameterError) as caught:
        bound_counts(np.array([[9, 1]]), np.array([0]), delta, name)
    assert str(delta) in str(caught.value)


def test_unknown_bound():
    with pytest.raises(ParameterError) as caught:
        bound_counts(np.array([[9, 1]]), np.array([0]), 0.01, "wilson")
    assert "wilson" in str(caught.value)
    assert all(name in str(caught.value) for name in bounds_of("hard"))
