"""Certified MixedNUTS: kernels against numpy, the choice against brute force, runs on points of the plane."""

from types import SimpleNamespace

import numpy as np
import pytest
from planes import plane, points
from scipy.stats import norm

import certmix
from certmix.bounds import bound_scores
from certmix.bounds.statistics import plan, start, update
from certmix.data import restrict, spread
from certmix.errors import DataError, ModelError, ParameterError
from certmix.nuts.folder import load_nuts
from certmix.nuts.grid import Grid, TransformSettings
from certmix.nuts.margins import softmax_numpy, transform_numpy
from certmix.runs.sources import Sources
from certmix.sampling.noise import NoiseKey
from certmix.studies import nuts_certified as study
from certmix.studies import nuts_certified_plan as certified
from certmix.studies.nuts_certified import nuts_certified, tuning_seed
from certmix.studies.nuts_certified_plan import (
    ALPHAS,
    PLANNED_BOUNDS,
    NoisyLogits,
    ScoreSums,
    choose,
    grid_sums,
    planned_margins,
    score_sums,
)
from certmix.studies.nuts_choices import CertifiedRequest
from certmix.studies.study import Surroundings, show_study
from certmix.tables.formats import render
from certmix.types import CertifiedShare

HOW = ("transform", "soft", "betting")
GRID = Grid(s=(0.5, 20.0), p=(1.0, 2.5, 4.0), c=(-1.0, 0.2))


def noisy(rng, inputs=5, samples=7, classes=4):
    return rng.normal(size=(inputs, samples, classes)) * 3


@pytest.mark.parametrize("clamp", ["gelu", "relu", "linear"])
def test_sums_on_the_grid_are_those_of_each_transform(clamp):
    logits = noisy(np.random.default_rng(0))
    found = grid_sums(logits, GRID, clamp=clamp, top_k=3)
    for k, (i, j, h) in enumerate(np.ndindex(GRID.shape)):
        own = TransformSettings(GRID.s[i], GRID.p[j], GRID.c[h], clamp, 3)
        scores = softmax_numpy(transform_numpy(logits.reshape(-1, 4), own)).reshape(logits.shape)
        np.testing.assert_allclose(found.totals[k], scores.sum(1), rtol=1e-12)
        np.testing.assert_allclose(found.squares[k], (scores**2).sum(1), rtol=1e-12)
    assert found.samples == 7
    np.testing.assert_allclose(found.means.sum(-1), 1.0)


def test_the_order_of_inputs_changes_nothing():
    logits = noisy(np.random.default_rng(1))
    assert np.array_equal(grid_sums(logits[::-1], GRID).totals, grid_sums(logits, GRID).totals[:, ::-1])


def test_a_steep_transform_all_but_counts_votes():
    logits = noisy(np.random.default_rng(2))
    votes = score_sums(logits, lambda z: np.eye(4)[z.argmax(-1)])
    steep = grid_sums(logits, Grid((1e6,), (1.0,), (0.0,)), clamp="linear")
    np.testing.assert_allclose(steep.means, votes.means, atol=1e-6)


def brute_force(margins, robust, standard, labels, floor, alphas):
    """Every candidate at every alpha, input by input; the best under the documented order."""
    found = []
    for k in range(len(robust)):
        for alpha in alphas:
            clean = certified = 0
            for i, y in enumerate(labels):
                mixed = [(1 - alpha) * g + alpha * h for g, h in zip(standard[i], robust[k, i], strict=True)]
                clean += mixed.index(max(mixed)) == y
                certified += robust[k, i].argmax() == y and margins[k, i] > (1 - alpha) / alpha
            if clean / len(labels) >= floor - 1e-12:
                found.append((certified, clean, alpha, -k))
    return max(found) if found else None


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_is_the_brute_force_optimum(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    inputs, classes, candidates = int(rng.integers(1, 7)), int(rng.integers(2, 5)), int(rng.integers(1, 6))
    robust = rng.dirichlet(np.full(classes, 0.5), (candidates, inputs))
    standard = rng.dirichlet(np.full(classes, 0.4), inputs)
    if seed % 3 == 0:  # ties
        robust, standard = np.round(robust * 4) / 4, np.round(standard * 2) / 2
    margins = np.sort(robust, -1)[..., -1] - 0.3
    labels = rng.integers(0, classes, inputs)
    floor, alphas = float(rng.choice([0.0, 0.3, 0.5, 2 / 3, 1.0])), (0.55, 0.7, 0.8, 0.95, 1.0)
    monkeypatch.setattr(certified, "ALPHAS", alphas)
    wanted = brute_force(margins, robust, standard, labels, floor, alphas)
    found = choose(HOW, margins, robust, standard, labels, floor)
    if wanted is None:
        assert found is None
    else:
        assert found is not None
        assert (found.certified.correct, found.clean.correct, found.alpha, -found.candidate) == wanted


def test_ties_count_candidates_not_alphas():
    robust = np.array([[[0.9, 0.1]]] * 3 + [[[0.4, 0.6]]])
    margins = np.array([[0.7], [0.8], [0.7], [0.2]])
    found = choose(HOW, margins, robust, np.array([[0.5, 0.5]]), np.array([0]), 1.0)
    assert (found.candidate, found.ties, found.alpha) == (0, 3, 1.0)
    assert (found.certified.correct, found.clean.correct) == (1, 1)


def test_alphas_lie_where_certificates_exist():
    assert ALPHAS[0] > 0.5 and ALPHAS[-1] == 1.0 and np.all(np.diff(ALPHAS) > 0)


def test_logits_must_fit_together():
    rng = np.random.default_rng(0)
    good = {
        "standard": rng.normal(size=(3, 4)), "noisy": rng.normal(size=(3, 5, 4)),
        "labels": np.array([0, 3, 1]), "indices": np.arange(3),
    }  # fmt: skip
    assert len(NoisyLogits(**good).labels) == 3
    for change, message in (
        ({"standard": rng.normal(size=(3, 5))}, "noisy logits have shape"),
        ({"noisy": rng.normal(size=(3, 20))}, "noisy logits have shape"),
        ({"labels": np.array([0, 4, 1])}, "labels run"),
        ({"noisy": np.full((3, 5, 4), np.nan)}, "not within"),
    ):
        with pytest.raises(DataError, match=message):
            NoisyLogits(**{**good, **change})


def test_a_grid_beyond_memory_is_refused_before_it_is_tried():
    large = Grid(tuple(range(1, 1001)), tuple(np.linspace(1, 4, 100)), tuple(np.linspace(-1, 0, 100)))
    with pytest.raises(ParameterError, match="smaller grid"):
        grid_sums(np.zeros((10, 1, 5)), large)
    with pytest.raises(ParameterError, match="clamp"):
        grid_sums(np.zeros((1, 1, 2)), GRID, clamp="tanh")


SIGMA, STUDIED = 0.5, "s=0.5:20:3,p=1:3:2,c=-1:0:2"
X = np.concatenate([np.linspace(-0.9, -0.1, 15), np.linspace(0.1, 0.9, 15)])
MEMORY = Surroundings(in_memory=True, say=lambda message: None)


def data():
    order = np.random.default_rng(3).permutation(len(X))
    x = X[order]
    return points(np.stack([x, np.zeros_like(x)], 1), (x < 0).astype(np.int64))


def asked(**changes):
    defaults = {
        "sigma": SIGMA, "at_radius": 0.2, "inputs": 10, "noisy_samples": 60, "certify_inputs": 12,
        "samples": 300, "grid": STUDIED, "clean_accuracy_floor": 0.8, "batch_size": 100,
    }  # fmt: skip
    return CertifiedRequest(**{**defaults, **changes})


def pair(**changes):
    net = plane([[3.0, 0.0], [-3.0, 0.0]])
    return Sources(**{"data": data(), "standard": net, "robust": net, **changes})


def height(settings):
    """Score of the likelier of two classes: LN of two logits is +1 and -1, whatever they are."""
    return float(softmax_numpy(transform_numpy(np.array([[1.0, -1.0]]), settings))[0, 0])


def test_radii_through_the_transform_never_exceed_the_truth():
    """h is a step of two heights along x, smoothed: h_y - h_i = (2a - 1)(2 Phi(x / sigma) - 1).

    No input is tuned on and certified, and the tuning noise is of its own.
    """
    found = nuts_certified(asked(certify_inputs="all"), pair(), MEMORY).data
    tuned = set(found.logits.indices.tolist())
    soft, hard = found.transform.evaluation.records, found.hard.evaluation.records
    for records in (soft, hard):
        certified = {record.index for record in records}
        assert not certified & tuned and certified | tuned == set(data().indices.tolist())
    assert [r.index for r in soft] == [r.index for r in hard]
    assert NoiseKey(tuning_seed(0), 10, "selection").words != NoiseKey(0, 10, "selection").words
    assert len({tuning_seed(0), tuning_seed(1), 0, 1}) == 4
    transform = found.settings.transform
    steepness = 2 * height(transform) - 1
    alpha = found.settings.alpha
    quantile = norm.ppf(0.5 + 0.5 * (1 - alpha) / alpha / steepness)
    values = {int(i): abs(float(data().read(k)[0])) for k, i in enumerate(data().indices)}
    evaluation = found.transform.evaluation
    radii = evaluation.radii[1].radius
    truth = np.array([values[record.index] - SIGMA * quantile for record in evaluation.records])
    assert np.all(radii <= np.maximum(truth, 0.0))
    assert radii.max() > 0.2
    assert found.transform.certified.correct == np.sum(radii >= 0.2)


def test_planned_figures_never_reach_a_certified_row(monkeypatch):
    """Even a plan that takes everything for certified leaves the certified figures to `certify`."""

    def everything(sums, **_):
        return np.ones(sums.totals.shape[:2])

    monkeypatch.setattr(certified, "planned_margins", everything)
    found = nuts_certified(asked(at_radius=0.6), pair(), MEMORY).data
    mostly = (found.logits.noisy.argmax(2) == found.logits.labels[:, None]).mean(1) > 0.5
    assert found.plan.transform.certified.correct == mostly.sum() >= 9
    for row in (found.transform, found.hard):
        result = row.evaluation
        radii = result.radii[1].radius
        right = np.array([record.selected == record.label for record in result.records])
        assert type(row.certified) is CertifiedShare
        assert row.certified.correct == np.sum(right & (radii >= 0.6)) < row.certified.inputs
        assert row.certified.accuracy == result.summary.rows[1].certified_accuracy[1]
    for planned in (found.plan.transform, found.plan.hard, found.plan.softmax):
        assert not isinstance(planned.certified, CertifiedShare)


@pytest.mark.parametrize("bound", ["betting", "betting-fixed", "bernstein", "relative-entropy", "hoeffding"])
@pytest.mark.parametrize("shape", [(8, 1), (0.5, 0.1), (2, 1.5)])
def test_plans_are_close_to_the_bounds_they_stand_for(bound, shape):
    scores = np.random.default_rng(0).beta(*shape, 3000)
    scores = np.stack([scores, 1 - scores], 1)
    sums = ScoreSums(scores.sum(0)[None, None], (scores**2).sum(0)[None, None], 3000)
    statistics = update(plan(update(start(2, 0), scores[:100])), scores)
    true = bound_scores([statistics], 0.001, bound)
    own = planned_margins(sums, bound=bound, samples=3000, failure_probability=0.001, distance=0.0)[0, 0]
    plain = 2 * scores[:, 0].mean() - 1
    width = plain - (true.p_lower[0] - true.q_upper[0])
    assert abs((plain - own) - width) < 0.15 * width
    assert set(PLANNED_BOUNDS) >= {bound}


def test_planned_votes_are_clopper_pearson_less_half_a_vote():
    votes = score_sums(np.eye(3)[np.array([[0] * 190 + [1] * 10])], lambda one_hot: one_hot)
    for bound, lead in (("clopper-pearson", 0.75), ("clopper-pearson-two-sided", 0.76)):
        margin = planned_margins(votes, bound=bound, samples=200, failure_probability=0.001, distance=0.0)
        true = certmix.bounds.bound_counts(np.array([[190, 10, 0]]), np.array([0]), 0.001, bound)
        assert margin[0, 0] == pytest.approx(true.p_lower[0] - true.q_upper[0], abs=0.02)
        assert margin[0, 0] < lead + 0.05


def test_a_folder_repeats_itself_and_another_radius_needs_no_new_logits(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(NETS)
    np.savez(
        tmp_path / "points.npz", inputs=0.5 + 0.5 * np.stack([X, 0 * X], 1).astype(np.float32), labels=(X < 0).astype(np.int64),
        class_names=list("ab"),
    )  # fmt: skip
    net = f"{tmp_path / 'nets.py'}:line"
    sources = Sources(data=str(tmp_path / "points.npz"), standard=net, robust=net)
    where = Surroundings(output=tmp_path / "mix", say=lambda message: None)
    request = asked(sigma=0.25, at_radius=0.1)
    first = nuts_certified(request, sources, where)
    loaded = load_nuts(tmp_path / "mix", run_code=True)
    assert loaded.settings == first.data.settings
    assert set(loaded.tuning.indices) == set(first.data.logits.indices.tolist())
    again = certmix.certify(
        sigma=0.25, alpha=loaded.settings.alpha, run_code=True, data=sources.data, robust=f"nuts:{tmp_path / 'mix'}#robust", standard=net,
        scores="soft", bound="betting-fixed", goal="fixed", samples=300, inputs="all", batch_size=100,
    )  # fmt: skip
    radii = {r.index: x for r, x in zip(again.records, again.evaluation.radii[1].radius, strict=True)}
    own = first.data.transform.evaluation
    for record, radius in zip(own.records, own.radii[1].radius, strict=True):
        assert radii[record.index] == radius

    def fail(*_):
        raise AssertionError("logits were drawn again")

    monkeypatch.setattr(study, "Sampler", lambda *_, **__: SimpleNamespace(logits=fail))
    repeated = nuts_certified(request, sources, where)
    assert render(repeated.table, "json") == render(first.table, "json")
    assert show_study(tmp_path / "mix") == first.table
    other = nuts_certified(asked(sigma=0.25, at_radius=0.3), sources, where)
    changed = other.data.settings.transform != first.data.settings.transform
    assert any("another --seed" in note for note in other.table.notes) == changed
    assert show_study(tmp_path / "mix") == other.table


NETS = """
import torch
from torch import nn


def line():
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[6.0, 0.0], [-6.0, 0.0]]))
        net.bias.copy_(torch.tensor([-3.0, 3.0]))
    return net
"""


@pytest.mark.parametrize(
    "change, message",
    [({"at_radius": -0.1}, "at radius"), ({"inputs": "all"}, "left to certify"), ({"noisy_samples": 1}, "noisy samples"),
     ({"clean_accuracy_floor": 1.2}, "clean accuracy floor"), ({"bound": "layers"}, "bound"), ({"grid": "s=1"}, "grid"),
     ({"sigma": 0.0}, "sigma"), ({"failure_probability": 1.0}, "failure probability"), ({"certify_inputs": 0}, "inputs")],
)  # fmt: skip
def test_requests_are_checked(change, message):
    with pytest.raises(ParameterError, match=message):
        asked(**change)


def test_nothing_left_to_certify_no_second_model_and_a_floor_out_of_reach():
    with pytest.raises(DataError, match="leave none"):
        nuts_certified(asked(inputs=30), pair(), MEMORY)
    with pytest.raises(ModelError, match="--standard"):
        nuts_certified(asked(), pair(standard=None), MEMORY)
    wrong = plane([[-3.0, 0.0], [3.0, 0.0]])
    with pytest.raises(ParameterError, match="lower --clean-accuracy-floor"):
        nuts_certified(asked(clean_accuracy_floor=1.0), pair(standard=wrong, robust=wrong), MEMORY)


def test_a_part_of_a_data_set_keeps_indices_and_has_a_checksum_of_its_own():
    whole = data()
    part = restrict(whole, np.array([4, 0, 7]))
    assert part.indices.tolist() == whole.indices[[4, 0, 7]].tolist() and len(part) == 3
    assert part.labels.tolist() == whole.labels[[4, 0, 7]].tolist()
    assert np.array_equal(part.read(0), whole.read(4)) and np.array_equal(part.read(2), whole.read(7))
    sums = {restrict(whole, chosen).checksum for chosen in ([4, 0, 7], [0, 4, 7], [4, 0], spread(30, 30))}
    assert len(sums | {whole.checksum}) == 5
    for wrong in ([0, 0], [30], [-1]):
        with pytest.raises(ParameterError, match="positions of points"):
            restrict(whole, wrong)
    assert len(restrict(whole, [])) == 0


CERTIFIED = ("--certified", "--at-radius", "0.1", "--sigma", "0.25")


@pytest.mark.parametrize(
    "extra, message",
    [
        (("--certified", "--sigma", "0.25"), "needs --at-radius"),
        (("--at-radius", "0.1"), "--at-radius needs --certified"),
        ((*CERTIFIED, "--beta", "0.95"), "--beta does not go"),
        ((*CERTIFIED, "--inputs", "all"), "left to certify"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(command, extra, message):
    done = command("nuts", "fit", *extra)
    assert done.code == 2 and message in done.err, done.err
    assert len(done.err.strip().splitlines()) == 1
