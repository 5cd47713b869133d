"""The table of bounds: what is refused, edges, and that one entry is all that a new bound takes."""

import json
import sys

import numpy as np
import pytest

from certmix.bounds import BOUNDS, Bound, bound_counts, bounds_of, clopper_pearson
from certmix.errors import ParameterError


def alone(counts, selected, failure_probability):
    p = clopper_pearson.lower_bound(
        counts[np.arange(len(counts)), selected], counts.sum(1), failure_probability
    )
    return p, np.nextafter(1.0 - p, 1.0)


def test_a_bound_is_one_entry(problem, command, monkeypatch):
    """The command takes it, and it is in a run with repeated looks and in its table."""
    words = [
        "certify", *problem.options, "--inputs", "2", "--samples", "200", "--bound", "alone", "--output", "run",
        "--format", "json",
    ]  # fmt: skip
    assert command(*words).code == 2
    entry = Bound("alone", "as Clopper-Pearson", "hard", alone, parts=("p",))
    monkeypatch.setitem(BOUNDS, "alone", entry)
    monkeypatch.delitem(sys.modules, "certmix_cli.certify")  # choices are read when the command is imported
    done = command(*words)
    assert done.code == 0, done.err
    assert json.loads(done.out)["bound"] == "alone"


def test_entries_describe_themselves():
    for scores in ("hard", "soft"):
        own = [name for name, one in BOUNDS.items() if one.scores == scores]
        assert list(bounds_of(scores)) == own
        assert list(bounds_of(scores, distribution=False)) == [n for n in own if not BOUNDS[n].distribution]
    for name, bound in BOUNDS.items():
        assert (bound.name, bound.scores in ("hard", "soft")) == (name, True)
        assert bound.meaning
        assert bound.time_uniform == (name in ("beta-binomial", "betting"))


@pytest.mark.parametrize("name", bounds_of("hard"))
def test_huge_counts_and_tiny_failure(name):
    counts = np.array([[10**9 - 5, 5], [10**9, 0], [0, 10**9]])
    bounds = bound_counts(counts, np.zeros(3, np.int64), 1e-12, name)
    assert np.all((bounds.p_lower >= 0) & (bounds.p_lower < 1))
    assert 1 - 1e-7 < bounds.p_lower[0] < bounds.p_lower[1]
    assert bounds.p_lower[2] <= 1e-7
    assert bounds.q_upper[2] == 1
    assert np.all(bounds.q_upper > 0)
    fewer = bound_counts(np.array([[100, 900]]), np.array([0]), 0.01, name)  # selected, not most voted
    assert fewer.p_lower[0] < 0.1 < 0.85 < fewer.q_upper[0]


@pytest.mark.parametrize("name", bounds_of("hard"))
@pytest.mark.parametrize("counts, selected, delta, told", [
    *((counts, selected, 0.01, ".") for counts, selected in (
        ([[9.0, 1.0]], [0]), ([[9, 1]], [0.0]), ([[9, 1]], [2]), ([[9, 1]], [-1]), ([9, 1], [0]), ([[9]], [0]),
        ([[9, 1]], [0, 1]), ([[0, 0]], [0]), ([[9, -1]], [0]), ([[9, 1]], 0),
    )),
    *(([[9, 1]], [0], delta, str(delta)) for delta in (0.0, 1.0, -1e-3, 2.0, float("nan"))),
])  # fmt: skip
def test_bad_arguments_are_refused(name, counts, selected, delta, told):
    with pytest.raises(ParameterError, match=told) as caught:
        bound_counts(np.array(counts), np.array(selected), delta, name)
    assert "\n" not in str(caught.value)


def test_unknown_bounds_are_refused_with_those_there_are():
    with pytest.raises(ParameterError, match="wilson.*" + ".*".join(bounds_of("hard"))):
        bound_counts(np.array([[9, 1]]), np.array([0]), 0.01, "wilson")
