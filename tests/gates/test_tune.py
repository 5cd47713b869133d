"""Tuning: what is chosen, on what, and that nothing is reported on the inputs that chose."""

from __future__ import annotations

import warnings
from dataclasses import replace as changed
from pathlib import Path

import numpy as np
import pytest
from forged import sources
from scipy.special import ndtr, ndtri

import certmix
from certmix.bounds import clopper_pearson
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.tuned import TuneRequest, input_digests, read_tuned, resolve_tuned
from certmix.data import load
from certmix.errors import ParameterError, RunError
from certmix.nuts.margins import softmax_numpy
from certmix.runs.sources import Loaded, Sources
from certmix.studies.nuts_certified_plan import ALPHAS, NoisyLogits
from certmix.studies.study import Surroundings, show_study
from certmix.studies.tune import tune
from certmix.studies.tune_plan import GATED, GATES, TEMPERATURES, Family, families_of, plan_tuned

ASKED = TuneRequest(0.5, 0.25, grid="none")


def drawn(seed: int = 0, inputs: int = 60, copies: int = 30, classes: int = 3) -> NoisyLogits:
    """A g that is nearly always right and not sure, and a base of h that is sure where it is right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, inputs)
    own = np.eye(classes)[labels]
    standard = 1.5 * own + rng.normal(0, 0.4, (inputs, classes))
    hard = rng.random(inputs) < 0.4
    centre = np.where(hard[:, None], 0.3 * rng.normal(size=(inputs, classes)), 3.0 * own)
    noisy = centre[:, None] + rng.normal(0, 0.8, (inputs, copies, classes))
    return NoisyLogits(standard, noisy, labels, np.arange(inputs))


def test_counts_are_those_of_the_definition():
    """Certified: right by h's votes behind the gate, margin of the planned p and q above (1 - alpha) / alpha."""
    logits = drawn()
    family = next(one for one in families_of(logits, ASKED) if one.name == GATED)
    standard, labels = softmax_numpy(logits.standard), logits.labels
    held, clean = family.counts(standard, labels)
    scores, copies = softmax_numpy(logits.noisy), logits.noisy.shape[1]
    for t, k, a in ((0, 12, 150), (3, 0, 300), (2, 18, 60), (1, 19, 499)):
        at, gate, temperature, alpha = t * len(GATES) + k, GATES[k], TEMPERATURES[t], ALPHAS[a]
        assert (family.candidates[at].gate, family.candidates[at].temperature) == (gate, temperature)
        votes = np.eye(3)[scores.argmax(-1)] * (scores.max(-1) >= gate)[..., None]
        shares = votes.mean(1)
        g = np.eye(3)[standard.argmax(1)] if temperature == 0 else standard ** (1 / temperature)
        g = g / g.sum(1, keepdims=True)
        assert clean[at, a] == np.sum(((1 - alpha) * g + alpha * shares).argmax(1) == labels)
        certified = 0
        for h, label in zip(shares, labels.tolist(), strict=True):
            mean = (h * copies + 0.5) / (copies + 1)
            top = int(h.argmax())
            n, delta = ASKED.samples, ASKED.failure_probability / (2 if gate else 1)
            p = clopper_pearson.lower_bound(round(mean[top] * n), n, delta)
            rival = round(np.delete(mean, top).max() * n)
            q = min(clopper_pearson.upper_bound(rival, n, delta), 1 - p) if gate else 1 - p
            margin = ndtr(ndtri(p) - 0.5) - ndtr(ndtri(q) + 0.5)
            certified += h.any() and top == label and margin > (1 - alpha) / alpha
        assert abs(held[at, a] - certified) <= 1, "counts of votes are rounded here, means are not"


@pytest.mark.parametrize("wish", [{"clean_accuracy": 0.9}, {"lose": 3.0}, {}])
def test_the_choice_keeps_its_floor_and_nothing_beats_it(wish):
    logits = drawn()
    plan = plan_tuned(logits, ASKED.replace(**wish))
    family = next(one for one in families_of(logits, ASKED) if one.name == GATED)
    held, clean = family.counts(softmax_numpy(logits.standard), logits.labels)
    best = plan.best
    if plan.floor is None:  # farthest from the line from h's end of the front to g's
        (alone, certified), g = plan.robust, plan.standard.accuracy
        kept = np.clip((clean / 60 - alone.accuracy) / (g - alone.accuracy), 0, 1) + held / certified.correct
        own = (best.clean.accuracy - alone.accuracy) / (g - alone.accuracy)
        assert min(own, 1) + best.certified.correct / certified.correct == pytest.approx(kept.max())
        assert best.clean.accuracy > alone.accuracy
    else:
        assert best.clean.accuracy >= plan.floor - 1e-9
        assert best.certified.correct == held[clean >= plan.floor * 60 - 1e-9].max()
    if "lose" in wish:
        assert plan.floor == pytest.approx(plan.standard.accuracy - 0.03)
    plain = {one.family: one.certified.correct for one in plan.choices}
    assert best.certified.correct >= max(plain.get("votes, g as it is", 0), plain.get("votes, g one-hot", 0))
    for front in plan.fronts:
        assert (
            list(front.clean) == sorted(front.clean)
            and list(front.certified) == sorted(front.certified)[::-1]
        )


def test_figures_on_other_inputs_are_of_halves_that_did_not_choose():
    """Candidates of pure chance: the best of many looks good where it was chosen, and like any elsewhere."""
    rng = np.random.default_rng(0)
    inputs, many = 200, 40
    labels = rng.integers(0, 2, inputs)
    right = rng.random((many, inputs)) < 0.5
    shares = np.where((right == (labels == 0))[..., None], [[1.0, 0.0]], [[0.0, 1.0]])
    margins = np.ones((many, inputs))
    from certmix.studies import tune_plan

    family = Family("chance", shares, margins, (0.0,) * many, ("one",) * many, (0.0,))
    standard = np.full((inputs, 2), 0.5)
    held, clean = family.counts(standard, labels)
    ends = tune_plan.Ends(0.5, 0.5, 0.5)
    best = tune_plan._best(held, clean, 0.0, inputs, ends)
    assert best is not None and held[best] > 0.55 * inputs
    seen = tune_plan._on_others(family, standard, labels, 0.0, ends)
    assert seen is not None and abs(seen[0] - 0.5) < 0.05


def test_two_wishes_and_wishes_beyond_reach_are_refused():
    with pytest.raises(ParameterError, match="give one"):
        TuneRequest(0.5, 0.25, clean_accuracy=0.8, lose=3.0)
    with pytest.raises(ParameterError, match="ask for less"):
        plan_tuned(changed(drawn(), standard=-drawn().standard), ASKED.replace(clean_accuracy=1.0))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A tuning run on half of the points, and options whose data are the other half."""
    folder = tmp_path_factory.mktemp("tuned")
    named = sources(folder)
    held = np.load(named["data"])
    for name, part in (("tuning", slice(0, 6)), ("rest", slice(6, 12))):
        np.savez(
            folder / f"{name}.npz",
            inputs=held["inputs"][part],
            labels=held["labels"][part],
            class_names=list("abc"),
        )
    request = TuneRequest(0.25, 0.05, noisy_samples=40, grid="none")
    where = Surroundings(output=folder / "tune", device="cpu")
    tune(request, Sources(**{**named, "data": str(folder / "tuning.npz")}), where)
    return folder, {**named, "data": str(folder / "rest.npz")}


def certify(named: dict[str, str], **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return certmix.certify(sigma=0.25, alpha=0.76, samples=200, device="cpu", **named, **options)


def test_a_file_says_what_was_chosen_and_certify_takes_it(tuned):
    folder, named = tuned
    file = folder / "tune" / "tuned.toml"
    found = read_tuned(file)
    assert found.sigma == 0.25 and len(found.inputs) == 6
    row = certify(named, tuned=file).summary.rows[-1]
    assert (row.classifier, row.gate, row.alpha) == ("gated", found.gate, found.alpha)
    assert row.standard_temperature == found.standard_temperature
    assert certify(named, tuned=found.text).summary.rows[-1] == row
    assert certify(named, tuned="none").summary.rows[-1].classifier == "mixed"
    assert certify(named).summary.rows[-1].classifier == "mixed", "no plan is shipped for these"


def test_inputs_that_were_tuned_on_are_refused(tuned):
    folder, named = tuned
    file = folder / "tune" / "tuned.toml"
    for data in ("tuning.npz", "points.npz"):
        with pytest.raises(ParameterError, match="was tuned on 6 of"):
            certify({**named, "data": str(folder / data)}, tuned=file)
    with pytest.raises(ParameterError, match="tuned for sigma 0.25, not 0.5"):
        certmix.certify(sigma=0.5, alpha=0.76, tuned=file, device="cpu", **named)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        slow = {**named, "standard": f"{folder / 'nets.py'}:Slow"}
        certmix.certify(sigma=0.25, alpha=0.76, samples=100, tuned=file, device="cpu", **slow)
    assert any("tuned for another standard model" in str(one.message) for one in told)


@pytest.mark.parametrize("content", ["", "sigma = 0.5", "sigma = [", "\x00", "gate = 7\nsigma = 0.5"])
def test_what_is_no_file_of_tune_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "tuned.toml").write_text(content)
    for path in (tmp_path / "tuned.toml", tmp_path / "missing.toml", tmp_path):
        with pytest.raises(RunError, match="no file of certmix tune"):
            read_tuned(path)


def test_the_table_is_made_again_from_the_run(tuned):
    folder, _ = tuned
    table = show_study(folder / "tune")
    assert table.name == "tune" and {row[0] for row in table.rows} >= {GATED, "g alone"}
    assert "certmix certify --sigma 0.25" in " ".join(table.notes)
    assert (folder / "tune" / "front.svg").read_text().startswith("<?xml")


def shipped(data: str) -> Loaded:
    from certmix.runs.sources import load_sources

    return load_sources(Sources(data=data), 0.5, __import__("torch").device("cpu"), lambda message: None)


def test_the_shipped_pair_brings_its_plan_but_not_to_the_inputs_it_was_chosen_on():
    request, said = CertifyRequest(0.5, 0.76, inputs=3), []
    loaded = shipped("cifar10-sample")
    plan = loaded.robust.card.tuned
    assert plan is not None and plan.data == "cifar10-tuning"
    found = resolve_tuned(request, loaded, np.arange(3), said.append)
    assert (
        found.rows()[-1] == ("gated", "exact", plan.alpha, plan.gate, plan.standard_temperature) and not said
    )
    for other in (
        request.replace(sigma=0.25),
        CertifyRequest(None, 0.76, inputs=3, noise="laplace", scale=0.5),
    ):
        assert resolve_tuned(other, loaded, np.arange(3), said.append) == other, "it was not tuned for this"
    held = changed(loaded, dataset=load("cifar10-tuning"))
    assert resolve_tuned(request, held, np.arange(3), said.append) == request
    assert "tuned on 3 of these inputs" in said[0]
    assert resolve_tuned(request.replace(tuned="none"), loaded, np.arange(3), said.append).tuned == "none"
    own = input_digests(load("cifar10-tuning"), np.arange(500))
    assert not set(own) & set(input_digests(load("cifar10-sample"), np.arange(500)))
