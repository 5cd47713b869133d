"""Runs under attack: where attacks look, what counts as evidence, what runs claim, and findings judged again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import half_spaces
import numpy as np
import pytest
import torch
from attacked import best_offset, linear
from half_spaces import SIGMA, attack, inputs, normal, pair, smoothed, true_margin, true_radius
from scipy.special import ndtr, ndtri
from scipy.stats import binom, multinomial
from torch import nn

import certmix
from certmix.attacks.geometry import distance
from certmix.errors import ModelError, ParameterError, RunError
from certmix.radii import Smoothing, exact_radius, margin_slack_of
from certmix.runs import Store
from certmix.runs.sources import Sources
from certmix.sampling import count_votes
from certmix.types import Dataset
from certmix.verification.checks import Outcome
from certmix.verification.falsify.attack import (
    Attacked,
    Claim,
    Claims,
    Target,
    Trial,
    chance_of,
    findings_needed,
    hopeless,
    judge_smoothed,
    noise_seed,
    plain_candidates,
    sampler_of,
    score_margin_upper,
    smoothed_candidates,
    stops,
    threshold,
    vote_margin_upper,
)
from certmix.verification.falsify.falsify import falsify, read_claims, replay, write_finding
from certmix.verification.request import FalsifyRequest

# Evidence: coverage by enumeration, binomial tails, giving up.

VOTES = 14


@pytest.mark.parametrize("h", [(0.5, 0.5, 0.0), (0.65, 0.35, 0.0), (0.4, 0.2, 0.4), (0.1, 0.05, 0.85)])
@pytest.mark.parametrize("delta", [0.2, 0.05, 0.01])
def test_the_upper_bound_of_a_margin_is_too_small_as_rarely_as_it_says(h, delta):
    law = multinomial(VOTES, h)
    every = [np.array([a, b, VOTES - a - b]) for a in range(VOTES + 1) for b in range(VOTES + 1 - a)]
    missed = sum(law.pmf(counts) for counts in every if vote_margin_upper(counts, 0, 1, delta) < h[0] - h[1])
    assert missed <= delta


def test_the_upper_bound_is_not_idle():
    """At margins well below the threshold nearly all outcomes are evidence."""
    law, mu = binom(400, 0.5), threshold(0.76)
    power = sum(law.pmf(k) for k in range(401) if vote_margin_upper(np.array([k, 400 - k]), 0, 1, 1e-4) < mu)
    assert power > 0.99


def test_score_differences_are_bounded_above():
    rng = np.random.default_rng(0)
    uppers = np.array([score_margin_upper(rng.uniform(-0.2, 0.6, 400), 0.05) for _ in range(200)])
    assert np.sum(uppers < 0.2) <= 20
    assert 0 < np.mean(uppers - 0.2) < 0.1


@pytest.mark.parametrize("inputs", [1, 25, 200, 5000])
@pytest.mark.parametrize("rate", [0.0014, 0.001, 0.05])
def test_findings_needed_is_the_least_number_that_is_rare_enough(inputs, rate):
    needed = findings_needed(inputs, rate, 0.01)
    assert binom.sf(needed - 1, inputs, rate) <= 0.01
    assert needed == 1 or binom.sf(needed - 2, inputs, rate) > 0.01
    assert chance_of(needed, inputs, rate) == pytest.approx(binom.sf(needed - 1, inputs, rate), rel=1e-9)
    assert findings_needed(inputs, 0.0, 0.01) == 1  # where nothing is random
    assert (chance_of(1, inputs, 0.0), chance_of(0, inputs, 0.0)) == (0.0, 1.0)


def test_only_points_above_the_threshold_are_given_up():
    mu = threshold(0.76)
    assert threshold(1.0) == 0.0
    assert 0.24 / 0.76 * (1 - 1e-15) <= mu <= 0.24 / 0.76
    assert hopeless(0.9, 0.92, 250, 10_000, mu)
    assert not hopeless(mu - 0.1, 1.0, 250, 10_000, mu)
    assert not hopeless(mu + 0.01, 1.0, 250, 10_000, mu)
    assert hopeless(1.0, 1.0, 250, 10_000, mu)  # no spread at all
    for samples in (100, 250, 251, 10_000):
        assert stops(samples)[-1] == samples and stops(samples) == sorted(set(stops(samples)))


def test_noise_never_shares_a_seed_with_the_run():
    seeds = {noise_seed(a, b, p) for a in range(3) for b in range(3) for p in ("judgement", "search 1")}
    assert len(seeds) == 18
    assert not seeds & set(range(1000))
    assert all(0 <= seed < 2**63 for seed in seeds)


# Where attacks look: the worst direction of half-spaces and of linear models is known.


class Scaled(nn.Module):
    """Logits of another scale."""

    def __init__(self, net: nn.Module, scale: float) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x):
        return self.net(x) * self.scale


def target_of(model, classes=3, box=None):
    return Target(model, classes, torch.device("cpu"), box)


def claims_of(sigma, norm="l2", **more):
    return Claims("exact", 0.76, norm, sigma and Smoothing.of(sigma), 0.001, 1, (), **more)


def candidates(scale=1.0, radius=0.4, seed=0, temperature=None, gap=0.0):
    """Points, how far each moved, and how far along the normal the first did."""
    input = inputs(np.array([1.5]), 0)[0]
    scores = {} if temperature is None else {"scores": "soft", "temperature": temperature}
    points = smoothed_candidates(
        target_of(Scaled(pair(gap), scale).eval()), claims_of(SIGMA, **scores), Claim(0, 0, radius), input,
        FalsifyRequest(steps=4, copies=16, seed=seed),
    )  # fmt: skip
    along = (points[0].double() - input.double()).flatten().numpy() @ normal()
    return points, distance(points, input[None].expand(points.shape), "l2"), along


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_the_normal_is_found_whatever_the_scale_of_logits(temperature):
    for scale in (1e-6, 1.0, 1e6):
        assert candidates(scale, temperature=temperature)[2] > 0.4 * (1 - 1e-5)
    # Where the rival has no votes yet, it goes towards class 2, which lies that way too.
    assert candidates(gap=3.0, temperature=temperature)[2] > 0.4 * (1 - 1e-5)


@pytest.mark.parametrize("radius", [1e-3, 0.4, 7.3, 300.0])
def test_candidates_lie_strictly_within_the_ball_and_the_seed_decides(radius):
    points, away, _ = candidates(radius=radius)
    assert bool((away < radius).all()) and float(away.max()) > 0.99 * radius
    assert torch.equal(points, candidates(radius=radius)[0])
    assert radius < 0.1 or not torch.equal(points, candidates(radius=radius, seed=1)[0])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
def test_linear_models_are_attacked_to_their_optimum(norm, box):
    rng = np.random.default_rng(0)
    slope, input = rng.normal(size=8), rng.uniform(0.1, 0.9, 8)
    model = linear(np.stack([-slope, slope]), bias=[float(slope @ input), -float(slope @ input)])
    points = plain_candidates(
        target_of(model, 2, box), claims_of(None, norm, clipped=box is not None), Claim(0, 0, 0.3),
        torch.from_numpy(input), FalsifyRequest(steps=20, restarts=2),
    )  # fmt: skip
    best = input + best_offset(slope, input, norm, 0.3, box or (-9.0, 9.0))
    reached = [float((m[0] - m[1]).detach()) for m in model(points)]
    optimum = model(torch.from_numpy(best)[None])[0]
    assert min(reached) == pytest.approx(float((optimum[0] - optimum[1]).detach()), rel=1e-3)
    assert bool((distance(points, torch.from_numpy(input)[None].expand(points.shape), norm) < 0.3).all())
    assert box is None or bool(((points >= 0) & (points <= 1)).all())


class Hidden(nn.Module):
    """A model whose gradient is hidden."""

    def forward(self, x):
        return pair()(x.detach())


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_without_gradients_the_normal_is_found_from_values(temperature):
    input, scores = inputs(np.array([1.5]), 0)[0], {}
    if temperature is not None:
        scores = {"scores": "soft", "temperature": temperature}
    points = smoothed_candidates(
        target_of(Hidden().eval()), claims_of(SIGMA, **scores), Claim(0, 0, 0.4), input,
        FalsifyRequest(steps=20, copies=128),
    )  # fmt: skip
    along = (points[0].double() - input.double()).flatten().numpy() @ normal()
    assert 0.3 < along < 0.4 and bool((distance(points, input[None].expand(points.shape), "l2") < 0.4).all())


@pytest.mark.parametrize("norm", ["linf", pytest.param("l2", marks=pytest.mark.long)])
def test_without_gradients_and_noise_a_random_search_moves_towards_the_rival(norm):
    input = inputs(np.array([0.3]), 0)[0]
    points = plain_candidates(
        target_of(Hidden().eval()), claims_of(None, norm), Claim(0, 0, 0.3), input,
        FalsifyRequest(steps=10, restarts=2),
    )  # fmt: skip
    z = pair()(points)
    assert float((z[1:, 0] - z[1:, 1]).min()) < 0.5 * float(z[0, 0] - z[0, 1])
    assert bool((distance(points, input[None].expand(points.shape), norm) < 0.3).all())
    with pytest.raises(ParameterError, match="l1"):
        plain_candidates(
            target_of(Hidden().eval()), claims_of(None, "l1"), Claim(0, 0, 0.3), input, FalsifyRequest()
        )


@pytest.mark.parametrize(
    ("name", "falsified"), [("stretched", True), pytest.param("honest", False, marks=pytest.mark.long)]
)
def test_faults_of_a_model_without_gradients_are_found(name, falsified):
    found = attack(
        getattr(half_spaces, name), 1, count=25, samples=10_000, model=Hidden().eval(),
        request=FalsifyRequest(steps=20, copies=64),
    )  # fmt: skip
    assert found.falsified == falsified


# Half-space pairs: honest certificates stand, faulty ones are found; rates are in docs/falsify.md.


def test_the_closed_forms():
    """Probabilities are those of the network; the true radius is that of the exact certificate."""
    depth, gap = np.array([0.4, 1.2]), 0.3
    for input, expected in zip(inputs(depth, 0), smoothed(depth, gap), strict=True):
        votes = count_votes(pair(gap), input, SIGMA, 4000, 1, classes=3) / 4000
        assert np.abs(votes - expected).max() < 0.03
    radius = true_radius(1.7, 0.76)
    assert radius == pytest.approx(SIGMA * (1.7 - ndtri(1 / 1.52)), abs=1e-9)
    assert radius == pytest.approx(float(exact_radius(ndtr(1.7), ndtr(-1.7), SIGMA, 0.76)), abs=1e-9)
    assert true_margin(1.7, radius) == pytest.approx(0.24 / 0.76, abs=1e-9)
    assert true_radius(0.3, 0.76) == 0.0


@pytest.mark.parametrize(
    "name, gap, samples", [("honest", 0.0, 100), ("honest", 0.0, 10_000), ("honest_two_sided", 0.3, 10_000)]
)
def test_honest_certificates_stand(name, gap, samples):
    found = attack(getattr(half_spaces, name), 0, count=12, samples=samples, gap=gap)
    assert found.complete and len(found.attacked) > 4
    assert not found.findings and not found.falsified
    assert found.check.outcome == Outcome.HOLDS
    depth = np.random.default_rng(0).uniform(0.7, 2.5, 12)
    for one in found.attacked if not gap else ():  # the estimate is the true margin there
        margin = true_margin(depth[one.claim.index], one.distance)
        assert one.margin == pytest.approx(margin, abs=4 / np.sqrt(one.samples))


@pytest.mark.parametrize(
    "name, samples",
    [
        ("stretched", 10_000),
        ("wrong_side", 1_000),
        ("frequencies", 100),
        pytest.param("threshold_forgotten", 10_000, marks=pytest.mark.long),
    ],
)
def test_faults_are_found_and_findings_are_true(name, samples):
    """At every finding the margin, in closed form, is below the threshold: the wrong class is not blamed."""
    found = attack(getattr(half_spaces, name), 1, count=25, samples=samples)
    assert found.falsified and found.chance < 0.01
    assert found.check.outcome == Outcome.FAILS
    assert found.check.count == len(found.findings) >= found.needed
    depth = np.random.default_rng(1).uniform(0.7, 2.5, 25)
    for one in found.findings:
        assert one.distance < one.claim.radius
        assert true_margin(depth[one.claim.index], one.distance) < one.threshold
        assert true_radius(depth[one.claim.index], 0.76) < one.claim.radius


def test_one_finding_may_be_what_the_failure_probability_allows():
    """With a failure probability of one half wrong certificates are no surprise."""
    found = attack(half_spaces.frequencies, 1, count=25, samples=100, delta=0.5)
    assert found.needed > len(found.findings) > 0
    assert not found.falsified
    assert found.check.outcome == Outcome.HOLDS
    assert "not more than" in found.check.message


def test_infinite_radii_are_attacked_too():
    """All of few samples agree: the frequency 1 claims the whole space."""
    found = attack(half_spaces.frequencies, 0, count=3, samples=10, depths=(2.4, 2.5))
    endless = [one for one in found.attacked if np.isinf(one.claim.radius)]
    assert endless and all(one.found for one in endless)
    assert found.as_dict()["attacks"][endless[0].claim.index]["radius"] is None


def test_the_robust_classifier_alone_is_attacked_at_alpha_1():
    request = FalsifyRequest(steps=4, copies=16)
    for name, falsified in (("honest", False), ("stretched", True)):
        found = attack(getattr(half_spaces, name), 0, count=15, alpha=1.0, request=request)
        assert found.falsified == falsified
        assert found.attacked[0].threshold == 0.0


# Runs: what they claim, interruption, changed sources, findings judged again.

DEPTHS = np.array([1.8, 1.2, -1.5, 0.1, 2.2, 0.9])
QUICK = FalsifyRequest(inputs="all", steps=3, copies=8, restarts=2, samples=1000)
GIVEN = dict(sigma=None, certificates=("lipschitz-constant",), lipschitz_constant=60.0)


def data(shift: float = 0.0) -> Dataset:
    values = np.clip(inputs(DEPTHS, 0).numpy() + np.float32(shift), -2, 3)
    return Dataset(
        "pairs", "test", (DEPTHS < 0).astype(np.int64), np.arange(6) * 10, tuple("abc"),
        lambda i: values[i], (-2.0, 3.0), f"checksum of {values.sum()}",
    )  # fmt: skip


def sources(net: nn.Module | None = None, shift: float = 0.0) -> Sources:
    return Sources(data=data(shift), standard=None, robust=net or pair())


def certified(folder: Path, sigma: float | None = SIGMA, alpha: float = 0.76, **options):
    given = dict(data=data(), standard=None, robust=pair(), inputs="all", output=folder)
    if sigma is not None:
        given.update(samples=400, goal="fixed")
    return certmix.certify(sigma=sigma, alpha=alpha, **{**given, **options})


def attacked(folder: Path, request: FalsifyRequest = QUICK, named: Sources | None = None, **more):
    return falsify(folder, request, sources=named or sources(), device="cpu", **more)


def stretch(folder: Path, factor: float) -> None:
    """Make the radii of a run without samples larger, in what it keeps: of its constant, or as verified."""
    path = folder / "run.json"
    described = json.loads(path.read_text())
    constant = described["request"].get("lipschitz_constant")
    if constant is not None:
        described["request"]["lipschitz_constant"] = constant / factor
        path.write_text(json.dumps(described))
        return
    store = Store(folder / "numbers.sqlite")
    for cell in [cell for cell in store.cells() if cell.startswith("margin") and " at " not in cell]:
        indices = sorted(store.known(cell))
        store.write(cell, indices, store.read(cell, indices) * np.array([factor, 1.0, 1.0]))
    store.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sampled run's folder and result."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, certified(folder)


@pytest.fixture
def run(made, tmp_path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "run"))


def test_claims_are_the_radii_of_the_table(made):
    folder, result = made
    for certificate, alpha in (("exact", None), ("exact", 1.0), ("smoothing", 0.6), ("lipschitz", None)):
        claims = read_claims(folder, FalsifyRequest("all", alpha, certificate))
        radii = certmix.certify_radii(
            result.evaluation.bounds, sigma=SIGMA, alpha=alpha or 0.76, certificate=certificate,
            margin_slack=margin_slack_of(alpha or 0.76),
        ).radius  # fmt: skip
        expected = {r.index: t for r, t in zip(result.records, radii, strict=True) if t > 0}
        assert len(expected) >= 3
        assert {claim.index: claim.radius for claim in claims.claims} == expected
        assert (claims.looked_at, claims.failure_probability) == (6, 0.001)
    few = read_claims(folder, FalsifyRequest(inputs=3))  # chosen before anything is known of them
    assert few.looked_at == 3
    assert {claim.index for claim in few.claims} <= {0, 20, 40}


def test_an_honest_run_stands_and_is_only_read(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found = attacked(run)
    assert found.check.outcome == Outcome.HOLDS
    assert len(found.attacked) == len(found.claims.claims) >= 4
    assert not found.files
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_soft_scores_are_attacked_as_soft_scores(tmp_path):
    certified(tmp_path, scores="soft", score_temperature=20.0, alpha=0.9)
    found = attacked(tmp_path)
    assert found.claims.scores == "soft"
    assert found.attacked and not found.findings
    assert all(one.counts is None for one in found.attacked)


@pytest.mark.parametrize("norm, constant", [("linf", 220.0), ("l1", 30.0)])
def test_runs_without_samples_and_their_findings(tmp_path, norm, constant):
    folder = tmp_path / "run"
    certified(folder, **{**GIVEN, "norm": norm, "lipschitz_constant": constant})
    found = attacked(folder)
    assert (found.check.outcome, found.rate) == (Outcome.HOLDS, 0.0)
    assert len(found.attacked) >= 4
    stretch(folder, 3.0)
    faulty = attacked(folder)
    assert faulty.falsified and faulty.needed == 1
    assert all(one.margin < one.threshold for one in faulty.findings)
    assert len(list((folder / "falsify").iterdir())) == 2 * len(faulty.findings)
    moved = folder.rename(tmp_path / "moved")
    file = moved / "falsify" / Path(faulty.files[0]).name
    again = replay(file, moved, sources=sources(), device="cpu")
    assert again.stands
    assert again.attacked.margin == pytest.approx(faulty.findings[0].margin, abs=1e-12)
    stretch(moved, 1 / 3)  # the claim is withdrawn
    assert not replay(file, moved, sources=sources(), device="cpu").stands


def test_verified_margins_in_the_box(tmp_path):
    certified(
        tmp_path, None, certificates=("margin",), norm="linf", bound_method="crown", max_radius=1.0,
        radii=(0.0,),
    )  # fmt: skip
    assert read_claims(tmp_path, QUICK).clipped
    assert not attacked(tmp_path).findings
    stretch(tmp_path, 1.1)  # bounds of a linear model are nearly tight
    assert all(one.found for one in attacked(tmp_path).attacked if one.claim.radius > 0.05)


def made_up(folder: Path, **said: object) -> Path:
    """A file that calls a certified input itself, of class 0 with h about 0.88, a finding."""
    claims = read_claims(folder, QUICK)
    claim = next(one for one in claims.claims if one.index == 10)
    point = inputs(DEPTHS, 0)[1]
    target = Target(pair(), 3, torch.device("cpu"))
    one = Attacked(claim, 1, 0.0, 0.0, 0.0, 0.3, 25, np.array([0, 25, 0]), True, point.numpy())
    path = write_finding(folder / "falsify", folder, one, claims, QUICK, target)
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))
    return path


def test_a_finding_cannot_choose_its_evidence(run):
    """Few samples of a seed that was searched for, and a failure probability of 0.9."""
    claims = read_claims(run, QUICK)
    path = made_up(run, failure_probability=0.9, samples=5)
    said = json.loads(path.read_text())
    claim = next(one for one in claims.claims if one.index == said["input"])
    target, point = Target(pair(), 3, torch.device("cpu")), inputs(DEPTHS, 0)[claim.index // 10]
    seed = next(
        seed for seed in range(5000)
        if judge_smoothed(target, claims, claim, point, point, 1, Trial(5, 0.9, seed)).found
    )  # fmt: skip
    votes = sampler_of(target, claims, seed).votes(point, claim.index, [5])[0].tolist()
    path.write_text(json.dumps({**said, "noise_seed": seed, "votes": votes}))
    again = replay(path, sources=sources(), device="cpu", seed=4)
    assert not again.stands
    found = {check.check: check for check in again.checks}
    assert found["distance"].outcome == found["votes"].outcome == Outcome.HOLDS
    assert found["margin"].outcome == Outcome.FAILS
    assert "the same votes" in found["votes"].message


def test_a_finding_against_no_rival_or_of_no_samples_is_refused(run):
    for wrong in ({"worst_standard_classifier": {"one_hot": 0}}, {"worst_standard_classifier": {"one_hot": 3}},
                  {"samples": "many"}, {"noise_seed": -1}, {"noise_seed": None}):  # fmt: skip
        with pytest.raises(RunError, match="restore the file"):
            replay(made_up(run, **wrong), sources=sources(), device="cpu")
    many = replay(made_up(run, samples=10**12), sources=sources(), device="cpu")
    assert many.checks[-1].outcome == Outcome.UNCHECKED
    assert many.attacked.samples <= 10**6


def test_what_is_not_attacked(run):
    def stop(progress):
        if progress.done == 2:
            raise KeyboardInterrupt

    found = attacked(run, progress=stop)
    assert (len(found.attacked), found.complete, found.falsified) == (2, False, False)
    nothing = attacked(run, QUICK.replace(alpha=0.505))
    assert nothing.check.outcome == Outcome.UNCHECKED
    assert nothing.complete and not nothing.falsified


def test_other_models_data_and_radii_are_refused(run, tmp_path):
    with pytest.raises(ModelError, match="weights changed"):
        attacked(run, named=sources(pair(0.2)))
    with pytest.raises(RunError, match="not the data"):
        attacked(run, named=sources(shift=0.01))
    with pytest.raises(RunError, match="Python objects"):
        falsify(run, QUICK, device="cpu")
    with pytest.raises(ParameterError, match="was sampled"):
        attacked(run, QUICK.replace(certificate="margin"))
    with pytest.raises(RunError, match=r"run\.json"):
        falsify(tmp_path / "none", QUICK)
    certified(tmp_path / "given", **GIVEN)
    with pytest.raises(ParameterError, match="use one of them"):
        attacked(tmp_path / "given", QUICK.replace(alpha=0.9))
