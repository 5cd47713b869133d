"""MixedNUTS from the command line on points of the plane: fit, load, attack, evaluate."""

import json

import numpy as np
import pytest
import torch

from certmix.data import load
from certmix.errors import DataError, ParameterError
from certmix.models.spec import load_model
from certmix.nuts.folder import load_nuts
from certmix.runs.attack_request import AttackRequest
from certmix.runs.sources import Sources
from certmix.studies.nuts_evaluate import nuts_evaluate, paired_change, right_at
from certmix.studies.nuts_fit import (
    CachedLogits,
    FitChoices,
    fit_cached,
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


@pytest.fixture
def planted(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    inputs = (0.05 + 0.9 * np.random.default_rng(5).random((90, 2))).astype(np.float32)
    centred = inputs - 0.5
    labels = np.where(
        np.abs(centred[:, 0]) > np.abs(centred[:, 1]),
        np.where(centred[:, 0] > 0, 0, 1),
        np.where(centred[:, 1] > 0, 2, 3),
    )
    np.savez(tmp_path / "points.npz", inputs=inputs, labels=labels, class_names=list("abcd"))
    return tmp_path


def sources(folder):
    return Sources(
        data=str(folder / "points.npz"),
        standard=f"{folder / 'nets.py'}:accurate",
        robust=f"{folder / 'nets.py'}:robust",
    )


def request(**changes):
    return AttackRequest(**{"attack": "apgd-ce", "eps": 0.03, "steps": 5, "images": 40, **changes})


def fitted(folder, **changes):
    choices = FitChoices(**{"beta": 0.9, "grid": GRID, **changes})
    return nuts_fit(request(), sources(folder), Surroundings(output=folder / "mix"), choices=choices)


def test_a_fit_is_a_folder_that_models_load_from(planted):
    done = fitted(planted)
    found = done.data
    assert found.fit.constraint_share >= 0.9
    loaded = load_nuts(planted / "mix")
    assert loaded.settings == found.settings
    assert set(loaded.tuning.indices) == set(found.logits.indices.tolist())
    mixture = load_model(f"nuts:{planted / 'mix'}").module
    inputs = torch.rand(7, 2)
    assert mixture(inputs).shape == (7, 4) and mixture(inputs).isfinite().all()
    names = {path.name for path in (planted / "mix").iterdir()}
    assert {"nuts.json", "logits.npz", "nuts-fit.csv", "nuts-fit.json", "run.json"} <= names


def test_another_beta_needs_no_new_margins(planted):
    fitted(planted)
    seen = []
    where = Surroundings(output=planted / "mix", progress=lambda p: seen.append(p.cell))
    before = read_logits(planted / "mix" / "logits.npz")
    again = nuts_fit(request(), sources(planted), where, choices=FitChoices(beta=0.6, grid=GRID)).data
    assert np.array_equal(again.logits.attacked, before.attacked)
    alone = fit_file(planted / "mix" / "logits.npz", FitChoices(beta=0.6, grid=GRID)).data
    assert alone.settings == again.settings
    assert (
        again.fit.margin_threshold
        >= fit_cached(before, FitChoices(beta=0.9, grid=GRID)).fit.margin_threshold - 1
    )


def test_margins_are_the_smallest_seen_and_never_above_the_clean_ones(planted):
    logits = fitted(planted).data.logits

    def margin(z):
        z = z - z.mean(1, keepdims=True)
        z = z / np.sqrt(z.var(1, ddof=1, keepdims=True) + 1e-8)
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        rows = np.arange(len(p))
        own = p[rows, logits.labels]
        p = p.copy()
        p[rows, logits.labels] = -1
        return own - p.max(1)

    assert (margin(logits.attacked) <= margin(logits.robust) + 1e-9).all()
    right = logits.robust.argmax(1) == logits.labels
    assert (margin(logits.attacked) < margin(logits.robust) - 1e-6)[right].all()


def test_an_evaluation_leaves_the_tuning_images_out(planted):
    tuned = set(fitted(planted).data.logits.indices.tolist())
    done = nuts_evaluate(
        planted / "mix", request(images="all"), sources(planted), Surroundings(output=planted / "eval"),
        plain_alphas=[0.6, 0.9], queries=20, sweep_images=10,
    )  # fmt: skip
    rows = (planted / "eval" / "images.tsv").read_text().splitlines()[1:]
    indices = {int(row.split("\t")[0]) for row in rows}
    assert not indices & tuned and len(indices) == 90 - len(tuned)
    assert [row[0] for row in done.table.rows] == [
        "standard (g)",
        "robust (h)",
        "plain mix, alpha 0.6",
        "plain mix, alpha 0.9",
        "MixedNUTS",
    ]
    assert all(row[2].correct <= row[1].correct for row in done.table.rows)
    assert done.table.rows[1][3].value in (0.0, None)
    attacked, extra = done.table.rows[-1][2], done.table.extra
    assert sum(extra["broken_by"].values()) == attacked.images - attacked.correct
    assert set(extra["r_d_sweep"]) == {"0", "0.3", "0.6", "0.9"} and done.complete
    assert render(show_study(planted / "eval"), "json") == render(done.table, "json")
    assert render(show_study(planted / "mix"), "json") == render(fitted(planted).table, "json")


def test_the_robust_classifier_is_judged_like_its_closed_form(planted):
    fitted(planted)
    done = nuts_evaluate(
        planted / "mix", request(images="all", steps=20), sources(planted), Surroundings(in_memory=True),
        plain_alphas=[0.9], queries=10, sweep_images=5, r_d_sweep=[0.9],
    )  # fmt: skip
    dataset = load(str(planted / "points.npz"))
    tuned = load_nuts(planted / "mix").tuning.indices
    rows = [k for k in range(len(dataset)) if dataset.indices[k] not in tuned]
    net = load_model(f"{planted / 'nets.py'}:robust").module
    weights, bias = net.weight.double().numpy(), net.bias.double().numpy()
    held = 0
    for k in rows:
        x, y = dataset.read(k).astype(np.float64), dataset.labels[k]
        gaps = [
            (weights[y] - weights[i]) @ x + bias[y] - bias[i] - 0.03 * np.abs(weights[y] - weights[i]).sum()
            for i in range(4) if i != y
        ]  # fmt: skip
        held += min(gaps) > 0
    assert done.table.rows[1][2].correct == held


def test_rows_that_were_not_attacked_count_as_right():
    base = np.array([[0.0, 1.0, 5.0, 1.0], [np.nan] * 4, [0.0, 1.0, 1.0, 5.0]])
    assert right_at(lambda g, h: h, base, np.array([0, 0, 0])).tolist() == [True, True, False]


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


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({}, "lacks"),
        ({"standard": np.zeros((3, 2)), "robust": np.zeros((3, 2)), "attacked": np.zeros((2, 2)),
          "labels": np.zeros(3, int), "indices": np.arange(3)}, "attacked must be finite logits"),
        ({"standard": np.zeros((3, 2)), "robust": np.full((3, 2), np.nan), "attacked": np.zeros((3, 2)),
          "labels": np.zeros(3, int), "indices": np.arange(3)}, "robust must be finite logits"),
        ({"standard": np.zeros((3, 2)), "robust": np.zeros((3, 2)), "attacked": np.zeros((3, 2)),
          "labels": np.zeros(3), "indices": np.arange(3)}, "labels must be whole numbers"),
    ],
)  # fmt: skip
def test_cached_logits_are_checked(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_logits(tmp_path / "x.npz")


def test_logits_come_back_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    cached = CachedLogits(*rng.normal(size=(3, 5, 4)), rng.integers(0, 4, 5), np.arange(5) * 7)
    write_logits(tmp_path / "x.npz", cached)
    again = read_logits(tmp_path / "x.npz")
    assert all(np.array_equal(getattr(again, key), getattr(cached, key)) for key in vars(cached))
    assert again.take(np.array([2, 0])).indices.tolist() == [14, 0]


def options(folder):
    pair = ("--standard", f"{folder / 'nets.py'}:accurate", "--robust", f"{folder / 'nets.py'}:robust")
    return ("--data", folder / "points.npz", *pair, "--eps", "0.03", "--steps", 3)


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("--clamp", "relu", "--quantile", "linear", "--rival", "second"),
        ("--clamp", "elu", "--conditional", "--temperature", "0.5", "--r-d", "0.5"),
        ("--clamp", "softplus", "--preset", "cifar100", "--temperature", "1", "--copy-weights"),
        ("--clamp", "linear", "--preset", "imagenet", "--norm", "l2"),
        ("--gradient-free", "--restarts", 2, "--precision", "bf16", "--batch-size", 7, "--seed", 3),
        ("--full-strength", "--fresh", "--device", "cpu", "--format", "json", "--output", "elsewhere"),
    ],
)
def test_every_option_of_fit_works(command, planted, extra):
    done = command("nuts", "fit", *options(planted), "--images", 30, "--beta", "0.8", *extra)
    assert done.code == 0, done.err
    assert "alpha" in done.out


def test_every_option_of_evaluate_works(command, planted):
    assert (
        command("nuts", "fit", *options(planted), "--images", 30, "--beta", "0.8", "--output", "mix").code
        == 0
    )
    done = command(
        "nuts", "evaluate", "mix", "--data", planted / "points.npz", "--eps", "0.03", "--steps", 3, "--images", 20,
        "--plain-alphas", "0.7", "--targets", 2, "--queries", 5, "--r-d-sweep", "0,0.9", "--sweep-images", 5,
        "--precision", "bf16", "--restarts", 1, "--batch-size", 9, "--seed", 1, "--device", "cpu", "--norm", "l2",
        "--output", "eval", "--fresh", "--format", "json",
    )  # fmt: skip
    assert done.code == 0, done.err
    table = json.loads(done.out)
    assert [row["classifier"] for row in table["rows"]][-1] == "MixedNUTS"
    for suffix in ("", "#bypass", "#robust"):
        attacked = command(
            "attack", "--data", planted / "points.npz", "--robust", f"nuts:mix{suffix}", "--eps", "0.03", "--images", 10,
            "--attack", "apgd-ce", "--steps", 3,
        )  # fmt: skip
        assert attacked.code == 0, attacked.err
    logits = command("nuts", "fit", "--logits", "mix/logits.npz", "--beta", "0.7", "--format", "csv")
    assert logits.code == 0 and "alpha," in logits.out, logits.err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("nuts", "fit", "--beta", "1.5"), "beta"),
        (("nuts", "fit", "--grid", "s=1"), "grid"),
        (("nuts", "fit", "--logits", "nothing.npz"), "nothing.npz"),
        (("nuts", "fit", "--temperature", "-1"), "temperature"),
    ],
)
def test_mistakes_in_nuts_commands_are_one_line(command, planted, arguments, message):
    more = () if "--logits" in arguments else (*options(planted), "--images", 20)
    done = command(*arguments, *more)
    assert done.code == 2 and message in done.err, done.err
    assert len(done.err.strip().splitlines()) <= 4


def test_an_evaluation_on_tuning_images_alone_is_refused(planted):
    nuts_fit(
        request(images="all"),
        sources(planted),
        Surroundings(output=planted / "mix"),
        choices=FitChoices(beta=0.5, grid=GRID),
    )
    with pytest.raises(DataError, match="used for tuning"):
        nuts_evaluate(planted / "mix", request(), sources(planted), Surroundings(in_memory=True))
    with pytest.raises(ParameterError, match="suite"):
        nuts_evaluate(
            planted / "mix", request(attack="square"), sources(planted), Surroundings(in_memory=True)
        )


def test_a_ball_alone_is_a_request_and_changes_are_called_changes(planted):
    """The attack is the studies' own; a change of 100 % is twice as many errors, and no error rate."""
    ball = AttackRequest(norm="l2", eps=0.05, images=40)
    fitted_ = nuts_fit(
        ball, sources(planted), Surroundings(output=planted / "mix"), choices=FitChoices(beta=0.9, grid=GRID)
    )
    assert "apgd-ce (50 steps), l2 eps 0.05" in fitted_.table.settings
    assert load_nuts(planted / "mix").tuning.attack["attack"] == "apgd-ce"
    done = nuts_evaluate(
        planted / "mix", AttackRequest(norm="l2", eps=0.25, images=30), sources(planted),
        Surroundings(in_memory=True), plain_alphas=[0.9], targets=1, queries=5, r_d_sweep=[0.9], sweep_images=5,
    )  # fmt: skip
    assert "apgd-ce (20 steps), l2 eps 0.25" in done.table.settings
    about_errors = [heading for heading in done.table.headings if "error" in heading]
    assert about_errors == ["change of clean error (%)", "change of attacked error (%)"]
    wrong = {row[0]: row[2].images - row[2].correct for row in done.table.rows}
    for row in done.table.rows:
        change = row[done.table.headings.index(about_errors[1])].value
        assert change == pytest.approx(100 * wrong[row[0]] / wrong["robust (h)"] - 100)
