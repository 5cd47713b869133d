"""The empirical studies on models whose attacked accuracy is known in closed form."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from certmix.data import load, spread
from certmix.errors import CertmixError, ParameterError, RunError
from certmix.models.mixture import MixedClassifier, mix_logits
from certmix.models.spec import LoadedModel
from certmix.nuts import NonlinearTransform
from certmix.nuts.adaptive import direct_bypass
from certmix.nuts.mixture import NutsMixture
from certmix.runs import read_run
from certmix.runs.attack_request import AttackRequest, check_ball, check_weight
from certmix.runs.sources import Sources
from certmix.studies.attack import attack
from certmix.studies.compare_trust import compare_trust
from certmix.studies.confidence import confidence
from certmix.studies.lipschitz import local_lipschitz
from certmix.studies.mix_sweep import check_alphas, mix_sweep
from certmix.studies.study import Surroundings, blind_mixes, show_study
from certmix.tables.formats import render

EPS = 0.08
POINTS = 40


def linear(weights, bias):
    net = nn.Linear(2, len(weights))
    with torch.no_grad():
        net.weight.copy_(torch.tensor(weights))
        net.bias.copy_(torch.tensor(bias))
    return net.eval()


STANDARD = linear([[9.0, 0.0], [-9.0, 0.0]], [-4.5, 4.5])
ROBUST = linear([[2.0, 2.0], [-2.0, -2.0]], [-2.0, 2.0])


@pytest.fixture
def points(tmp_path):
    """Points of [0.1, 0.9]^2, so that the box never binds; class 0 where the first input is large."""
    inputs = (0.1 + 0.8 * np.random.default_rng(3).random((POINTS, 2))).astype(np.float32)
    labels = (inputs[:, 0] < 0.5).astype(np.int64)
    np.savez(tmp_path / "points.npz", inputs=inputs, labels=labels, class_names=["right", "left"])
    return inputs.astype(np.float64), labels, load(str(tmp_path / "points.npz"))


def sources(dataset):
    return Sources(data=dataset, standard=STANDARD, robust=ROBUST)


def request(**changes):
    return AttackRequest(**{"eps": EPS, "steps": 10, "inputs": "all", **changes})


def in_memory():
    return Surroundings(in_memory=True)


def margin(net, inputs, labels):
    weights = (net.weight[0] - net.weight[1]).double().detach().numpy()
    bias = float(net.bias[0] - net.bias[1])
    return (inputs @ weights + bias) * np.where(labels == 0, 1, -1), weights


def survivors(net, inputs, labels, norm="linf"):
    """Inputs that stay right in the whole ball: the margin exceeds eps times the dual norm."""
    values, weights = margin(net, inputs, labels)
    dual = {"linf": np.abs(weights).sum(), "l2": np.sqrt((weights**2).sum()), "l1": np.abs(weights).max()}
    return int((values > EPS * dual[norm]).sum())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_sweep_finds_the_exact_attacked_accuracies(points, norm):
    inputs, labels, dataset = points
    done = mix_sweep([0.0, 0.3, 0.7, 1.0], request(norm=norm), sources(dataset), in_memory())
    clean, std, rob, mix = (done.table.column(k) for k in range(1, 5))
    assert clean[0].correct == (margin(STANDARD, inputs, labels)[0] > 0).sum()
    assert clean[-1].correct == (margin(ROBUST, inputs, labels)[0] > 0).sum()
    assert std[0].correct == mix[0].correct == survivors(STANDARD, inputs, labels, norm)
    assert rob[-1].correct == mix[-1].correct == survivors(ROBUST, inputs, labels, norm)
    for _, *others, low in done.table.rows:
        assert low.correct <= min(one.correct for one in others)
        assert low.interval[0] <= low.accuracy <= low.interval[1]
    assert done.complete and done.folder is None


def test_more_alphas_reuse_what_was_found_and_everything_lies_in_the_folder(points, tmp_path):
    where = Surroundings(output=tmp_path / "run")
    one = mix_sweep([0.5], request(), sources(points[2]), where)
    two = mix_sweep([0.5, 0.9], request(), sources(points[2]), where)
    assert two.table.rows[0][1:5] == one.table.rows[0][1:5]
    names = {f"mix-sweep.{form}" for form in ("csv", "json", "md", "tex", "png", "svg")}
    assert names <= {path.name for path in (tmp_path / "run").iterdir()}
    described = read_run(tmp_path / "run", "mix-sweep")
    assert described["certified"] is False and described["request"]["alphas"] == [0.5, 0.9]
    with pytest.raises(RunError, match="eps is 0.08 there"):
        mix_sweep([0.5], request(eps=0.1), sources(points[2]), where)


def test_a_gradient_that_vanishes_is_reported(points):
    dataset = points[2]
    blunt = nn.Sequential(Rounding(), linear([[9.0, 0.0], [-9.0, 0.0]], [-4.5, 4.5])).eval()
    said = []
    done = mix_sweep(
        [1.0], request(), Sources(data=dataset, standard=STANDARD, robust=blunt),
        Surroundings(in_memory=True, say=said.append),
    )  # fmt: skip
    assert any("blind" in note and "ROB" in note for note in done.table.notes)
    assert any("blind" in message for message in said)


class Rounding(nn.Module):
    def forward(self, x):
        return x.round(decimals=3)


def test_confidence_groups_hold_every_input_once(points):
    inputs, labels, dataset = points
    done = confidence(request(), sources(dataset), in_memory())
    sizes = {group: len(gaps) for group, gaps in done.data.items()}
    assert sizes["g", "clean", True] == (margin(STANDARD, inputs, labels)[0] > 0).sum()
    assert sizes["h", "ROB", True] == survivors(ROBUST, inputs, labels)
    for name, cell in (("g", "clean"), ("h", "clean"), ("g", "STD"), ("h", "ROB")):
        assert sizes[name, cell, True] + sizes[name, cell, False] == POINTS
    for gaps, row in zip(done.data.values(), done.table.rows, strict=True):
        count, mean, low, high = row[3], *(cell.value for cell in row[4:7])
        assert count == len(gaps) and (not count or low <= mean == gaps.mean() <= high)
    assert done.table.notes[0] == done.table.extra["verdict"]


def test_attacked_inputs_go_on_being_attacked_when_their_gap_is_asked_for(points):
    """A wrong answer at the ball's far side is surer than one just over the border."""
    dataset = points[2]
    done = confidence(request(steps=40), sources(dataset), in_memory())
    inputs, labels, _ = points
    values, weights = margin(STANDARD, inputs, labels)
    worst = values - EPS * np.abs(weights).sum()
    expected = np.abs(np.tanh(worst[worst <= 0] / 2))  # two classes: the gap is tanh(|z| / 2)
    assert np.allclose(np.sort(done.data["g", "STD", False]), np.sort(expected), atol=1e-4)


def test_every_trust_term_and_form_meets_the_base_models_at_the_ends(points):
    dataset = points[2]
    done = compare_trust(
        [0.5], ["constant", "gradient", "max-gradient", "gradient-ratio"], ["probabilities", "logits"],
        ["linf", "l2"], request(eps=None, norm="linf", inputs=12, steps=4), sources(dataset), in_memory(),
    )  # fmt: skip
    rows, medians = done.table.rows, done.table.extra["log_median_trust"]
    assert len(rows) == 2 * 8 * 3 and [row[3] for row in rows] == ["0", "0.5", "1"] * 16
    for k in range(0, len(rows), 3):
        first = 24 * (k // 24)  # of the same norm
        assert rows[k][0] == ("linf", "l2")[k // 24]
        assert rows[k][4] == rows[first][4] and rows[k + 2][5] == rows[first + 2][5]
        assert all(row[5].correct <= row[4].correct for row in rows[k : k + 3])
    assert all(np.isfinite(value) for value in medians.values()) and len(done.data) == 16
    assert medians["linf constant logits"] == 0.0
    assert np.isclose(medians["linf gradient logits"], np.log(9.0))
    assert np.isclose(medians["linf gradient-ratio logits"], np.log(9 / 4))


def test_an_attack_keeps_its_points_for_other_tools(points, tmp_path):
    inputs, labels, dataset = points
    where = Surroundings(output=tmp_path / "run")
    done = attack(request(), sources(dataset), where, save=tmp_path / "found.npz")
    saved = load(str(tmp_path / "found.npz"))
    assert np.array_equal(saved.indices, dataset.indices) and np.array_equal(saved.labels, labels)
    moved = np.stack([saved.read(k) for k in range(POINTS)]).astype(np.float64) - inputs
    assert np.abs(moved).max() <= EPS
    assert done.data.held.sum() == survivors(ROBUST, inputs, labels)
    wrong = (
        np.array([ROBUST(torch.from_numpy(saved.read(k))[None]).argmax().item() for k in range(POINTS)])
        != labels
    )
    assert np.array_equal(wrong, ~done.data.held)
    lines = (tmp_path / "run" / "inputs.tsv").read_text().splitlines()
    assert len(lines) == POINTS + 1 and lines[0].startswith("idx\tlabel")
    without = attack(request(), sources(dataset), in_memory())
    assert np.array_equal(without.data.attacked, done.data.attacked)


@pytest.mark.parametrize(
    "change, message",
    [({"eps": -1.0}, "eps = -1.0"), ({"eps": float("nan")}, "eps = nan"), ({"norm": "l3"}, "norm 'l3' is unknown"),
     ({"attack": "nothing"}, "attack 'nothing' is unknown: use one of"), ({"steps": 0}, "steps = 0"),
     ({"restarts": 0}, "restarts = 0"), ({"batch_size": 0}, "batch size = 0"), ({"inputs": 0}, "inputs = 0"),
     ({"seed": -1}, "seed = -1"), ({"attack": "fgsm", "steps": 3}, "fgsm takes no --steps"),
     ({"precision": "fp8"}, "precision 'fp8' is unknown"),
     ({"attack": "square", "norm": "l1"}, "square cannot serve norm l1: use one of")],
)  # fmt: skip
def test_bad_requests_are_one_line(change, message):
    with pytest.raises(ParameterError, match=message) as error:
        request(**change)
    assert "\n" not in str(error.value)


def test_reduced_precision_is_judged_in_full(points):
    """Where bf16 claims a success that fp32 denies, the input is attacked again."""
    inputs, labels, dataset = points
    done = attack(request(precision="bf16"), sources(dataset), in_memory())
    assert done.data.held.sum() == survivors(ROBUST, inputs, labels)


@pytest.mark.parametrize(
    "study, asked, message",
    [
        (mix_sweep, {"request": {"attack": "autoattack", "steps": None}}, "transfer"),
        (mix_sweep, {"sources": {"standard": None}}, "--standard"),
        (attack, {"save": Path("x.png")}, "saved as .npz"),
        (compare_trust, {"norms": ["linf", "l2"]}, "give one --norm"),
        (compare_trust, {"trusts": ["best"]}, "trust term 'best'"),
        (compare_trust, {"forms": ["logits"] * 2}, "give each once"),
    ],
)
def test_studies_refuse_in_one_line(points, study, asked, message):
    named = sources(points[2]).replace(**asked.pop("sources", {}))
    with pytest.raises(CertmixError, match=message) as error:
        study(request=request(**asked.pop("request", {})), sources=named, where=in_memory(), **asked)
    assert "\n" not in str(error.value)


def test_mistakes_on_the_command_line_are_one_line(command):
    done = command("attack", "--eps", "eight")
    assert (done.code, done.out) == (2, "") and "'eight' is not a number" in done.err
    done = command("compare-trust", "--norm", "linf", "--norm", "l2", "--eps", "0.1")
    assert (done.code, done.out) == (2, "") and "--eps is one radius" in done.err


@pytest.mark.parametrize(
    ("norm", "eps", "words"),
    [
        ("linf", 8.0, r"^eps = 8 exceeds the input range \[0, 1\]: did you mean 8/255\?$"),
        ("l2", 8.0, r"^eps = 8 exceeds 1.414, the largest l2 distance in the input range .* mean 8/255\?$"),
        ("l1", 8.0, r"^eps = 8 exceeds 2, the largest l1 distance"),
        ("linf", 300.0, r"exceeds the input range \[0, 1\]: give a radius below 1$"),
    ],
)
def test_a_ball_beyond_the_input_range_is_refused(points, norm, eps, words):
    with pytest.raises(ParameterError, match=words):
        attack(request(norm=norm, eps=eps), sources(points[2]), in_memory())
    assert check_ball({"linf": 1.0, "l2": 2**0.5, "l1": 2.0}[norm], norm, points[2]) is None


def test_a_wide_ball_without_input_range_is_pointed_out(points):
    unbounded = replace(points[2], input_range=None)
    assert "did you mean 8/255?" in check_ball(8.0, "linf", unbounded)
    assert check_ball(0.5, "linf", unbounded) is None and check_ball(8.0, "l2", unbounded) is None


def test_weights_out_of_range_are_refused_and_percent_is_asked_about():
    with pytest.raises(ParameterError, match=r"alpha = 90: .* did you mean 0.9\?"):
        check_weight(90)
    for alpha in (-0.1, 2.0, float("nan"), 200.0):
        with pytest.raises(ParameterError, match="choose such a weight"):
            check_weight(alpha)
    with pytest.raises(ParameterError, match=r"did you mean 0.5,0.76\?"):
        check_alphas([50, 76])
    for alphas in ([], [1.2], [-0.1], [0.5, 0.5], [float("nan")]):
        with pytest.raises(ParameterError, match="alphas"):
            check_alphas(alphas)


def blind_mix(temperature):
    transform = NonlinearTransform(s=1.0, p=1.0, c=0.0, clamp="linear")
    return NutsMixture(STANDARD, ROBUST, transform, alpha=0.9, standard_temperature=temperature).eval()


@pytest.mark.parametrize("study", [attack, local_lipschitz])
def test_a_mix_that_gradients_do_not_see_is_pointed_out(points, study):
    named = Sources(data=points[2], standard=None, robust=blind_mix(0.0))
    for how, times in (("pgd", 1), ("square", int(study is local_lipschitz))):  # which searches by gradients
        said = []
        where = Surroundings(in_memory=True, say=said.append)
        done = study(request=request(attack=how, steps=1, inputs=2), sources=named, where=where)
        for told in (said, done.table.notes):
            assert sum("direct_bypass" in line and "blind" in line for line in told) == times


@pytest.mark.parametrize(
    "module, name, told",
    [
        (blind_mix(1.0), "m", ""),
        (direct_bypass(blind_mix(0.0), alpha_d=0.9), "m", ""),
        (ROBUST, "m", ""),
        (blind_mix(0.0), "m", "give its certmix.nuts.adaptive.direct_bypass"),
        (
            MixedClassifier(STANDARD, ROBUST, 0.5, standard_temperature=0.0),
            "m",
            "give its certmix.nuts.adaptive",
        ),
        (
            direct_bypass(MixedClassifier(STANDARD, ROBUST, 0.5, standard_temperature=0.0), alpha_d=0.5),
            "m",
            "",
        ),
        (MixedClassifier(STANDARD, blind_mix(0.0), 0.5), "nuts:mix", "name nuts:mix#bypass instead"),
    ],
)
def test_blind_mixes_are_found_wherever_they_are(module, name, told):
    notes = blind_mixes([LoadedModel(module, name, name, "", None, None, None)])
    assert bool(notes) == bool(told) and told in "".join(notes)


def test_an_attack_on_a_sharp_mix_follows_the_gradient_of_g(points):
    """h is unsure here, so that the mix answers as g does, whose class alone has no gradient."""
    unsure = linear([[0.0, 0.1], [0.0, -0.1]], [-0.05, 0.05])
    named = Sources(data=points[2], standard=STANDARD, robust=unsure)
    asked, where = request(eps=0.25, steps=20), Surroundings(in_memory=True, say=lambda message: None)
    found = attack(asked, named, where, alpha=0.6, standard_temperature=0).data
    blind = MixedClassifier(STANDARD, unsure, 0.6, standard_temperature=0).eval()
    through = Sources(data=points[2], standard=None, robust=blind)
    missed = attack(asked, through, where).data
    assert found.right.tolist() == missed.right.tolist() and found.right.all()
    within = np.abs(points[0][:, 0] - 0.5) < 0.24
    assert not found.held[within].any() and missed.held[within].mean() > 0.2
    with pytest.raises(ParameterError, match="standard temperature = 0: it is of the mix: give alpha"):
        attack(asked, through, where, standard_temperature=0)


def test_a_sharp_sweep_judges_the_sharp_mix_and_shares_what_does_not_depend_on_it(points, tmp_path):
    where = Surroundings(output=tmp_path / "run")
    warm, sharp = (
        mix_sweep(
            [0.0, 0.6, 1.0], request(steps=3, inputs=12), sources(points[2]), where, standard_temperature=t
        )
        for t in (1.0, 0.0)
    )
    assert "g one-hot" in sharp.table.settings and "g one-hot" not in warm.table.settings
    assert any("no gradient" in note for note in sharp.table.notes)
    for alone in (0, 2):  # all but the worst case
        assert sharp.table.rows[alone][:-1] == warm.table.rows[alone][:-1]
    g, h = (one(torch.from_numpy(points[0]).float()).detach() for one in (STANDARD, ROBUST))
    at = spread(POINTS, 12)
    right = mix_logits(g, h, 0.6, 0.0).argmax(1).numpy()[at] == points[1][at]
    assert sharp.table.rows[1][1].correct == right.sum()


EVERY = {
    "attack": lambda *a, **k: attack(*a, **k),
    "attack on a mix": lambda *a, **k: attack(*a, alpha=0.5, **k),
    "attack on a sharp mix": lambda *a, **k: attack(*a, alpha=0.5, standard_temperature=0, **k),
    "mix-sweep": lambda *a, **k: mix_sweep([0.2, 0.8], *a, **k),
    "a sharp mix-sweep": lambda *a, **k: mix_sweep([0.0, 0.8, 1.0], *a, standard_temperature=0, **k),
    "compare-trust": lambda *a, **k: compare_trust(
        [0.4], ("constant", "max-gradient"), ("logits",), ["linf"], *a, **k
    ),
    "confidence": lambda *a, **k: confidence(*a, **k),
    "lipschitz": lambda *a, **k: local_lipschitz(*a, **k),
    "a claim on trial": lambda *a, **k: local_lipschitz(*a, of="logits", check=0.5, **k),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * ("sharp" in name)) for name in EVERY]
)
def test_every_study_is_the_same_fresh_resumed_in_memory_and_shown_again(points, tmp_path, name):
    def run(**where):
        asked = request(steps=2, inputs=8, batch_size=4)
        return EVERY[name](asked, sources(points[2]), Surroundings(say=lambda message: None, **where))

    def printed(table):
        return render(table, "json"), render(table, "table")

    def stop(progress):
        if progress.done > progress.total // 2:
            raise KeyboardInterrupt

    whole = run(output=tmp_path / "whole")
    assert (
        printed(show_study(tmp_path / "whole")) == printed(whole.table) == printed(run(in_memory=True).table)
    )
    partial = run(output=tmp_path / "parts", progress=stop)
    assert not partial.complete and printed(show_study(tmp_path / "parts")) == printed(partial.table)
    assert printed(run(output=tmp_path / "parts").table) == printed(whole.table)
    assert printed(show_study(tmp_path / "parts")) == printed(whole.table)


def test_what_cannot_be_shown_is_refused(points, tmp_path):
    run = tmp_path / "run"
    attack(request(inputs=4), sources(points[2]), Surroundings(output=run))
    described = json.loads((run / "run.json").read_text())
    for change, told in (
        ({"identity": {"study": "certify"}}, "name a run of"),
        ({"data": {"name": "x"}}, "damaged .'class_names'"),
        ({"request": {}}, "damaged"),
    ):
        (run / "run.json").write_text(json.dumps({**described, **change}))
        with pytest.raises(RunError, match=told):
            show_study(run)
    (run / "run.json").write_text(json.dumps(described))
    (run / "numbers.sqlite").unlink()
    with pytest.raises(RunError, match="numbers.sqlite|holds no table"):
        show_study(run)
