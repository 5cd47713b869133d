"""Proofs of tables: every bound and certificate is proved, and a changed figure is not."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from certmix.bounds import BOUNDS, bounds_of
from certmix.bounds.statistics import plan, start, update
from certmix.certification.evaluate import Outcomes, evaluate, tabulate
from certmix.certification.request.proved import GivenConstant, Margin
from certmix.certification.request.sampled import CertifyRequest
from certmix.errors import ParameterError
from certmix.files import digest_of
from certmix.radii import CERTIFICATES, margin_slack_of
from certmix.radii.constant import CONSTANTS_OF, constant_radius
from certmix.runs import InputRecord
from certmix.sampling.ballots import LEVELS, Ballots
from certmix.sampling.schedule import looks
from certmix.types import CertifiedRadii
from certmix.verification.proofs import check_proof
from certmix.verification.proofs.check_proof import FORMULAS, fails
from certmix.verification.proofs.proof import formulas_of, proof_of

SCRIPT = Path(check_proof.__file__)
CLASSES = 4


def record(rng: np.random.Generator, index: int, sizes: list[int], soft: bool) -> InputRecord:
    """An input of which a network is more or less sure."""
    sure = rng.uniform(0.5, 6)
    scores = rng.dirichlet(np.array([sure, *rng.uniform(0.05, 0.8, CLASSES - 1)]), 100 + sizes[-1])
    chosen, drawn = scores[:100], scores[100:]
    eps, lost = float(rng.choice([0.0, 7e-13])), float(rng.choice([0.0, 1e-4]))
    about: dict[str, Any] = dict(noise_error=eps, lost=lost)
    if soft:
        seen = update(start(CLASSES, 0), chosen)
        empty, kept = plan(seen), {0: plan(seen)}
        for before, n in zip([0, *sizes], sizes, strict=False):
            kept[n] = update(kept.get(before, empty), drawn[before:n])
        votes = {n: np.round(kept[n].means() * n).astype(np.int64) for n in sizes}
        return InputRecord(index, 0, "0" * 64, seen.totals, votes, scores=kept, **about)
    codes = scores.argmax(1) * LEVELS + np.minimum(scores.max(1) * LEVELS, LEVELS - 1).astype(np.int64)
    first, ballots = Ballots.of(codes[:100]), {n: Ballots.of(codes[100 : 100 + n]) for n in sizes}
    votes = {n: one.votes(CLASSES) for n, one in ballots.items()}
    return InputRecord(
        index, 0, "0" * 64, first.votes(CLASSES), votes, ballots=ballots, selection_ballots=first, **about
    )


def proof(bound: str, goal: str, inputs: int = 6, seed: int = 0, **more: Any) -> dict[str, Any]:
    """The proof of a table, as it comes out of its file."""
    soft = bound in bounds_of("soft")
    certificates = ("exact",) if bound == "layers" else tuple(CERTIFICATES)
    request = CertifyRequest(
        sigma=0.5, alpha=0.8, samples=1000, goal=goal, bound=bound, scores="soft" if soft else "hard",
        certificates=certificates, radii=(0.0, 0.1, 0.25, 0.5), tuned=more.pop("tuned", "none"), **more,
    )  # fmt: skip
    rng, sizes = np.random.default_rng(seed), [1000] if goal == "fixed" else list(looks(1000))
    records = [record(rng, index, sizes, soft) for index in range(inputs)]
    g = {index: np.eye(CLASSES)[index % 2] for index in range(inputs)}
    every = evaluate(records, g, request, inputs)
    return json.loads(json.dumps(proof_of(request, CLASSES, every.outcomes, every.summary.rows, every)))


def of_constant(of: str) -> dict[str, Any]:
    """The proof of radii from a Lipschitz constant."""
    request = GivenConstant(0.8, lipschitz_constant=0.7, constant_of=of, radii=(0.0, 0.5, 1.0))
    logits = np.random.default_rng(0).normal(size=(8, CLASSES)) * 3
    labels = np.where(np.arange(8) < 6, logits.argmax(1), 0)
    radii = tuple(
        CertifiedRadii(
            "lipschitz-constant", "l2", float("nan"), alpha,
            *constant_radius(logits, alpha, 0.7, of, margin_slack_of(alpha)),
        )
        for alpha in request.weights()
    )  # fmt: skip
    found = Outcomes(np.arange(8), labels, logits.argmax(1), radii=radii)
    tables, _ = tabulate(found, request.rows(), request.radii)
    return json.loads(json.dumps(proof_of(request, CLASSES, found, tables, logits)))


EVERY = [
    *((bound, goal) for bound in bounds_of("hard") for goal in ("fixed", "radii")),
    *((bound, "fixed") for bound in bounds_of("soft")),
    ("betting", "radii"), ("hoeffding", "radius"),
]  # fmt: skip


@pytest.mark.parametrize(("bound", "goal"), EVERY)
def test_every_bound_and_certificate_is_proved(bound, goal):
    found = proof(bound, goal)
    assert list(fails(found)) == []
    assert sum(max(row["certified"]) for row in found["rows"]) > 4


@pytest.mark.parametrize("bound", bounds_of("hard"))
def test_so_is_what_is_behind_a_gate(bound):
    found = proof(bound, "radii", tuned="0.6,0.5,0.9", gate=0.3)
    assert {view["gate"] for view in found["inputs"][0]["views"]} == {0.3, 0.6}
    assert list(fails(found)) == []
    assert found["rows"][-1]["certified"][0] > 0


@pytest.mark.parametrize("of", CONSTANTS_OF)
def test_so_are_radii_from_a_constant(of):
    found = of_constant(of)
    assert list(fails(found)) == []
    assert found["rows"][1]["certified"][0] > 3
    for change in ("radii", "logits", "sigma"):
        changed = copy.deepcopy(found)
        one = next(one for one in changed["inputs"] if one["radii"][1] > 0)
        if change == "radii":
            one["radii"][1] *= 1 + 1e-9
        elif change == "logits":
            one["views"][0]["logits"][0] -= 1e-6
        else:
            changed["sigma"] = str(Fraction(changed["sigma"]) / (1 + Fraction(1, 10**9)))
        assert any("radius" in text for _, text in fails(changed)), change


def changes(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The proof with one number after another a little further than it was proved, by what was changed."""
    every: dict[str, dict[str, Any]] = {}

    def changed(what: str) -> Any:
        return every.setdefault(what, copy.deepcopy(found))

    k = next(k for k, one in enumerate(found["inputs"]) if min(one["radii"][:1]) > 0)
    for row, radius in enumerate(found["inputs"][k]["radii"]):
        if radius > 0:
            changed(f"radius {row}")["inputs"][k]["radii"][row] = radius * 1.001
    views = found["inputs"][k]["views"]
    for v, view in enumerate(views):
        for g, group in enumerate([view["own"], *view["rivals"]]):
            for c, claim in enumerate(group):

                def one(what: str, v: int = v, g: int = g, c: int = c) -> dict[str, Any]:
                    view = changed(f"{what} of view {v}, group {g}, claim {c}")["inputs"][k]["views"][v]
                    return view["own"][c] if g == 0 else view["rivals"][g - 1][c]

                # Of several rivals the bound is the runner-up's: others could be larger.
                if claim["at"] not in (0.0, 1.0) and (g <= 1 or len(group) > 1):
                    one("bound")["at"] += 1e-6 if g == 0 else -1e-6
                    key = "votes" if "votes" in claim else "total"
                    counted = one("count")
                    counted[key] -= 1 if key == "votes" else claim["samples"]
                    if counted.get("bins"):  # one value from the highest bin to the lowest
                        highest = max(i for i, many in enumerate(counted["bins"][0]) if many)
                        counted["bins"][0][highest] -= 1
                        counted["bins"][0][0] += 1
                    one("samples")["samples"] += 1
    for look in found["shares"]:
        changed(f"share of {look}")["shares"][look] *= 2 if len(found["shares"]) == 1 else 1e3
    changed("failure probability")["failure_probability"] /= 2
    changed("sigma")["scale"] /= 1.001
    changed("noise")["inputs"][k]["noise_error"] += 1e-3
    changed("distance")["inputs"][k]["lost"] += 1e-3
    changed("label")["inputs"][k]["label"] += 1
    for row in range(len(found["rows"])):
        changed(f"alpha of row {row}")["rows"][row]["alpha"] -= 0.01
        changed(f"table, row {row}")["rows"][row]["certified"][0] += 1
    return every


@pytest.mark.parametrize(
    ("bound", "goal", "gate"),
    [("clopper-pearson", "radii", 0.6), ("beta-binomial", "fixed", 0.0), ("betting", "fixed", 0.0), ("layers", "fixed", 0.0)],
)  # fmt: skip
def test_a_change_of_any_number_is_noticed_even_with_a_new_digest(bound, goal, gate):
    """All changes are to the good of the claim; the others leave it proved, and only the digest notices."""
    found = proof(bound, goal, 3, tuned=f"{gate},0.5,0.9" if gate else "none")
    assert list(fails(found)) == []
    passed = []
    for what, changed in changes(found).items():
        assert next(fails(changed))[1].startswith("the file was changed"), what
        kept = {name: part for name, part in changed.items() if name != "digest"}
        changed["digest"] = digest_of(kept)
        if not list(fails(changed)):
            passed.append(what)
    # Alone, h keeps its class at any weight; looks that gave no bound may spend more while all add up to 1.
    assert {what.split(" ")[0] for what in passed} <= {"alpha", "share"}, passed
    assert len(passed) <= 2 * len(found["rows"])


FORGED: dict[str, Any] = {
    "alpha above 1": lambda p: p["rows"][1].update(alpha=2.0),
    "alpha below a half": lambda p: p["rows"][1].update(alpha=0.4),
    "another's theorem": lambda p: p["rows"][1].update(certificate="slope"),
    "a constant's": lambda p: p["rows"][1].update(certificate="constant of logits"),
    "failure probability": lambda p: p.update(failure_probability=2.0),
    "negative share": lambda p: p["shares"].update({"1": "-5"}),
    "negative noise error": lambda p: p["inputs"][0].update(noise_error=-0.5),
    "negative loss": lambda p: p["inputs"][0].update(lost=-0.5),
    "more votes than samples": lambda p: p["inputs"][0]["views"][0]["own"][0].update(votes=10**6),
    "dimension 0": lambda p: p.update(dimension=0),
    "no scale": lambda p: p.update(scale=0.0),
}


@pytest.mark.parametrize("fault", FORGED)
def test_what_no_run_could_hold_is_no_proof(fault):
    found = copy.deepcopy(proof("clopper-pearson", "radii", 2))
    FORGED[fault](found)
    found["digest"] = digest_of({name: part for name, part in found.items() if name != "digest"})
    told = [text for _, text in fails(found)]
    assert told and not any("the file was changed" in text for text in told)


@pytest.mark.parametrize("other", ["linf", "l1"])
def test_a_converted_radius_rests_on_the_norm_and_dimension_that_are_named(other):
    """Not on numbers of the file that could be left out."""
    found = copy.deepcopy(proof("clopper-pearson", "radii", 2))
    found |= {"norm": other, "dimension": 2, "stretch": 1, "of": {"slope": [0, 1]}}
    found["digest"] = digest_of({name: part for name, part in found.items() if name != "digest"})
    assert bool(list(fails(found))) == (other == "linf")


def test_the_script_runs_by_itself(tmp_path):
    whole, changed = tmp_path / "proof.json", tmp_path / "changed.json"
    found = proof("clopper-pearson", "radii", 2)
    whole.write_text(json.dumps(found))
    found["inputs"][0]["radii"][0] = 3.0
    changed.write_text(json.dumps(found))
    lines = SCRIPT.read_text().splitlines()
    assert len(lines) <= 205 and not [line for line in lines if "import" in line and "certmix" in line]
    for path, code, told in ((whole, 0, "proved"), (changed, 1, "the file was changed")):
        run = [sys.executable, "-I", "-W", "error", SCRIPT, path]
        done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (done.returncode, told in done.stdout + done.stderr) == (code, True), done.stderr


def test_no_infinite_radius_is_proved_and_tiny_constants_give_finite_ones():
    found = of_constant("logits")
    found["inputs"][0]["radii"][1] = math.inf
    assert any("radius inf" in text for _, text in fails(found))
    for of in CONSTANTS_OF:
        tiny = constant_radius([[3.0, 0.0, -1.0]], 0.8, 1e-320, of, margin_slack_of(0.8))[0]
        assert 1e300 < tiny[0] < math.inf


def test_formulas_of_added_bounds_stay_out_of_the_script(monkeypatch):
    mine = replace(BOUNDS["clopper-pearson"], name="mine", formula=FORMULAS["clopper-pearson"])
    monkeypatch.setitem(BOUNDS.data, "mine", mine)
    found = proof("mine", "fixed", 2)
    assert list(fails(found, formulas_of(found))) == [] and "mine" not in FORMULAS


def test_what_has_no_inequality_is_refused(monkeypatch):
    monkeypatch.setitem(BOUNDS.data, "mine", replace(BOUNDS["clopper-pearson"], name="mine"))
    with pytest.raises(ParameterError, match=r"mine has no formula="):
        proof("mine", "fixed")
    with pytest.raises(ParameterError, match="margin"):
        proof_of(Margin(0.8), CLASSES, Outcomes(*[np.zeros(0, np.int64)] * 3), (), None)
