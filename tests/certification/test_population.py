"""Claims about a population: cuts and bounds by enumeration, what is drawn, shown, refused and verified."""

from __future__ import annotations

import json
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from flint import ctx
from scipy.special import ndtr, ndtri
from scipy.stats import binom

import certmix
from certmix.certification import population
from certmix.certification.population import (
    ABOUT,
    CELL,
    Look,
    Rule,
    claim_of,
    cut,
    log_capital,
    looks_of,
    lower_bound,
    order_of,
    rule_of,
    scores_of,
)
from certmix.certification.publish import repeat_command
from certmix.certification.request.population import Population
from certmix.errors import ParameterError
from certmix.models.spec import load_model
from certmix.radii.smoothings import norms_of
from certmix.runs import read_run
from certmix.runs.store import Store
from certmix.sampling.law import noise_error
from certmix.verification.guarantees.guarantee import guarantee_text, parse_guarantee
from certmix.verification.proofs import check_population, check_proof

ASKED = Population(sigma=0.5, alpha=0.76, at_radius=0.5, samples=100)
LEVEL = float(ndtr(1 + ndtri(1 / 1.52)))


def test_the_band_of_the_theory():
    """n = 100 at sigma .5, R .5, alpha .76: c' = 91, c = 94, a = .731."""
    (look,) = cut([100], LEVEL)
    assert (look.band, look.accept, round(look.cost, 3)) == (91, 94, 0.731)
    rule = rule_of(ASKED, 3072)
    assert LEVEL < rule.p < LEVEL + 1e-6  # with the slack of the margin and the noise's distance
    assert [look.samples for look in rule.looks] == [13, 25, 50, 100]


@lru_cache
def paths(rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """All votes that may be added from look to look (k, looks), and the scores (k,) that they come to."""
    steps = np.diff([0, *(look.samples for look in rule.looks)])
    grown = np.array(list(product(*(range(step + 1) for step in steps))))
    score, at = np.zeros(len(grown)), np.zeros(len(grown))
    for number in range(1, len(steps) + 1):  # votes as they are taken: to the look that decides
        taken = np.where(np.arange(len(steps)) < number, grown.cumsum(1), -1)
        now, stands = scores_of(rule, taken)
        score, at = np.where(at >= 0, now, score), np.where(at >= 0, stands, at)
    assert np.all(at < 0)
    return grown, score


def law_of(rule: Rule, p: float) -> dict[float, float]:
    """The exact law of the score of an input of probability p."""
    grown, score = paths(rule)
    steps = np.diff([0, *(look.samples for look in rule.looks)])
    chances = binom.pmf(grown, steps, p).prod(1)
    return {value: float(chances[score == value].sum()) for value in np.unique(score).tolist()}


SMALL = [([6], 0.6), ([8], 0.8), ([3, 6], 0.6), ([2, 5, 9], 0.7), ([3, 6, 12], 0.8)]


@pytest.mark.parametrize("p", [0.5, 0.6, 0.9])
@pytest.mark.parametrize("samples", [100, 10**5, 10**6])
def test_many_looks_leave_a_last_one(samples, p):
    """After many looks less than two thirds may still go on: the cut of the last look has room for a band."""
    *_, last = cut(looks_of(samples), p)
    assert 0 <= last.band < last.accept <= samples and 0.4 < last.cost <= 1


@pytest.mark.parametrize(("looks", "p"), SMALL)
def test_no_score_has_a_mean_above_0_where_nothing_is_certified(looks, p, monkeypatch):
    monkeypatch.setattr(population, "EARLY", 0.3)  # so that early looks accept, too
    rule = Rule(0, p, tuple(cut(looks, p)))
    assert len(looks) < 3 or any(look.accept <= look.samples for look in rule.looks[:-1])
    for q in np.linspace(0.0, 1.0, 21):
        law = law_of(rule, float(q))
        mean = sum(score * chance for score, chance in law.items())
        assert max(law) <= 1 and min(law) >= -rule.lowest
        assert mean <= (1e-12 if q <= p else 1)
    at_p = sum(score * chance for score, chance in law_of(rule, p).items())
    assert -1e-6 < at_p <= 0  # and nothing is given away


def refuted(
    laws: list[tuple[float, dict[float, float]]], lowest: float, share: float, delta: float, draws: int
):
    """The exact probability that the bound ever exceeds the share, in so many draws from a mixture of laws."""
    law: dict[float, float] = {}
    for weight, one in laws:
        for score, chance in one.items():
            law[score] = law.get(score, 0.0) + weight * chance
    values = np.array(sorted(law))
    alive, lost = {(0,) * len(values): 1.0}, 0.0
    for _ in range(draws):
        after: dict[tuple[int, ...], float] = {}
        for counts, chance in alive.items():
            for k, value in enumerate(values):
                new = (*counts[:k], counts[k] + 1, *counts[k + 1 :])
                after[new] = after.get(new, 0.0) + chance * law[value]
        alive = {}
        for counts, chance in after.items():
            if log_capital([(lowest, values, np.array(counts))], share) > -np.log(delta):
                lost += chance
            else:
                alive[counts] = chance
    return lost


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
@pytest.mark.parametrize(("looks", "p"), SMALL[:4])
def test_the_bound_holds_at_all_numbers_of_draws_at_once(looks, p, share):
    rule = Rule(0, p, tuple(cut(looks, p)))
    worst = [(share, law_of(rule, 1.0)), (1 - share, law_of(rule, p))]  # sure ones, and ones at the border
    lost = refuted(worst, rule.lowest, share, 0.1, 14)
    assert 0.0 < lost <= 0.1 if share else lost <= 0.1


def test_a_rule_chosen_by_the_counts_does_not_hold():
    """The planted fault: of rules that hold, each input gets the one that its votes do best by."""
    n, p, delta = 8, 0.6, 0.1
    ks, chances = np.arange(n + 1), binom.pmf(np.arange(n + 1), n, p)
    rules = []
    for accept in (6, 7, 8):
        cost = float(chances[accept:].sum() / chances[4:accept].sum())
        rules.append(Rule(0, p, (Look(n, 0, 4, accept, cost),)))
        scores = scores_of(rules[-1], ks[:, None])[0]
        law = {value: float(chances[scores == value].sum()) for value in np.unique(scores).tolist()}
        assert refuted([(1.0, law)], rules[-1].lowest, 0.0, delta, 12) <= delta
    chosen = np.max([scores_of(rule, ks[:, None])[0] for rule in rules], axis=0)
    law = {value: float(chances[chosen == value].sum()) for value in np.unique(chosen).tolist()}
    assert refuted([(1.0, law)], max(rule.lowest for rule in rules), 0.0, delta, 20) > delta


def test_the_bound_refutes_all_that_is_smaller_and_needs_no_order():
    rule = rule_of(ASKED, 100)
    values = np.array([1.0, 0.0, -rule.looks[-1].cost])
    group = rule.lowest, values, np.array([60, 30, 10])
    bound = lower_bound([group], 0.001)
    assert 0.2 < bound < (60 + 10 * values[-1]) / 100
    logs = [log_capital([group], share) for share in np.linspace(0, 1, 101)]
    assert np.all(np.diff(logs) <= 0)
    split = [(rule.lowest, values, np.array([60, 0, 10])), (rule.lowest, values[1:2], np.array([30]))]
    assert lower_bound(split, 0.001) == pytest.approx(bound, abs=1e-12)
    assert lower_bound([], 0.001) == 0.0


def test_draws_are_by_the_seed_alone():
    data = ASKED.replace(inputs=4000)
    order = order_of(data, 7)
    assert np.all(np.abs(np.bincount(order, minlength=7) - 4000 / 7) < 5 * np.sqrt(4000 / 7))
    assert np.array_equal(order[:50], order_of(data.replace(inputs=50), 7))
    assert not np.array_equal(order, order_of(data.replace(seed=1), 7))
    each = ASKED.replace(population="distribution", inputs="all")
    assert sorted(order_of(each, 40).tolist()) == list(range(40))
    assert np.array_equal(order_of(each.replace(inputs=9), 40), order_of(each, 40)[:9])


REFUSED = {
    "few samples": ({"samples": 5}, "7 are needed|needed"),
    "far radius": ({"at_radius": 6.0}, "smaller --at-radius"),
    "too many samples": ({"samples": 10**7}, "at most 1000000"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_rules_that_cannot_be_are_refused(case):
    wrong, told = REFUSED[case]
    with pytest.raises(ParameterError, match=told):
        rule_of(ASKED.replace(**wrong), 10)


@pytest.mark.parametrize(
    "wrong", [{"alpha": 0.5}, {"at_least": 1.0}, {"at_radius": 0.0}, {"seed": -1}, {"inputs": 10**9}]
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ParameterError):
        ASKED.replace(**wrong)


# Runs.


def given(problem) -> tuple[str, ...]:
    """The options of the problem without its standard classifier."""
    at = problem.options.index("--standard")
    return (*problem.options[:at], *problem.options[at + 2 :])


POINTS = ("--goal", "population", "--at-radius", 0.1, "--samples", 100)
OUT = ("--output", "run", "--format", "json")


def numbers(folder: Path) -> list[tuple[int, bytes]]:
    with sqlite3.connect(folder / "numbers.sqlite") as db:
        return db.execute("SELECT idx, data FROM cells WHERE cell = ? ORDER BY idx", (CELL,)).fetchall()


def test_a_share_is_shown_resumed_and_shown_again(command, problem, tmp_path):
    first = command("certify", *given(problem), *POINTS, "--inputs", 60, "--at-least", 0.2, *OUT)
    told = json.loads(first.out)
    assert (first.code, told["reached"], told["complete"]) == (0, True, True), first.err
    assert told["lower_bound"] >= 0.2 and told["draws"] <= 60
    before = numbers(tmp_path / "run")
    more = command("certify", *given(problem), *POINTS, "--inputs", 60, *OUT)
    assert json.loads(more.out)["draws"] == 60 and numbers(tmp_path / "run")[: len(before)] == before
    again = command(
        "certify", *given(problem), *POINTS, "--inputs", 60, "--output", "other", "--format", "json"
    )
    assert again.out == more.out and numbers(tmp_path / "other") == numbers(tmp_path / "run")
    shown = command("show", "run", "--format", "json")
    assert (shown.code, shown.out) == (0, more.out)
    words = shlex.split(repeat_command(Path("run"), read_run(Path("run"))))
    assert command(*words[1:], "--format", "json").out == more.out
    table = command("show", "run").out
    assert "Of the population, at confidence 1 - delta = 0.999: nothing is claimed" in " ".join(table.split())
    assert command("report", "run", "--output", "page.html").code == 0
    assert "nothing is claimed of any one input" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("lacking", ["--alpha", "--at-radius"])
def test_what_a_claim_needs_is_told(command, problem, lacking):
    words = [*map(str, given(problem)), *map(str, POINTS)]
    at = words.index(lacking)
    found = command("certify", *words[:at], *words[at + 2 :], "--inputs", 3)
    assert found.code == 2 and f"--goal population needs {lacking}" in found.err


def test_a_radius_that_is_refused_leaves_no_run(command, problem, tmp_path):
    far = ("--goal", "population", "--at-radius", 9, "--samples", 100, "--output", "run")
    found = command("certify", *given(problem), *far)
    assert found.code == 2 and "smaller --at-radius" in found.err and not (tmp_path / "run").exists()
    assert command("certify", *given(problem), *POINTS, "--inputs", 3, *OUT).code == 0


def test_an_interrupted_claim_goes_on_where_it_was(problem, tmp_path):
    def stop(now) -> None:
        if now.done >= 25:
            raise KeyboardInterrupt

    how = {"sigma": 0.25, "alpha": 0.76, "goal": "population", "at_radius": 0.1, "inputs": 60, "samples": 100}
    named = f"{problem.folder}/nets.py:linear", problem.folder / "points.npz"
    whole = certmix.certify(*named, **how, output=tmp_path / "whole", progress=False)
    part = certmix.certify(*named, **how, output=tmp_path / "run", progress=stop)
    assert part.interrupted and not part.table.complete and 20 <= part.claim.draws < 60
    with ThreadPoolExecutor(1) as executor:
        rest = certmix.certify(*named, **how, output=tmp_path / "run", progress=False, executor=executor)
    assert rest.claim == whole.claim and numbers(tmp_path / "run") == numbers(tmp_path / "whole")


def test_inputs_far_from_the_grid_are_never_accepted():
    far = rule_of(ASKED, 10, 4000)
    assert all(look.accept > look.samples for look in far.looks) and far.lowest == 0


def test_what_is_not_shown_is_no_failure_of_proof(command, problem):
    found = command("certify", *given(problem), *POINTS, "--inputs", 4, "--at-least", 0.9)
    assert (
        found.code == 1
        and "not shown" in found.out
        and "no proof of the contrary" in " ".join(found.out.split())
    )


def test_a_distribution_takes_each_input_once(command, problem, tmp_path):
    found = command("certify", *given(problem), *POINTS, "--population", "distribution", *OUT)
    told = json.loads(found.out)
    assert (found.code, told["draws"], told["inputs"]) == (0, 12, 12), found.err
    vectors = [np.frombuffer(data, "<i8") for _, data in numbers(tmp_path / "run")]
    assert sorted(vector[0] for vector in vectors) == list(range(12))
    claim = claim_of(Population(**{**told_request(tmp_path), "inputs": "all"}), 2, 12, np.stack(vectors))
    assert claim.lower_bound == told["lower_bound"]


def told_request(folder: Path) -> dict:
    return json.loads((folder / "run" / "run.json").read_text())["request"]


OTHERS: dict[str, tuple[Callable, str]] = {
    "recertify": (lambda: ("recertify", "run"), "--goal population"),
    "merge": (lambda: ("merge", "run", "run", "--output", "m"), "--goal population"),
    "trade-off": (lambda: ("trade-off", "run"), "--goal population"),
    "falsify": (lambda: ("falsify", "run"), "population"),
    "audit": (lambda: ("audit", "run"), "population"),
    "reproduce": (lambda: ("reproduce", "run"), "population"),
    "compare": (lambda: ("compare", "run", "run"), "population"),
    "guarantee": (
        lambda: ("guarantee", "init", "run", "--output", "g.toml"),
        "population_certified_accuracy@0.1",
    ),
}


def test_other_commands_refuse_it_by_name(command, problem):
    command("certify", *given(problem), *POINTS, "--inputs", 3, *OUT)
    for name, (words, told) in OTHERS.items():
        found = command(*words())
        assert found.code == 2 and told in " ".join(found.err.split()), (name, found.err)


@pytest.mark.parametrize(
    "more", [("--shard", "1/2"), ("--standard", "none"), ("--radii", "0,1"), ("--bound", "clopper-pearson")]
)
def test_what_has_no_effect_is_refused(command, problem, more):
    found = command("certify", *problem.options[:2], "--sigma", 0.25, "--alpha", 0.9, *POINTS, *more)
    assert found.code == 2 and "--goal population" in found.err, found.err


def test_python(problem):
    net = load_model(f"{problem.folder}/nets.py:linear", classes=3).module
    found = certmix.certify(
        net, problem.folder / "points.npz", sigma=0.25, alpha=0.76, goal="population", at_radius=0.1,
        at_least=0.1, inputs=60, samples=100, progress=False,
    )  # fmt: skip
    assert found.claim.reached and found.claim.lower_bound >= 0.1 and found.folder is None
    assert "population" in str(found)


# Verification.


@pytest.fixture
def run(command, problem, tmp_path) -> Path:
    command("certify", *given(problem), *POINTS, "--inputs", 40, *OUT)
    return tmp_path / "run"


def verdicts(found) -> dict[str, str]:
    return {one["check"]: one["outcome"] for one in json.loads(found.out)["checks"]}


def test_a_run_is_verified_and_its_proof_checked_without_certmix(command, run):
    found = command("verify", run, "--run-code", "--proof", "proof.json", "--format", "json")
    told = verdicts(found)
    assert found.code == 0 and set(told.values()) == {"holds"}, found.out
    assert {"inputs", "draws", "claim", "published files", "same seed", "new seed", "proof file"} <= set(told)
    script = [sys.executable, check_population.__file__, "proof.json"]
    assert subprocess.run(script, capture_output=True, text=True, check=False).stdout == "proved\n"
    proof = json.loads(Path("proof.json").read_text())
    changes = {
        "lower_bound": proof["lower_bound"] + 1e-6, "radius": proof["radius"] * 1.01, "scale": 0.2,
        "alpha": 0.7, "eps": 0.1, "failure_probability": 0.0005, "noise": "uniform",
    }  # fmt: skip
    for name, value in changes.items():
        assert list(
            check_population.fails(proof | {"digest": resigned(proof | {name: value}), name: value})
        ), name
    (rule,) = proof["rules"]
    for look in range(len(rule["looks"])):
        for part, by in ((2, 1), (3, -1), (4, -1e-4)):
            changed = json.loads(json.dumps(proof))
            changed["rules"][0]["looks"][look][part] += by
            if rule["looks"][look][4]:
                assert list(check_population.fails(changed | {"digest": resigned(changed)})), (look, part)
    changed = json.loads(json.dumps(proof))
    changed["draws"][3][-1] -= 60
    assert list(check_population.fails(changed | {"digest": resigned(changed)}))
    assert list(check_population.fails(proof | {"population": "distribution"})) == ["the file was changed"]
    cannot = {
        "alpha": (2.0, -1.0), "scale": (-1.0, 0.0), "eps": (-1.0,), "dimension": (0, -3), "radius": (-1.0,),
        "failure_probability": (2.0,), "lower_bound": (float("nan"), 1.5),
    }  # fmt: skip
    for name, value in ((name, value) for name, values in cannot.items() for value in values):
        changed = proof | {name: value}
        (told,) = check_population.fails(changed | {"digest": resigned(changed)})
        assert told.startswith(f"{name} = {value} is not from")
    changed = json.loads(json.dumps(proof | {"radius": 3.0}))
    changed["rules"][0]["steps"] = -100_000  # nearer than its own grid point
    (told,) = check_population.fails(changed | {"digest": resigned(changed)})
    assert "is not certified at the radius" in told


NORMED = [(kind, norm) for kind in check_proof.NOISES for norm in norms_of(kind)]


@pytest.mark.parametrize(("kind", "norm"), NORMED)
def test_the_formula_follows_from_noise_and_norm(kind, norm):
    whole = kind == "ablation"
    scale, dimension, steps = (6.0, 32, 0) if whole else (0.5, 5, 3)
    asked = ASKED.replace(
        at_radius=1.0 if whole else 0.05, norm=norm, dimension=dimension,
        **({} if kind == "gaussian" else {"sigma": None, "noise": kind, "scale": scale}),
    )  # fmt: skip
    rule = rule_of(asked, dimension, steps)
    told = {"alpha": 0.76, "radius": asked.at_radius, "eps": noise_error(asked.smoothing, dimension)}
    proof = told | {"noise": kind, "scale": scale, "norm": norm, "dimension": dimension}
    with ctx.workprec(128):
        assert check_population.margin(proof, {"steps": steps, "p": rule.p}) > 0
        beyond = proof | {"radius": asked.at_radius + (1 if whole else 1e-6)}
        assert check_population.margin(beyond, {"steps": steps, "p": rule.p}) < 0


def resigned(proof: dict) -> str:
    from certmix.files import digest_of

    return digest_of({name: part for name, part in proof.items() if name != "digest"})


FAULTS = {
    "a vote more": (ABOUT, +1, "same seed"),
    "another input": (0, +1, "inputs"),
    "another label": (1, +1, "inputs"),
    "votes beyond the look": (ABOUT, +100, "draws"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_changed_draws_are_found(command, run, fault):
    at, by, check = FAULTS[fault]
    store = Store(run / "numbers.sqlite")
    for number in range(40):
        vector = store.read(CELL, [number])[0].copy()
        vector[at] += by if fault != "a vote more" or vector[ABOUT] < looks_of(100)[0] else -1
        store.write(CELL, [number], vector[None])
    store.close()
    found = command("verify", run, "--run-code", "--format", "json")
    assert found.code == 1 and verdicts(found)[check] == "fails", found.out


def test_another_number_of_values_is_found(command, problem, tmp_path):
    """A radius in linf is wider the fewer values an input is said to have."""
    command("certify", *given(problem), *POINTS, "--norm", "linf", "--inputs", 20, *OUT)
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace('"dimension": 2', '"dimension": 1'))
    found = command("verify", "run", "--run-code", "--format", "json")
    assert found.code == 1 and verdicts(found)["data checksum"] == "fails", found.out
    assert "have the dimension 2, run.json says 1" in found.out


def test_other_noise_is_found_and_does_not_go_on(command, problem, run):
    path = run / "run.json"
    told = json.loads(path.read_text())
    told["noise"]["fingerprint"] = "0" * 16
    path.write_text(json.dumps(told))
    found = command("verify", run, "--run-code", "--format", "json")
    assert found.code == 1 and verdicts(found)["draws"] == "fails" and "fingerprint 000" in found.out
    more = command("certify", *given(problem), *POINTS, "--inputs", 41, *OUT)
    assert more.code == 2 and "fingerprint" in more.err


def test_a_gap_ends_what_is_believed(run):
    with sqlite3.connect(run / "numbers.sqlite") as db:
        db.execute("DELETE FROM cells WHERE cell = ? AND idx = 7", (CELL,))
    store = Store(run / "numbers.sqlite")
    assert len(population.votes_in(store, len(looks_of(100)))) == 7
    store.close()


GUARANTEE = """\
version = 1
requirements = ["population_certified_accuracy@0.1 >= {share}"]
[data]
name = "points.npz"
inputs = 40
[robust]
model = "nets.py:linear"
[certificate]
alpha = 0.76
sigma = 0.25
[sampling]
samples = 100
"""


@pytest.mark.parametrize(("share", "code", "outcome"), [(0.2, 0, "holds"), (0.6, 2, "unchecked")])
def test_a_guarantee_of_it(command, problem, share, code, outcome):
    (problem.folder / "g.toml").write_text(GUARANTEE.format(share=share))
    found = command("verify", "g.toml", "--run-code", "--format", "json")
    told = json.loads(found.out)
    (judged,) = told["requirements"]
    assert (found.code, judged["outcome"]) == (code, outcome), found.out + found.err
    again = json.loads(command("verify", "g.toml", "--run-code", "--format", "json").out)
    assert again["sampling"]["drawn_samples"] == 0 < again["sampling"]["reused_samples"]
    kinds = ("text", "junit", "markdown", "github")
    reports = [word for kind in kinds for word in ("--report", f"{kind}=report.{kind}")]
    assert command("verify", "g.toml", "--run-code", "--resample", 0, *reports).code == code
    for kind in kinds:
        told = Path(f"report.{kind}").read_text().replace("\\", "")
        assert ("population_certified_accuracy@0.1" if kind != "github" else "of a share") in told


def test_a_guarantee_reads_back():
    made = parse_guarantee(GUARANTEE.format(share=0.2))
    assert parse_guarantee(guarantee_text(made)) == made
    assert (made.request.at_radius, made.request.at_least) == (0.1, 0.2)


WRONG = {
    "two": ('["population', '["robust.clean_accuracy >= 0.1", "population'),
    "of h": ("population_", "robust.population_"),
    "goal": ("[sampling]", '[sampling]\ngoal = "radii"'),
    "gate": ("[sampling]", "[sampling]\ngate = 0.5"),
    "radii": ("[certificate]", "[certificate]\nradii = [0.0]"),
    "certificate": ("[certificate]", '[certificate]\nname = "smoothing"'),
    "no such requirement": ("population_certified_accuracy@0.1 >= 0.2", "clean_accuracy >= 0.1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_guarantees_that_cannot_be_are_refused(case):
    text = GUARANTEE.format(share=0.2)
    before, after = WRONG[case]
    if case == "no such requirement":
        text = text.replace("[sampling]", '[sampling]\ngoal = "population"')
    with pytest.raises(ParameterError, match="line|population"):
        parse_guarantee(text.replace(before, after))


def test_scores_of_the_proof_are_those_of_the_product():
    rule = rule_of(ASKED, 10)
    rng = np.random.default_rng(0)
    looks = [list(look) for look in rule.looks]
    for p in (0.5, 0.8, 0.92, 0.99):
        for _ in range(20):
            votes = np.cumsum(rng.binomial(np.diff([0, *looks_of(100)]), p))
            for number in range(1, 5):
                taken = np.where(np.arange(4) < number, votes, -1)
                score, at = scores_of(rule, taken[None])
                if at[0] < 0:
                    break
            exact = check_population.score(looks, votes[:number].tolist())
            assert abs(exact - Fraction(float(score[0]))) < 1e-12
