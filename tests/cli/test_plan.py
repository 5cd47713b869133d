"""Plans: arithmetic that can be done by hand, and agreement with what was published and what runs draw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from certmix.certification.analysis.plan import MODEL_SECONDS, SCENARIOS, Truth, plan, scenario, truth_of
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.stored import Reading

REQUEST = CertifyRequest(0.5, 0.76, samples=100_000)
LOGS = Path(__file__).parents[3] / "shared" / "data" / "logs"


def by_goal(found):
    return {goal.goal: goal for goal in found.goals}


def inputs_of(probability, right=True, count=50):
    return Truth(np.full(count, probability), np.full(count, right), 10, 6.0, None, "Inputs are alike.")


def test_a_fixed_number_of_samples_is_arithmetic():
    found = plan(REQUEST, inputs_of(0.9), inputs=50_000, throughput=5000, workers=8, price_per_hour=2.0)
    fixed = by_goal(found)["fixed"]
    assert fixed.total_samples == 50_000 * 100_100
    assert fixed.worker_hours == pytest.approx(50_000 * 100_100 / 5000 / 3600)
    assert fixed.hours == pytest.approx(fixed.worker_hours / 8 + MODEL_SECONDS / 3600)
    assert fixed.cost == pytest.approx(2.0 * 8 * fixed.hours)


def test_easy_hopeless_and_wrong_inputs_cost_little_sequentially():
    wrong = by_goal(plan(REQUEST, inputs_of(0.9, right=False), inputs=1000, throughput=1))["radii"]
    assert wrong.mean_samples == 100, "selection alone"
    hopeless = by_goal(plan(REQUEST, inputs_of(0.1), inputs=1000, throughput=1))["radii"]
    assert hopeless.mean_samples == 200, "one look"
    narrow = REQUEST.replace(radii=(0.0,))
    easy = by_goal(plan(narrow, inputs_of(0.99), inputs=1000, throughput=1))["radii"]
    near = by_goal(plan(narrow, inputs_of(0.66), inputs=1000, throughput=1))["radii"]
    assert easy.mean_samples < 500 < 5000 < near.mean_samples


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_a_scenario_has_the_certified_accuracies_that_were_published(name, sigma):
    from scipy.special import ndtri

    inputs = scenario(name, sigma)
    radius = np.where(inputs.probability > 0.5, sigma * ndtri(inputs.probability), 0.0)
    for r, share in SCENARIOS[name][sigma]:
        assert np.mean(inputs.right & (radius > 0) & (radius >= r)) == pytest.approx(share, abs=0.002)


@pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not there")
@pytest.mark.parametrize("sigma", [0.5, pytest.param(1.0, marks=pytest.mark.long)])
def test_a_scenario_plans_what_its_log_does(sigma):
    log = truth_of(LOGS / f"gaussian-resnet110-cifar10-sigma{sigma:.2f}-10000.tsv", Reading(sigma))[0]
    request = REQUEST.replace(sigma=sigma)
    first, second = (
        by_goal(plan(request, inputs, inputs=10_000, throughput=1))
        for inputs in (log, scenario("cifar10", sigma))
    )
    for goal in ("radii", "radius"):
        assert second[goal].mean_samples == pytest.approx(first[goal].mean_samples, rel=0.05)


def test_a_plan_like_a_run_predicts_what_that_run_drew(command, problem):
    given = (*problem.options, "--inputs", "all", "--samples", 2000, "--output", "run", "--format", "json")
    done = command("certify", *given)
    drawn = json.loads(done.out)["mean_samples"] + 100
    planned = command("plan", "--like", "run", "--inputs", 12, "--samples", 2000, "--format", "json")
    assert planned.code == 0, planned.err
    found = json.loads(planned.out)
    assert (found["noise"], found["scale"], found["alpha"], found["classes"]) == ("gaussian", 0.25, 0.76, 3)
    assert found["throughput"] > 0
    assert found["goals"][1]["mean_samples"] == pytest.approx(drawn, rel=0.35)
    assert found["goals"][0]["mean_samples"] == 2100
    assert command("plan", "--like", "run", "--sigma", 0.5).code == 2


def test_a_plan_like_a_run_takes_its_most_samples(command, problem):
    options = (*problem.options, "--inputs", 4, "--samples", 700, "--goal", "fixed", "--output", "run")
    assert command("certify", *options).code == 0
    own = command("plan", "--like", "run", "--inputs", 12)
    assert own.out.startswith("12 inputs, at most 700 samples each")
    assert "At most 700 samples each, as there: --samples plans others" in own.out
    given = command("plan", "--like", "run", "--inputs", 12, "--samples", 900)
    assert given.out.startswith("12 inputs, at most 900 samples each")
    assert "--samples plans others" not in given.out


HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


def test_a_plan_like_a_log(command, tmp_path):
    (tmp_path / "log.tsv").write_text(f"{HEADER}0\t1\t1\t1.96\t1\t1.0\n1\t1\t1\t0.3\t1\t1.0\n")
    (tmp_path / "empty.tsv").write_text(HEADER)
    options = ("--inputs", 10, "--throughput", 1000, "--format", "json")
    fine = command("plan", "--like", "log.tsv", "--sigma", 0.5, *options)
    assert (fine.code, fine.err) == (0, "")
    assert json.loads(fine.out)["samples"] == 100_000
    doubted = command("plan", "--like", "log.tsv", "--sigma", 0.25, *options)
    first = json.loads(doubted.out)["assumptions"][0]
    assert first.startswith("is sigma = 0.25 right?")
    assert doubted.err == f"Warning: {first}\n"
    empty = command("plan", "--like", "empty.tsv", "--sigma", 0.25, *options)
    assert (empty.code, empty.out) == (2, "")
    assert empty.err == "Error: empty.tsv holds no rows: name a log that is not empty\n"


@pytest.mark.parametrize(
    "arguments, text",
    [
        (("--inputs", 10), "no throughput: give --throughput"),
        (("--throughput", 0), "throughput = 0: give a positive number"),
        (("--throughput", 1, "--workers", 0), "workers = 0"),
        (("--throughput", 1, "--sigma", 0.3), "scenario imagenet knows sigma 0.25, 0.5, 1, not 0.3"),
        (("--throughput", 1, "--samples", 10), "samples = 10"),
        (("--like", "no-such-run", "--throughput", 1), "no-such-run"),
        (("--like", "x", "--scenario", "cifar10"), "give one of them"),
    ],
    ids=str,
)
def test_what_cannot_be_planned_is_one_line(command, arguments, text):
    done = command("plan", *arguments)
    assert done.code == 2
    lines = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert text in lines[0]
