"""The study and its command: exact constants, resuming, words, and claims on trial."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from certmix.data import load
from certmix.errors import ParameterError
from certmix.margins.estimates import HOLDS, NOT_ESTABLISHED, EstimatedRadius, LipschitzEstimate
from certmix.runs.attack_request import AttackRequest
from certmix.runs.sources import Sources
from certmix.studies import lipschitz as study
from certmix.studies.lipschitz import local_lipschitz
from certmix.studies.study import Surroundings
from certmix.tables.formats import render

WEIGHT = np.array([[4.0, 0.0], [-4.0, 1.0], [-4.0, -1.0]])  # as in conftest
SPECTRAL = float(np.linalg.norm(WEIGHT, 2))
EPS = 0.05


def net():
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(WEIGHT))
        model.bias.copy_(torch.tensor([-0.8, 0.8, 0.8]))
    return model.eval()


@pytest.fixture
def dataset(tmp_path):
    """Nine points so far inside the unit square that the box cuts no ball."""
    inputs = (0.1 + 0.8 * np.random.default_rng(3).random((9, 2))).astype(np.float32)
    labels = (inputs[:, 0] < 0.2).astype(np.int64)
    np.savez(tmp_path / "points.npz", inputs=inputs, labels=labels, class_names=["right", "up", "down"])
    return load(str(tmp_path / "points.npz"))


def run(dataset, where=None, *, changes=(), **choices):
    request = AttackRequest(**{"eps": EPS, "steps": 3, "restarts": 2, "inputs": "all", **dict(changes)})
    where = where or Surroundings(in_memory=True, say=lambda message: None)
    return local_lipschitz(request, Sources(data=dataset, robust=net()), where, **choices)


def test_a_linear_model_gives_its_constants_for_every_input(dataset):
    done = run(dataset, of="logits")
    found = done.data.constants
    assert isinstance(found, LipschitzEstimate)
    np.testing.assert_allclose(found.slopes, np.tile(np.abs(WEIGHT).sum(1), (9, 1)), rtol=1e-5)
    assert (found.slopes <= np.abs(WEIGHT).sum(1)).all()
    assert done.data.radius is None and done.data.trial is None and done.complete


def test_probabilities_give_an_estimated_radius(dataset):
    done = run(dataset, alpha=0.9)
    radius = done.data.radius
    assert isinstance(radius, EstimatedRadius) and radius.alpha == 0.9
    assert (done.data.constants.slopes <= 1 / EPS).all()
    assert set(radius.status) == {HOLDS, NOT_ESTABLISHED}
    status = done.table.column(done.table.headings.index("status"))
    assert status == radius.status


@pytest.mark.parametrize("choices", [{}, {"check": 100.0, "of": "logits"}])
def test_every_product_says_estimated_and_none_certified(dataset, choices):
    done = run(dataset, **choices)
    texts = [render(done.table, form) for form in ("table", "json", "markdown")]
    for text in texts:
        words = " ".join(text.split()).lower()
        assert "estimated" in words
        assert "certified" not in re.sub(r"not certified|no certificate", "", words)
    assert all("estimated" in h for h in done.table.headings if h.startswith(("L", "r ")))


def test_json_holds_the_search_evidence(dataset):
    extra = json.loads(render(run(dataset).table, "json"))["extra"]
    assert extra["kind"] == "estimated, not certified"
    assert (extra["steps"], extra["restarts"], extra["eps"]) == (3, 2, EPS)
    by_restart = np.array(extra["estimated_constants_by_restart"])
    assert by_restart.shape == (2, 9, 3)
    np.testing.assert_array_equal(by_restart.max(0), extra["estimated_constants"])


def test_batches_change_nothing(dataset):
    whole, few = run(dataset), run(dataset, changes={"batch_size": 6})  # points: two inputs of three classes
    np.testing.assert_allclose(
        few.data.constants.by_restart, whole.data.constants.by_restart, rtol=1e-6, atol=1e-12
    )


def test_another_alpha_or_claim_searches_nothing(dataset, tmp_path, monkeypatch):
    where = Surroundings(output=tmp_path / "run", say=lambda message: None)
    trial = Surroundings(output=tmp_path / "trial", say=lambda message: None)
    first = run(dataset, where, alpha=0.6)
    run(dataset, trial, of="logits", check=9.0)
    monkeypatch.setattr(study, "local_search", lambda *a, **k: pytest.fail("searched again"))
    second = run(dataset, where, alpha=1.0)
    assert (second.data.radius.quotient >= first.data.radius.quotient).all()
    assert run(dataset, trial, of="logits", check=1.0).data.trial.contradicted


def test_a_claim_below_the_constant_is_contradicted_with_a_witness(dataset, tmp_path):
    where = Surroundings(output=tmp_path / "run", say=lambda message: None)
    changes = {"norm": "l2", "steps": 40}
    done = run(dataset, where, changes=changes, of="logits", check=0.99 * SPECTRAL)
    assert done.data.trial.contradicted
    assert done.data.trial.slope == pytest.approx(SPECTRAL, rel=1e-3) and done.data.trial.slope <= SPECTRAL
    with np.load(tmp_path / "run" / "witness.npz") as pair:
        d = pair["perturbed"].astype(np.float64) - pair["input"].astype(np.float64)
        assert np.linalg.norm(d) <= EPS
        assert np.linalg.norm(WEIGHT @ d) / np.linalg.norm(d) > pair["claimed"]
        position = int(np.flatnonzero(dataset.indices == pair["index"])[0])
        assert np.array_equal(pair["input"], dataset.read(position))
    assert done.table.notes[0].startswith("Contradicted")
    cleared = run(dataset, where, changes=changes, of="logits", check=SPECTRAL)
    assert not cleared.data.trial.contradicted and not (tmp_path / "run" / "witness.npz").exists()
    assert "no proof" in cleared.table.notes[0] and cleared.table.extra["verdict"] == "not contradicted"


@pytest.mark.parametrize(
    ("of", "ratio", "norm", "constant"),
    [
        ("logits", "each", "l2", np.linalg.norm(WEIGHT, axis=1).max()),
        ("logits", "each", "linf", np.abs(WEIGHT).sum(1).max()),
        ("probabilities", None, "l1", 4.0),
    ],
)
def test_true_constants_are_not_contradicted(dataset, of, ratio, norm, constant):
    done = run(dataset, changes={"norm": norm}, of=of, ratio=ratio, check=float(constant))
    assert not done.data.trial.contradicted
    assert done.data.constants.ratio == "each"
    assert 0.3 * constant < done.data.trial.slope <= constant


@pytest.mark.parametrize(
    ("choices", "words"),
    [({"check": 1.0, "ratio": "relaxed"}, "divides by eps"), ({"check": -1.0}, "check = -1.0"),
     ({"check": float("nan")}, "check = nan"), ({"of": "scores"}, "of 'scores'"), ({"ratio": "best"}, "ratio 'best'"),
     ({"alpha": 0.3}, r"in \[0.5, 1\]: choose"), ({"alpha": 76}, r"in \[0.5, 1\]: did you mean 0.76\?"),
     ({"changes": {"eps": 8.0}}, r"eps = 8 exceeds the input range .* did you mean 8/255\?"),
     ({"changes": {"eps": 0.0}}, "eps = 0")],
)  # fmt: skip
def test_bad_choices(dataset, choices, words):
    with pytest.raises(ParameterError, match=words):
        run(dataset, **choices)


# ------------------------------------------------------------------- command


def arguments(problem, *more):
    options = [*problem.options[:2], "--robust", f"{problem.folder / 'nets.py'}:linear"]
    return ("lipschitz", *options, "--inputs", "4", "--steps", "2", "--eps", "0.01", *more)


def test_exit_codes_of_a_check(command, problem):
    checking = ("--of", "logits", "--norm", "l2", "--check")
    refused = command(*arguments(problem, *checking, "1"))
    assert refused.code == 1, refused.err
    assert "Contradicted" in refused.out and "witness.npz" in refused.out
    passed = command(*arguments(problem, *checking, "7"))
    assert passed.code == 0 and "Not contradicted" in passed.out and "proved" not in passed.out
