"""Runs under attack: what they claim, runs without samples, soft scores, interruption, changed sources."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from half_spaces import SIGMA, images, pair
from torch import nn

import certmix
from certmix.errors import ModelError, ParameterError, RunError
from certmix.radii import margin_slack_of
from certmix.runs import Store
from certmix.runs.sources import Sources
from certmix.types import Dataset
from certmix.verification.checks import Outcome
from certmix.verification.falsify.attack import Attacked, Target, Trial, judge_smoothed, sampler_of
from certmix.verification.falsify.falsify import falsify, read_claims, replay
from certmix.verification.falsify.findings import write_finding
from certmix.verification.request import FalsifyRequest

DEPTHS = np.array([1.8, 1.2, -1.5, 0.1, 2.2, 0.9])
QUICK = FalsifyRequest(images="all", steps=3, copies=8, restarts=2, samples=1000)


def data(shift: float = 0.0) -> Dataset:
    values = np.clip(images(DEPTHS, 0).numpy() + np.float32(shift), -2, 3)
    return Dataset(
        "pairs", "test", (DEPTHS < 0).astype(np.int64), np.arange(6) * 10, tuple("abc"),
        lambda i: values[i], (-2.0, 3.0), f"checksum of {values.sum()}",
    )  # fmt: skip


def sources(net: nn.Module | None = None, shift: float = 0.0) -> Sources:
    return Sources(data=data(shift), standard=None, robust=net or pair())


def certified(
    folder: Path, sigma: float | None = SIGMA, alpha: float = 0.76, **options
) -> certmix.CertifyResult:
    given = dict(data=data(), standard=None, robust=pair(), images="all", output=folder)
    if sigma is not None:
        given.update(samples=400, goal="fixed")
    return certmix.certify(sigma, alpha, **{**given, **options})


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


def test_claims_are_the_radii_of_the_table(tmp_path):
    result = certified(tmp_path)
    for certificate in ("exact", "smoothing", "lipschitz"):
        for alpha in (None, 1.0, 0.6):
            claims = read_claims(tmp_path, FalsifyRequest("all", alpha, certificate))
            weight = alpha or 0.76
            radii = certmix.certify_radii(
                result.evaluation.bounds, sigma=SIGMA, alpha=weight, certificate=certificate,
                margin_slack=margin_slack_of(weight),
            ).radius  # fmt: skip
            expected = {
                r.index: radius for r, radius in zip(result.records, radii, strict=True) if radius > 0
            }
            assert len(expected) >= 3
            assert {claim.index: claim.radius for claim in claims.claims} == expected
            assert claims.looked_at == 6
            assert claims.failure_probability == 0.001


def test_an_honest_run_stands_and_is_only_read(tmp_path):
    certified(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found = falsify(tmp_path, QUICK, sources=sources(), device="cpu")
    assert found.check.outcome == Outcome.HOLDS
    assert len(found.attacked) == len(found.claims.claims) >= 4
    assert not found.files
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_images_are_chosen_before_anything_is_known_of_them(tmp_path):
    certified(tmp_path)
    claims = read_claims(tmp_path, FalsifyRequest(images=3))
    assert claims.looked_at == 3
    assert {claim.index for claim in claims.claims} <= {0, 20, 40}


def test_soft_scores_are_attacked_as_soft_scores(tmp_path):
    certified(tmp_path, scores="soft", temperature=20.0, alpha=0.9)
    found = falsify(tmp_path, QUICK, sources=sources(), device="cpu")
    assert found.claims.scores == "soft"
    assert found.attacked
    assert not found.findings
    assert all(one.counts is None for one in found.attacked)


@pytest.mark.parametrize("norm, constant", [("l2", 60.0), ("linf", 220.0), ("l1", 30.0)])
def test_runs_without_samples(tmp_path, norm, constant):
    options = dict(certificates=("lipschitz-constant",), lipschitz_constant=constant, norm=norm)
    certified(tmp_path, None, **options)
    found = falsify(tmp_path, QUICK, sources=sources(), device="cpu")
    assert found.check.outcome == Outcome.HOLDS
    assert len(found.attacked) >= 4
    assert found.rate == 0.0
    stretch(tmp_path, 3.0)
    faulty = falsify(tmp_path, QUICK, sources=sources(), device="cpu")
    assert faulty.falsified
    assert faulty.needed == 1
    assert all(one.margin < one.threshold for one in faulty.findings)
    assert len(list((tmp_path / "falsify").iterdir())) == 2 * len(faulty.findings)


def test_a_finding_without_samples_stands_until_the_claim_is_withdrawn(tmp_path):
    certified(tmp_path, None, certificates=("lipschitz-constant",), lipschitz_constant=60.0)
    stretch(tmp_path, 3.0)
    found = falsify(tmp_path, QUICK, sources=sources(), device="cpu")
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    file = moved / "falsify" / Path(found.files[0]).name
    again = replay(file, moved, sources=sources(), device="cpu")
    assert again.stands
    assert again.attacked.margin == pytest.approx(found.findings[0].margin, abs=1e-12)
    stretch(moved, 1 / 3)
    assert not replay(file, moved, sources=sources(), device="cpu").stands


def made_up(folder: Path, **said: object) -> Path:
    """A file that calls a certified image itself, of class 0 with h about 0.88, a finding."""
    claims = read_claims(folder, QUICK)
    claim = next(one for one in claims.claims if one.index == 10)
    point = images(DEPTHS, 0)[1]
    target = Target(pair(), 3, torch.device("cpu"))
    one = Attacked(claim, 1, 0.0, 0.0, 0.0, 0.3, 25, np.array([0, 25, 0]), True, point.numpy())
    path = write_finding(folder / "falsify", folder, one, claims, QUICK, target)
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))
    return path


def test_a_finding_cannot_choose_its_evidence(tmp_path):
    """Few samples of a seed that was searched for, and a failure probability of 0.9."""
    certified(tmp_path)
    claims = read_claims(tmp_path, QUICK)
    path = made_up(tmp_path, failure_probability=0.9, samples=5)
    said = json.loads(path.read_text())
    claim = next(one for one in claims.claims if one.index == said["image"])
    target, point = Target(pair(), 3, torch.device("cpu")), images(DEPTHS, 0)[claim.index // 10]
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


def test_a_finding_against_no_rival_or_of_no_samples_is_refused(tmp_path):
    certified(tmp_path)
    for wrong in ({"worst_standard_classifier": {"one_hot": 0}}, {"worst_standard_classifier": {"one_hot": 3}},
                  {"samples": "many"}, {"noise_seed": -1}):  # fmt: skip
        with pytest.raises(RunError, match="restore the file"):
            replay(made_up(tmp_path, **wrong), sources=sources(), device="cpu")
    many = replay(made_up(tmp_path, samples=10**12), sources=sources(), device="cpu")
    assert many.checks[-1].outcome == Outcome.UNCHECKED
    assert many.attacked.samples <= 10**6


def test_verified_margins_in_the_box(tmp_path):
    certified(
        tmp_path,
        None,
        certificates=("margin",),
        norm="linf",
        bound_method="crown",
        max_radius=1.0,
        radii=(0.0,),
    )  # no column beyond a radius that is asked about
    claims = read_claims(tmp_path, QUICK)
    assert claims.clipped
    assert not falsify(tmp_path, QUICK, sources=sources(), device="cpu").findings
    stretch(tmp_path, 1.1)  # bounds of a linear model are nearly tight
    found = falsify(tmp_path, QUICK, sources=sources(), device="cpu")
    assert all(one.found for one in found.attacked if one.claim.radius > 0.05)


def test_an_interrupted_attack_says_what_there_is(tmp_path):
    certified(tmp_path)

    def stop(progress):
        if progress.done == 2:
            raise KeyboardInterrupt

    found = falsify(tmp_path, QUICK, sources=sources(), device="cpu", progress=stop)
    assert len(found.attacked) == 2
    assert not found.complete
    assert not found.falsified


def test_nothing_certified_is_nothing_checked(tmp_path):
    certified(tmp_path)
    found = falsify(tmp_path, replace(QUICK, alpha=0.505), sources=sources(), device="cpu")
    assert found.check.outcome == Outcome.UNCHECKED
    assert not found.falsified
    assert found.complete


def test_other_models_data_and_radii_are_refused(tmp_path):
    certified(tmp_path)
    with pytest.raises(ModelError, match="weights changed"):
        falsify(tmp_path, QUICK, sources=sources(pair(0.2)), device="cpu")
    with pytest.raises(RunError, match="not the data"):
        falsify(tmp_path, QUICK, sources=sources(shift=0.01), device="cpu")
    with pytest.raises(RunError, match="Python objects"):
        falsify(tmp_path, QUICK, device="cpu")
    with pytest.raises(ParameterError, match="was sampled"):
        falsify(tmp_path, replace(QUICK, certificate="margin"), sources=sources(), device="cpu")
    with pytest.raises(RunError, match=r"run\.json"):
        falsify(tmp_path / "none", QUICK)
    margin = tmp_path / "margin"
    certified(margin, None, certificates=("lipschitz-constant",), lipschitz_constant=60.0)
    with pytest.raises(ParameterError, match="use one of them"):
        falsify(margin, replace(QUICK, alpha=0.9), sources=sources(), device="cpu")
