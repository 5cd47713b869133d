"""The self-test holds here, and each planted fault is seen by the suite that is about it."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from certmix import text as printing
from certmix.bounds import BOUNDS, clopper_pearson, sequential
from certmix.errors import ParameterError
from certmix.margins import linear_bounds
from certmix.models import mixture
from certmix.radii import _twins, constant, exact, lipschitz, smoothing
from certmix.sampling.noise import Noise, NoiseKey
from certmix.verification.checks import Outcome
from certmix.verification.selftests import SUITES, SuiteResult, run_suites
from certmix.verification.selftests import rounding as rounding_suite
from certmix.verification.selftests.tally import Tally

CASES = 20


def failing(*names: str, cases: int = CASES, seed: int = 0) -> set[str]:
    """Names of the suites that do not hold."""
    return {one.suite for one in run_suites(names, cases=cases, seed=seed) if one.outcome != Outcome.HOLDS}


@pytest.mark.parametrize("cases, seed", [(CASES, 0), (1, 1)])
def test_everything_holds_here(cases, seed):
    results = list(run_suites(cases=cases, seed=seed))
    assert [one.suite for one in results] == list(SUITES)
    for one in results:
        assert one.outcome == Outcome.HOLDS, one
        assert one.properties
        assert all(each.cases > 0 and each.worst_slack >= 0 for each in one.properties)


def test_every_suite_has_a_module_of_its_own():
    folder = Path(rounding_suite.__file__).parent
    assert all((folder / f"{name.replace('-', '_')}.py").exists() for name in SUITES)


def test_it_needs_no_test_tools():
    """It runs where only certmix and what it depends on are installed."""
    folder, found = Path(rounding_suite.__file__).parent, set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module).split(".")[0])
    assert found & {"pytest", "hypothesis", "mpmath"} == set()
    assert "certmix" in found


def times(module, name, factor):
    honest = getattr(module, name)
    return lambda *given: honest(*given) * factor


def without_mu(p, q, sigma, alpha):
    return exact_loop(p, q, sigma, 1.0 if alpha > 0.5 else 0.5)


def swapped(standard, robust, alpha):
    return mixture.mix_outputs(standard, robust, 1.0 - alpha)


def to_nearest(p, q, sigma, alpha):
    return _twins.exact(p, q, sigma, alpha)


def narrow(bounds):
    """Each side at the whole failure probability instead of half."""
    wide = lambda counts, selected, delta: bounds.compute(counts, selected, min(2 * delta, 0.999))  # noqa: E731
    return replace(bounds, compute=wide)


exact_loop = exact.exact_loop
PROOFS = ("margin-lemma", "lipschitz", "smoothing", "exact", "rounding", "clopper-pearson")
FAULTS = {
    "exact radius x 1.01": (exact, "exact_loop", times(exact, "exact_loop", 1.01), {"exact", "rounding"}),
    "exact radius x 0.99": (exact, "exact_loop", times(exact, "exact_loop", 0.99), {"exact", "rounding"}),
    "exact radius without mu": (exact, "exact_loop", without_mu, {"exact", "rounding"}),
    "exact radius to nearest": (exact, "exact_loop", to_nearest, {"rounding"}),
    "Theorem 3.7 x 1.01": (
        smoothing, "smoothing_loop", times(smoothing, "smoothing_loop", 1.01), {"smoothing", "rounding"},
    ),
    "Theorem 3.5 x 1.01": (lipschitz, "class_lipschitz_loop", times(lipschitz, "class_lipschitz_loop", 1.01), {"lipschitz"}),
    "Gaussian Theorem 3.5 x 1.01": (lipschitz, "lipschitz_loop", times(lipschitz, "lipschitz_loop", 1.01), {"rounding"}),
    "mu dropped": (constant, "margin_threshold", lambda alpha: 0.0, {"margin-lemma", "lipschitz"}),
    "weights swapped": (mixture, "mix_logits", swapped, {"margin-lemma", "lipschitz", "smoothing", "exact"}),
    "lower bounds to nearest": (clopper_pearson, "_down", lambda x: x, {"clopper-pearson"}),
    "upper bounds to nearest": (clopper_pearson, "_up", lambda x: x, {"clopper-pearson"}),
    "printed to nearest": (printing, "floor_digits", lambda x, digits: f"{x:.{digits}f}", {"rounding"}),
    "columns beyond only": (
        rounding_suite, "table_row",
        lambda name, radii, right, columns: table_row(name, radii, right, tuple(math.nextafter(c, 9) for c in columns)),
        {"rounding"},
    ),
}  # fmt: skip
table_row = rounding_suite.table_row


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_of_the_proofs(fault, monkeypatch):
    module, name, planted, expected = FAULTS[fault]
    monkeypatch.setattr(module, name, planted)
    found = failing(*PROOFS)
    assert expected <= found
    for unrelated in ("clopper-pearson", "margin-lemma"):
        assert (unrelated in found) == (unrelated in expected)


def test_numbers_flushed_to_zero_are_seen():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals")
    try:
        (result,) = run_suites(["arithmetic"], cases=5)
    finally:
        torch.set_flush_denormal(False)
    assert result.outcome == Outcome.FAILS
    broken = {one.name for one in result.properties if one.failures}
    assert any("subnormals" in name for name in broken)


def test_a_broken_math_library_is_seen(monkeypatch):
    honest = np.expm1
    monkeypatch.setattr(np, "expm1", lambda x: honest(np.float32(x)).astype(np.float64))
    assert "arithmetic" in failing("arithmetic", "rounding")


@pytest.mark.parametrize("name", ["clopper-pearson", "clopper-pearson-two-sided"])
def test_bounds_at_twice_the_failure_probability_are_seen(name, monkeypatch):
    monkeypatch.setitem(BOUNDS, name, narrow(BOUNDS[name]))
    assert failing("vote-bounds", "clopper-pearson") == {"vote-bounds"}


def test_looks_that_spend_everything_each_are_seen(monkeypatch):
    monkeypatch.setattr(sequential, "share", lambda number: 1.0)
    assert failing("vote-bounds") == {"vote-bounds"}


def test_plug_in_means_are_seen(monkeypatch):
    def plug_in(statistics, delta):
        means = np.stack([one.means() for one in statistics])
        return means[:, 0], means[:, 1:].max(1)

    monkeypatch.setitem(BOUNDS, "hoeffding", replace(BOUNDS["hoeffding"], compute=plug_in))
    assert failing("clopper-pearson", "score-bounds") == {"score-bounds"}


def test_a_wrong_relaxation_is_seen(monkeypatch):
    def without_offset(layer, box):
        lines = linear_bounds.relax(layer, box)
        return replace(lines, offset=torch.zeros_like(lines.offset))

    monkeypatch.setattr(linear_bounds, "relax", without_offset)
    assert failing("propagation", cases=50) == {"propagation"}


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_noise_of_another_level_is_seen(factor, monkeypatch):
    honest = Noise.fill

    def scaled(self, out, steps, *rest):
        honest(self, out, steps, *rest)
        centre = torch.from_numpy(self.grid.value(steps.numpy()))
        out.sub_(centre).mul_(factor).add_(centre)

    monkeypatch.setattr(Noise, "fill", scaled)
    assert failing("sampling", cases=50) == {"sampling"}


def test_noise_that_repeats_is_seen(monkeypatch):
    monkeypatch.setattr(NoiseKey, "words", (7, 0, 0, 0, 0))
    assert failing("sampling") == {"sampling"}


def test_a_suite_that_breaks_off_has_failed(monkeypatch):
    def broken(*given):
        raise ZeroDivisionError("kernel\ncannot be compiled")

    monkeypatch.setattr(exact, "exact_loop", broken)
    (result,) = run_suites(["exact"], cases=1)
    assert result.outcome == Outcome.FAILS
    assert result.error.startswith("ZeroDivisionError: kernel cannot be compiled (broken, line ")
    assert json.dumps(result.as_dict(), allow_nan=False)


def test_tally_counts_failures_and_the_worst_slack():
    tally = Tally()
    tally.record("one", [0.5, 0.0], unit="cm")
    tally.record("one", [[-0.25], [math.nan]], lambda k: f"case {k}", unit="cm")
    tally.record("two", [0.0, 1.0], unit="", strict=True)
    tally.record("three", [], unit="")
    one, two, three = tally
    assert (one.cases, one.failures, one.worst_slack, one.unit) == (4, 2, -math.inf, "cm")
    assert one.examples == ("case 0: slack -0.25", "case 1: slack nan")
    assert one.as_dict()["worst_slack"] is None
    assert (two.failures, two.outcome) == (1, Outcome.FAILS)
    assert three.outcome == Outcome.UNCHECKED
    assert SuiteResult("x", "y", (three,), 0.0).outcome == Outcome.UNCHECKED
    assert SuiteResult("x", "y", (), 0.0).outcome == Outcome.UNCHECKED


def test_equal_seeds_give_equal_results():
    one, other, another = (next(iter(run_suites(["lipschitz"], cases=5, seed=s))) for s in (3, 3, 4))
    assert one.properties == other.properties
    assert one.properties != another.properties


@pytest.mark.parametrize(
    "options, found",
    [({"names": ["exat"]}, "'exat'"), ({"cases": 0}, "cases = 0"), ({"seed": -1}, "seed = -1")],
)
def test_bad_arguments_are_refused_before_anything_runs(options, found):
    with pytest.raises(ParameterError, match=found):
        run_suites(**options)
