"""Studies of MixedNUTS from cached results: figures by loops and closed forms, folders by planted faults."""

from __future__ import annotations

import json
import math
from contextlib import closing

import numpy as np
import pytest
import torch
from plain_nuts import margins, softmax, transformed
from torch import nn

from certmix.errors import DataError, ParameterError, RunError
from certmix.nuts.description import MixSettings, ModelReference, NutsDescription
from certmix.nuts.folder import write_nuts
from certmix.nuts.grid import TransformSettings
from certmix.runs import Store
from certmix.studies.nuts_ablations import STUDIES, nuts_study
from certmix.studies.nuts_cached import (
    Rule,
    count_elements,
    count_flops,
    judge,
    read_inputs,
    withstands,
)
from certmix.studies.nuts_fit import CachedLogits
from certmix.types import AttackedAccuracy

GRID = "s=0.5:5:3,p=1:3:3,c=-1:0:3"
CLASSES = 5
JUDGING = ("beta", "clamp", "tuning-size", "standard-temperature")


def logits_of(inputs=160, seed=0, shift=0):
    """h is right on most inputs, less so and with smaller margins when attacked; g is right on nearly all."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, inputs)
    rows = np.arange(inputs)
    robust, standard = rng.normal(size=(2, inputs, CLASSES))
    robust[rows, labels] += 2.2
    standard[rows, labels] += 5.0
    attacked = robust.copy()
    attacked[rows, labels] -= rng.uniform(0.3, 1.8, inputs)
    return CachedLogits(standard, robust, attacked, labels, 10 * rows + shift)


def make_fit(folder, logits=None, **changes):
    own = logits_of() if logits is None else logits
    cells = {"clean": np.concatenate([own.standard, own.robust], 1), "minimum margin": own.attacked}
    stored(folder, cells, own.indices, own.labels, shown=tuple(cells))
    request = {"attack": "apgd-ce", "steps": 5, "eps": 0.03, "inputs": 160, "beta": 0.9, "grid": GRID}
    return described(folder, "nuts-fit", {**request, **changes})


def described(folder, study, request, **identity):
    known = {"data_checksum": "d", "standard_checksum": "g", "robust_checksum": "h", **identity}
    run = {
        "format_version": 2, "identity": {"study": study, **known}, "request": request,
        "data": {"name": "planted", "split": "test", "class_names": list("abcde")},
        "models": {"standard": {"name": "accurate"}, "robust": {"name": "steady"}},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def stored(folder, cells, indices, labels, shown=("clean", "STD"), **changes):
    """Keep cells and the inputs of a table."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"indices": np.asarray(indices).tolist(), "labels": np.asarray(labels).tolist(), "cells": shown}
    with closing(Store(folder / "numbers.sqlite")) as store:
        for name, vectors in cells.items():
            store.write(name, told["indices"], vectors)
        store.put("shown", json.dumps({**told, "blind": [], "complete": True, **changes}))


def make_evaluation(folder, inputs=30, shift=5, **identity):
    """Inputs whose indices end in 5 by default; one attack breaks h on the first ten inputs and g on the next ten."""
    labels = np.arange(inputs) % CLASSES
    indices = 10 * np.arange(inputs) + shift
    sure = 8.0 * np.eye(CLASSES)
    clean = np.concatenate([sure[labels], sure[labels]], 1)
    hit = clean.copy()
    hit[:10, CLASSES:] = sure[(labels[:10] + 1) % CLASSES]
    hit[10:20, :CLASSES] = sure[(labels[10:20] + 1) % CLASSES]
    hit[20:] = np.nan
    sweep = np.concatenate([sure[(labels + 1) % CLASSES]] * 2, 1)
    stored(folder, {"clean": clean, "STD": hit, "sweep r_d 0.0": sweep}, indices, labels)
    return described(folder, "nuts-evaluate", {"attack": "apgd-ce"}, **identity)


@pytest.fixture
def fit_folder(tmp_path):
    return make_fit(tmp_path / "mix")


@pytest.fixture
def evaluation(tmp_path):
    return make_evaluation(tmp_path / "eval")


def column(table, heading, group=None):
    blocks = dict(table.blocks())
    rows = table.rows if group is None else blocks[group]
    return [row[table.headings.index(heading)] for row in rows]


def worst_answer(shares, label, alpha):
    """The class that wins when g puts everything on the likeliest other class; the label on a tie."""
    rival = max((v, j) for j, v in enumerate(shares) if j != label)[1]
    mixed = [alpha * v + (1 - alpha) * (j == rival) for j, v in enumerate(shares)]
    return label if mixed[label] >= max(mixed) else rival


@pytest.mark.parametrize("alpha", [0.3, 0.52, 0.8, 0.97, 1.0])
def test_withstanding_any_g_is_what_the_worst_g_leaves(alpha):
    logits = logits_of(120, seed=3)
    settings = TransformSettings(6.0, 2.5, -0.4)
    for transform, bent in (
        (None, logits.attacked),
        (settings, transformed(logits.attacked, 6.0, 2.5, -0.4)),
    ):
        expected = [
            worst_answer(shares.tolist(), int(label), alpha) == label
            for shares, label in zip(softmax(bent), logits.labels, strict=True)
        ]
        found = withstands(Rule(alpha, transform), logits.attacked, logits.labels)
        assert found.tolist() == expected
        assert alpha < 0.5 or 0 < found.sum() < 120


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_judged_mix_is_the_mix_written_out(temperature):
    logits, settings = logits_of(80, seed=1), TransformSettings(2.0, 2.0, -0.3)
    g = softmax(logits.standard / temperature) if temperature else np.eye(CLASSES)[logits.standard.argmax(1)]
    mixed = 0.3 * g + 0.7 * softmax(transformed(logits.robust, 2.0, 2.0, -0.3))
    found = judge(Rule(0.7, settings, temperature), logits)[0]
    assert found.correct == (mixed.argmax(1) == logits.labels).sum()


def test_points_count_once_and_the_obfuscation_check_not_at_all(fit_folder, evaluation):
    points = read_inputs([fit_folder, evaluation]).points
    assert set(points.base) == {"clean", "STD"} and len(points.labels) == 30
    for alpha, right in ((0.0, 20), (1.0, 20), (0.5001, 20)):
        found = judge(Rule(alpha), logits_of(), points)[2]
        assert (found.correct, found.inputs, type(found)) == (right, 30, AttackedAccuracy)


def test_inputs_that_a_fit_has_seen_are_left_out(fit_folder, tmp_path):
    overlapping = make_evaluation(tmp_path / "overlap", inputs=170, shift=0)
    assert read_inputs([fit_folder, overlapping]).points.indices.tolist() == list(range(1600, 1700, 10))
    other_data = make_evaluation(tmp_path / "other", inputs=170, shift=0, data_checksum="e")
    assert len(read_inputs([fit_folder, other_data]).points.indices) == 170
    with pytest.raises(DataError, match="tuned on"):
        read_inputs([fit_folder, make_evaluation(tmp_path / "same", inputs=160, shift=0)])


@pytest.mark.parametrize("name", JUDGING)
def test_nothing_is_judged_on_what_it_was_fitted_on(name, fit_folder, tmp_path):
    """Other logits at odd positions change accuracies and no parameter; other ones at even positions do."""
    before = nuts_study(name, [fit_folder]).table
    changed = logits_of()
    changed.robust[1::2] = np.random.default_rng(9).normal(size=changed.robust[1::2].shape)
    after = nuts_study(name, [make_fit(tmp_path / "other", changed)]).table
    if "alpha" in before.headings:
        assert column(after, "alpha") == column(before, "alpha")
    else:
        assert after.settings == before.settings
    assert column(after, "clean") != column(before, "clean")


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "cost"])
def test_studies_say_estimate_and_draw(name, fit_folder, tmp_path):
    folders = [fit_folder]
    if name == "transfer":
        folders.append(make_fit(tmp_path / "other", logits_of(120, 5), beta=0.8))
    if STUDIES[name].evaluation:
        folders.append(make_evaluation(tmp_path / "eval"))
    one = nuts_study(name, folders)
    if name in JUDGING:
        cells = column(one.table, "attacked")
        assert all(type(cell) is AttackedAccuracy and cell.inputs == 30 for cell in cells)
        assert any("upper bound" in note for note in one.table.notes)
    words = " ".join([one.table.title, *one.table.notes])
    assert "stimate" in words or name == "transform"
    for draw in list(one.plots.values())[-1:]:
        assert draw("svg").startswith(b"<?xml")


def test_the_objective_written_out(fit_folder):
    found, logits = nuts_study("sensitivity", [fit_folder]).table.extra, logits_of()
    i, j, k = 1, 2, 0
    point = [found["grid"][name][at] for name, at in (("s", i), ("p", j), ("c", k))]
    right, wrong = logits.attacked.argmax(1) == logits.labels, logits.robust.argmax(1) != logits.labels
    kept = np.sort(margins(transformed(logits.attacked[right], *point), logits.labels[right]))[::-1]
    q = kept[math.ceil(0.9 * len(kept)) - 1]
    above = -margins(transformed(logits.robust[wrong], *point), logits.labels[wrong]) >= q
    assert found["thresholds"][i][j][k] == pytest.approx(max(q, 0.0), abs=1e-12)
    assert found["objectives"][i][j][k] == pytest.approx(above.mean())


def test_margins_written_out(fit_folder):
    table, logits = nuts_study("margins", [fit_folder]).table, logits_of()
    rows = {(row[0], row[1]): row for row in dict(table.blocks())["smallest margin"]}
    gaps = margins(logits.attacked[logits.attacked.argmax(1) == logits.labels])
    assert rows["h", "right"][2] == rows["LN(h)", "right"][2] == len(gaps)
    assert rows["h", "right"][3].value == pytest.approx(gaps.mean())
    assert rows["h", "right"][4].value == pytest.approx(np.median(gaps))
    # in the transform's row, the share at the threshold is what Algorithm 1 promised
    assert rows["M(h)", "right"][5].accuracy >= 0.9 - 1 / len(gaps)
    assert rows["h", "right"][5] is None


def test_margins_of_g_under_attack_come_from_an_evaluation(fit_folder, evaluation):
    table = nuts_study("margins", [fit_folder, evaluation]).table
    right, wrong = dict(table.blocks())["STD attack"]
    assert (right[:3], wrong[:3]) == (("g", "right", 10), ("g", "wrong", 10))
    assert right[3].value == pytest.approx((1 - math.exp(-8)) / (1 + 4 * math.exp(-8)))


def test_figure_3_is_reproduced(fit_folder):
    table = nuts_study("transform", [fit_folder]).table
    large, small = (dict(table.blocks())[name] for name in ("large margin", "small margin"))
    assert [row[2].value for row in large] == pytest.approx([0.8, 0.097, 0.11, 0.687], abs=0.006)
    assert [row[2].value for row in small] == pytest.approx([0.06, 0.49, 0.45, 0.047], abs=0.006)
    assert [row[3].value for row in large] == pytest.approx([0.954, 0.023, 0.023, 0.93], abs=0.002)
    assert small[3][3].value == pytest.approx(0.0013, abs=5e-5)


def test_a_larger_beta_never_lowers_alpha_of_the_plain_mix_and_h_is_its_end(fit_folder):
    table = nuts_study("beta", [fit_folder]).table
    alphas = [cell.value for cell in column(table, "alpha", "plain mix")]
    assert alphas == sorted(alphas)
    kept = [cell.correct for cell in column(table, "any g", "plain mix")]
    assert kept == sorted(kept)
    g, h = dict(table.blocks())["base models"]
    held = logits_of().take(np.arange(1, 160, 2))
    assert g[5].correct == (held.standard.argmax(1) == held.labels).sum() and g[6].correct == 0
    assert h[5].correct == (held.robust.argmax(1) == held.labels).sum()
    assert h[6].correct == (held.attacked.argmax(1) == held.labels).sum()
    betas = [float(text) for text in column(table, "beta", "MixedNUTS")]
    assert 0.9 in betas and betas == sorted(betas)


def test_a_beta_that_no_transform_meets_is_said_and_left_out(tmp_path):
    """At c = -4 GELU falls: the transform turns the order of the logits round."""
    product = nuts_study("beta", [make_fit(tmp_path / "mix", grid="s=1,p=1,c=-4")])
    table = product.table
    assert dict(table.blocks())["MixedNUTS"] == () and len(dict(table.blocks())["plain mix"]) == 12
    assert any("No transform of the grid meets beta 0.5, 0.6" in note for note in table.notes)
    assert product.plots["nuts-beta"]("svg").startswith(b"<?xml")
    clamps = nuts_study("clamp", [tmp_path / "mix"]).table
    fits = dict(zip(column(clamps, "clamp"), column(clamps, "on edge"), strict=True))
    assert fits["gelu"] == "no fit" and fits["linear"] == "no"
    plain = next(row for row in dict(table.blocks())["plain mix"] if row[0] == "0.9")
    without = {row[0]: row for row in clamps.rows}
    assert without["none"][4] == plain[4] and without["none"][8] == plain[6], "alpha, and any g"
    assert without["GELU alone"][4] != plain[4] and fits["GELU alone"] == "-"
    with pytest.raises(DataError, match="no part of its inputs"):
        nuts_study("tuning-size", [tmp_path / "mix"])


def test_parts_of_the_tuning_half(fit_folder):
    table = nuts_study("tuning-size", [fit_folder]).table
    assert column(table, "inputs") == ["80", "40"] and column(table, "fits") == ["1", "2"]
    beta = nuts_study("beta", [fit_folder]).table
    at = column(beta, "beta", "MixedNUTS").index("0.9")
    assert column(table, "clean")[0] == column(beta, "clean", "MixedNUTS")[at]
    low, high = map(float, column(table, "clean, all fits")[1].split(" to "))
    assert low <= 100 * column(table, "clean")[1].accuracy + 0.05 and low <= high


def test_transfer_solves_alpha_for_the_other_models(fit_folder, tmp_path):
    other = make_fit(tmp_path / "other", logits_of(120, 5), beta=0.6)
    table = nuts_study("transfer", [fit_folder, other]).table
    own, again, kept = dict(table.blocks())["on other"]
    first = dict(table.blocks())["on mix"][0]
    assert again[2:5] == kept[2:5] == first[2:5]
    assert kept[5] == first[5] and again[5] != kept[5]
    assert {row[6].inputs for row in (own, again, kept)} == {60}


def test_flops_of_known_layers():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 16, 10, bias=False)
    )
    assert count_flops(net, torch.zeros(1, 3, 4, 4)) == 2 * (16 * 8 * 27 + 8 * 16 * 10)
    x = torch.zeros(3, 4)
    assert count_elements(lambda: x.t() + 1) == 12  # the transposition is a view


def test_the_cost_of_two_linear_models(tmp_path):
    folder = make_fit(tmp_path / "mix")
    (folder / "nets.py").write_text(
        "from torch import nn\n\ndef net():\n    made = nn.Linear(2, 5)\n    nn.init.zeros_(made.weight)\n"
        "    nn.init.zeros_(made.bias)\n    return made\n"
    )
    np.savez(folder / "points.npz", inputs=np.zeros((4, 2), np.float32), labels=np.arange(4) % 5,
             class_names=list("abcde"))  # fmt: skip
    from certmix.models.spec import load_model

    nets = (folder / "nets.py").rename(tmp_path / "nets.py")
    loaded = load_model(f"{nets}:net")
    reference = ModelReference(f"{nets}:net", None, None, loaded.checksum)
    settings = MixSettings(TransformSettings(2.0, 2.0, -0.5), 0.8)
    write_nuts(folder, NutsDescription(settings, reference, reference))
    run = json.loads((folder / "run.json").read_text())
    run["sources"] = {"data": str(folder / "points.npz"), "objects": []}
    (folder / "run.json").write_text(json.dumps(run))
    table = nuts_study("cost", [folder], run_code=True).table
    assert column(table, "parameters") == [15, 15, 4, 34]
    flops = [cell.value * 1e6 for cell in column(table, "FLOPs (10^6)")]
    assert flops[0] == flops[1] == pytest.approx(2 * 2 * 5)
    assert 50 < flops[2] < 500 and flops[3] == pytest.approx(sum(flops[:3]))
    assert "input 2, 5 classes" in table.settings


@pytest.mark.parametrize(
    "which, spoil, message",
    [
        ("mix", lambda f: (f / "numbers.sqlite").unlink(), "is missing"),
        ("mix", lambda f: (f / "run.json").unlink(), "holds no run.json"),
        ("mix", lambda f: make_fit(f, preset="mnist"), "damaged .preset 'mnist' is unknown"),
        ("mix", lambda f: stored(f, {}, [0], [1]), "holds 1 input"),
        ("eval", lambda f: (f / "numbers.sqlite").unlink(), "is missing"),
        ("eval", lambda f: stored(f, {}, [5], ["x"]), "damaged"),
        ("eval", lambda f: stored(f, {}, [], []), "damaged .0 inputs"),
        ("eval", lambda f: stored(f, {}, [5], [9]), "both models"),
        ("eval", lambda f: stored(f, {}, [7], [0]), "lacks 1 inputs"),
        ("eval", lambda f: (f / "numbers.sqlite").write_bytes(b"x" * 4096), "not a readable"),
        ("eval", lambda f: make_evaluation(f, robust_checksum="x"), "another robust model"),
    ],
)
def test_a_spoilt_folder_is_refused(fit_folder, evaluation, which, spoil, message):
    spoil(fit_folder if which == "mix" else evaluation)
    with pytest.raises((RunError, DataError), match=message):
        nuts_study("beta", [fit_folder, evaluation])


@pytest.mark.parametrize(
    "name, fits, evaluations, message",
    [
        ("nonsense", 1, 0, "use one of sensitivity, margins"),
        ("beta", 0, 1, "needs one"),
        ("beta", 2, 0, "needs one"),
        ("transfer", 1, 0, "at least 2"),
        ("sensitivity", 1, 1, "no use for"),
        ("beta", 1, 2, "at most one"),
    ],
)
def test_the_wrong_folders_are_refused(name, fits, evaluations, message, tmp_path):
    folders = [make_fit(tmp_path / f"fit{k}") for k in range(fits)]
    folders += [make_evaluation(tmp_path / f"eval{k}") for k in range(evaluations)]
    with pytest.raises(ParameterError, match=message):
        nuts_study(name, folders)


def test_the_command_prints_draws_and_writes(command, fit_folder, tmp_path):
    asked = ("--plot", "m.svg", "--output", "out", "--format", "csv")
    done = command("nuts", "study", "beta", fit_folder, *asked)
    assert done.code == 0 and done.out.startswith("group,beta,s,") and "m.svg" in done.err
    assert (tmp_path / "m.svg").read_bytes() == (tmp_path / "out" / "nuts-beta.svg").read_bytes()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"nuts-beta.csv", "nuts-beta.json", "nuts-beta.png"} <= names


def test_the_command_names_its_studies(command, fit_folder):
    for name, plot, words in (
        ("nonsense", "x.png", ", ".join(STUDIES)), ("clamp", "x.png", "has no figure"), ("beta", "x.eps", "eps")
    ):  # fmt: skip
        wrong = command("nuts", "study", name, fit_folder, "--plot", plot)
        assert wrong.code == 2 and words in wrong.err
