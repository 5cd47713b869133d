"""MixedNUTS from the command line on points of the plane: fit, load, attack, evaluate."""

import numpy as np
import pytest
import torch

from certmix.data import load
from certmix.errors import DataError, ParameterError
from certmix.models.spec import load_model
from certmix.nuts.folder import load_nuts
from certmix.runs.attack_request import AttackRequest
from certmix.runs.sources import Sources
from certmix.studies import nuts_fit as nuts_fit_module
from certmix.studies.nuts_ablations import nuts_study
from certmix.studies.nuts_cached import Rule, judge, read_inputs
from certmix.studies.nuts_evaluate import nuts_evaluate, paired_change
from certmix.studies.nuts_fit import (
    CachedLogits,
    FitChoices,
    fit_file,
    nuts_fit,
    read_logits,
    write_logits,
)
from certmix.studies.study import Surroundings, show_study
from certmix.tables.formats import render

NETS = """
import torch
from torch import nn


def line(weights, bias):
    net = nn.Linear(2, 4)
    with torch.no_grad():
        net.weight.copy_(torch.tensor(weights))
        net.bias.copy_(torch.tensor(bias))
    return net


def accurate():
    return line([[9.0, 0.0], [-9.0, 0.0], [0.0, 9.0], [0.0, -9.0]], [-4.5, 4.5, -4.5, 4.5])


def robust():
    return line([[2.0, 0.4], [-2.0, 0.3], [0.2, 2.0], [0.1, -2.0]], [-1.0, 1.0, -1.1, 1.2])
"""
GRID = "s=0.5:8:3,p=1:3:2,c=-1:0:3"


def points(folder):
    (folder / "nets.py").write_text(NETS)
    inputs = (0.05 + 0.9 * np.random.default_rng(5).random((90, 2))).astype(np.float32)
    x, y = (inputs - 0.5).T
    labels = np.where(np.abs(x) > np.abs(y), np.where(x > 0, 0, 1), np.where(y > 0, 2, 3))
    np.savez(folder / "points.npz", inputs=inputs, labels=labels, class_names=list("abcd"))
    return folder


@pytest.fixture
def planted(tmp_path):
    return points(tmp_path)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder with a fitted mix, and what the fit returned."""
    folder = points(tmp_path_factory.mktemp("mixed"))
    return folder, fitted(folder)


def sources(folder):
    nets = folder / "nets.py"
    named = {"standard": f"{nets}:accurate", "robust": f"{nets}:robust"}
    return Sources(data=str(folder / "points.npz"), **named, run_code=True)


def request(**changes):
    return AttackRequest(**{"attack": "apgd-ce", "eps": 0.03, "steps": 5, "inputs": 40, **changes})


def fitted(folder, asked=None, **changes):
    choices = FitChoices(**{"beta": 0.9, "grid": GRID, **changes})
    return nuts_fit(asked or request(), sources(folder), Surroundings(output=folder / "mix"), choices=choices)


def test_a_fit_is_a_folder_that_models_load_from(mixed):
    folder, found = mixed[0], mixed[1].data
    assert found.fit.constraint_share >= 0.9
    loaded = load_nuts(folder / "mix", run_code=True)
    assert loaded.settings == found.settings
    assert set(loaded.tuning.indices) == set(found.logits.indices.tolist())
    mixture = load_model(f"nuts:{folder / 'mix'}", run_code=True).module
    assert mixture(torch.rand(7, 2)).shape == (7, 4)
    names = {path.name for path in (folder / "mix").iterdir()}
    assert {"nuts.json", "logits.npz", "nuts-fit.csv", "nuts-fit.json", "run.json"} <= names
    assert render(show_study(folder / "mix"), "json") == render(mixed[1].table, "json")


def test_another_beta_needs_no_new_margins(planted, monkeypatch):
    first = fitted(planted, request(inputs=10)).data
    monkeypatch.setattr(nuts_fit_module, "minimum_margin", lambda *a, **k: pytest.fail("attacked again"))
    again = fitted(planted, request(inputs=10), beta=0.6).data
    assert np.array_equal(again.logits.attacked, first.logits.attacked)
    alone = fit_file(planted / "mix" / "logits.npz", FitChoices(beta=0.6, grid=GRID)).data
    assert alone.settings == again.settings


def test_margins_are_the_smallest_seen_and_below_the_clean_ones(mixed):
    logits = mixed[1].data.logits

    def margin(z):
        z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, ddof=1, keepdims=True) + 1e-8)
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        rows = np.arange(len(p))
        own = p[rows, logits.labels].copy()
        p[rows, logits.labels] = -1
        return own - p.max(1)

    assert (margin(logits.attacked) <= margin(logits.robust) + 1e-9).all()
    right = logits.robust.argmax(1) == logits.labels
    assert (margin(logits.attacked) < margin(logits.robust) - 1e-6)[right].all()


def test_an_evaluation_leaves_the_tuning_inputs_out_and_judges_as_in_closed_form(mixed):
    folder, tuned = mixed[0], set(mixed[1].data.logits.indices.tolist())
    done = nuts_evaluate(
        folder / "mix", request(inputs="all", steps=10), sources(folder), Surroundings(output=folder / "eval"),
        plain_alphas=[0.7], queries=20, sweep_inputs=10,
    )  # fmt: skip
    lines = (folder / "eval" / "inputs.tsv").read_text().splitlines()[1:]
    indices = {int(line.split("\t")[0]) for line in lines}
    assert not indices & tuned and len(indices) == 90 - len(tuned)
    table = done.table
    assert table.column(0) == ("standard (g)", "robust (h)", "plain mix, alpha 0.7", "MixedNUTS")
    assert all(row[2].correct <= row[1].correct for row in table.rows)
    assert sum(table.extra["broken_by"].values()) == table.rows[-1][2].inputs - table.rows[-1][2].correct
    assert set(table.extra["r_d_sweep"]) == {"0", "0.3", "0.6", "0.9"} and done.complete
    assert render(show_study(folder / "eval"), "json") == render(table, "json")
    # a change is one of errors: 100 % is twice as many
    wrong = [row[2].inputs - row[2].correct for row in table.rows]
    assert table.headings[5] == "change of attacked error (%)"
    assert [row[5].value for row in table.rows] == pytest.approx(
        [100 * one / wrong[1] - 100 for one in wrong]
    )
    # the robust model is linear: it holds where each gap exceeds eps times the l1 norm of the slopes
    dataset, net = load(str(folder / "points.npz")), load_model(f"{folder / 'nets.py'}:robust").module
    weights, bias = net.weight.double().detach().numpy(), net.bias.double().detach().numpy()
    held = 0
    for k in [k for k in range(len(dataset)) if dataset.indices[k] not in tuned]:
        x, y = dataset.read(k).astype(np.float64), dataset.labels[k]
        gaps = [
            (weights[y] - weights[i]) @ x + bias[y] - bias[i] - 0.03 * np.abs(weights[y] - weights[i]).sum()
            for i in range(4) if i != y
        ]  # fmt: skip
        held += min(gaps) > 0
    assert table.rows[1][2].correct == held
    # studies of cached results judge its points as it does
    inputs = read_inputs([folder / "mix", folder / "eval"])
    rules = (Rule(0.0), Rule(1.0), Rule(0.7), Rule.of(inputs.fit.fitted.settings))
    judged = [judge(rule, inputs.fit.logits, inputs.points)[2] for rule in rules]
    assert judged == list(table.column(2)) and 0 < judged[-1].correct < 50
    assert nuts_study("cost", [folder / "mix"], run_code=True).table.extra["flops"]["robust"] == 16


def test_rows_that_were_not_attacked_count_as_right():
    base = np.array([[0.0, 1.0, 5.0, 1.0], [np.nan] * 4, [0.0, 1.0, 1.0, 5.0]])
    assert Rule(1.0).right(base, np.array([0, 0, 0])).tolist() == [True, True, False]


def test_paired_changes_cover_the_truth_and_know_when_nothing_changes():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(60):
        draw = rng.choice(4, size=500, p=[0.15, 0.03, 0.10, 0.72])
        change = paired_change((draw == 0) | (draw == 1), (draw == 0) | (draw == 2))
        inside += change[1] <= 100 * (0.18 / 0.25 - 1) <= change[2]
    assert inside >= 51  # 95 % of 60 is 57; fewer than 51 has probability 0.4 %
    assert paired_change([True, False, True], [True, False, True]) == (0.0, 0.0, 0.0)
    assert paired_change([True, False], [False, False]) is None


def test_cached_logits_are_checked(tmp_path):
    good = {key: np.zeros((3, 2)) for key in ("standard", "robust", "attacked")}
    good |= {"labels": np.zeros(3, int), "indices": np.arange(3)}
    for change, message in (
        ({"attacked": np.zeros((2, 2))}, "attacked must be finite logits"),
        ({"robust": np.full((3, 2), np.nan)}, "robust must be finite logits"),
        ({"standard": np.zeros((3, 2), int)}, "standard must be finite logits"),
        ({"labels": np.zeros(3)}, "labels must be whole numbers"),
        ({"labels": np.full(3, 2)}, r"labels must be whole numbers in 0..1"),
        ({"indices": np.full(3, -1)}, "indices must be whole numbers"),
    ):
        np.savez(tmp_path / "x.npz", **{**good, **change})
        with pytest.raises(DataError, match=message):
            read_logits(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz")
    with pytest.raises(DataError, match="lacks 'standard'"):
        read_logits(tmp_path / "x.npz")


def test_logits_come_back_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    cached = CachedLogits(*rng.normal(size=(3, 5, 4)), rng.integers(0, 4, 5), np.arange(5) * 7)
    write_logits(tmp_path / "x.npz", cached)
    again = read_logits(tmp_path / "x.npz")
    assert all(np.array_equal(getattr(again, key), getattr(cached, key)) for key in vars(cached))
    assert again.take(np.array([2, 0])).indices.tolist() == [14, 0]


@pytest.mark.parametrize(
    "changes, attack",
    [
        ({"clamp": "relu", "quantile": "linear", "rival": "second"}, {}),
        ({"conditional": True, "standard_temperature": 0.5, "r_d": 0.5, "early_stop": False}, {"norm": "l2"}),
        ({"preset": "imagenet", "copy_weights": True}, {}),
        ({"gradient_free": True}, {"restarts": 2, "precision": "bf16", "batch_size": 7}),
    ],
)
def test_choices_of_a_fit(planted, changes, attack):
    asked = request(inputs=20, **{"steps": 3, **attack})
    done = fitted(planted, asked, beta=0.7, **changes)
    assert done.data.settings == load_nuts(planted / "mix", run_code=True).settings and done.complete


def test_an_evaluation_on_tuning_inputs_alone_is_refused(planted):
    fitted(planted, request(inputs="all", steps=1), beta=0.5)
    for asked, error, message in (
        (request(), DataError, "used for tuning"), (request(attack="square"), ParameterError, "suite")
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            nuts_evaluate(planted / "mix", asked, sources(planted), Surroundings(in_memory=True))
