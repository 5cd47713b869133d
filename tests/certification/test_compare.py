"""Paired tests of two certifications: their figures are the tables', their p those of scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from forged import certified, sources
from scipy.stats import binomtest

from certmix.certification.analysis.compare import compare, paired_means, paired_shares
from certmix.certification.evaluate import mean_interval
from certmix.certification.publish import show
from certmix.errors import ParameterError

COLUMNS = (0.0, 0.1, 0.2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    named = sources(folder)
    few = {"samples": 300, "goal": "fixed", "radii": COLUMNS, "tuned": "none"}
    return {
        "a": certified(folder / "a", named, **few),
        "b": certified(folder / "b", named, alpha=0.9, **few),
        "fewer": certified(folder / "fewer", named, inputs=3, **few),
        "h alone": certified(folder / "alone", {**named, "standard": None}, **few),
        "other data": certified(folder / "other", sources_of_others(folder / "others"), **few),
    }


def sources_of_others(folder):
    named = sources(folder)
    held = dict(np.load(folder / "points.npz"))
    np.savez(folder / "points.npz", **{**held, "inputs": np.float32(0.9) * held["inputs"]})
    return named


def lines(table) -> dict[tuple[str, str], dict]:
    return {(one["classifier"], one["figure"]): one for one in table.extra["comparisons"]}


def test_its_figures_are_those_of_both_tables(runs):
    found, tables = lines(compare(runs["a"], runs["b"])), [show(runs["a"]), show(runs["b"])]
    assert {name for name, _ in found} == {"robust", "mixed"}
    for classifier in ("robust", "mixed"):
        rows = [
            next(r for r in one.rows if (r.classifier, r.certificate) == (classifier, "exact"))
            for one in tables
        ]
        for name, wanted in (
            ("clean accuracy", [row.clean_accuracy for row in rows]),
            ("mean radius", [row.mean_certified_radius for row in rows]),
            *((f"certified {'> 0' if r == 0 else f'>= {r:g}'}", [row.certified_accuracy[k] for row in rows])
              for k, r in enumerate(COLUMNS)),
        ):  # fmt: skip
            one = found[classifier, name]
            assert [one["first"], one["second"]] == pytest.approx(wanted, rel=1e-12), name
            assert one["difference"] == pytest.approx(wanted[1] - wanted[0], abs=1e-12)
    assert found["mixed", "mean radius"]["p_value"] < 0.05 < found["robust", "mean radius"]["p_value"]
    assert found["mixed", "mean radius"]["interval"][0] > 0, "a larger alpha, larger radii on every input"


def test_inputs_of_one_run_alone_are_left_out_and_said(runs):
    table = compare(runs["a"], runs["fewer"], certificate="smoothing", radii=[0.15])
    assert "3 inputs" in table.settings and any("7 inputs that only it has" in note for note in table.notes)
    assert ("mixed", "certified >= 0.15") in lines(table)
    (mixed,) = {one["certificate"] for (name, _), one in lines(table).items() if name == "mixed"}
    assert mixed == "smoothing"


@pytest.mark.parametrize(("second", "more", "told"), [
    ("other data", {}, "are about different data: compare runs of one"),
    ("a", {"radii": [-1.0]}, r"radii \[-1.0\]: give numbers of at least 0"),
    ("a", {"certificate": "margin"}, "have no classifier in common by margin"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(runs, second, more, told):
    with pytest.raises(ParameterError, match=told):
        compare(runs["a"], runs[second], **more)
    assert {name for name, _ in lines(compare(runs["a"], runs["h alone"]))} == {"robust", "mixed"}


@pytest.mark.parametrize(("only", "more"), list(product([(0, 0), (1, 0), (3, 9), (40, 12), (0, 7)], [0, 30])))
def test_the_p_of_shares_is_the_binomials(only, more):
    first = np.repeat([True, False, True, False], [only[0], only[1], more, 5])
    second = np.repeat([False, True, True, False], [only[0], only[1], more, 5])
    found = paired_shares(first, second)
    assert found.only == only and found.difference == pytest.approx((only[1] - only[0]) / len(first))
    wanted = binomtest(only[0], sum(only)).pvalue if any(only) else 1.0
    assert found.p_value == pytest.approx(wanted)
    assert (found.interval is None) == (not any(only)), "no spread was seen: no interval"
    other = paired_shares(second, first)
    assert other.p_value == found.p_value and other.difference == -found.difference


def test_the_p_of_means_is_small_only_where_they_differ():
    rng = np.random.default_rng(4)
    a, noise = rng.random(60), 0.1 * rng.standard_normal(60)
    alike, apart = paired_means(a, a + noise - noise.mean()), paired_means(a, a + noise + 0.1)
    assert alike.p_value > 0.9 and alike.interval[0] < 0 < alike.interval[1]
    assert apart.p_value < 0.001 and 0 < apart.interval[0] < 0.1 < apart.interval[1] < 0.2
    assert paired_means(a, a) == (a.mean(), a.mean(), None, 1.0, None)


def test_the_interval_of_a_mean_radius_covers_it():
    rng, mean, outside = np.random.default_rng(5), 0.3 * 0.5 * 2.0, 0
    for _ in range(200):
        radii = np.where(rng.random(80) < 0.3, 2.0 * rng.random(80), 0.0)
        low, high = mean_interval(radii, 2.0)
        assert 0 <= low <= radii.mean() <= high <= 2.0
        outside += not low <= mean <= high
    assert outside <= 18, "of 200 at 5 %: more has probability 0.007"
    assert mean_interval(np.zeros(5), 0.0) == (0.0, 0.0) and mean_interval(np.zeros(5), np.inf) is None
